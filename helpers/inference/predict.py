"""The command `predict`: classify texts with a trained network.

    python sentiment_analysis.py predict "A film to fall asleep in."
    python sentiment_analysis.py predict --file reviews.csv --out answers.csv
    python sentiment_analysis.py predict --explain why.html "A film to fall asleep in."

It needs only a `model.pt`. Texts get the same plain form, tokens and inputs as the reviews in training.
"""

if __name__ == "__main__":
    raise SystemExit("error: this file is not a script; run python sentiment_analysis.py predict")

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cli import Parser, UserError, note
from helpers.data.text import plain_text
from helpers.inference.explain import write_explanation
from helpers.inference.predictor import Predictor, as_reviews, classify
from helpers.inference.tables import SEPARATORS, choose_columns, read_labels, read_table, write_table

LONGEST_WORD = 1000  # characters; spaCy's time grows with the square of a word's length
SHOWN = 60  # characters of a text that are printed after its label
SURE = 0.55  # a lower probability is printed with the words "hard to say"
LEAST_KNOWN = 0.5  # share of a text's words in the vocabulary; a lower share causes a note
BINARY = re.compile("[\0\ud800-\udfff]")  # Python decodes bytes that are not UTF-8 as U+D800 to U+DFFF
ADVICE = "give a film review in English."


def parse_args(argv):
    """Return the options of the command line."""
    parser = Parser(prog="sentiment_analysis.py predict",
                    description="Predict whether a film review is positive or negative, and the probability.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a review in quotes; put -- first if it starts with "
                        "a dash; without TEXT, lines are read from standard input")
    parser.add_argument("--file", help="classify each line of this file, or each row of a table (.csv, .tsv)")
    parser.add_argument("--column", help="column of the table with the texts (default: review, text, or the only "
                        "column with texts)")
    parser.add_argument("--out", metavar="FILE", help="instead of printing, write a table (.csv, .tsv) with the "
                        "columns label and probability added")
    parser.add_argument("--model", help="model.pt of a run (default: the bundled network; without it, "
                        "the newest run)")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each text: text, label, "
                        f"probability, sure (probability of at least {SURE:.0%}%), known (share of the words that are "
                        "in the vocabulary), and note (if there is one)")
    parser.add_argument("--explain", metavar="FILE", help="write a page (.html) that shows how much each word of one "
                        "text changes the result")
    args = parser.parse_args(argv)
    check_args(args)
    return args


def check_args(args):
    """Raise UserError for options that cannot be combined, and for files of the wrong kind."""
    if args.texts and args.file:
        raise UserError("TEXT and --file cannot be combined; give one of them.")
    if args.out and args.json:
        raise UserError("--out and --json cannot be combined; give one of them.")
    if args.out and Path(args.out).suffix.lower() not in SEPARATORS:
        raise UserError("--out writes a table; give a name that ends in .csv or .tsv.")
    if args.explain and Path(args.explain).suffix.lower() != ".html":
        raise UserError("--explain writes a page; give a name that ends in .html.")


def main(argv):
    args = parse_args(argv)
    table = read_table(args.file, args.texts)
    text_column, label_column = choose_columns(table, args.column)
    texts = normalize(table[text_column])
    if not args.texts:
        texts = drop_blank(texts)
    check_texts(texts)
    if args.explain and len(texts) > 1:
        raise UserError(f"--explain takes one text, not {len(texts)}; put the text in quotes.")

    predictor = Predictor.load(args.model)
    answers, notes = predict(predictor, texts)
    print_notes(notes, predictor.data)
    if args.out:
        write_table(args.out, table, answers[["label", "probability"]])
    else:
        print_answers(table.loc[texts.index, text_column], answers, notes, args.json)
    if label_column:
        print_accuracy(answers, table[label_column], sys.stderr if args.json else sys.stdout)
    if args.explain:
        write_explanation(predictor, as_reviews(texts), args.explain)


def normalize(texts):
    """Return the plain form of each text in one line: texts and result are columns of strings."""
    return pd.Series([" ".join(plain_text(text).split()) for text in texts], texts.index, dtype=object)


def drop_blank(texts):
    """Return the texts that are not blank, and print a note about the others."""
    is_blank = texts == ""
    if is_blank.any() and not is_blank.all():  # if all are blank, an error follows
        note(f"skipped blank texts: {is_blank.sum()}")
    return texts[~is_blank]


def check_texts(texts):
    """Raise UserError if a column of texts is empty or contains a text that cannot be classified."""
    if texts.empty:
        raise UserError(f"found no text to classify; {ADVICE}")
    for number, text in texts.items():
        longest = max(map(len, text.split()), default=0)
        if BINARY.search(text):
            raise UserError(f"text {number} is binary data; {ADVICE}")
        if longest == 0:
            raise UserError(f"text {number} is empty; {ADVICE}")
        if longest > LONGEST_WORD:  # spaCy would take hours
            raise UserError(f"text {number} has {longest:,} characters without a space; {ADVICE}")


def predict(predictor, texts):
    """Classify a column of texts.

    Returns:
        answers: a table with the columns label, probability and known (the share of known words).
        notes: a table of bool with a column for each note, which is true for the texts that it is about.
    """
    place, distinct = pd.factorize(texts)  # a text that occurs twice is classified once
    reviews = as_reviews(distinct)
    known = known_shares(predictor, reviews)
    notes = pd.DataFrame(find_notes(predictor, reviews, known))
    answers = pd.DataFrame(map(classify, predictor.logits(reviews)), columns=["label", "probability"])
    answers["known"] = known
    return answers.iloc[place].set_axis(texts.index), notes.iloc[place].set_axis(texts.index)


def known_shares(predictor, reviews):
    """Return the share of the words of each text that are in the vocabulary: (texts,), 0 for a text without words.

    A word is a token with a letter.
    """
    stoi = predictor.vocab.stoi
    is_word = np.array([any(map(str.isalpha, word)) for word in reviews.words])
    is_in_vocab = np.array([stoi[word] != stoi["<unk>"] for word in reviews.words])
    words = count_tokens(reviews, is_word)
    known = count_tokens(reviews, is_word & is_in_vocab)
    return known / np.maximum(words, 1)


def count_tokens(reviews, is_counted):
    """Return how many tokens of each text are counted: is_counted (distinct words,) bool -> (texts,)."""
    return np.add.reduceat(is_counted[reviews.tokens], reviews.starts[:-1], dtype=float)


def find_notes(predictor, reviews, known):
    """Return what users should know about the answers: a dict from a note to the texts it is about, (texts,) bool."""
    is_cut = np.diff(reviews.starts) > predictor.settings["max_len"]
    return {f"only the {predictor.pipeline.what_is_read()} were read": is_cut,
            "the network knows fewer than half of the words": known < LEAST_KNOWN}


def print_notes(notes, data):
    """Print each note with the numbers of its texts, and a note if the network was trained on the SAMPLE."""
    if data == "SAMPLE":
        note("the network was trained on the SAMPLE and has a small vocabulary")
    for message in notes:
        numbers = [str(number) for number in notes.index[notes[message]]]
        if len(numbers) > 10:
            numbers = [*numbers[:10], "…"]
        if numbers:
            note(f"{message}: text {', '.join(numbers)}")


def print_answers(texts, answers, notes, as_json):
    """Print a line for each text: a JSON object, or the label, the probability and the beginning of the text."""
    for text, answer, concerns in zip(texts, answers.itertuples(), notes.to_numpy(), strict=True):
        is_sure = answer.probability >= SURE
        if as_json:
            fields = {"text": text, "label": answer.label, "probability": answer.probability, "sure": is_sure,
                      "known": answer.known}
            if concerns.any():
                fields["note"] = "; ".join(notes.columns[concerns])
            print(json.dumps(fields))
        else:
            doubt = "" if is_sure else "hard to say: "
            print(f"{answer.label}  {answer.probability:6.1%}  {doubt}{shorten(text)}")


def shorten(text):
    """Return the beginning of a text as one line without control characters."""
    start = text[:10 * SHOWN]
    printable = "".join(character if character.isprintable() else " " for character in start)
    line = " ".join(printable.split())
    if len(line) <= SHOWN and start == text:
        return line
    return line[:SHOWN - 1] + "…"


def print_accuracy(answers, labels, file):
    """Print the accuracy on the texts with a label; `labels` is the column of the table."""
    truth = read_labels(labels.loc[answers.index]).dropna()
    if truth.empty:
        return
    predicted = answers.loc[truth.index, "label"] == "positive"
    accuracy = (predicted == truth).mean()
    print(f"accuracy {accuracy:.2%} on {len(truth):,} labelled texts (column {labels.name})", file=file)
