"""Read texts from the command line, from lines or from a table.

The ending of a file's name tells its format. The standard library's `csv` reads tables, because it reports misplaced
quotes; `pandas.read_csv` takes all rows between two misplaced quotes for one cell.
"""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from helpers.cli import UserError, note

LARGEST_INPUT = 100_000_000  # bytes after unpacking, three times the size of the 25,000 test reviews
TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl")  # endings of the names of tables
TEXTS = ("", ".txt", ".text", ".md")  # endings of the names of files with one text in each line
SEPARATORS = {"csv": ",", "tsv": "\t"}
NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}  # of separators
SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|]?)"?(?:\r\n|\r|\n)', re.IGNORECASE)  # tells Excel the separator
LINE_BREAK = re.compile(r"[\r\n]")
csv.field_size_limit(LARGEST_INPUT)  # the usual limit is 131,072


@dataclass
class Table:
    """A table. A cell is a string; from JSON lines, it can be any value of JSON."""

    columns: list  # names; several columns can have the same name
    rows: list  # lists of cells
    name: str = ""  # of the file, for messages

    def column(self, place):
        """Return the cells of a column."""
        return [row[place] for row in self.rows]


def table_ending(path):
    """Return the ending of the name of a table, one of TABLES, or None for any other file."""
    for ending in TABLES:
        if path and str(path).lower().endswith(ending):
            return ending
    return None


def read_table(path, texts, is_known):
    """Return the texts to classify, and the other columns of their file, as a Table.

    Args:
        path: a file with a text in each line, or a table (see TABLES). "-" and None stand for standard input.
        texts: the texts of the command line. If there are any, nothing is read.
        is_known: a function that tells whether a list of names of columns includes the column with the texts.

    Raises:
        UserError: the input is missing, too large, of another format, or damaged.
    """
    if texts:
        return Table(["text"], [[text] for text in texts])
    ending = table_ending(path)
    if path and ending is None and Path(path).suffix.lower() not in TEXTS:
        raise UserError(f"{path} has a format that predict does not read; save it as .csv, .tsv or .jsonl (a table), "
                        "or as .txt (one text in each line).")
    text = decode(read_bytes(path))
    if ending is None:
        return Table(["text"], [[line] for line in text.splitlines()])
    if ending == ".jsonl":
        columns, rows = parse_json_lines(path, text)
    else:
        columns, rows = parse_table(path, text, SEPARATORS[ending[1:4]], is_known)
    return Table(columns, rows, str(path))


def read_bytes(path):
    """Return the content of a file, unpacked, or of standard input. Raises UserError if it is missing or too large."""
    from_stdin = path in (None, "-")
    if from_stdin and (sys.stdin is None or sys.stdin.isatty()):
        raise UserError('no text was given; put one in quotes, as in predict "A fine film.", or use --file FILE.')
    is_packed = not from_stdin and str(path).lower().endswith(".gz")
    open_file = gzip.open if is_packed else open
    try:
        with sys.stdin.buffer if from_stdin else open_file(path, "rb") as file:
            content = file.read(LARGEST_INPUT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a gzip file or is damaged; pack it again.") from error
    if len(content) > LARGEST_INPUT:
        raise UserError(f"the input has more than {LARGEST_INPUT:,} bytes; split it into smaller files.")
    return content


def decode(content):
    """Return bytes as text. Raises UserError if they are not UTF-8."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = content[:error.start].decode("utf-8")
        line = len((before + "x").splitlines())
        raise UserError(f"line {line} is not UTF-8 text; save the file as UTF-8.") from error


def parse_json_lines(path, text):
    """Return the columns and the rows of a table of JSON lines. A missing value is None."""
    records = []
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            records.append(parse_json(line))
            if not isinstance(records[-1], dict):
                raise UserError(f"line {number} of {path} is not a JSON object; write one object in each line, such as "
                                '{"text": "A fine film."}.')
    columns = {}
    for record in records:
        columns |= dict.fromkeys(record)
    return list(columns), [list((dict.fromkeys(columns) | record).values()) for record in records]


def parse_json(line):
    """Return the value of a line of JSON, or None if it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def parse_table(path, text, separator, is_known):
    """Return the columns and the rows of a table with separators; for the arguments, see `read_table`."""
    separator_line = SEPARATOR_LINE.match(text)
    if separator_line:
        text, separator = text[separator_line.end():], separator_line[1] or separator
    elif separator == "," and not has_header(text, ",", is_known) and has_header(text, ";", is_known):
        separator = ";"  # Excel writes it in countries where numbers have a decimal comma
    text = text.strip("\r\n")
    rows = parse_tsv(text) if separator == "\t" else parse_rows(text, separator)
    if not rows:
        raise UserError(f"{path} is empty; write the names of the columns in the first line.")
    if not is_known(rows[0]):
        return rows[0], []  # the caller refuses the table and lists its columns
    note_line_breaks(path, rows)
    return rows[0], [equal_width(path, rows, number, separator) for number in range(1, len(rows))]


def note_line_breaks(path, rows):
    """Print a note if rows span several lines, because misplaced quotes can join rows without an error."""
    spanning = sum(LINE_BREAK.search("".join(row)) is not None for row in rows)
    if spanning:
        note(f"quotes enclose a line break in {spanning:,} of the rows of {path}")


def has_header(text, separator, is_known):
    """Return whether the first line of a table names the column with the texts, if this is the separator."""
    first_line = re.match(r"[\r\n]*([^\r\n]*)", text)[1]
    return is_known(next(csv.reader([first_line], delimiter=separator), []))


def parse_rows(text, separator, **options):
    """Return the rows of a table, lists of strings. Raises UserError if its quotes are misplaced."""
    rows = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, **options):
            rows.append(row)
    except csv.Error as error:
        place = f"row {len(rows)}" if rows else "the header"
        raise UserError(f"the quotes in {place} of the table do not match; put the field in quotes, and write each "
                        "quote in it twice.") from error
    return rows


def parse_tsv(text):
    """Return the rows of a table with tabs.

    Some programs put fields in quotes, as in CSV; for others, a quote is a character like any other. Quotes that do not
    match are characters, and also quotes that would join lines although each line has all fields.
    """
    plain = parse_rows(text, "\t", quoting=csv.QUOTE_NONE)
    try:
        quoted = parse_rows(text, "\t")
    except UserError:
        return plain
    widths = {len(row) for row in plain}
    if len(quoted) < len(plain) and len(widths) == 1 and widths != {1}:
        return plain
    return quoted


def equal_width(path, rows, number, separator):
    """Return a row with as many fields as the header. A blank line is a row of empty fields.

    Raises UserError for any other difference, because a text may have lost a part.
    """
    width = len(rows[0])
    row = rows[number] or [""] * width
    if len(row) != width:
        raise UserError(f"the number of fields in row {number} of {path} is {len(row)} instead of {width}; put quotes "
                        f"around each field with {NAMES[separator]} or a line break.")
    return row


def cell_text(cell):
    """Return a cell of a table as a string: "" for None, and JSON for anything else that is not a string."""
    if isinstance(cell, str):
        return cell
    return "" if cell is None else json.dumps(cell, ensure_ascii=False)
