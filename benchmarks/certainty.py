"""How true are the probabilities of parts of reviews, and how many short opinions are judged rightly?

    python -m benchmarks.certainty --data-dir .data        15 minutes, after `benchmarks.seeds` of both bonus presets

The reliability diagram is of seed 42 of the bonus, and of the same network trained on whole reviews alone and not
calibrated, which is kept in `runs/bonus-whole/`. The 200 short opinions of `tests/` are judged by all runs of `seeds`.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks.common import ROOT, data_parser, print_table, write_result
from benchmarks.seeds import SEEDS
from helpers.archive import expected_digest, find_source
from helpers.calibration import parts_of, reliability
from helpers.cli import run_command
from helpers.predictor import Predictor, as_reviews
from helpers.reviews import keep, load_reviews
from sentiment_analysis import BONUS, parse_args, train

SURE = 0.95


def diagram(predictor, parts):
    """Return of each part the ranges that hold a text, as [texts, mean probability claimed, share right]."""
    ranges = {length: reliability(predictor.logits(part), torch.from_numpy(part.labels))
              for length, part in parts.items()}
    return {length: [[int(n), (claimed / n).item(), (right / n).item()] for n, claimed, right in found if n]
            for length, found in ranges.items()}


def judge_opinions(predictor, opinions):
    """Return the shares of the short opinions that are judged rightly, and wrongly with over 95 % claimed."""
    logits, positive = predictor.logits(as_reviews(opinions["text"])), torch.tensor(opinions["label"] == "positive")
    right = (logits > 0) == positive
    return right.float().mean().item(), (~right & (torch.sigmoid(logits.abs()) > SURE)).float().mean().item()


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--runs-dir", default="runs")
    args = parser.parse_args()
    runs, source = Path(args.runs_dir), find_source(args.data_dir)
    whole = runs / "bonus-whole"
    if not (whole / "model.pt").exists():
        whole.mkdir(parents=True, exist_ok=True)
        train(replace(BONUS, short_texts=False), source, whole, parse_args(["--data-dir", args.data_dir])[0])
    reviews = load_reviews(source, ".cache", digest=expected_digest(source))
    test = keep(reviews, reviews.test)
    parts = parts_of(test)
    before, after = Predictor.load(whole / "model.pt"), Predictor.load(runs / f"bonus-{SEEDS[0]}" / "model.pt")
    before.calibration = 0.0, 0.0, 0.0
    opinions, rows = pd.read_csv(ROOT / "tests" / "short_opinions.csv"), []
    judged = {"before": [before]} | {preset: [Predictor.load(runs / f"{preset}-{seed}" / "model.pt") for seed in SEEDS]
                                     for preset in ("bonus", "bonus-unsup")}
    for what, predictors in judged.items():
        for predictor in predictors:
            right, sure_and_wrong = judge_opinions(predictor, opinions)
            rows.append({"what": what, "right": right, "sure_and_wrong": sure_and_wrong})
    print_table(rows)
    write_result("certainty", {"before": {"parts": before.certainty(test, before.logits(test)),
                                          "diagram": diagram(before, parts)},
                               "after": {"diagram": diagram(after, parts)}, "opinions": rows})


if __name__ == "__main__":
    run_command(main)
