"""Compare probabilities with accuracies on excerpts of the test reviews, with and without short texts and calibration.

    python -m benchmarks.calibration --data-dir .data        15 minutes, after `benchmarks.seeds --preset bonus`

*After* is seed 42 of the bonus. *Before* is the same network, trained on whole reviews only and not calibrated. It is
kept in `runs/bonus-whole/`.
"""

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import data_parser, print_table, run_folder, write_result
from benchmarks.seeds import SEEDS
from helpers.cli import run_command, user_path
from helpers.data.archive import expected_digest, find_source
from helpers.data.reviews import load_reviews, select
from helpers.inference.calibration import cut_excerpts, reliability
from helpers.inference.predictor import Predictor
from sentiment_analysis import preset, train


def train_on_whole_reviews(source, folder, cache_dir):
    """Train the bonus without short texts, unless an earlier call did."""
    if not (folder / "model.pt").exists():
        folder.mkdir(parents=True, exist_ok=True)
        settings = preset("bonus")
        settings = replace(settings, bonus=replace(settings.bonus, short_texts=False))
        train(settings, source, folder, cache_dir)


def reliability_diagrams(predictor, reviews):
    """Return the reliability diagrams of excerpts of reviews: a dict from the keys of `cut_excerpts` to rows.

    A row stands for a range of probabilities that has texts. It holds their number, mean probability and accuracy.
    """
    diagrams = {}
    for length, texts in cut_excerpts(reviews).items():
        rows = reliability(predictor.logits(texts), torch.from_numpy(texts.labels)).tolist()
        diagrams[length] = [[int(n), probability / n, correct / n] for n, probability, correct in rows if n]
    return diagrams


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--runs-dir", type=user_path, default="runs",
                        help="folder with the runs of benchmarks.seeds (default: runs)")
    args = parser.parse_args()
    after = Predictor.load(run_folder(args.runs_dir, "bonus", SEEDS[0]) / "model.pt")
    source, folder = find_source(args.data_dir), Path(args.runs_dir, "bonus-whole")
    train_on_whole_reviews(source, folder, args.cache_dir)
    before = Predictor.load(folder / "model.pt")
    before.calibration = 0.0, 0.0, 0.0
    reviews = load_reviews(source, args.cache_dir, digest=expected_digest(source))
    test = select(reviews, reviews.test)
    result, rows = {}, []
    for name, predictor in (("before", before), ("after", after)):
        excerpts = predictor.excerpt_metrics(test, predictor.logits(test))
        result[name] = {"excerpts": excerpts, "diagram": reliability_diagrams(predictor, test)}
        for length, metrics in excerpts.items():
            rows.append({"network": name, "tokens": length} | metrics)
    print_table(rows)
    write_result("calibration", result)


if __name__ == "__main__":
    run_command(main)
