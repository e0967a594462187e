"""Read texts from the command line, from lines or from a table; write a table of answers."""

import io
import sys
import warnings
from pathlib import Path

import pandas as pd

from helpers.cli import UserError, note
from helpers.files import whole_file

LARGEST_INPUT = 100_000_000  # bytes, three times the size of the 25,000 test reviews
SEPARATORS = {".csv": ",", ".tsv": "\t"}  # of tables, by file extension
LABELS = {"positive": 1, "pos": 1, "1": 1, "1.0": 1, "negative": 0, "neg": 0, "0": 0, "0.0": 0}


def read_table(path, texts):
    """Return the texts to classify and the other columns of their file as a table of strings.

    The index of the table counts the texts, lines or rows from 1.

    Args:
        path: a file with a text in each line, or a table (.csv, .tsv). "-" and None stand for standard input.
        texts: the texts of the command line. If there are any, nothing is read.

    Raises:
        UserError: the input is missing, too large, or neither text nor a table.
    """
    if texts:
        return make_table(texts)
    text = decode(read_bytes(path))
    if path and Path(path).suffix.lower() in SEPARATORS:
        return parse_table(path, text)
    lines = text.removesuffix("\n").split("\n")
    return make_table([line.rstrip("\r") for line in lines])


def make_table(texts):
    """Return a table with one column, "text"."""
    return pd.DataFrame({"text": texts}, range(1, len(texts) + 1), dtype=object)


def read_bytes(path):
    """Return the content of a file or of standard input. Raises UserError if it is missing or too large."""
    from_stdin = path in (None, "-")
    if from_stdin and (sys.stdin is None or sys.stdin.isatty()):
        raise UserError('no text was given; put one in quotes, as in predict "A fine film.", or use --file FILE.')
    with sys.stdin.buffer if from_stdin else open(path, "rb") as file:
        content = file.read(LARGEST_INPUT + 1)
    if len(content) > LARGEST_INPUT:
        raise UserError(f"the input has more than {LARGEST_INPUT:,} bytes; split it into smaller files.")
    return content


def decode(content):
    """Return bytes as text. Raises UserError if they are not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"line {line} is not UTF-8 text; save the file as UTF-8.") from error


def parse_table(path, text):
    """Return the content of a table, `text`, as a table of strings. Raises UserError if it is not a table."""
    header, _, rest = text.partition("\n")
    if header.lower().startswith("sep="):  # a line that tells Excel the separator
        text, header = rest, header[4:5]
    usual = SEPARATORS[Path(path).suffix.lower()]
    # Excel writes ";" in countries where numbers have a decimal comma.
    separator = max([usual, ";", "\t"], key=header.count)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas would drop fields of a row that is longer than the header
            table = pd.read_csv(io.StringIO(text), sep=separator, dtype=object, keep_default_na=False, index_col=False)
    except (ValueError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a table ({reason}); put quotes around each field that contains "
                        f"{separator!r}.") from error
    return table.set_axis(range(1, len(table) + 1))


def read_labels(column):
    """Return the labels in a column of strings: 1 for positive, 0 for negative, NaN for a cell that is not a label."""
    return column.map(lambda cell: LABELS.get(cell.strip().lower()))


def choose_columns(table, wanted):
    """Return the name of the column with the texts, and of the column with the labels or None.

    Args:
        table: a table of strings.
        wanted: the name of the column with the texts. If it is None, `find_text_column` chooses.

    Raises:
        UserError: the table has several columns that may contain the texts, or does not have the column `wanted`.
    """
    text_column = find_text_column(table) if wanted is None else wanted
    if text_column not in table:
        columns = " ".join(", ".join(table).split())
        raise UserError(f"the column with the texts is not clear; name one of {columns} with --column.")
    return text_column, find_label_column(table, text_column)


def find_text_column(table):
    """Return the column "review" or "text", else the only column that is neither numbers nor labels, else None."""
    usual = columns_named(table, "review", "text")
    for column in usual:
        if not is_numeric(table[column]):
            return column
    if usual:
        return usual[0]
    others = [column for column in table if not is_numeric(table[column]) and not has_labels(table[column])]
    return others[0] if len(others) == 1 else None


def find_label_column(table, text_column):
    """Return the column with the labels, or None.

    It is the column "sentiment" or "label". A table without them may have one other column with labels in words.
    """
    usual = [column for column in columns_named(table, "sentiment", "label") if column != text_column]
    for column in usual:
        if has_labels(table[column]):
            return column
    if usual:
        note(f"no accuracy, because the column {usual[0]} has values other than positive/negative, pos/neg or 1/0")
        return None
    others = [column for column in table.columns.drop(text_column)
              if has_labels(table[column]) and not is_numeric(table[column])]
    return others[0] if len(others) == 1 else None


def columns_named(table, *names):
    """Return the columns of a table with these names, in any case, in the order of the names."""
    columns = {column.strip().lower(): column for column in table}
    return [columns[name] for name in names if name in columns]


def is_numeric(column):
    """Return whether every cell of a column of strings is a number."""
    return pd.to_numeric(column, errors="coerce").notna().all()


def has_labels(column):
    """Return whether every cell of a column of strings is a label or blank."""
    is_blank = column.str.strip() == ""
    return (read_labels(column).notna() | is_blank).all()


def write_table(path, table, answers):
    """Write a table with the columns of `answers` added. A column whose name is taken is called "predicted ..."."""
    answers = answers.rename(columns=lambda name: free_name(name, table.columns))
    with whole_file(path) as temporary:
        table.join(answers).to_csv(temporary, sep=SEPARATORS[Path(path).suffix.lower()], index=False)


def free_name(name, taken):
    """Return a name for a new column that is not taken."""
    while name in taken:
        name = f"predicted {name}"
    return name
