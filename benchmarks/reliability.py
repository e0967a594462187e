"""Compare probabilities with accuracies: on excerpts of the test reviews, and on single sentences from another source.

    python -m benchmarks.reliability --preset bonus RUN... --sentences POS NEG        about 2 minutes a run on one core

Each RUN is the folder of a finished run of the preset. POS and NEG have one sentence a line, in Latin-1. Ours are from
the sentence polarity dataset v1.0 (Pang & Lee 2005, "Seeing stars"), on which no network was trained. Expect
calibration errors of at most .03 on excerpts and .04 on sentences.
"""

from pathlib import Path

import numpy as np
import torch

from benchmarks.common import data_parser, mean_row, write_result
from benchmarks.seeds import PRESETS
from helpers import run
from helpers.calibration import sharpness
from helpers.imdb import cut_spans, find_source, load_reviews, make_reviews, select
from helpers.predictor import EXCERPTS, Predictor
from helpers.text import tokenize

RANGES = 20  # of probabilities, from 0.5 to 1


def calibration_error(logits, labels):
    """Return the expected calibration error: the mean difference between probability and accuracy over RANGES.

    logits, labels: (texts,). The probability is that of the predicted label.
    """
    probability = torch.sigmoid(logits.abs()).double()
    is_correct = ((logits > 0) == (labels > 0.5)).double()
    row = ((probability - 0.5) * 2 * RANGES).long().clamp(max=RANGES - 1)
    differences = torch.zeros(RANGES, dtype=torch.float64).index_add(0, row, is_correct - probability)
    return differences.abs().sum().item() / len(logits)


def measure(predictor, texts):
    """Return the figures of a `Predictor` on labelled `imdb.Reviews`: a dict."""
    labels = torch.from_numpy(texts.labels)
    logits = predictor.logits(texts)
    uncalibrated = logits / sharpness(predictor.calibration, np.diff(texts.starts))
    return {"accuracy, %": 100 * ((logits > 0) == (labels > 0.5)).double().mean().item(),
            "calibration error": calibration_error(logits, labels),
            "without calibration": calibration_error(uncalibrated, labels)}


def excerpts(reviews):
    """Return random excerpts of reviews, and the whole reviews: a dict from a description to `imdb.Reviews`."""
    generator = np.random.default_rng(0)
    texts = {f"{length} tokens": cut_spans(reviews, length, generator) for length in EXCERPTS}
    return texts | {"whole reviews": reviews}


def read_sentences(positive, negative):
    """Return the lines of two files, in Latin-1, as `imdb.Reviews`."""
    texts, labels = [], []
    for path, label in ((positive, 1), (negative, 0)):
        lines = [line for line in path.read_text(encoding="latin-1").split("\n") if line.strip()]
        texts += lines
        labels += [label] * len(lines)
    return make_reviews(*tokenize(texts), np.array(labels))


def mean_rows(preset, runs):
    """Return a row for each figure, with a column for each kind of texts: means over runs (dicts of `measure`)."""
    rows = []
    for name in ("accuracy, %", "calibration error", "without calibration"):
        columns = []
        for of_run in runs:
            columns.append({kind: figures[name] for kind, figures in of_run.items()})
        rows.append({"preset": preset, "figure": name} | mean_row(columns))
    return rows


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="required", help="settings of the runs")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--sentences", nargs=2, type=Path, metavar=("POS", "NEG"), help="files with sentences")
    args = parser.parse_args()
    reviews = load_reviews(find_source(args.data_dir), args.cache_dir)
    kinds = excerpts(select(reviews, reviews.test))
    if args.sentences:
        kinds["sentences"] = read_sentences(*args.sentences)
    runs = []
    for folder in args.runs:
        predictor = Predictor.load(folder / "model.pt")
        runs.append({kind: measure(predictor, texts) for kind, texts in kinds.items()})
    write_result(f"calibration_{args.preset.replace('-', '_')}", {"rows": mean_rows(args.preset, runs), "runs": runs})


if __name__ == "__main__":
    run(main)
