"""Train the transformer of `models.py` on the IMDB reviews and report its test accuracy.

    python sentiment_analysis.py                        1 block, 5 epochs, learning rate 1e-4: about 85 %
    python sentiment_analysis.py --sample               a quick try on 312 bundled reviews, with its own settings
    python sentiment_analysis.py --preset bonus         about 93 %, see helpers/bonus/
    python sentiment_analysis.py predict "A film to fall asleep in."

A run writes `metrics.json`, `analysis.json`, `loss.png` and `model.pt` to `runs/NAME/`. The README lists all commands.
"""

import helpers.runtime  # noqa: F401  before torch, which reads the environment when it is imported

# isort: split
import datetime
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
from helpers.analysis import remove_model, store_model
from helpers.checkpoint import Checkpoint, data_digest, identity_of_run, refuse_to_lose
from helpers.cli import number, parse_with_settings, run_command, setting
from helpers.data.archive import SAMPLE_DIR, choose_source, expected_digest, find_source
from helpers.data.batches import BucketLoader, predict_logits
from helpers.data.reviews import load_reviews, select, split_train_val
from helpers.data.vocab import GLOVE_DIMS, add_glove, build_vocab
from helpers.door import BONUS_PRESETS, load_bonus, make_pipeline
from helpers.figures import plot_run
from helpers.files import only_process, write_text
from helpers.inference import predict
from helpers.inference.predictor import Predictor
from helpers.options import refuse_options, run_parser
from helpers.pipeline import ImdbData
from helpers.runtime import choose_device, describe_machine, keep_freed_memory, refuse_memory_errors


@dataclass(frozen=True)
class Settings:
    """Settings of a run. The defaults are those of the exercise."""

    blocks: int = setting(1, "number of transformer blocks", type=number(int, 1))
    epochs: int = setting(5, "passes over the training reviews", type=number(int, 1))
    lr: float = setting(1e-4, "learning rate of Adam; in the bonus, its peak", type=number(float, 1e-12))
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
SAMPLE = Settings(epochs=20, lr=1e-3, batch_size=16, min_freq=2)  # few reviews need more epochs and larger steps
PRESETS = {"required": REQUIRED, "handout": HANDOUT, "sample": SAMPLE}
COMMANDS = {"evaluate": evaluate.main, "predict": predict.main}


def preset(name):
    """Return the settings of a preset. Raises UserError for a bonus preset if the bonus is missing."""
    return PRESETS[name] if name in PRESETS else Settings(**load_bonus().PRESETS[name])


def set_seed(seed=42):
    """Seed numpy and torch."""
    np.random.seed(seed)
    torch.manual_seed(seed)


def load_imdb_data(settings=REQUIRED, source=None, cache_dir=".cache", seed=42, device="cpu", pipeline=None):
    """Return the data that training needs: an `ImdbData`, which names the eight values of the exercise.

    Args:
        settings: the settings of the run.
        source: the archive or the extracted folder. With None, the archive in `.data`, downloaded if missing.
        cache_dir: folder for cached results.
        seed: seed of all random choices, except the random split of the hand-out, which is always the same.
        device: where the tensors are.
        pipeline: the `pipeline.Pipeline` to fit. With None, a new one is made.
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
    pipeline.data_digest = data_digest(reviews, is_train)
    pipeline.fit(reviews, is_train, vocab, seed, cache_dir)
    train_set = pipeline.train_set(select(reviews, is_train), vocab, device)
    valid_set = pipeline.review_set(select(reviews, is_valid), vocab, device)
    test_set = pipeline.review_set(select(reviews, reviews.test), vocab, device)
    return ImdbData(train_set, valid_set, test_set, pipeline.train_loader(train_set), BucketLoader(valid_set),
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
        if step % 50 == 0 or step == len(loader):  # not at every step: reading the loss waits for the GPU
            mean = evaluate.check_finite(total.item() / count, f"{title}, within the 50 steps up to step {step}")
            bar.set_postfix_str(f"loss {mean:.4f}", refresh=False)
    return mean


def run_epoch(epoch, model, data, optimizer, scheduler):
    """Train for one epoch, validate, and return the metrics of the epoch, a dict. Raises UserError on divergence."""
    started = time.perf_counter()
    train_loss = train_epoch(model, data.train_loader, optimizer, scheduler, f"epoch {epoch}")
    seconds = max(time.perf_counter() - started, 1e-3)  # the clock of a virtual machine may stand still
    valid_logits = predict_logits(model, data.valid_loader, "validation")
    valid = evaluate.compute_metrics(valid_logits, data.valid_set.labels)
    evaluate.check_finite(valid["loss"], f"the validation after epoch {epoch}")
    return {"train_loss": train_loss, "valid_loss": valid["loss"], "valid_accuracy": valid["accuracy"],
            "seconds": seconds, "tokens_per_second": int(data.train_loader.dataset.lengths.sum() / seconds)}


@refuse_memory_errors()
def train(settings, source, folder, cache_dir=".cache", device="auto", seed=42, models=None, resume=False,
          on_epoch=evaluate.print_epoch):
    """Train and test a network, write the results to `folder`, and return the metrics, as in `metrics.json`.

    Args:
        settings, source, cache_dir, seed: as in `load_imdb_data`.
        device: "auto", "cpu" or "cuda".
        models: path of another `models.py`. Its network is trained instead of the one of this project.
        resume: continue the interrupted run in `folder`.
        on_epoch: called after each epoch with the metrics so far. `metrics["epochs"]` has one dict for each epoch.
    """
    started = time.perf_counter()
    folder, device = Path(folder), choose_device(device)
    keep_freed_memory()
    pipeline = make_pipeline(asdict(settings), models)
    data = load_imdb_data(settings, source, cache_dir, seed, device, pipeline)
    metrics = {"data": "SAMPLE" if source == SAMPLE_DIR else "IMDB", "content_digest": expected_digest(source),
               "models": models, "seed": seed, "words": len(data.vocab), "settings": pipeline.settings,
               **describe_machine(device)}
    set_seed(seed)  # again, so that training does not depend on the random numbers of the data step
    model = pipeline.build_model(data.vocab).to(device)
    optimizer = make_optimizer(model, settings.lr)
    scheduler = pipeline.make_scheduler(optimizer, settings.epochs * len(data.train_loader))
    identity = identity_of_run(metrics, device, data.vocab, pipeline.data_digest)
    checkpoint = Checkpoint(folder / "checkpoint.pt", identity, model=model, optimizer=optimizer, scheduler=scheduler)
    metrics["epochs"], seconds_before = checkpoint.start(resume)

    for epoch in range(len(metrics["epochs"]) + 1, settings.epochs + 1):
        metrics["epochs"].append(run_epoch(epoch, model, data, optimizer, scheduler))
        checkpoint.save(metrics["epochs"], seconds_before + time.perf_counter() - started)
        on_epoch(metrics)

    test(Predictor(model, data.vocab, pipeline, metrics["data"]), data, source, folder, metrics)
    metrics |= {"seconds": seconds_before + time.perf_counter() - started, "date": datetime.date.today().isoformat()}
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    plot_run(metrics, folder / "loss.png")
    checkpoint.path.unlink()  # last, because a folder with a checkpoint counts as an interrupted run
    evaluate.print_results(folder, metrics)
    return metrics


def test(predictor, data, source, folder, metrics):
    """Add the test metrics to `metrics`. Store the network in `folder`, unless it comes from another models.py."""
    logits = predict_logits(predictor.model, data.test_loader, "test")
    if metrics["models"]:
        metrics["test"] = evaluate.compute_metrics(logits, data.test_set.labels)
        remove_model(folder)
    else:
        metrics |= store_model(predictor, data, source, logits, folder)


def main(argv=None):
    """Train, or run the command that the first word names."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    args, given = parse_with_settings(run_parser([*PRESETS, *BONUS_PRESETS], COMMANDS), argv, REQUIRED)
    settings = preset(args.preset)  # fails before anything is downloaded if the bonus is missing
    refuse_options(args, settings)
    source = choose_source(args.data_dir, sample=args.preset == "sample")
    if source == SAMPLE_DIR:  # also if IMDB cannot be downloaded
        args.preset, settings = "sample", SAMPLE
    name = f"{Path(args.models).stem}-{args.preset}" if args.models else args.preset
    folder = Path(args.runs_dir, args.name or name)
    with only_process(folder):
        refuse_to_lose(folder, args.resume, args.overwrite)
        train(replace(settings, **given), source, folder, args.cache_dir, args.device, args.seed, args.models,
              args.resume)


if __name__ == "__main__":
    run_command(main)
