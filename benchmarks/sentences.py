"""How well networks trained on whole reviews judge single sentences that nobody here wrote.

    python -m benchmarks.sentences --pos FILE --neg FILE        after `benchmarks.seeds` of all presets

The sentences, one a line, are from the sentence polarity data set v1.0 (Pang & Lee 2005, "Seeing stars"). Nothing is
trained on them, and no setting is chosen on them.
"""

from pathlib import Path

import torch

from benchmarks.common import mean_and_sd, print_table, write_result
from benchmarks.seeds import FILES, SEEDS
from helpers.calibration import calibration_error
from helpers.cli import Parser, UserError, run_command
from helpers.predictor import Predictor, as_reviews

SURE = 0.95  # probability from which an answer counts as sure


def read_sentences(path):
    """Return the lines of a file that are not blank; it is UTF-8, or Latin-1 as its authors distribute it."""
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    sentences = [line for line in text.splitlines() if line.strip()]
    if not sentences:
        raise UserError(f"{path} holds no sentence; give a file with one sentence a line.")
    return sentences


def judge(predictor, reviews, labels):
    """Return accuracy, calibration error and the share that is wrong at over 95 % on `reviews.Reviews`."""
    logits = predictor.logits(reviews)
    is_right = (logits > 0) == labels.bool()
    is_sure = torch.sigmoid(logits.abs()) > SURE
    return {"accuracy": is_right.float().mean().item(), "calibration_error": calibration_error(logits, labels),
            "wrong_at_95": (is_sure & ~is_right).float().mean().item()}


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pos", required=True, metavar="FILE", help="positive sentences, one a line")
    parser.add_argument("--neg", required=True, metavar="FILE", help="negative sentences, one a line")
    parser.add_argument("--runs-dir", default="runs", help="folder with the runs of benchmarks.seeds (default: runs)")
    args = parser.parse_args()
    positive, negative = read_sentences(args.pos), read_sentences(args.neg)
    labels = torch.tensor([1.0] * len(positive) + [0.0] * len(negative))
    reviews = as_reviews(positive + negative)
    rows, means = [], []
    for preset in FILES:
        of_preset = []
        for seed in SEEDS:
            predictor = Predictor.load(Path(args.runs_dir, f"{preset}-{seed}", "model.pt"))
            of_preset.append(judge(predictor, reviews, labels))
            rows.append({"preset": preset, "seed": seed} | of_preset[-1])
        summary = {name: mean_and_sd([row[name] for row in of_preset]) for name in of_preset[0]}
        means.append({"preset": preset} | summary)
    print_table(rows)
    write_result("sentences", {"number": len(labels), "rows": rows, "means": means})


if __name__ == "__main__":
    run_command(main)
