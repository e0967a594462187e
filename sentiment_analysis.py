"""Train the transformer of `models.py` on the IMDB reviews and report its test accuracy.

    python sentiment_analysis.py                        1 block, 5 epochs, learning rate 1e-4: about 85 %
    python sentiment_analysis.py --sample               a quick try on 312 bundled reviews, with its own settings
    python sentiment_analysis.py --preset bonus         about 93 %, see helpers/bonus/

A run writes `metrics.json`, `loss.png` and `model.pt` to a folder such as `runs/required` or `runs/required-blocks2`.
"""

from helpers import UserError, keep_freed_memory, run  # before torch

# isort: split
import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from helpers.batches import BucketLoader, add_glove, build_vocab, predict_logits
from helpers.files import DownloadError, reading, whole_file, write_text
from helpers.imdb import DATA_DIR, SAMPLE, find_source, identity_of, is_sample, load_reviews, select, split_train_val
from helpers.predictor import Predictor, make_pipeline, models_text

BONUS = {"lr": 1e-3, "max_len": 400, "dropout": 0.3, "valid_share": 0.05}
PRESETS = {  # what differs from the settings of the exercise, which are the defaults of the options
    "required": {},
    "sample": {"data_dir": SAMPLE, "epochs": 20, "lr": 1e-3, "batch_size": 16, "min_freq": 2},
    "bonus": BONUS | {"epochs": 5, "bonus": {"unlabelled": False}},
    "bonus-unsup": BONUS | {"epochs": 8, "bonus": {"unlabelled": True}},
}
# As in the exercise. Items are (label, ids). Batches are ids (B, T), in the bonus channels (B, T, C), and labels (B,).
ImdbData = namedtuple("ImdbData", "train_set valid_set test_set train_loader valid_loader test_loader vocab pad_id")
NOT_SETTINGS = {"preset", "data_dir", "cache_dir", "out", "device", "seed", "resume"}


def make_parser():
    """Return the parser of the command line."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="required", help="named settings, which single options override")
    add("--sample", dest="preset", action="store_const", const="sample", help="train on the 312 bundled reviews")
    add("--blocks", type=int, default=1, help="transformer blocks")
    add("--epochs", type=int, default=5, help="passes over the training reviews")
    add("--lr", type=float, default=1e-4, help="learning rate of Adam; in the bonus, its peak")
    add("--batch-size", type=int, default=32, help="reviews in a batch")
    add("--max-len", type=int, default=500, help="tokens that are read of a review")
    add("--dropout", type=float, default=0.1, help="dropout of the attention's output")
    add("--freeze", action="store_true", help="keep the word vectors fixed")
    add("--min-freq", type=int, default=10, help="minimum count of a word in the vocabulary")
    add("--glove-dim", type=int, default=50, choices=[50, 100, 200, 300], help="features of a word vector")
    add("--seed", type=int, default=42, help="seed of numpy and torch")
    add("--data-dir", default=DATA_DIR, help="the IMDB archive, its folder, or the extracted data")
    add("--cache-dir", default=".cache", help="folder for cached results")
    add("--device", choices=devices, default=devices[-1], help="where the network is trained")
    add("--out", help="folder for the results; without it, runs/ and a name from the preset and changed settings")
    add("--resume", action="store_true", help="continue an interrupted run")
    parser.set_defaults(valid_share=0.2, bonus=None)
    return parser


def parse_args(argv=None):
    """Return the options of a run. Those that are not in NOT_SETTINGS are its settings."""
    parser = make_parser()
    parser.set_defaults(**PRESETS[parser.parse_args(argv).preset])
    args = parser.parse_args(argv)
    if args.preset == "sample" and args.data_dir != SAMPLE:
        parser.error("--sample trains on the bundled reviews; leave out --data-dir")
    above_0 = args.blocks, args.epochs, args.lr, args.batch_size, args.max_len, args.min_freq
    if min(above_0) <= 0 or not 0 <= args.dropout < 1:
        parser.error("--dropout must be from 0 to below 1, and the other settings above 0")
    chosen = settings_of(args) | {"seed": args.seed}
    changed = {name: value for name, value in chosen.items() if value != parser.get_default(name)}
    for name, value in make_pipeline(settings_of(args)).settings.items():
        if value is None and name in changed:
            parser.error(f"the network in models.py has no argument {name}; leave out --{name}")
    data = ["on-sample"] if is_sample(args.data_dir) and args.preset != "sample" else []
    name = "-".join([args.preset, *data, *(f"{setting}{value}" for setting, value in changed.items())])
    args.out = Path(args.out or f"runs/{name}")
    return args


def settings_of(args):
    """Return the settings of a run, as in `metrics.json` and `model.pt`."""
    return {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS}


def set_seed(seed):
    """Seed numpy and torch."""
    np.random.seed(seed)
    torch.manual_seed(seed)


def load_imdb_data(args, pipeline):
    """Return the data that training needs, an `ImdbData`, and fit the `Pipeline` of the run."""
    set_seed(args.seed)
    reviews = load_reviews(find_source(args.data_dir), args.cache_dir, pipeline.parts)
    is_train, is_valid = split_train_val(reviews, args.valid_share)
    vocab = build_vocab(reviews, is_train, min_freq=args.min_freq)
    covered = add_glove(vocab, args.glove_dim, args.cache_dir)
    print(f"{is_train.sum():,} reviews to train on, {is_valid.sum():,} to validate, {reviews.test.sum():,} to test; "
          f"{len(vocab):,} words, {covered:.1%} of them in GloVe")
    pipeline.fit(reviews, is_train, vocab, args.seed, args.cache_dir)
    train_set = pipeline.train_set(select(reviews, is_train), vocab, args.device)
    valid_set = pipeline.review_set(select(reviews, is_valid), vocab, args.device)
    test_set = pipeline.review_set(select(reviews, reviews.test), vocab, args.device)
    return ImdbData(train_set, valid_set, test_set, pipeline.train_loader(train_set), BucketLoader(valid_set),
                    BucketLoader(test_set), vocab, vocab.stoi["<pad>"])


def compute_metrics(logits, labels):
    """Return loss, accuracy and confusion matrix (rows: true labels): logits, labels (reviews,) -> dict."""
    loss = F.binary_cross_entropy_with_logits(logits, labels).item()
    cell = 2 * labels.long() + (logits > 0)  # place of each review in the flattened matrix
    confusion = torch.bincount(cell, minlength=4).reshape(2, 2)
    return {"loss": loss, "accuracy": confusion.trace().item() / len(labels), "confusion": confusion.tolist()}


def train_epoch(model, loader, optimizer, scheduler, title):
    """Pass once over the training reviews and return the mean loss."""
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
    count = 0
    for *inputs, labels in tqdm(loader, desc=title, unit=" batches", leave=False):
        logits = model(*inputs).flatten()  # (B, 1) or (B,) -> (B,)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.detach().double() * len(labels)  # on the GPU: `item` would wait for it at every step
        count += len(labels)
    return total.item() / count


def run_epoch(epoch, model, data, optimizer, scheduler):
    """Train for one epoch, validate, print and return the metrics: a dict. Raises UserError if a loss diverges."""
    started = time.perf_counter()
    train_loss = train_epoch(model, data.train_loader, optimizer, scheduler, f"epoch {epoch}")
    seconds = time.perf_counter() - started
    valid = compute_metrics(predict_logits(model, data.valid_loader, "validation"), data.valid_set.labels)
    if not np.isfinite(train_loss + valid["loss"]):
        raise UserError(f"the loss of epoch {epoch} is not finite; try a smaller --lr.")
    print(f"epoch {epoch:2d}  train loss {train_loss:.4f}  valid loss {valid['loss']:.4f}  "
          f"valid accuracy {valid['accuracy']:.2%}  {seconds:6.1f} s", flush=True)
    return {"train_loss": train_loss, "valid_loss": valid["loss"], "valid_accuracy": valid["accuracy"],
            "seconds": seconds}


def save_checkpoint(path, identity, metrics, parts):
    """Write all that the next epochs depend on. `identity` tells runs apart; `parts` have a `state_dict`."""
    kind, keys, *rest = np.random.get_state()
    random = {"numpy": (kind, keys.tolist(), *rest), "torch": torch.get_rng_state(),
              "cuda": torch.cuda.get_rng_state_all()}
    states = [part.state_dict() for part in parts]
    with whole_file(path) as temporary:
        torch.save({"identity": identity, "metrics": metrics, "parts": states, "random": random}, temporary)


def load_checkpoint(path, identity, parts):
    """Restore what `save_checkpoint` wrote, and return the metrics so far."""
    with reading(path, "delete it and train again."):
        saved = torch.load(path, weights_only=True)
        different = [name for name, value in identity.items() if saved["identity"].get(name) != value]
        if different:
            raise UserError(f"{path} is of a run with another {', '.join(different)}; use its options, or delete it.")
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
        np.random.set_state(saved["random"]["numpy"])
        torch.set_rng_state(saved["random"]["torch"])
        torch.cuda.set_rng_state_all(saved["random"]["cuda"])
    return saved["metrics"]


def describe_run(args, pipeline, data):
    """Return what `metrics.json` says about a run before its first epoch: a dict."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "torchtext", "spacy", "numpy")}
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    return {"data": "SAMPLE" if is_sample(args.data_dir) else "IMDB", "seed": args.seed, "words": len(data.vocab),
            "settings": pipeline.settings, "device": device, "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()} | versions, "epochs": [], "seconds": 0.0}


def train(args):
    """Train and test a network, write the results to `args.out`, and return the metrics, as in `metrics.json`."""
    checkpoint = args.out / "checkpoint.pt"  # there from the first epoch until the run is finished
    if checkpoint.exists() and not args.resume:
        raise UserError(f"{args.out} holds an interrupted run; add --resume to continue it, or delete {checkpoint}.")
    if args.resume and not checkpoint.exists():
        raise UserError(f"{args.out} holds no interrupted run; leave out --resume.")
    started = time.perf_counter()
    keep_freed_memory()
    pipeline = make_pipeline(settings_of(args))
    data = load_imdb_data(args, pipeline)
    set_seed(args.seed)  # again, so that training does not depend on the random numbers of the data step
    model = pipeline.build_model(data.vocab).to(args.device)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=args.lr, fused=True)
    scheduler = pipeline.make_scheduler(optimizer, args.epochs * len(data.train_loader))
    parts = model, optimizer, scheduler
    identity = pipeline.settings | {"seed": args.seed, "device": args.device, "models.py": models_text(),
                                    "reviews": identity_of(data.train_set.reviews)}
    metrics = load_checkpoint(checkpoint, identity, parts) if args.resume else describe_run(args, pipeline, data)
    started -= metrics["seconds"]  # of the epochs before an interruption

    for epoch in range(len(metrics["epochs"]) + 1, args.epochs + 1):
        metrics["epochs"].append(run_epoch(epoch, model, data, optimizer, scheduler))
        metrics["seconds"] = time.perf_counter() - started
        save_checkpoint(checkpoint, identity, metrics, parts)

    metrics["test"] = compute_metrics(predict_logits(model, data.test_loader, "test"), data.test_set.labels)
    predictor = Predictor(model, data.vocab, pipeline, metrics["data"])
    predictor.calibrate(data.valid_set.reviews)
    metrics |= {"calibration": predictor.calibration, "seconds": time.perf_counter() - started,
                "date": time.strftime("%Y-%m-%dT%H:%M:%S")}
    predictor.save(args.out / "model.pt")
    write_text(args.out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    checkpoint.unlink()  # a folder with a checkpoint counts as an interrupted run
    plot_losses(metrics, args.out / "loss.png")
    return metrics


def plot_losses(metrics, path):
    """Draw the training and validation loss of each epoch."""
    from matplotlib.figure import Figure  # here, because --help does not need it

    figure = Figure(figsize=(6, 3.75), layout="constrained")  # without pyplot, so it needs no display
    title = f"{metrics['data']}: test accuracy {metrics['test']['accuracy']:.1%}"
    axes = figure.subplots(subplot_kw={"xlabel": "epoch", "ylabel": "binary cross-entropy", "title": title})
    epochs = range(1, len(metrics["epochs"]) + 1)
    axes.plot(epochs, [epoch["train_loss"] for epoch in metrics["epochs"]], "o-", label="training")
    axes.plot(epochs, [epoch["valid_loss"] for epoch in metrics["epochs"]], "s--", label="validation")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    try:
        with whole_file(path) as temporary:
            figure.savefig(temporary, dpi=200)
    except Exception as error:  # the results are there; a broken installation of matplotlib must not hide them
        print(f"note: {path} cannot be drawn ({error})")


def print_results(metrics, folder):
    """Print the test accuracy, the confusion matrix and where the results are."""
    print(f"{metrics['data']} test accuracy {metrics['test']['accuracy']:.2%}")
    print("                  predicted negative  predicted positive")
    for name, (negative, positive) in zip(["negative", "positive"], metrics["test"]["confusion"], strict=True):
        print(f"{name} reviews  {negative:18,}  {positive:18,}")
    print(f"{metrics['seconds']:.0f} s; results are in {folder}: metrics.json, loss.png, model.pt")
    if metrics["data"] == "SAMPLE":
        print("SAMPLE results, not IMDB: trained and tested on the 312 invented reviews in sample_reviews/.")


def main():
    args = parse_args()
    try:
        find_source(args.data_dir)
    except DownloadError as error:
        if "--data-dir" in " ".join(sys.argv) or not SAMPLE.exists():
            raise
        print(f"note: {error}")
        args = parse_args([*sys.argv[1:], "--sample"])
    print_results(train(args), args.out)


if __name__ == "__main__":
    run(main)
