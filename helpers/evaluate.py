"""Compute and print the metrics of a run; the command `evaluate` prints those of a finished run.

    python sentiment_analysis.py evaluate --run runs/required
"""

if __name__ == "__main__":
    raise SystemExit("error: this file is not a script; run python sentiment_analysis.py evaluate")

import math
from pathlib import Path

import torch
from torch.nn import functional as F

from helpers.cli import Parser, UserError, add_data_options, user_path
from helpers.data.archive import SAMPLE_DIR, SAMPLE_NOTICE, expected_digest, find_source
from helpers.data.batches import BucketLoader, predict_logits
from helpers.data.reviews import load_reviews, select
from helpers.inference.predictor import Predictor
from helpers.runtime import choose_device, refuse_memory_errors


def compute_metrics(logits, labels):
    """Return loss, accuracy and confusion matrix: logits, labels (reviews,) -> dict.

    The rows of the confusion matrix are the true labels, negative and positive; its columns are the predicted labels.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels).item()
    cell = 2 * labels.long() + (logits > 0)  # place of each review in the flattened matrix
    confusion = torch.bincount(cell, minlength=4).reshape(2, 2)
    return {"loss": loss, "accuracy": confusion.trace().item() / len(labels), "confusion": confusion.tolist()}


def compute_test_metrics(predictor, test_set, logits):
    """Return `compute_metrics` on the test reviews, the accuracy without duplicates, and the metrics on excerpts.

    A duplicate is a test review with the same tokens as a review outside the test set. Only the metrics on excerpts use
    calibrated logits.

    Args:
        predictor: a `Predictor`.
        test_set: the test reviews, a `batches.ReviewSet`.
        logits: the logits of the network for the test reviews, (reviews,).
    """
    is_new = ~test_set.duplicate
    reviews = test_set.reviews
    metrics = compute_metrics(logits, test_set.labels)
    metrics["duplicates"] = int(test_set.duplicate.sum())
    metrics["accuracy_without_duplicates"] = compute_metrics(logits[is_new], test_set.labels[is_new])["accuracy"]
    metrics["excerpts"] = predictor.excerpt_metrics(reviews, predictor.calibrated(logits, reviews))
    return metrics


def check_finite(loss, place):
    """Return the loss. Raises UserError if it is not a finite number."""
    if not math.isfinite(loss):
        raise UserError(f"the loss became {loss} in {place}; try a smaller --lr.")
    return loss


def print_epoch(metrics):
    """Print one line for the last epoch; `metrics` is a dict as in `metrics.json`."""
    epoch = metrics["epochs"][-1]
    losses = f"train loss {epoch['train_loss']:.4f}  valid loss {epoch['valid_loss']:.4f}"
    speed = f"{epoch['seconds']:6.1f} s  {epoch['tokens_per_second']:9,} tokens/s"
    print(f"epoch {len(metrics['epochs']):2d}  {losses}  valid accuracy {epoch['valid_accuracy']:.2%}  {speed}")


def print_test(metrics, data):
    """Print test accuracy and confusion matrix; `data` is "IMDB" or "SAMPLE"."""
    (true_negative, false_positive), (false_negative, true_positive) = metrics["confusion"]
    print(f"{data} test accuracy {metrics['accuracy']:.2%}")
    print("                  predicted negative  predicted positive")
    print(f"negative reviews  {true_negative:18,}  {false_positive:18,}")
    print(f"positive reviews  {false_negative:18,}  {true_positive:18,}")


def print_results(folder, metrics):
    """Print accuracy, confusion matrix and the folder of the files. For the SAMPLE, the last line is a notice."""
    print_test(metrics["test"], metrics["data"])
    files = [name for name in ("metrics.json", "loss.png", "model.pt") if Path(folder, name).is_file()]
    print(f"{metrics['seconds']:.0f} s; results are in {folder}: {', '.join(files)}")
    if metrics["models"]:
        print(f"This run trained the network in {metrics['models']}.")
    if metrics["settings"]["handout_data"] and not metrics["models"]:
        print("Unlike the hand-out, this run pads each batch to its own longest review and masks the padding.")
    if metrics["data"] == "SAMPLE":
        print(SAMPLE_NOTICE)


def print_details(metrics):
    """Print test loss, the accuracy without duplicates, and accuracy and calibration error on excerpts."""
    print(f"test loss {metrics['loss']:.4f}")
    print(f"accuracy without the {metrics['duplicates']} test reviews that also occur outside the test set: "
          f"{metrics['accuracy_without_duplicates']:.2%}")
    columns = []
    for length, excerpt in metrics["excerpts"].items():
        what = "whole reviews" if length == "all" else f"{length} tokens"
        columns.append(f"{what} {excerpt['accuracy']:.1%} ({excerpt['calibration_error']:.3f})")
    print("accuracy (calibration error) on excerpts: " + ", ".join(columns))


@refuse_memory_errors("close other programs, or use --device cpu if the memory of the GPU is full")
def main(argv):
    parser = Parser(prog="sentiment_analysis.py evaluate", description="Print the test metrics of a finished run.")
    parser.add_argument("--run", type=user_path, required=True, help="folder of the run, or a file in it")
    add_data_options(parser)
    args = parser.parse_args(argv)
    predictor = Predictor.load(args.run, choose_device(args.device))
    source = SAMPLE_DIR if predictor.data == "SAMPLE" else find_source(args.data_dir)
    reviews = load_reviews(source, args.cache_dir, predictor.pipeline.parts, expected_digest(source))
    test_set = predictor.pipeline.review_set(select(reviews, reviews.test), predictor.vocab, predictor.device)
    logits = predict_logits(predictor.model, BucketLoader(test_set), "test")
    metrics = compute_test_metrics(predictor, test_set, logits)
    print_test(metrics, predictor.data)
    print_details(metrics)
    if predictor.data == "SAMPLE":
        print(SAMPLE_NOTICE)
