"""Train the transformer of `models.py` on the IMDB reviews and report its test accuracy.

    python sentiment_analysis.py                        the required setting: 1 block, 5 epochs, learning rate 1e-4
    python sentiment_analysis.py --preset bonus         n-gram channels beside the word vectors
    python sentiment_analysis.py predict "A film to fall asleep in."

A run writes `metrics.json`, `loss.png` and `model.pt` to `runs/NAME/`. README.md has all commands and what they reach.
"""

import helpers.runtime  # noqa: F401  before torch, whose threads it tells how to wait

# isort: split
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import ConstantLR, OneCycleLR
from tqdm import tqdm

from helpers import evaluate, predict
from helpers.archive import SAMPLE_DIR, choose_source, expected_digest, find_source
from helpers.batches import GLOVE_DIMS, BucketLoader, ReviewSet, add_glove, build_vocab, predict_logits, split_by_movie
from helpers.checkpoint import Checkpoint
from helpers.cli import Parser, UserError, add_data_options, number, parse_with_settings, run_command, setting
from helpers.files import only_process, write_text
from helpers.ngrams import channels_by_fold, load_tables
from helpers.predictor import Predictor, build_model
from helpers.regions import load_regions
from helpers.reviews import keep, load_reviews
from helpers.runtime import choose_device, describe_machine, keep_freed_memory
from helpers.short_texts import ShortTextLoader


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the defaults are the exercise's."""

    blocks: int = setting(1, "transformer blocks", type=number(int, 1))
    epochs: int = setting(5, "passes over the training reviews", type=number(int, 1))
    lr: float = setting(1e-4, "Adam's learning rate, or the highest one of a schedule", type=number(float, 1e-12))
    batch_size: int = setting(32, "reviews in a batch", type=number(int, 1))
    max_len: int = setting(500, "tokens of a review that the network reads", type=number(int, 1, 100_001))
    dropout: float = setting(0.1, "dropout of the attention's output", type=number(float, 0, 1))
    freeze: bool = setting(False, "keep GloVe's vectors as they are", action="store_true")
    min_freq: int = setting(10, "how often a word occurs at least to be in the vocabulary", type=number(int, 1))
    glove_dim: int = setting(50, "features of a word vector", type=int, choices=GLOVE_DIMS)
    valid_share: float = setting(0.2, "share of the training reviews that is held out to validate")
    schedule: str = setting("constant", 'of the learning rate: "constant" or "one-cycle"')
    input_dropout: float = setting(0.0, "dropout of the word vectors")
    both_ends: bool = setting(False, "read beginning and end of a longer review, not the beginning alone")
    ngrams: str | None = setting(None, 'n-gram channels counted on the "labels", or on unlabelled reviews too: "unsup"')
    short_texts: bool = setting(False, "train on spans, sentences and negated ones beside the reviews")
    regions: bool = setting(False, "region embeddings, learned from the text of the training and unlabelled reviews")


REQUIRED = Settings()
BONUS = Settings(epochs=5, lr=1e-3, max_len=400, dropout=0.3, valid_share=0.05, schedule="one-cycle",
                 input_dropout=0.6, both_ends=True, ngrams="labels", short_texts=True, regions=True)
SAMPLE = Settings(epochs=20, lr=1e-3, batch_size=16, min_freq=2)  # a few dozen steps at 1e-4 would teach nothing
BONUS_UNSUP = replace(BONUS, epochs=8, ngrams="unsup")
PRESETS = {"required": REQUIRED, "bonus": BONUS, "bonus-unsup": BONUS_UNSUP, "sample": SAMPLE}


def set_seed(seed=42):
    """Seed numpy and torch."""
    np.random.seed(seed)
    torch.manual_seed(seed)


def load_imdb_data(settings=REQUIRED, source=None, cache_dir=".cache", seed=42, device="cpu"):
    """Return everything that training needs, as the exercise's skeleton has it.

    Args:
        source: the archive or the extracted folder; None stands for `.data`, to which the archive is downloaded.

    Returns:
        train_set, valid_set, test_set (`batches.ReviewSet`), train_loader, valid_loader, test_loader (iterate over ids
        (B, T), channels (B, T, C) if there are any, and float labels (B,)), vocab (a `batches.Vocabulary`), pad_id.
    """
    set_seed(seed)
    source = Path(source or find_source())
    reviews = load_reviews(source, cache_dir, settings.ngrams == "unsup", expected_digest(source))
    is_train = ~reviews.test & (reviews.labels >= 0)
    is_valid = np.zeros_like(is_train)
    is_valid[is_train] = split_by_movie(reviews.movies[is_train], settings.valid_share)
    is_train &= ~is_valid
    vocab = build_vocab(reviews, is_train, min_freq=settings.min_freq)
    covered = add_glove(vocab, settings.glove_dim, cache_dir)
    print(f"{is_train.sum():,} reviews to train on, {is_valid.sum():,} of other films to validate, "
          f"{reviews.test.sum():,} to test; {len(vocab):,} words, {covered:.1%} of them in GloVe")
    parts = [keep(reviews, chosen) for chosen in (is_train, is_valid, reviews.test)]
    options = {"vocab": vocab, "max_len": settings.max_len, "both_ends": settings.both_ends, "device": device}
    channels = [None] * 3
    if settings.ngrams:
        tables, vocab.table, folds = load_tables(reviews, is_train, settings.ngrams, seed, cache_dir)
        channels = [channels_by_fold(parts[0], folds, tables), *map(vocab.table.channels, parts[1:])]
    if settings.regions:
        vocab.regions = load_regions(reviews, is_train, vocab, seed, cache_dir)
    sets = [ReviewSet(part, channels=of_part, **options) for part, of_part in zip(parts, channels, strict=True)]
    train_loader = BucketLoader(sets[0], settings.batch_size)
    if settings.short_texts:
        train_loader = ShortTextLoader(parts[0], folds, tables, settings.batch_size, **options)
    return *sets, train_loader, BucketLoader(sets[1]), BucketLoader(sets[2]), vocab, vocab.stoi["<pad>"]


def make_optimizer(model, settings, batches):
    """Return Adam, and the schedule of its learning rate over `settings.epochs` of so many `batches`."""
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=settings.lr, fused=True)
    if settings.schedule == "constant":
        return optimizer, ConstantLR(optimizer, factor=1)
    return optimizer, OneCycleLR(optimizer, settings.lr, total_steps=settings.epochs * batches)


def train_epoch(model, loader, optimizer, scheduler, title):
    """Pass once over the training reviews and return the mean loss. Raises UserError if the loss diverges."""
    model.train()
    total, count = torch.zeros((), dtype=torch.float64, device=model.fc.weight.device), 0
    bar = tqdm(loader, desc=title, unit=" batches", leave=False)
    for step, (*inputs, labels) in enumerate(bar, 1):
        loss = F.binary_cross_entropy_with_logits(model(*inputs).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        total, count = total + loss.detach().double() * len(labels), count + len(labels)
        if step % 50 == 0 or step == len(loader):  # to look at the loss makes a GPU wait
            mean = check_finite(total.item() / count, f"{title}, at step {step} or up to 50 steps before")
            bar.set_postfix_str(f"loss {mean:.4f}", refresh=False)
    return mean


def check_finite(loss, place):
    """Return the loss. Raises UserError if it is not a finite number."""
    if not np.isfinite(loss):
        raise UserError(f"the loss became {loss} in {place}; a smaller --lr is the likely cure.")
    return loss


def train(settings, source, folder, args):
    """Train and test a network; write `metrics.json`, `loss.png` and `model.pt` to `folder`."""
    started = time.time()
    keep_freed_memory()
    device = choose_device(args.device)
    train_set, valid_set, test_set, train_loader, valid_loader, _, vocab, _ = load_imdb_data(
        settings, source, args.cache_dir, args.seed, device)
    channels = train_set.channels.shape[1] if settings.ngrams else 0
    metrics = {"data": "SAMPLE" if source == SAMPLE_DIR else "IMDB", "content_digest": expected_digest(source),
               "seed": args.seed, "words": len(vocab),
               "settings": asdict(settings) | {"channels": channels}, **describe_machine(device)}
    set_seed(args.seed)  # again, so that training does not depend on what the data step drew
    model = build_model(vocab, metrics["settings"]).to(device)
    optimizer, scheduler = make_optimizer(model, settings, len(train_loader))
    identity = metrics["settings"] | {"seed": args.seed, "device": device.type, "data": metrics["content_digest"]}
    checkpoint = Checkpoint(folder / "checkpoint.pt", identity, model=model, optimizer=optimizer, scheduler=scheduler)
    metrics["epochs"], seconds_before = checkpoint.start(args.resume)

    for epoch in range(len(metrics["epochs"]) + 1, settings.epochs + 1):
        epoch_started = time.time()
        train_loss = train_epoch(model, train_loader, optimizer, scheduler, f"epoch {epoch}")
        seconds = time.time() - epoch_started
        valid = evaluate.compute_metrics(predict_logits(model, valid_loader, "validation"), valid_set.labels)
        check_finite(valid["loss"], f"the validation after epoch {epoch}")
        speed = int(train_loader.dataset.lengths.sum() / seconds)
        metrics["epochs"].append(dict(train_loss=train_loss, valid_loss=valid["loss"], valid_accuracy=valid["accuracy"],
                                      seconds=seconds, tokens_per_second=speed))
        checkpoint.save(metrics["epochs"], seconds_before + time.time() - started)
        print(f"epoch {epoch:2d}  train loss {train_loss:.4f}  valid loss {valid['loss']:.4f}  "
              f"valid accuracy {valid['accuracy']:.2%}  {seconds:6.1f} s  {speed:9,} tokens/s")

    predictor = Predictor(model, vocab, metrics["settings"], metrics["data"])
    predictor.calibrate(valid_set.reviews)
    metrics["calibration"] = predictor.calibration
    metrics["test"] = evaluate.compute_test_metrics(predictor, test_set)
    metrics["seconds"] = seconds_before + time.time() - started
    predictor.save(folder / "model.pt")
    evaluate.plot_losses(metrics, folder / "loss.png")
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    checkpoint.path.unlink()
    evaluate.print_test(metrics["test"], metrics["data"])
    print(f"{metrics['seconds']:.0f} s in all; {folder} holds metrics.json, loss.png and model.pt")


def parse_args(argv):
    """Return the options of a run, and the settings that were given: a dict from field of Settings to value."""
    parser = Parser(description="Train and test the transformer.", epilog=f"Other commands: {', '.join(COMMANDS)}.")
    add_data_options(parser)
    parser.add_argument("--preset", choices=PRESETS, default="required", help="settings (default: required)")
    parser.add_argument("--sample", dest="preset", action="store_const", const="sample", help="--preset sample")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=42, help="of numpy and torch (default: 42)")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run of that name stopped")
    parser.add_argument("--runs-dir", default="runs", help="folder for the results of runs (default: runs)")
    parser.add_argument("--name", help="of the run: its results go to RUNS_DIR/NAME (default: the preset's)")
    return parse_with_settings(parser, argv, REQUIRED)


COMMANDS = {"evaluate": evaluate.main, "predict": predict.main}


def main(argv=None):
    """Train, or run the command that the first word names."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    args, given = parse_args(argv)
    source = choose_source(args.data_dir, sample=args.preset == "sample")
    preset = "sample" if source == SAMPLE_DIR else args.preset
    folder = Path(args.runs_dir, args.name or preset)
    with only_process(folder):
        train(replace(PRESETS[preset], **given), source, folder, args)


if __name__ == "__main__":
    run_command(main)
