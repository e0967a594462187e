"""Texts as people have them: on the command line, a line each, or in a table with labels; and the table of answers."""

import io
import sys
import warnings
from pathlib import Path

import pandas as pd

from helpers.cli import UserError, note
from helpers.files import whole_file

LARGEST_INPUT = 100_000_000  # bytes; the 25,000 test reviews have a third of that
SEPARATORS = {".csv": ",", ".tsv": "\t"}  # of tables, by the ending of their names
LABELS = {"positive": 1, "pos": 1, "1": 1, "1.0": 1, "negative": 0, "neg": 0, "0": 0, "0.0": 0}


def read_table(path, texts):
    """Return the texts of the command line, of a file, or of standard input ("-" or None) as a table of strings.

    Its index is the number of the text, line or row. Raises UserError for what cannot be read as text.
    """
    if texts:
        return pd.DataFrame({"text": texts}, range(1, len(texts) + 1), dtype=object)
    from_stdin = path in (None, "-")
    if from_stdin and (sys.stdin is None or sys.stdin.isatty()):
        raise UserError('there is no text; give one in quotes: predict "A fine film.", or a file: --file FILE.')
    with sys.stdin.buffer if from_stdin else open(path, "rb") as file:
        content = file.read(LARGEST_INPUT + 1)
    if len(content) > LARGEST_INPUT:
        raise UserError(f"there are more than {LARGEST_INPUT:,} bytes to read; split them.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"line {line} is not UTF-8 text; save the file as UTF-8.") from error
    if not from_stdin and (usual := SEPARATORS.get(Path(path).suffix.lower())):
        header, _, rest = text.partition("\n")
        if header.lower().startswith("sep="):  # how Excel is told what to expect
            text, header = rest, header[4:5]
        separator = max([usual, ";", "\t"], key=header.count)  # Excel's is ";" where numbers have a decimal comma
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # pandas would lose fields of a row that is longer than the header
                table = pd.read_csv(io.StringIO(text), sep=separator, dtype=object, keep_default_na=False,
                                    index_col=False)
        except (ValueError, pd.errors.ParserWarning) as error:
            raise UserError(f"{path} is not a table ({' '.join(str(error).split())}); a field that holds {separator!r} "
                            "needs quotes around it.") from error
        return table.set_axis(range(1, len(table) + 1))
    lines = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
    return pd.DataFrame({"text": lines}, range(1, len(lines) + 1), dtype=object)


def read_labels(column):
    """Return the labels in a column of strings, 1 or 0, and NaN for what is not a label."""
    return column.map(lambda cell: LABELS.get(cell.strip().lower()))


def choose_columns(table, wanted):
    """Return the names of the column of texts and of the column of labels, which may be None.

    The texts are in the column `wanted`, else in "review" or "text", else in the only one that is neither numbers nor
    labels. Labels are positive/negative, pos/neg or, in a column called sentiment or label, 1/0; a cell may be empty.
    Raises UserError if that does not decide on the texts.
    """
    names = {name.strip().lower(): name for name in table}
    is_label = {name: (read_labels(table[name]).notna() | (table[name].str.strip() == "")).all() for name in table}
    is_number = {name: pd.to_numeric(table[name], errors="coerce").notna().all() for name in table}
    texts = [name for name in table if not is_label[name] and not is_number[name]]
    if wanted is None:
        usual = [names[name] for name in ("review", "text") if name in names]
        usual.sort(key=is_number.get)  # words before numbers
        wanted = usual[0] if usual else texts[0] if len(texts) == 1 else None
    if wanted not in table:
        columns = " ".join(", ".join(table).split())
        raise UserError(f"the column of the texts is not clear; name one of {columns} with --column.")
    usual = [names[name] for name in ("sentiment", "label") if names.get(name, wanted) != wanted]
    labels = [name for name in usual or table if name != wanted and is_label[name] and (usual or not is_number[name])]
    if usual and not labels:
        note(f"there is no accuracy, for not all in the column {usual[0]} is positive/negative, pos/neg or 1/0")
    return wanted, labels[0] if usual and labels or len(labels) == 1 else None


def write_table(path, table, answers):
    """Write the table with the columns label and probability added, whole or not at all."""
    def free(name):
        return free(f"predicted {name}") if name in table else name

    answers = answers.rename(columns=free)
    with whole_file(path) as temporary:
        table.join(answers).to_csv(temporary, sep=SEPARATORS[Path(path).suffix.lower()], index=False)
