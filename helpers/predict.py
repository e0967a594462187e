"""The command `predict`: classify texts with a trained network.

    python sentiment_analysis.py predict "A film to fall asleep in."
    python sentiment_analysis.py predict --file reviews.txt --json
    python sentiment_analysis.py predict --explain why.png "A film to fall asleep in."

Needs a `model.pt` and nothing else, neither data nor network. A text is treated as the reviews are in training: the
same tokens, the same cut, the same n-gram channels.
"""

import json
import sys
from pathlib import Path

import numpy as np

from helpers.cli import Parser, UserError
from helpers.predictor import MODEL, Predictor, as_reviews, classify

LARGEST_INPUT = 100_000_000  # bytes; the 25,000 test reviews have a third of that
LONGEST_WORD = 1000  # characters; spaCy's time grows with the square of a word's length
SHOWN = 60  # characters of a text that are printed beside its label


def read_texts(texts, path):
    """Return the texts of the command line, of a file, or of standard input: list of (number of text or line, text)."""
    if texts and path:
        raise UserError("there are texts and a --file; give one or the other.")
    if texts:
        numbered = list(enumerate(texts, 1))
    else:
        if not path and (sys.stdin is None or sys.stdin.isatty()):
            raise UserError('there is no text; give one in quotes: predict "A fine film.", or a file: --file FILE.')
        with open(path, "rb") if path else sys.stdin.buffer as file:
            content = file.read(LARGEST_INPUT + 1)
        if len(content) > LARGEST_INPUT:
            raise UserError(f"there are more than {LARGEST_INPUT:,} bytes to read; split them.")
        try:
            lines = content.decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise UserError(f"line {line} is not UTF-8 text; one review a line is needed.") from error
        numbered = [(number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip()]
        blank = len(lines) - (not lines[-1]) - len(numbered)
        if blank and numbered:
            print(f"note: {blank} blank lines were left out", file=sys.stderr)
    if not numbered:
        raise UserError("there is no text to classify.")
    for number, text in numbered:
        check(number, text)
    return numbered


def check(number, text):
    """Raise UserError for what is not a text: nothing, bytes, or a word that would keep spaCy busy for hours."""
    needed = "a film review in English is needed."
    longest = max(map(len, text.replace("<br />", " ").split()), default=0)
    if not longest:
        raise UserError(f"text {number} is empty; {needed}")
    if "\0" in text or not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"text {number} is not text but bytes; {needed}")
    if longest > LONGEST_WORD:
        raise UserError(f"text {number} holds {longest:,} characters without a space; {needed}")


def shorten(text):
    """Return the beginning of a text in one line that the terminal can show."""
    start = " ".join("".join(c if c.isprintable() else " " for c in text[:10 * SHOWN]).split())
    short = start if len(start) <= SHOWN and len(text) <= 10 * SHOWN else start[:SHOWN - 1] + "…"
    encoding = sys.stdout.encoding or "utf-8"
    return short.encode(encoding, "replace").decode(encoding)


def print_notes(predictor, numbers, reviews):
    """Print to standard error what a reader should know about the answers."""
    def note(which, message):
        if len(which):
            first_ten = ", ".join(map(str, which[:10])) + (", …" if len(which) > 10 else "")
            print(f"note: {message}: text {first_ten}", file=sys.stderr)

    max_len, numbers = predictor.settings["max_len"], np.array(numbers)
    if predictor.data == "SAMPLE":
        print("note: the network was trained on the SAMPLE and has a small vocabulary", file=sys.stderr)
    part = f"first {max_len}"
    if predictor.settings["both_ends"]:
        part = f"first {max_len // 2} and last {max_len - max_len // 2}"
    part += " tokens, and the n-grams of all," if predictor.table else " tokens"
    note(numbers[np.diff(reviews.starts) > max_len], f"only the {part} were read")
    stoi = predictor.vocab.stoi
    in_vocab = np.array([stoi[word] != stoi["<unk>"] for word in reviews.words])[reviews.tokens]
    note(numbers[np.add.reduceat(in_vocab, reviews.starts[:-1]) == 0], "no word is in the vocabulary")


def main(argv):
    parser = Parser(prog="sentiment_analysis.py predict",
                    description="Classify texts: positive or negative, and with what probability.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a review in quotes; after -- it may begin with a "
                        "dash (without any, each line of standard input is one)")
    parser.add_argument("--file", help="classify each line of this file")
    parser.add_argument("--model", default=MODEL, help="the model.pt of a run (default: the bonus network that comes "
                        "with the project)")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line: text, label, probability")
    parser.add_argument("--explain", action="append", metavar="FILE", help="show in FILE.png or FILE.html how much "
                        "each word of one text moved the result; may be given twice")
    args = parser.parse_args(argv)
    if args.explain and any(Path(path).suffix not in (".png", ".html") for path in args.explain):
        raise UserError("--explain writes a picture, NAME.png, or a page, NAME.html; give one of these names.")
    numbers, texts = zip(*read_texts(args.texts, args.file), strict=True)
    if args.explain and len(texts) > 1:
        raise UserError(f"--explain takes one text, not {len(texts)}; put it in quotes.")
    predictor = Predictor(args.model)
    reviews = as_reviews(texts)
    print_notes(predictor, numbers, reviews)
    for text, logit in zip(texts, predictor.logits(reviews), strict=True):
        label, probability = classify(logit)
        if args.json:
            print(json.dumps({"text": text, "label": label, "probability": probability}))
        else:
            print(f"{label}  {probability:6.1%}  {shorten(text)}")
    if args.explain:
        from helpers.explain import write_explanations  # here, because matplotlib takes half a second

        write_explanations(predictor, reviews, args.explain)
