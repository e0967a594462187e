"""What a trained network makes of any text: positive or negative, and with what probability.

    python sentiment_analysis.py predict "A film to fall asleep in."
    python sentiment_analysis.py predict --file reviews.txt --json
    python sentiment_analysis.py predict --explain why.png "A film to fall asleep in."

Needs a `model.pt` and nothing else, neither data nor network. A text goes the way of the reviews in training: the same
tokens, the same cut, the same n-gram channels.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import imdb
from checkpoint import load_model
from files import UserError

MODEL = Path(__file__).parent / "pretrained" / "sentiment" / "model.pt"
CPU = torch.device("cpu")
LARGEST_INPUT = 100_000_000  # bytes; the 25,000 test reviews have a third of that
LONGEST_WORD = 1000  # characters; spaCy's time grows with the square of a word's length
SHOWN = 60  # characters of a text that are printed beside its label


def autocast(device):
    """Half precision on CUDA (bfloat16 where the GPU has it), float32 on the CPU."""
    half = torch.float16
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        half = torch.bfloat16
    return torch.autocast(device.type, half if device.type == "cuda" else torch.bfloat16, device.type == "cuda")


@torch.no_grad()
def predict_logits(model, loader, device, title):
    """The logit of each review of a loader that does not shuffle, in the order of its set."""
    model.eval()
    logits = []
    for *inputs, _ in tqdm(loader, desc=title, unit=" batches", leave=False, delay=1):
        with autocast(device):
            logits.append(model(*inputs).squeeze(1).float())
    logits = torch.cat(logits)
    return torch.empty_like(logits).scatter_(0, torch.from_numpy(loader.order).to(logits.device), logits)


class Judge:
    """A trained network and all that it needs to judge texts."""

    def __init__(self, path=MODEL, device=CPU):
        self.device = device
        self.model, self.vocab, self.table, self.settings, self.data = load_model(path, device)

    def review_set(self, reviews):
        """An `imdb.Reviews` as the network reads it, an `imdb.ReviewSet`."""
        channels = self.table.channels(self.table.ids(reviews), reviews.starts) if self.table else None
        return imdb.ReviewSet(reviews, np.ones(len(reviews.labels), bool), self.vocab, self.settings["max_len"],
                              self.device, self.settings["both_ends"], channels)

    def logits(self, reviews):
        """The logit of each of an `imdb.Reviews`: (reviews), above 0 for a positive one."""
        loader = imdb.BucketLoader(self.review_set(reviews), batch_size=64)
        return predict_logits(self.model, loader, self.device, "predicting")


def as_reviews(words, tokens, starts):
    """Tokens as `imdb.tokenize` gives them, as an `imdb.Reviews` whose labels, films and parts mean nothing."""
    nothing = np.zeros(len(starts) - 1, np.int64)
    return imdb.Reviews(words, tokens, starts, labels=nothing, movies=nothing, test=nothing.astype(bool), digest="")


def verdict(logit):
    """The label that a logit stands for, and its probability, from 0.5 to 1."""
    return "positive" if logit > 0 else "negative", torch.sigmoid(logit.abs()).item()


def read_texts(args):
    """The texts of the command line, of the file, or of standard input: list of (number or line number, text)."""
    if args.texts and args.file:
        raise UserError("there are texts and a --file; give one or the other.")
    if args.texts:
        texts = list(enumerate(args.texts, 1))
    else:
        if not args.file and (sys.stdin is None or sys.stdin.isatty()):
            raise UserError('there is no text; give one in quotes: predict "A fine film.", or a file: --file FILE.')
        with open(args.file, "rb") if args.file else sys.stdin.buffer as file:
            content = file.read(LARGEST_INPUT + 1)
        if len(content) > LARGEST_INPUT:
            raise UserError(f"there are more than {LARGEST_INPUT:,} bytes to read; split them.")
        try:
            lines = content.decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise UserError(f"line {line} is not UTF-8 text; one review a line is needed.") from error
        texts = [(number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip()]
        blank = len(lines) - (not lines[-1]) - len(texts)
        if blank and texts:
            print(f"note: {blank} blank lines were left out", file=sys.stderr)
    if not texts:
        raise UserError("there is no text to judge.")
    for number, text in texts:
        check(number, text)
    return texts


def check(number, text):
    """Refuse what is no text at all: nothing, bytes, or a word that would keep spaCy busy for hours."""
    needed = "a film review in English is needed."
    longest = max(map(len, text.replace("<br />", " ").split()), default=0)
    if not longest:
        raise UserError(f"text {number} is empty; {needed}")
    if "\0" in text or not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"text {number} is not text but bytes; {needed}")
    if longest > LONGEST_WORD:
        raise UserError(f"text {number} holds {longest:,} characters without a space; {needed}")


def shorten(text):
    """The beginning of a text in one line that the terminal can show."""
    start = " ".join("".join(c if c.isprintable() else " " for c in text[:10 * SHOWN]).split())
    short = start if len(start) <= SHOWN and len(text) <= 10 * SHOWN else start[:SHOWN - 1] + "…"
    encoding = sys.stdout.encoding or "utf-8"
    return short.encode(encoding, "replace").decode(encoding)


def notes(judge, numbers, reviews):
    """What a reader should know about the answers, said on standard error."""
    def say(which, what):
        if len(which):
            few = ", ".join(map(str, which[:10])) + ", …" * (len(which) > 10)
            print(f"note: {what}: text {few}", file=sys.stderr)

    max_len, numbers = judge.settings["max_len"], np.array(numbers)
    if judge.data == "SAMPLE":
        print("note: the network was trained on the SAMPLE and knows few words", file=sys.stderr)
    part = f"first {max_len}"
    if judge.settings["both_ends"]:
        part = f"first {max_len // 2} and last {max_len - max_len // 2}"
    part += " tokens, and the n-grams of all," if judge.table else " tokens"
    say(numbers[np.diff(reviews.starts) > max_len], f"only the {part} were read")
    ids = judge.vocab.stoi
    known = np.array([ids[word] != ids["<unk>"] for word in reviews.words])[reviews.tokens]
    say(numbers[np.add.reduceat(known, reviews.starts[:-1]) == 0], "the network knows none of the words")


def run(args):
    """The command `predict`."""
    if args.explain and any(Path(path).suffix not in (".png", ".html") for path in args.explain):
        raise UserError("--explain writes a picture, NAME.png, or a page, NAME.html; give one of these names.")
    numbers, texts = zip(*read_texts(args), strict=True)
    if args.explain and len(texts) > 1:
        raise UserError(f"--explain takes one text, not {len(texts)}; put it in quotes.")
    judge = Judge(args.model)
    reviews = as_reviews(*imdb.tokenize(texts))
    notes(judge, numbers, reviews)
    logits = judge.logits(reviews)
    for text, logit in zip(texts, logits, strict=True):
        label, probability = verdict(logit)
        if args.json:
            print(json.dumps({"text": text, "label": label, "probability": probability}))
        else:
            print(f"{label}  {probability:6.1%}  {shorten(text)}")
    if args.explain:
        import explain  # here, because matplotlib takes half a second
        explain.write(judge, reviews, args.explain)
