"""The command `predict`: classify texts with a trained network.

    python sentiment_analysis.py predict "A film to fall asleep in."
    python sentiment_analysis.py predict --file reviews.csv --out answers.csv
    python sentiment_analysis.py predict --explain why.html "A film to fall asleep in."

It needs only a `model.pt`. Texts get the same plain form, tokens and inputs as the reviews in training.
"""

if __name__ == "__main__":
    raise SystemExit("error: this file is not a script; run python sentiment_analysis.py predict")

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cli import Parser, UserError, note, user_path
from helpers.data.text import plain_text
from helpers.inference.answers import print_accuracy, print_answers, print_notes, write_table
from helpers.inference.columns import (
    ANSWERS,
    add_answers,
    check_output,
    find_label_column,
    find_text_column,
    has_text_column,
)
from helpers.inference.explain import write_explanation
from helpers.inference.predictor import SURE, Predictor, as_reviews, classify
from helpers.inference.tables import TABLES, cell_text, read_table, table_ending
from helpers.runtime import refuse_memory_errors

LONGEST_WORD = 1000  # characters; spaCy's time grows with the square of a word's length
LEAST_KNOWN = 0.5  # share of a text's words in the vocabulary; a lower share causes a note
BINARY = re.compile("[\0\ud800-\udfff]")  # Python decodes bytes that are not UTF-8 as U+D800 to U+DFFF
ADVICE = "give a film review in English."


def parse_args(argv):
    """Return the options of the command line."""
    parser = Parser(prog="sentiment_analysis.py predict",
                    description="Predict whether a film review is positive or negative, and the probability.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a review in quotes; put -- first if it starts with "
                        "a dash; without TEXT, lines are read from standard input")
    parser.add_argument("--file", type=user_path, help="classify each line of this file, or each row of a table "
                        f"({', '.join(TABLES)})")
    parser.add_argument("--column", help="column of the table with the texts (default: review or text)")
    parser.add_argument("--label-column", metavar="COLUMN", help="column of the table with the true labels, for the "
                        "accuracy (default: sentiment or label, if it has only labels)")
    parser.add_argument("--out", type=user_path, metavar="FILE", help="instead of printing, write a table "
                        f"({', '.join(TABLES)}) with the columns {' and '.join(ANSWERS)} added")
    parser.add_argument("--model", type=user_path, help="folder or model.pt of a run (default: the bundled network; "
                        "without it, the newest run)")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each text: text, label, "
                        f"probability, sure (probability of at least {SURE:.0%}%), known (share of the words that are "
                        "in the vocabulary), and note (if there is one)")
    parser.add_argument("--explain", type=user_path, metavar="FILE", help="write a page (.html) that shows how much "
                        "each word of one text changes the result")
    args = parser.parse_args(argv)
    check_args(args)
    return args


def check_args(args):
    """Raise UserError for options that cannot be combined, and for files of the wrong kind."""
    if args.texts and args.file:
        raise UserError("TEXT and --file cannot be combined; give one of them.")
    if args.out and args.json:
        raise UserError("--out and --json cannot be combined; give one of them.")
    if args.out and not table_ending(args.out):
        raise UserError(f"--out writes a table; give a name that ends in {', '.join(TABLES)}.")
    for option in ("column", "label_column"):
        if getattr(args, option) is not None and not table_ending(args.file):
            raise UserError(f"--{option.replace('_', '-')} needs a table; name it with --file.")
    if args.explain and Path(args.explain).suffix.lower() != ".html":
        raise UserError("--explain writes a page; give a name that ends in .html.")


def main(argv):
    args = parse_args(argv)
    hint_at_file(args.texts)
    table = read_table(args.file, args.texts, lambda columns: has_text_column(columns, args.column))
    text_column = find_text_column(table, args.column)
    label_column = find_label_column(table, text_column, args.label_column)
    check_output(table, is_json=table_ending(args.out) == ".jsonl")
    cells = pd.Series(table.column(text_column), range(1, len(table.rows) + 1), dtype=object)
    texts = normalize(cells)
    if not args.texts:
        texts = drop_blank(texts)
    if args.explain and len(texts) > 1:
        raise UserError(f"--explain takes one text, not {len(texts)}; put the text in quotes.")
    cells = cells[texts.index]
    faults = find_faults(cells, texts)
    texts = texts[faults.isna()]

    predictor = Predictor.load(args.model)
    with refuse_memory_errors("split the input into smaller files"):
        answers, notes = predict(predictor, texts)
    answers, notes = answers.reindex(cells.index), add_faults(notes, faults)
    print_notes(notes, predictor.data)
    if args.out:
        write_answers(args.out, table, answers)
    else:
        print_answers(cells, answers, notes, args.json)
    if label_column is not None:
        labels = [table.rows[number - 1][label_column] for number in cells.index]
        print_accuracy(answers, labels, table.columns[label_column], args.json)
    if args.explain:
        write_explanation(predictor, texts.iloc[0], args.explain)


def hint_at_file(texts):
    """Print a note if a text is the name of a file."""
    for text in texts:
        if os.path.isfile(text):
            note(f"this classifies the name {text}, not the content of the file; for the content, use --file {text}")
            return


def normalize(cells):
    """Return the plain form of each cell of a column in one line."""
    return pd.Series([" ".join(plain_text(cell_text(cell)).split()) for cell in cells], cells.index, dtype=object)


def drop_blank(texts):
    """Return the texts that are not blank, and print a note about the others."""
    is_blank = texts == ""
    if is_blank.any() and not is_blank.all():  # if all are blank, an error follows
        note(f"skipped blank texts: {is_blank.sum()}")
    return texts[~is_blank]


def find_faults(cells, texts):
    """Return for each text why it cannot be classified, or None. Raises UserError if no text can be classified.

    Args:
        cells: the texts as they were read.
        texts: what `normalize` returns for them.
    """
    if texts.empty:
        raise UserError(f"found no text to classify; {ADVICE}")
    faults = pd.Series(map(find_fault, cells, texts), texts.index, dtype=object)
    if faults.notna().all():
        raise UserError(f"text {texts.index[0]} {faults.iloc[0]}; {ADVICE}")
    return faults


def find_fault(cell, text):
    """Return why a text cannot be classified, as the end of a sentence, or None."""
    if not isinstance(cell, str):
        return "is not a string"
    if BINARY.search(text):
        return "is binary data"
    if not text:
        return "is empty"
    if max(map(len, text.split())) > LONGEST_WORD:  # spaCy would take hours
        return f"has more than {LONGEST_WORD:,} characters without a space"
    return None


def add_faults(notes, faults):
    """Return the table `notes` with a row for each text in `faults`, and with a column for each kind of fault."""
    notes = notes.reindex(faults.index, fill_value=False)
    for fault in faults.dropna().unique():
        notes[f"no answer, because the text {fault}"] = faults == fault
    return notes


def write_answers(path, table, answers):
    """Write the table with the answers. The cells of a text without an answer are empty."""
    labels, probabilities = [], []
    for answer in answers.reindex(range(1, len(table.rows) + 1)).itertuples():
        has_answer = isinstance(answer.label, str)
        labels.append(answer.label if has_answer else None)
        probabilities.append(answer.probability if has_answer else None)
    write_table(path, add_answers(table, labels, probabilities))


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
