"""Train the transformer of `models.py` on the IMDB reviews and report its test accuracy.

    python sentiment_analysis.py                        the required setting: 1 block, 5 epochs, learning rate 1e-4
    python sentiment_analysis.py --preset bonus         n-gram channels beside the word vectors, labels only
    python sentiment_analysis.py --preset bonus-unsup   and the 50,000 unlabelled reviews as well
    python sentiment_analysis.py --sample               a few hundred short reviews, without network
    python sentiment_analysis.py evaluate --run runs/required
    python sentiment_analysis.py predict "A film to fall asleep in."

A run writes `metrics.json`, `loss.png` and `model.pt` to `runs/NAME/`. One that was interrupted goes on after its last
whole epoch when its command is given again with `--resume`. README.md says what accuracy to expect and in what time.
"""

import argparse
import contextlib
import ctypes
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

import checkpoint
import features
import imdb
import predict
from checkpoint import build_model, save_model
from files import Parser, Unreachable, UserError, number, only_process, run_command, whole_file, write_text
from predict import autocast, predict_logits

SAMPLE_DIR = Path(__file__).parent / "sample_reviews"
REQUIRED = dict(name="required", blocks=1, epochs=5, lr=1e-4, batch_size=32, max_len=500, dropout=0.1, freeze=False,
                min_freq=10, glove_dim=50, valid_share=0.2, schedule="constant", input_dropout=0.0, both_ends=False,
                ngrams=None)
BONUS = REQUIRED | dict(name="bonus", epochs=3, lr=1e-3, max_len=400, dropout=0.3, valid_share=0.05,
                        schedule="one-cycle", input_dropout=0.6, both_ends=True, ngrams="labels")
PRESETS = {"required": REQUIRED, "bonus": BONUS, "bonus-unsup": BONUS | dict(name="bonus-unsup", ngrams="unsup")}
# A few dozen steps at 1e-4 teach nothing, and few words stand ten times in a few hundred short reviews.
SAMPLE = REQUIRED | dict(name="sample", epochs=20, lr=1e-3, batch_size=16, min_freq=2)
MIN_REVIEWS = {"labels": 2, "unsup": 4}  # that must hold an n-gram: what `model.pt` has room for


def keep_freed_memory():
    """Let glibc keep freed memory: each training step needs the same blocks, and fresh ones from the system cost time.

    A quarter of a step's time on one core. Elsewhere than on Linux nothing is changed.
    """
    with contextlib.suppress(AttributeError, OSError):
        set_option = ctypes.CDLL("libc.so.6").mallopt
        set_option(-3, 1 << 30)  # M_MMAP_THRESHOLD, bytes: smaller blocks come from the heap ...
        set_option(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD, bytes: ... which is not given back


def set_seed(seed=42):
    """np.random.seed(42) and torch.manual_seed(42), or another seed."""
    np.random.seed(seed)
    torch.manual_seed(seed)


def load_imdb_data(source=None, cache_dir=".cache", glove_dim=50, min_freq=10, max_len=500, batch_size=32, seed=42,
                   device="cpu", valid_share=0.2, both_ends=False, ngrams=None):
    """Everything that training needs, as the exercise's skeleton has it.

    Args:
        source: the archive or the extracted folder; None stands for `.data`, to which the archive is downloaded.
        ngrams: None, or the source of n-gram channels: "labels", or "unsup" for the unlabelled reviews as well.

    Returns:
        train_set, valid_set, test_set (`imdb.ReviewSet`), train_loader, valid_loader, test_loader (iterate over ids
        (B, T), channels (B, T, C) if there are any, and float labels (B,)), vocab (with `.vectors`), pad_id.
    """
    set_seed(seed)
    source = Path(source or imdb.find_source(".data"))
    mark, expected_digest = ("SAMPLE ", None) if source == SAMPLE_DIR else ("", imdb.CONTENT_SHA256)
    reviews = imdb.load_reviews(source, cache_dir, unsup=ngrams == "unsup", expected_digest=expected_digest)
    is_train = ~reviews.test & (reviews.labels >= 0)
    is_valid = np.zeros_like(is_train)
    is_valid[is_train] = imdb.split_by_movie(reviews.movies[is_train], valid_share)
    is_train &= ~is_valid
    vocab = imdb.build_vocab(reviews, is_train, min_freq=min_freq)
    covered = imdb.add_glove(vocab, glove_dim, cache_dir)
    print(f"{mark}{is_train.sum():,} reviews to train on, {is_valid.sum():,} of other films to validate, "
          f"{reviews.test.sum():,} to test; {len(vocab):,} words, {covered:.1%} of them in GloVe")
    channels, table = None, None
    if ngrams:
        channels, table = features.load_channels(reviews, is_train, MIN_REVIEWS[ngrams], seed, cache_dir)
        print(f"{mark}{channels.shape[1]} channels of {sum(map(len, table.keys)):,} n-grams"
              + f", {(reviews.labels < 0).sum():,} unlabelled reviews among their sources" * (ngrams == "unsup"))
    sets = train_set, valid_set, test_set = [
        imdb.ReviewSet(reviews, chosen, vocab, max_len, device, both_ends, channels)
        for chosen in (is_train, is_valid, reviews.test)]
    test_set.known = imdb.is_known(reviews)[reviews.test]
    train_set.table = table
    train_loader = imdb.BucketLoader(train_set, batch_size, shuffle=True)
    valid_loader, test_loader = (imdb.BucketLoader(part, batch_size) for part in sets[1:])
    return *sets, train_loader, valid_loader, test_loader, vocab, vocab.stoi["<pad>"]


def make_optimizer(model, settings, batches, device):
    """Adam, the schedule of its learning rate over `settings["epochs"]` of so many `batches`, and the loss scaler."""
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=settings["lr"], fused=True)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    if settings["schedule"] == "one-cycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"],
                                                        total_steps=settings["epochs"] * batches)
    return optimizer, scheduler, torch.amp.GradScaler(device.type, enabled=device.type == "cuda")


def train_epoch(model, loader, optimizer, scheduler, scaler, device, title):
    """One pass over the training reviews; returns the mean loss."""
    model.train()
    total, count = 0.0, 0
    bar = tqdm(loader, desc=title, unit=" batches", leave=False)
    for step, (*inputs, labels) in enumerate(bar, 1):
        with autocast(device):
            loss = F.binary_cross_entropy_with_logits(model(*inputs).squeeze(1), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        value = loss.item()
        if not np.isfinite(value):
            bar.close()
            raise diverged(value, f"{title}, step {step}")
        total, count = total + value * len(labels), count + len(labels)
        bar.set_postfix_str(f"loss {total / count:.4f}", refresh=False)
    return total / count


def run_epoch(epoch, model, optimizer, scheduler, scaler, train_loader, valid_loader, device):
    """Train for one epoch and validate; returns the epoch's part of the metrics."""
    started = time.time()
    train_loss = train_epoch(model, train_loader, optimizer, scheduler, scaler, device, f"epoch {epoch}")
    seconds = time.time() - started
    valid = figures(predict_logits(model, valid_loader, device, "validation"), valid_loader.dataset.labels)
    if not np.isfinite(valid["loss"]):
        raise diverged(valid["loss"], f"the validation after epoch {epoch}")
    return {"train_loss": train_loss, "valid_loss": valid["loss"], "valid_accuracy": valid["accuracy"],
            "seconds": seconds, "tokens_per_second": int(train_loader.dataset.lengths.sum() / seconds)}


def diverged(loss, place):
    """The error with which a loss that is not a finite number ends a run."""
    return UserError(f"the loss became {loss} in {place}; a smaller --lr is the likely cure.")


def figures(logits, labels):
    """Loss, accuracy and confusion matrix (rows: true negative, positive; columns: predicted)."""
    loss = F.binary_cross_entropy_with_logits(logits, labels).item()
    confusion = torch.bincount(2 * labels.long() + (logits > 0), minlength=4).reshape(2, 2)
    return {"loss": loss, "accuracy": confusion.trace().item() / len(labels), "confusion": confusion.tolist()}


def test(model, loader, device):
    """`figures` on the test reviews, and the accuracy without those that are among the reviews to train on."""
    logits, labels = predict_logits(model, loader, device, "test"), loader.dataset.labels
    new = torch.from_numpy(~loader.dataset.known).to(logits.device)
    return figures(logits, labels) | {"known_reviews": int((~new).sum()),
                                      "accuracy_without_known": figures(logits[new], labels[new])["accuracy"]}


def train(args):
    """The whole job: data, training, plot, test; everything goes to `runs/NAME/`."""
    started = time.time()
    keep_freed_memory()
    source, is_sample = choose_source(args)
    device = choose_device(args.device)
    folder = Path(args.runs_dir, args.name)
    mark = "SAMPLE " if is_sample else ""
    settings = {name: getattr(args, name) for name in REQUIRED if name != "name"}
    train_set, _, _, train_loader, valid_loader, test_loader, vocab, _ = load_imdb_data(
        source, args.cache_dir, args.glove_dim, args.min_freq, args.max_len, args.batch_size, args.seed, device,
        args.valid_share, args.both_ends, args.ngrams)
    set_seed(args.seed)  # again, so that training does not depend on what the data step drew
    settings["channels"] = train_set.channels.shape[1] if args.ngrams else 0
    model = build_model(vocab, settings).to(device)
    optimizer, scheduler, scaler = make_optimizer(model, settings, len(train_loader), device)
    metrics = {"data": "SAMPLE" if is_sample else "IMDB", "seed": args.seed, "settings": settings,
               "content_digest": None if is_sample else imdb.CONTENT_SHA256,
               "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU",
               "threads": torch.get_num_threads(),
               "versions": {name: version(name) for name in ("torch", "torchtext", "spacy", "numpy")} | {
                   "python": platform.python_version()},
               "words": len(vocab), "epochs": []}
    print(f"{mark}{args.blocks} block(s), {args.epochs} epochs, learning rate {args.lr:g}, batches of "
          f"{args.batch_size}, at most {args.max_len} tokens, seed {args.seed}, {metrics['device']}")

    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    identity = checkpoint.run_identity(settings, args.seed, device, train_set, vocab)
    with only_process(folder):
        if args.resume:
            metrics["epochs"], spent = resume(folder, identity, parts, mark)
            started -= spent
        elif (folder / "checkpoint.pt").exists():
            print(f"{mark}starting anew, though {folder} holds an interrupted run: --resume goes on with that one")
        for epoch in range(len(metrics["epochs"]) + 1, args.epochs + 1):
            result = run_epoch(epoch, **parts, train_loader=train_loader, valid_loader=valid_loader, device=device)
            metrics["epochs"].append(result)
            checkpoint.save_checkpoint(folder / "checkpoint.pt", identity, parts,
                                       [metrics["epochs"], time.time() - started])
            print(f"{mark}epoch {epoch:2d}  train loss {result['train_loss']:.4f}  "
                  f"valid loss {result['valid_loss']:.4f}  valid accuracy {result['valid_accuracy']:.2%}  "
                  f"{result['seconds']:6.1f} s  {result['tokens_per_second']:9,} tokens/s")
        metrics["test"] = test(model, test_loader, device)
        metrics["seconds"] = time.time() - started
        save_model(folder / "model.pt", model, vocab, train_set.table, metrics)
        plot_losses(metrics, folder / "loss.png")
        write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        (folder / "checkpoint.pt").unlink()
    print_test(metrics["test"], mark)
    print(f"{mark}{metrics['seconds']:.0f} s in all; {folder} holds metrics.json, loss.png and model.pt")


def resume(folder, identity, parts, mark):
    """Set the parts to where an interrupted run left them; returns its epochs so far and the seconds they took."""
    try:
        epochs, seconds = checkpoint.load_checkpoint(folder / "checkpoint.pt", identity, parts)
    except FileNotFoundError:
        print(f"{mark}no interrupted run in {folder}; starting anew")
        return [], 0
    print(f"{mark}going on after epoch {len(epochs)}")
    return epochs, seconds


def print_test(test, mark):
    """The test figures in two lines."""
    (negative, false_positive), (false_negative, positive) = test["confusion"]
    print(f"{mark}test loss {test['loss']:.4f}  test accuracy {test['accuracy']:.2%}  "
          f"({test['accuracy_without_known']:.2%} without the {test['known_reviews']} that were trained on as well)")
    print(f"{mark}negative reviews: {negative:,} right, {false_positive:,} wrong; "
          f"positive reviews: {positive:,} right, {false_negative:,} wrong")


def evaluate_run(args):
    """Print the test figures of a finished run once more."""
    judge = predict.Judge(Path(args.run, "model.pt"), choose_device(args.device))
    is_sample = judge.data == "SAMPLE"
    mark, digest = ("SAMPLE ", None) if is_sample else ("", imdb.CONTENT_SHA256)
    source = SAMPLE_DIR if is_sample else imdb.find_source(args.data_dir or ".data")
    reviews = imdb.load_reviews(source, args.cache_dir, judge.settings["ngrams"] == "unsup", digest)
    test_set = judge.review_set(imdb.keep(reviews, reviews.test))
    test_set.known = imdb.is_known(reviews)[reviews.test]
    loader = imdb.BucketLoader(test_set, judge.settings["batch_size"])
    print_test(test(judge.model, loader, judge.device), mark)


def plot_losses(metrics, path):
    """Training and validation loss per epoch as a picture."""
    import matplotlib.pyplot as plt  # here, because it takes half a second, and only training needs it
    from matplotlib.ticker import MaxNLocator

    epochs = range(1, len(metrics["epochs"]) + 1)
    figure, axes = plt.subplots(figsize=(6, 3.75), layout="constrained")
    axes.plot(epochs, [epoch["train_loss"] for epoch in metrics["epochs"]], "o-", label="training")
    axes.plot(epochs, [epoch["valid_loss"] for epoch in metrics["epochs"]], "s--", label="validation")
    axes.set(xlabel="epoch", ylabel="binary cross-entropy",
             title=f"{metrics['data']}: test accuracy {metrics['test']['accuracy']:.2%}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=200)
    plt.close(figure)


def choose_source(args):
    """The reviews to train on, and whether they are the sample: it serves when IMDB can not be had."""
    if args.sample:
        if not SAMPLE_DIR.is_dir():  # as where the exercise's zip was unpacked
            raise UserError(f"{SAMPLE_DIR.name}/ is not beside the program; copy it there from the repository.")
        return SAMPLE_DIR, True
    try:
        return imdb.find_source(args.data_dir or ".data"), False
    except Unreachable as error:
        if args.data_dir or not SAMPLE_DIR.is_dir():
            raise
        print(f"{error}\nGoing on with the SAMPLE of {SAMPLE_DIR.name}/: its figures say nothing about IMDB.")
        vars(args).update(vars(parse_args([*args.argv, "--sample"])))
        return SAMPLE_DIR, True


def choose_device(name):
    """The torch device of that name; "auto" takes CUDA when there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; leave --device out, or choose a machine with a GPU.")
    return torch.device(name)


def positive(kind):
    """An argparse type: a number of that kind above 0."""
    def convert(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value
    convert.__name__ = f"positive {kind.__name__}"
    return convert


def parse_args(argv=None):
    """Options of the command line; a given option comes before what `--preset` or `--sample` stand for."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    common = Parser(add_help=False)
    common.add_argument("--data-dir", help=f"folder with {imdb.ARCHIVE} or aclImdb/ (if not given: .data, to which the "
                        "archive is downloaded)")
    common.add_argument("--cache-dir", default=".cache", help="folder for what need not be computed twice")
    common.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where the network runs")

    parser = Parser(description=__doc__.partition("\n")[0], formatter_class=formatter, parents=[common])
    parser.add_argument("--sample", action="store_true", help="train on the small sample_reviews/ instead of IMDB")
    parser.add_argument("--preset", choices=PRESETS, default="required", help="settings to start from")
    parser.add_argument("--blocks", type=positive(int), help="transformer blocks")
    parser.add_argument("--epochs", type=positive(int), help="passes over the training reviews")
    parser.add_argument("--lr", type=positive(float), help="Adam's learning rate")
    parser.add_argument("--batch-size", type=positive(int), help="reviews in a batch")
    parser.add_argument("--max-len", type=positive(int), help="tokens of a review that are read")
    parser.add_argument("--dropout", type=number(float, 0, 1), help="dropout after the attention")
    parser.add_argument("--freeze", action="store_true", help="keep GloVe's vectors as they are")
    parser.add_argument("--min-freq", type=positive(int), help="how often a word must occur to be in the vocabulary")
    parser.add_argument("--glove-dim", type=int, choices=imdb.GLOVE_DIMS, help="features of a word vector")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=42, help="seed of numpy and torch")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run of that name stopped")
    parser.add_argument("--runs-dir", default="runs", help="folder for the results of runs")
    parser.add_argument("--name", help="name of the run: its results go to RUNS_DIR/NAME")
    parser.set_defaults(command=train, **REQUIRED)
    commands = parser.add_subparsers(title="other commands")
    command = commands.add_parser("evaluate", parents=[common], formatter_class=formatter,
                                  help="print the test figures of a finished run")
    command.add_argument("--run", required=True, help="folder of the run")
    command.set_defaults(command=evaluate_run)
    command = commands.add_parser("predict", help="judge texts: positive or negative, and how probable that is")
    command.add_argument("texts", nargs="*", metavar="TEXT", help="a review in quotes; after -- it may begin with a "
                         "dash (if there is none: each line of standard input)")
    command.add_argument("--file", help="judge each line of this file")
    command.add_argument("--model", default=predict.MODEL, help="the model.pt of a run (if not given: that of "
                         f"{predict.MODEL.parent.relative_to(Path(predict.__file__).parent)}/)")
    command.add_argument("--json", action="store_true", help="one JSON object a line: text, label, probability")
    command.add_argument("--explain", action="append", metavar="FILE", help="show in FILE.png or FILE.html how much "
                         "each word of one text moved the result; may be given twice")
    command.set_defaults(command=predict.run)

    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    if args.command is train:
        parser.set_defaults(argv=argv, **(SAMPLE if args.sample else PRESETS[args.preset]))
    return parser.parse_args(argv)


def main():
    args = parse_args()
    args.command(args)


if __name__ == "__main__":
    run_command(main)
