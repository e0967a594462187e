"""Read and write tables. The ending of a file's name tells its format: .csv, .tsv (both also .gz), .jsonl or .txt."""

import csv
import gzip
import json
from pathlib import Path

from helpers import UserError
from helpers.files import reading, whole_file


def ending(path):
    """Return the ending of a file's name in lower case, without .gz."""
    return Path(str(path).lower().removesuffix(".gz")).suffix


def open_text(path, mode, encoding):
    r"""Open a text file, packed if its name ends in .gz. Only \n, \r and \r\n end a line."""
    return (gzip.open if str(path).endswith(".gz") else open)(path, mode + "t", encoding=encoding, newline="")


def read_table(path):
    """Return the rows of a table, a list of dicts. Raises UserError if it is damaged, empty or of another format."""
    advice = "save it as .csv with quotes around the texts, .tsv, .jsonl or .txt, in UTF-8."
    with reading(path, advice), open_text(path, "r", "utf-8-sig") as file:
        kind = ending(path)
        if kind == ".txt":
            rows = [{"text": line.strip()} for line in file]
        elif kind == ".jsonl":
            rows = [json.loads(line) for line in file if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is not an object of JSON")
        elif kind == ".csv":
            rows = read_separated(file, max(",;\t", key=file.readline().count))  # Excel may write semicolons
        elif kind == ".tsv":
            try:
                rows = read_separated(file, "\t")
            except ValueError:  # for some programs, a quote is a character like any other
                rows = read_separated(file, "\t", quoting=csv.QUOTE_NONE)
        else:
            raise ValueError("unknown format")
        if not rows:
            raise ValueError("no rows")
    return rows


def read_separated(file, delimiter, **options):
    """Return the rows of a table with a header. Raises ValueError if a quote or a delimiter is in a wrong place."""
    file.seek(0)
    reader = csv.DictReader(file, delimiter=delimiter, strict=True, **options)
    rows = []
    try:
        for row in reader:
            rows.append(row)
            if None in row or None in row.values():
                raise csv.Error("another number of fields than in the header")
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    return rows


def find_column(rows, wanted, usual):
    """Return the name of the column `wanted`, or of the first of the `usual` ones if there is one, in any case."""
    columns = {name.strip().lower(): name for row in rows for name in row}
    for name in [wanted.lower()] if wanted else usual:
        if name in columns:
            return columns[name]
    if wanted:
        raise UserError(f"found no column {wanted}; the columns are {', '.join(columns)}.")
    return None


def cell_text(row, column):
    """Return a cell as text: "" if a .jsonl file lacks it."""
    return "" if row.get(column) is None else str(row[column])


def write_table(path, rows):
    """Write rows as a .csv, .tsv or .jsonl file, completely or not at all."""
    with whole_file(path) as temporary, open_text(temporary, "w", "utf-8") as file:
        if ending(path) == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            columns = dict.fromkeys(name for row in rows for name in row)  # a row of .jsonl may lack some
            writer = csv.DictWriter(file, columns, delimiter="\t" if ending(path) == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
