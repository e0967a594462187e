"""Print the answers of `predict` and the notes about them, or write a table with them."""

import csv
import gzip
import io
import json
import sys

import numpy as np

from helpers.cli import note
from helpers.files import whole_file
from helpers.inference.columns import read_label
from helpers.inference.predictor import SURE
from helpers.inference.tables import SEPARATORS, cell_text, table_ending

SHOWN = 60  # characters of a text that are printed after its label


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


def print_answers(cells, answers, notes, as_json):
    """Print a line for each text: a JSON object, or the label, the probability and the beginning of the text.

    Args:
        cells: the texts as they were read.
        answers, notes: what `predict.predict` returns.
        as_json: whether to print JSON.
    """
    for cell, answer, concerns in zip(cells, answers.itertuples(), notes.to_numpy(), strict=True):
        if as_json:
            print(json.dumps(json_fields(cell, answer, notes.columns[concerns])))
        elif np.isnan(answer.probability):
            print(" " * len("positive  100.0%"), shorten(cell_text(cell)), sep="  ")
        else:
            doubt = "" if answer.probability >= SURE else "hard to say: "
            print(f"{answer.label}  {answer.probability:6.1%}  {doubt}{shorten(cell_text(cell))}")


def json_fields(cell, answer, messages):
    """Return the JSON object for a text: a dict. Without an answer, its values are None, and `sure` is False."""
    has_answer = not np.isnan(answer.probability)
    fields = {"text": cell, "label": answer.label if has_answer else None,
              "probability": answer.probability if has_answer else None,
              "sure": answer.probability >= SURE, "known": answer.known if has_answer else None}
    if len(messages):
        fields["note"] = "; ".join(messages)
    return fields


def shorten(text):
    """Return the beginning of a text as one line without control characters."""
    start = text[:10 * SHOWN]
    printable = "".join(character if character.isprintable() else " " for character in start)
    line = " ".join(printable.split())
    if len(line) <= SHOWN and start == text:
        return line
    return line[:SHOWN - 1] + "…"


def print_accuracy(answers, labels, name, as_json):
    """Print the accuracy on the texts with an answer and a label.

    Args:
        answers: what `predict.predict` returns.
        labels: the cell with the label of each text.
        name: the name of the column with the labels.
        as_json: whether standard output is for JSON; the accuracy then goes to standard error.
    """
    correct = []
    for label, cell in zip(answers["label"], labels, strict=True):
        truth = read_label(cell)
        if isinstance(label, str) and truth is not None:
            correct.append((label == "positive") == truth)
    if correct:
        print(f"accuracy {np.mean(correct):.2%} on {len(correct):,} labelled texts (column {name.strip()})",
              file=sys.stderr if as_json else sys.stdout)


def write_table(path, table):
    """Write a Table. The ending of the path, one of TABLES, tells the format."""
    ending = table_ending(path)
    if ending == ".jsonl":
        records = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        text = "".join(json.dumps(record) + "\n" for record in records)
    else:
        text = separated(table, SEPARATORS[ending[1:4]], csv.QUOTE_MINIMAL)
        if "\r" in text:  # `csv` leaves this line end without quotes
            text = separated(table, SEPARATORS[ending[1:4]], csv.QUOTE_ALL)
    content = text.encode("utf-8", "backslashreplace")  # half of a surrogate pair has no code in UTF-8
    with whole_file(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if ending.endswith(".gz") else content)


def separated(table, separator, quoting):
    """Return the text of a table with separators."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator="\n")
    for row in [table.columns, *table.rows]:
        writer.writerow(map(cell_text, row))
    return file.getvalue()
