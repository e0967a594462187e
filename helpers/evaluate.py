"""The metrics of a run, computed, printed and drawn; the command `evaluate`, which prints them once more.

    python sentiment_analysis.py evaluate --run runs/required
"""

if __name__ == "__main__":
    raise SystemExit("error: this file is not run; the command is: python sentiment_analysis.py evaluate")

from pathlib import Path

import torch
from torch.nn import functional as F

from helpers.archive import SAMPLE_DIR, expected_digest, find_source
from helpers.batches import BucketLoader, predict_logits
from helpers.cli import Parser, add_data_options
from helpers.files import whole_file
from helpers.predictor import Predictor
from helpers.reviews import keep, load_reviews
from helpers.runtime import choose_device


def compute_metrics(logits, labels):
    """Return loss, accuracy and confusion matrix (rows: true negative, positive; columns: predicted)."""
    loss = F.binary_cross_entropy_with_logits(logits, labels).item()
    confusion = torch.bincount(2 * labels.long() + (logits > 0), minlength=4).reshape(2, 2)
    return {"loss": loss, "accuracy": confusion.trace().item() / len(labels), "confusion": confusion.tolist()}


def compute_test_metrics(predictor, test_set):
    """Return `compute_metrics` on the test reviews, and how it changes without those that are among the training ones.

    What is said of parts of the reviews uses calibrated logits, all else the network's own.
    """
    logits, new = predict_logits(predictor.model, BucketLoader(test_set), "test"), ~test_set.duplicate
    reviews = test_set.reviews
    return compute_metrics(logits, test_set.labels) | {
        "duplicates": int(test_set.duplicate.sum()),
        "accuracy_without_duplicates": compute_metrics(logits[new], test_set.labels[new])["accuracy"],
        "parts": predictor.certainty(reviews, predictor.calibrated(logits, reviews))}


def print_test(metrics, data):
    """Print test metrics in three lines; `data` is "IMDB" or "SAMPLE"."""
    (negative, false_positive), (false_negative, positive) = metrics["confusion"]
    print(f"{data} test loss {metrics['loss']:.4f}  test accuracy {metrics['accuracy']:.2%}  "
          f"({metrics['accuracy_without_duplicates']:.2%} without the {metrics['duplicates']} reviews that are in the "
          "training part too)")
    print(f"negative reviews: {negative:,} right, {false_positive:,} wrong; "
          f"positive reviews: {positive:,} right, {false_negative:,} wrong")
    names = {name: "whole reviews" if name == "all" else f"{name} tokens" for name in metrics["parts"]}
    print("share right (calibration error) of parts of " + ", ".join(
        f"{names[name]} {part['accuracy']:.1%} ({part['calibration_error']:.3f})"
        for name, part in metrics["parts"].items()))


def plot_losses(metrics, path):
    """Draw training and validation loss per epoch."""
    import matplotlib.pyplot as plt  # here, because it takes half a second, and only training needs it

    epochs = range(1, len(metrics["epochs"]) + 1)
    figure, axes = plt.subplots(figsize=(6, 3.75), layout="constrained")
    axes.plot(epochs, [epoch["train_loss"] for epoch in metrics["epochs"]], "o-", label="training")
    axes.plot(epochs, [epoch["valid_loss"] for epoch in metrics["epochs"]], "s--", label="validation")
    axes.set(xlabel="epoch", ylabel="binary cross-entropy", xticks=epochs,
             title=f"{metrics['data']}: test accuracy {metrics['test']['accuracy']:.2%}")
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=200)
    plt.close(figure)


def main(argv):
    parser = Parser(prog="sentiment_analysis.py evaluate", description="Print the test metrics of a finished run.")
    parser.add_argument("--run", required=True, help="folder of the run")
    add_data_options(parser)
    args = parser.parse_args(argv)
    predictor = Predictor.load(Path(args.run, "model.pt"), choose_device(args.device))
    source = SAMPLE_DIR if predictor.data == "SAMPLE" else find_source(args.data_dir)
    reviews = load_reviews(source, args.cache_dir, predictor.settings["ngrams"] == "unsup", expected_digest(source))
    test_set = predictor.review_set(keep(reviews, reviews.test))
    print_test(compute_test_metrics(predictor, test_set), predictor.data)
