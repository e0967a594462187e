"""The command `predict`: classify texts with a trained network.

    python sentiment_analysis.py predict "A film to fall asleep in."
    python sentiment_analysis.py predict --file reviews.csv --out answers.csv
    python sentiment_analysis.py predict --explain why.png "A film to fall asleep in."

Needs a `model.pt` and nothing else, neither data nor network. A text is treated as the reviews are in training: the
same plain form and tokens, the same cut, the same n-gram channels.
"""

if __name__ == "__main__":
    raise SystemExit("error: this file is not run; the command is: python sentiment_analysis.py predict")

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cli import Parser, UserError, note
from helpers.predictor import MODEL, Predictor, as_reviews, classify
from helpers.tables import SEPARATORS, choose_columns, read_labels, read_table, write_table
from helpers.tokens import plain_text

LONGEST_WORD = 1000  # characters; spaCy's time grows with the square of a word's length
SHOWN = 60  # characters of a text that are printed beside its label
SURE = 0.55  # probability below which it is hard to say what a text is
LEAST_KNOWN = 0.5  # share of a text's words in the vocabulary, below which its answer comes with a note


def check(number, text):
    """Raise UserError for what is not a text: nothing, bytes, or a word that would keep spaCy busy for hours."""
    needed = "a film review in English is needed."
    if "\0" in text or not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"text {number} is not text but bytes; {needed}")
    longest = max(map(len, text.split()), default=0)
    if not longest:
        raise UserError(f"text {number} is empty; {needed}")
    if longest > LONGEST_WORD:
        raise UserError(f"text {number} holds {longest:,} characters without a space; {needed}")


def known_shares(predictor, reviews):
    """Return the share of each text's words (tokens with a letter) that the vocabulary has; 0 without any word."""
    stoi = predictor.vocab.stoi
    is_word = np.array([any(map(str.isalpha, word)) for word in reviews.words])
    is_known = is_word & np.array([stoi[word] != stoi["<unk>"] for word in reviews.words])
    known, words = (np.add.reduceat(kind[reviews.tokens], reviews.starts[:-1], dtype=float)
                    for kind in (is_known, is_word))
    return known / np.maximum(words, 1)


def find_notes(predictor, reviews, known):
    """Return what a reader should know about the answers: list of (message, (texts) bool)."""
    max_len = predictor.settings["max_len"]
    part = f"first {max_len}"
    if predictor.settings["both_ends"]:
        part = f"first {max_len // 2} and last {max_len - max_len // 2}"
    part += " tokens, and the n-grams of all," if predictor.table else " tokens"
    return [(f"only the {part} were read", np.diff(reviews.starts) > max_len),
            ("the network knows less than half of the words", known < LEAST_KNOWN)]


def shorten(text):
    """Return the beginning of a text in one line that the terminal can show."""
    start = " ".join("".join(c if c.isprintable() else " " for c in text[:10 * SHOWN]).split())
    return start if len(start) <= SHOWN and len(text) <= 10 * SHOWN else start[:SHOWN - 1] + "…"


def parse_args(argv):
    """Return the options of the command line."""
    parser = Parser(prog="sentiment_analysis.py predict",
                    description="Classify texts: positive or negative, and with what probability.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a review in quotes; after -- it may begin with a "
                        "dash (without any, each line of standard input is one)")
    parser.add_argument("--file", help="classify each line of this file, or each row of a table (.csv, .tsv)")
    parser.add_argument("--column", help="of the table that has the texts (default: review, text, or the only one)")
    parser.add_argument("--out", metavar="FILE", help="write a table (.csv, .tsv) with label and probability added, "
                        "instead of printing them")
    parser.add_argument("--model", default=MODEL, help="the model.pt of a run (default: the network that comes "
                        "with the project)")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line: text, label, probability, "
                        f"sure (whether that is at least {SURE:.0%}%), known (share of its words in the vocabulary), "
                        "and a note where one is due")
    parser.add_argument("--explain", action="append", metavar="FILE", help="show in FILE.png or FILE.html how much "
                        "each word of one text moved the result; may be given twice")
    args = parser.parse_args(argv)
    if args.texts and args.file:
        raise UserError("there are texts and a --file; give one or the other.")
    if args.explain and any(Path(path).suffix.lower() not in (".png", ".html") for path in args.explain):
        raise UserError("--explain writes a picture, NAME.png, or a page, NAME.html; give one of these names.")
    if args.out and args.json:
        raise UserError("--out writes a table and --json prints; give one or the other.")
    if args.out and Path(args.out).suffix.lower() not in SEPARATORS:
        raise UserError("--out writes a table, NAME.csv or NAME.tsv; give one of these names.")
    return args


def main(argv):
    args = parse_args(argv)
    table = read_table(args.file, args.texts)
    column, label_column = choose_columns(table, args.column)
    plain = pd.Series([" ".join(plain_text(text).split()) for text in table[column]], table.index, dtype=object)
    if not args.texts:
        blank = plain == ""
        if blank.any() and not blank.all():
            note(f"{blank.sum()} blank texts were left out")
        plain = plain[~blank]
    if plain.empty:
        raise UserError("there is no text to classify.")
    for number, text in plain.items():
        check(number, text)
    if args.explain and len(plain) > 1:
        raise UserError(f"--explain takes one text, not {len(plain)}; put it in quotes.")

    predictor = Predictor.load(args.model)
    place, distinct = pd.factorize(plain)  # each text is answered once, in whatever ways it is written
    reviews = as_reviews(distinct)
    known = known_shares(predictor, reviews)
    notes = [(message, concerned[place]) for message, concerned in find_notes(predictor, reviews, known)]
    if predictor.data == "SAMPLE":
        note("the network was trained on the SAMPLE and has a small vocabulary")
    for message, concerned in notes:
        numbers = list(map(str, plain.index[concerned]))
        if numbers:
            shown = numbers if len(numbers) <= 10 else [*numbers[:10], "…"]
            note(f"{message}: text {', '.join(shown)}")

    logits = predictor.logits(reviews)[place]
    answers = pd.DataFrame(map(classify, logits), plain.index, ["label", "probability"])
    if args.out:
        write_table(args.out, table, answers)
    else:
        for i, (number, label, probability) in enumerate(answers.itertuples()):
            text = table.at[number, column]
            answer = {"text": text, "label": label, "probability": probability, "sure": probability >= SURE,
                      "known": known[place[i]]}
            messages = [message for message, concerned in notes if concerned[i]]
            if messages:
                answer["note"] = "; ".join(messages)
            doubt = "" if answer["sure"] else "hard to say: "
            print(json.dumps(answer) if args.json else f"{label}  {probability:6.1%}  {doubt}{shorten(text)}")
    if label_column:
        truth = read_labels(table.loc[plain.index, label_column]).dropna()
        accuracy = ((answers["label"] == "positive")[truth.index] == truth).mean()
        print(f"accuracy {accuracy:.2%} by the {len(truth):,} labels in the column {label_column}",
              file=sys.stderr if args.json else sys.stdout)
    if args.explain:
        from helpers.explain import write_explanations  # here, because matplotlib takes half a second

        write_explanations(predictor, reviews, args.explain)
