"""Measure what each part of the bonus contributes: validation metrics with one part left out at a time.

    python -m benchmarks.ablation --data-dir .data        about 12 minutes for a row and seed on one core

20 % of the training reviews are the validation set. They are about other films, and they are the same for all rows and
seeds. The test reviews are not used. Finished trainings are kept in `runs/ablation/`, so that an interrupted ablation
continues where it was stopped. For comparison, the logistic regression on n-grams is measured without a network.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.common import data_parser, print_table, write_result
from benchmarks.seeds import SEEDS
from helpers.cli import run_command
from helpers.data.archive import find_source
from helpers.data.batches import predict_logits
from helpers.door import make_pipeline
from helpers.evaluate import compute_metrics
from helpers.files import write_text
from helpers.runtime import choose_device, describe_machine, keep_freed_memory
from report.findings import mean_and_sd
from sentiment_analysis import load_imdb_data, make_optimizer, preset, set_seed, train_epoch

SETTINGS = replace(preset("bonus"), valid_share=0.2)
ROWS = {"nothing": {}, "short texts": {"short_texts": False}, "region embeddings": {"regions": False},
        "input dropout": {"input_dropout": 0.0}, "one-cycle schedule": {"one_cycle": False}}  # what is left out


def train_and_validate(settings, seed, source, args):
    """Return the metrics on the validation reviews after the last epoch."""
    device, pipeline = choose_device(args.device), make_pipeline(asdict(settings))
    data = load_imdb_data(settings, source, args.cache_dir, device=device, pipeline=pipeline)
    set_seed(seed)
    model = pipeline.build_model(data.vocab).to(device)
    optimizer = make_optimizer(model, settings.lr)
    scheduler = pipeline.make_scheduler(optimizer, settings.epochs * len(data.train_loader))
    for epoch in range(settings.epochs):
        train_epoch(model, data.train_loader, optimizer, scheduler, f"epoch {epoch + 1}")
    return compute_metrics(predict_logits(model, data.valid_loader, "validation"), data.valid_set.labels)


def load_or_train(left_out, seed, source, args):
    """Return the metrics of a row and seed, from `runs/ablation/` if an earlier call with these settings left them."""
    settings = replace(SETTINGS, bonus=replace(SETTINGS.bonus, **ROWS[left_out]))
    path = Path("runs", "ablation", f"{left_out.replace(' ', '-')}-{seed}.json")
    if path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["settings"] == asdict(settings):
            return saved
    metrics = train_and_validate(settings, seed, source, args)
    write_text(path, json.dumps(metrics | {"settings": asdict(settings)}) + "\n")
    return metrics


def linear_model(source, args):
    """Return the validation metrics of the logistic regression on n-grams.

    A channel of the network holds the sum of its values over a text. A second regression on this sum finds the
    intercept. It is fitted to the training reviews, whose sums come from models that have not seen the film.
    """
    pipeline = make_pipeline(asdict(SETTINGS))
    data = load_imdb_data(SETTINGS, source, args.cache_dir, pipeline=pipeline)
    train_set, valid_set = data.train_set, data.valid_set
    kinds = pipeline.table.values.shape[1]
    column = 3 * kinds  # follows the values of the 1-, 2- and 3-gram, see `NgramTable.channels_of_block`
    train_sums = train_set.channels[train_set.starts, column].float().unsqueeze(1).numpy()
    valid_sums = valid_set.channels[valid_set.starts, column].float().unsqueeze(1).numpy()
    model = LogisticRegression().fit(train_sums, train_set.labels.numpy())
    return compute_metrics(torch.from_numpy(model.decision_function(valid_sums)).float(), valid_set.labels)


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS,
                        help="seeds of the trainings (default: 42 43 44)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where the network runs "
                        "(default: %(default)s)")
    args = parser.parse_args()
    keep_freed_memory()
    source = find_source(args.data_dir)
    results = {left_out: [] for left_out in ROWS}
    for seed in args.seeds:
        for left_out, metrics in results.items():
            metrics.append(load_or_train(left_out, seed, source, args))
            row = {"left out": left_out, "seed": seed, "valid loss": metrics[-1]["loss"],
                   "valid accuracy": metrics[-1]["accuracy"]}
            print_table([row], header=seed == args.seeds[0] and left_out == "nothing")
    linear = linear_model(source, args)
    print(f"logistic regression on n-grams alone: loss {linear['loss']:.3f}, accuracy {linear['accuracy']:.3f}")
    rows = []
    for left_out, metrics in results.items():
        rows.append({"what": left_out, "valid_accuracy": mean_and_sd([one["accuracy"] for one in metrics]),
                     "valid_loss": mean_and_sd([one["loss"] for one in metrics])})
    device = describe_machine(choose_device(args.device))["device"]
    write_result("ablation", {"device": device, "seeds": args.seeds, "rows": rows, "linear_model": linear})


if __name__ == "__main__":
    run_command(main)
