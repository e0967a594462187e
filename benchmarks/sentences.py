"""Measure how well networks that were trained on film reviews classify single sentences from another source.

    python -m benchmarks.sentences --pos FILE --neg FILE        minutes; after `benchmarks.seeds` for all presets

The files hold one sentence a line. Ours are from the sentence polarity dataset v1.0 (Pang & Lee 2005, "Seeing stars").
No network is trained on them. They were used once, to decide which hand-written rules to remove.
"""

from pathlib import Path

import torch

from benchmarks.common import print_table, run_folder, write_result
from benchmarks.seeds import FILES, SEEDS
from helpers.cli import Parser, UserError, run_command, user_path
from helpers.inference.calibration import calibration_error
from helpers.inference.predictor import Predictor, as_reviews
from report.findings import mean_and_sd

SURE = 0.95  # probability above which a network is sure


def read_sentences(path):
    """Return the non-blank lines of a file in UTF-8, or in Latin-1, the encoding of the original files."""
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    sentences = [line for line in text.splitlines() if line.strip()]
    if not sentences:
        raise UserError(f"{path} holds no sentence; give a file with one sentence a line.")
    return sentences


def measure(predictor, reviews, labels):
    """Return accuracy, calibration error, and the share that is wrong with a probability of over 95 %.

    Args:
        predictor: a `Predictor`.
        reviews: the sentences, a `reviews.Reviews`.
        labels: (sentences,) 0 or 1.
    """
    logits = predictor.logits(reviews)
    is_correct = (logits > 0) == labels.bool()
    is_sure = torch.sigmoid(logits.abs()) > SURE
    return {"accuracy": is_correct.float().mean().item(), "calibration_error": calibration_error(logits, labels),
            "wrong_at_95": (is_sure & ~is_correct).float().mean().item()}


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pos", type=user_path, required=True, metavar="FILE", help="positive sentences, one a line")
    parser.add_argument("--neg", type=user_path, required=True, metavar="FILE", help="negative sentences, one a line")
    parser.add_argument("--runs-dir", type=user_path, default="runs",
                        help="folder with the runs of benchmarks.seeds (default: runs)")
    args = parser.parse_args()
    positive, negative = read_sentences(args.pos), read_sentences(args.neg)
    labels = torch.tensor([1.0] * len(positive) + [0.0] * len(negative))
    reviews = as_reviews(positive + negative)
    rows, means = [], []
    for preset in FILES:
        models = {seed: run_folder(args.runs_dir, preset, seed) / "model.pt" for seed in SEEDS}
        models = {seed: path for seed, path in models.items() if path.exists()}
        if not models:
            raise UserError(f"{args.runs_dir} has no model.pt of {preset}; run benchmarks.seeds first.")
        metrics = []
        for seed, path in models.items():
            metrics.append(measure(Predictor.load(path), reviews, labels))
            rows.append({"preset": preset, "seed": seed} | metrics[-1])
        mean = {"preset": preset, "seeds": list(models)}
        for name in metrics[0]:
            mean[name] = mean_and_sd([one[name] for one in metrics])
        means.append(mean)
    print_table(rows)
    write_result("sentences", {"number": len(labels), "rows": rows, "means": means})


if __name__ == "__main__":
    run_command(main)
