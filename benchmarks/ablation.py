"""What each part of the bonus is worth: validation figures with one part left out at a time.

    python -m benchmarks.ablation --data-dir .data        about 8 minutes a row and seed on one core

20 % of the training reviews, of other films, are the validation split; it is the same for all rows and seeds, and the
test reviews take no part. Finished trainings are kept in `runs/ablation/`: a run that was stopped goes on from there.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.common import data_parser, mean_and_sd, print_table, write_result
from benchmarks.seeds import SEEDS
from helpers.archive import find_source
from helpers.batches import predict_logits
from helpers.cli import run_command
from helpers.evaluate import compute_metrics
from helpers.files import write_text
from helpers.predictor import build_model
from sentiment_analysis import BONUS, load_imdb_data, make_optimizer, set_seed, train_epoch

ROWS = {"nothing": {}, "short texts": {"short_texts": False}, "region embeddings": {"regions": False},  # left out
        "input dropout": {"input_dropout": 0.0}, "one-cycle schedule": {"schedule": "constant"}}


def run(settings, seed, source):
    """Return loss and accuracy on the validation split after the last epoch."""
    train_set, valid_set, _, train_loader, valid_loader, _, vocab, _ = load_imdb_data(settings, source)
    set_seed(seed)
    model = build_model(vocab, asdict(settings) | {"channels": train_set.channels.shape[1]})
    optimizer, scheduler = make_optimizer(model, settings, len(train_loader))
    for epoch in range(settings.epochs):
        train_epoch(model, train_loader, optimizer, scheduler, f"epoch {epoch + 1}")
    return compute_metrics(predict_logits(model, valid_loader, "validation"), valid_set.labels)


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    args = parser.parse_args()
    source = find_source(args.data_dir)
    rows = []
    for seed in args.seeds:
        for what, other in ROWS.items():
            settings = replace(BONUS, valid_share=0.2, **other)
            path = Path("runs", "ablation", f"{what.replace(' ', '-')}-{seed}.json")
            made_with = {"settings": asdict(settings)}
            result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if not made_with.items() <= result.items():
                result = run(settings, seed, source) | made_with
                write_text(path, json.dumps(result) + "\n")
            rows.append({"left out": what, "seed": seed, "valid loss": result["loss"],
                         "valid accuracy": result["accuracy"]})
            print_table(rows[-1:], header=len(rows) == 1)
    means = [{"what": what} | {
        f"valid_{name}": mean_and_sd([row[f"valid {name}"] for row in rows if row["left out"] == what])
        for name in ("accuracy", "loss")} for what in ROWS]
    write_result("ablation", {"seeds": args.seeds, "rows": means})


if __name__ == "__main__":
    run_command(main)
