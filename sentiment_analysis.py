"""Train the transformer of `models.py` on the IMDB reviews and report its test accuracy.

    python sentiment_analysis.py                        1 block, 5 epochs, learning rate 1e-4: about 85 %
    python sentiment_analysis.py --sample               a quick try on 312 bundled reviews, with settings for so few
    python sentiment_analysis.py --preset bonus         about 93 %, see helpers/bonus/
    python sentiment_analysis.py predict "A film to fall asleep in."

A run writes `metrics.json`, `analysis.json`, `loss.png` and `model.pt` to `runs/NAME/`. The README lists all commands.
"""

import helpers.runtime  # noqa: F401  before torch, which reads the environment when it is imported

# isort: split
import datetime
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from helpers import evaluate
from helpers.analysis import analyse
from helpers.checkpoint import Checkpoint
from helpers.cli import Parser, UserError, add_data_options, number, parse_with_settings, run_command, setting
from helpers.data.archive import SAMPLE_DIR, choose_source, expected_digest, find_source
from helpers.data.batches import BucketLoader, predict_logits
from helpers.data.reviews import load_reviews, select, split_train_val
from helpers.data.vocab import GLOVE_DIMS, add_glove, build_vocab
from helpers.door import load_bonus, make_pipeline
from helpers.figures import plot_run
from helpers.files import file_digest, only_process, write_text
from helpers.inference import predict
from helpers.inference.predictor import Predictor
from helpers.runtime import choose_device, describe_machine, keep_freed_memory
from helpers.solution import SolutionPipeline


@dataclass(frozen=True)
class Settings:
    """Settings of a run. The defaults are those of the exercise."""

    blocks: int = setting(1, "number of transformer blocks", type=number(int, 1))
    epochs: int = setting(5, "passes over the training reviews", type=number(int, 1))
    lr: float = setting(1e-4, "learning rate of Adam, or its peak in the bonus", type=number(float, 1e-12))
    batch_size: int = setting(32, "reviews in a batch", type=number(int, 1))
    max_len: int = setting(500, "maximum number of tokens read from a review", type=number(int, 1, 100_001))
    dropout: float = setting(0.1, "dropout of the attention's output", type=number(float, 0, 1))
    freeze: bool = setting(False, "keep the word vectors fixed", action="store_true")
    min_freq: int = setting(10, "minimum count of a word in the vocabulary", type=number(int, 1))
    glove_dim: int = setting(50, "features of a word vector", type=int, choices=GLOVE_DIMS)
    valid_share: float = setting(0.2, "share of the training reviews that is used for validation")
    handout_data: bool = setting(False, "split at random; build the vocabulary from the validation reviews too")
    bonus: object = setting(None, "settings of the bonus, a BonusSettings, or None")


REQUIRED = Settings()
HANDOUT = Settings(glove_dim=300, freeze=True, handout_data=True)  # those of the hand-out that students receive
SAMPLE = Settings(epochs=20, lr=1e-3, batch_size=16, min_freq=2)  # so few reviews need more epochs and larger steps
PRESETS = {"required": REQUIRED, "handout": HANDOUT, "sample": SAMPLE}
BONUS_PRESETS = ["bonus", "bonus-unsup"]


def preset(name):
    """Return the settings of a preset. Raises UserError for a bonus preset if the bonus is missing."""
    return PRESETS[name] if name in PRESETS else Settings(**load_bonus().PRESETS[name])


def set_seed(seed=42):
    """Seed numpy and torch."""
    np.random.seed(seed)
    torch.manual_seed(seed)


def load_imdb_data(settings=REQUIRED, source=None, cache_dir=".cache", seed=42, device="cpu", pipeline=None):
    """Return everything that training needs, as the exercise's `load_imdb_data` does.

    Args:
        settings: the settings of the run.
        source: the archive or the extracted folder. None stands for `.data`, where the archive is downloaded.
        cache_dir: folder for results that take long to compute.
        seed: seed of all random choices but the split of the hand-out, which is always the same.
        device: where the tensors are.
        pipeline: a new `pipeline.Pipeline`, which is fitted here. None makes one.

    Returns:
        train_set, valid_set, test_set (`batches.ReviewSet`, items are (label, ids)), train_loader, valid_loader,
        test_loader (batches of ids (B, T), inputs of the bonus, if any, and float labels (B,)), vocab
        (`torchtext.vocab.Vocab`), pad_id.
    """
    set_seed(seed)
    pipeline = pipeline or make_pipeline(asdict(settings))
    source = Path(source or find_source())
    reviews = load_reviews(source, cache_dir, pipeline.parts, expected_digest(source))
    is_train, is_valid = split_train_val(reviews, settings.valid_share, at_random=settings.handout_data)
    is_counted = is_train | is_valid if settings.handout_data else is_train
    vocab = build_vocab(reviews, is_counted, min_freq=settings.min_freq)
    covered = add_glove(vocab, settings.glove_dim, cache_dir)
    print(f"{is_train.sum():,} reviews to train on, {is_valid.sum():,} to validate, {reviews.test.sum():,} to test; "
          f"{len(vocab):,} words, {covered:.1%} of them in GloVe")
    pipeline.fit(reviews, is_train, vocab, seed, cache_dir)
    train_set = pipeline.train_set(select(reviews, is_train), vocab, device)
    valid_set = pipeline.review_set(select(reviews, is_valid), vocab, device)
    test_set = pipeline.review_set(select(reviews, reviews.test), vocab, device)
    return (train_set, valid_set, test_set, pipeline.train_loader(train_set), BucketLoader(valid_set),
            BucketLoader(test_set), vocab, vocab.stoi["<pad>"])


def make_optimizer(model, lr):
    """Return Adam for the parameters that are trained."""
    return torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=lr, fused=True)


def train_epoch(model, loader, optimizer, scheduler, title):
    """Pass once over the training reviews and return the mean loss. Raises UserError if the loss diverges."""
    model.train()
    total, count = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device), 0
    bar = tqdm(loader, desc=title, unit=" batches", leave=False)
    for step, (*inputs, labels) in enumerate(bar, 1):
        logits = model(*inputs).squeeze(1)  # (B,)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.detach().double() * len(labels)
        count += len(labels)
        if step % 50 == 0 or step == len(loader):  # rarely: reading the loss makes the program wait for the GPU
            mean = check_finite(total.item() / count, f"{title}, within the 50 steps up to step {step}")
            bar.set_postfix_str(f"loss {mean:.4f}", refresh=False)
    return mean


def check_finite(loss, place):
    """Return the loss. Raises UserError if it is not a finite number."""
    if not np.isfinite(loss):
        raise UserError(f"the loss became {loss} in {place}; try a smaller --lr.")
    return loss


def run_epoch(epoch, model, train_loader, valid_loader, optimizer, scheduler):
    """Train for one epoch, validate, and return the metrics of the epoch, a dict. Raises UserError on divergence."""
    started = time.time()
    train_loss = train_epoch(model, train_loader, optimizer, scheduler, f"epoch {epoch}")
    seconds = time.time() - started
    valid_logits = predict_logits(model, valid_loader, "validation")
    valid = evaluate.compute_metrics(valid_logits, valid_loader.dataset.labels)
    check_finite(valid["loss"], f"the validation after epoch {epoch}")
    return {"train_loss": train_loss, "valid_loss": valid["loss"], "valid_accuracy": valid["accuracy"],
            "seconds": seconds, "tokens_per_second": int(train_loader.dataset.lengths.sum() / seconds)}


def train(settings, source, folder, args):
    """Train and test a network, and write the results to `folder`."""
    started = time.time()
    keep_freed_memory()
    device = choose_device(args.device)
    pipeline = SolutionPipeline(asdict(settings), args.models) if args.models else make_pipeline(asdict(settings))
    data = load_imdb_data(settings, source, args.cache_dir, args.seed, device, pipeline)
    train_loader, valid_loader, vocab = data[3], data[4], data[6]
    metrics = {"data": "SAMPLE" if source == SAMPLE_DIR else "IMDB", "content_digest": expected_digest(source),
               "models": args.models, "seed": args.seed, "words": len(vocab), "settings": pipeline.settings,
               **describe_machine(device)}
    set_seed(args.seed)  # again, so that training does not depend on the random numbers of the data step
    model = pipeline.build_model(vocab).to(device)
    optimizer = make_optimizer(model, settings.lr)
    scheduler = pipeline.make_scheduler(optimizer, settings.epochs * len(train_loader))
    identity = metrics["settings"] | {
        "models": args.models and file_digest(args.models), "seed": args.seed, "device": device.type,
        "data": metrics["content_digest"], "vocabulary": hashlib.sha256("\0".join(vocab.itos).encode()).hexdigest()}
    checkpoint = Checkpoint(folder / "checkpoint.pt", identity, model=model, optimizer=optimizer, scheduler=scheduler)
    metrics["epochs"], seconds_before = checkpoint.start(args.resume)

    for epoch in range(len(metrics["epochs"]) + 1, settings.epochs + 1):
        metrics["epochs"].append(run_epoch(epoch, model, train_loader, valid_loader, optimizer, scheduler))
        checkpoint.save(metrics["epochs"], seconds_before + time.time() - started)
        evaluate.print_epoch(epoch, metrics["epochs"][-1])

    test(Predictor(model, vocab, pipeline, metrics["data"]), data, source, folder, metrics)
    metrics["seconds"] = seconds_before + time.time() - started
    metrics["date"] = datetime.date.today().isoformat()
    plot_run(metrics, folder / "loss.png")
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")  # last: with it, the run is finished
    checkpoint.path.unlink()
    evaluate.print_results(folder, metrics)


def test(predictor, data, source, folder, metrics):
    """Add the test metrics to `metrics`, and write `analysis.json` and `model.pt` to `folder`.

    For the network of another models.py (`--models`), it writes neither.

    Args:
        predictor: a `Predictor` with the trained network.
        data: what `load_imdb_data` returned.
        source: the archive or the extracted folder.
        folder: folder of the run.
        metrics: the metrics of the run.
    """
    train_set, valid_set, test_set, _, _, test_loader, _, _ = data
    logits = predict_logits(predictor.model, test_loader, "test")
    if metrics["models"]:
        metrics["test"] = evaluate.compute_metrics(logits, test_set.labels)
        for name in ("model.pt", "analysis.json"):  # of an earlier run with this name
            Path(folder, name).unlink(missing_ok=True)
        return
    predictor.calibrate(valid_set.reviews)
    metrics["calibration"] = predictor.calibration
    metrics["test"] = evaluate.compute_test_metrics(predictor, test_set, logits)
    analysis = analyse(predictor, train_set, valid_set, test_set, source, logits)
    write_text(folder / "analysis.json", json.dumps(analysis, indent=1, ensure_ascii=False) + "\n")
    predictor.save(folder / "model.pt")


def parse_args(argv):
    """Return the options of a run, and the settings that were given: a dict from field of Settings to value."""
    parser = Parser(description="Train and test the transformer.", epilog=f"Other commands: {', '.join(COMMANDS)}.")
    add_data_options(parser)
    parser.add_argument("--preset", choices=[*PRESETS, *BONUS_PRESETS], default="required",
                        help="settings, which other options override (default: required, whose "
                        "settings are the defaults below)")
    parser.add_argument("--sample", dest="preset", action="store_const", const="sample",
                        help="train on the 312 invented reviews that come with the project")
    parser.add_argument("--models", metavar="FILE", help="train the network of another models.py")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=42, help="seed of numpy and torch (default: 42)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--runs-dir", default="runs", help="folder for the results of runs (default: runs)")
    parser.add_argument("--name", help="name of the run, whose results go to RUNS_DIR/NAME (default: the preset)")
    return parse_with_settings(parser, argv, REQUIRED)


COMMANDS = {"evaluate": evaluate.main, "predict": predict.main}


def main(argv=None):
    """Train, or run the command that the first word names."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    args, given = parse_args(argv)
    settings = preset(args.preset)  # fails before anything is downloaded if the bonus is missing
    if args.models and settings.bonus:
        raise UserError("--models trains without the bonus; leave out --preset, or use --preset required.")
    source = choose_source(args.data_dir, sample=args.preset == "sample")
    name = args.preset
    if source == SAMPLE_DIR:
        settings, name = SAMPLE, "sample"
    if args.models:
        name = f"{Path(args.models).stem}-{name}"
    folder = Path(args.runs_dir, args.name or name)
    with only_process(folder):
        train(replace(settings, **given), source, folder, args)


if __name__ == "__main__":
    run_command(main)
