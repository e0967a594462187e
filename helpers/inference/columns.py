"""Choose the columns of a table with the texts and the labels, and add those with the answers."""

from helpers.cli import UserError, note
from helpers.inference.tables import Table, cell_text

TEXT_COLUMNS = "review", "text"
LABEL_COLUMNS = "sentiment", "label"
ANSWERS = "predicted_label", "predicted_probability"
LABELS = {"positive": 1, "pos": 1, "1": 1, "1.0": 1, "negative": 0, "neg": 0, "0": 0, "0.0": 0}
LABELS_TEXT = "positive or negative, pos or neg, 1 or 0"
SHOWN = 300  # characters of the names of columns that a message lists


def plain_name(name):
    """Return a name without spaces and in lower case."""
    return "".join(name.split()).lower()


def columns_named(columns, name):
    """Return the places of the columns with a name, in any case and without regard to spaces, except for ANSWERS."""
    if plain_name(name) in ANSWERS:
        return []
    return [place for place, column in enumerate(columns) if plain_name(column) == plain_name(name)]


def has_text_column(columns, wanted):
    """Return whether the column with the texts is among `columns`, a list of names."""
    return any(columns_named(columns, name) for name in text_names(wanted))


def text_names(wanted):
    """Return the possible names of the column with the texts; `wanted` is the option --column."""
    return TEXT_COLUMNS if wanted is None else [wanted]


def find_text_column(table, wanted):
    """Return the place of the column with the texts: `wanted`, or without it "review" or "text".

    Raises UserError if the table does not have it, or has several columns with the name.
    """
    for name in text_names(wanted):
        places = columns_named(table.columns, name)
        if places:
            return only_place(table, places, wanted, "--column")
    names = " or ".join(text_names(wanted))
    candidates = list_names(table.columns)
    if not candidates:
        raise UserError(f"{table.name} has no column with texts; add one with the name review.")
    raise UserError(f"{table.name} has no column {names}; name the column with the texts with --column, one of: "
                    f"{candidates} (if these are not names, insert a first line with names).")


def only_place(table, places, wanted, option):
    """Return the place of the column whose name is exactly `wanted`, or the only place. Otherwise raise UserError."""
    exact = [place for place in places if table.columns[place] == wanted]
    if len(exact) == 1:
        return exact[0]
    if len(places) > 1:
        names = list_names([table.columns[place] for place in places])
        raise UserError(f"{table.name} has {len(places)} columns with the same name: {names}; rename them, or choose "
                        f"one with {option}.")
    return places[0]


def list_names(columns):
    """Return the names of columns in one short line."""
    line = ", ".join(" ".join(name.split()) for name in columns if plain_name(name) not in ANSWERS)
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return printable if len(printable) <= SHOWN else printable[:SHOWN] + "…"


def find_label_column(table, text_column, wanted):
    """Return the place of the column with the labels, or None.

    It is `wanted`, or without it the column "sentiment" or "label" if each cell is a label or blank.

    Args:
        table: a Table.
        text_column: the place of the column with the texts.
        wanted: the option --label-column, or None.

    Raises:
        UserError: the column `wanted` does not exist or has no labels.
    """
    if wanted is not None:
        return chosen_labels(table, text_column, wanted)
    usual = [place for place, name in enumerate(table.columns)
             if plain_name(name) in LABEL_COLUMNS and place != text_column]
    labelled = [place for place in usual if only_labels(table.column(place))]
    if len(labelled) == 1:
        return labelled[0]
    if labelled:
        names = list_names([table.columns[place] for place in labelled])
        note(f"no accuracy, because several columns hold labels ({names}); choose one with --label-column")
        return None
    for place in usual:
        if any(cell_text(cell).strip() for cell in table.column(place)):
            note(f"no accuracy, because the column {table.columns[place].strip()} has values other than {LABELS_TEXT}")
    return None


def chosen_labels(table, text_column, wanted):
    """Return the place of the column with the labels that --label-column names."""
    places = [place for place in columns_named(table.columns, wanted) if place != text_column]
    if not places:
        raise UserError(f"{table.name} has no column {wanted} with labels; name one of these with --label-column: "
                        f"{list_names(table.columns)}.")
    place = only_place(table, places, wanted, "--label-column")
    cells = table.column(place)
    others = sum(read_label(cell) is None and bool(cell_text(cell).strip()) for cell in cells)
    if all(read_label(cell) is None for cell in cells):
        raise UserError(f"the column {wanted} of {table.name} has no labels; a label is {LABELS_TEXT}.")
    if others:
        note(f"values of the column {wanted} that are not labels: {others:,}")
    return place


def read_label(cell):
    """Return the label in a cell: 1 for positive, 0 for negative, None for anything else."""
    return LABELS.get(cell_text(cell).strip().lower())


def only_labels(cells):
    """Return whether cells are labels or blank, and at least one of them is a label."""
    filled = [read_label(cell) for cell in cells if cell_text(cell).strip()]
    return bool(filled) and None not in filled


def add_answers(table, labels, probabilities):
    """Return a Table with two more columns, which replace those of an earlier call; None is an empty cell."""
    kept = [place for place, name in enumerate(table.columns) if plain_name(name) not in ANSWERS]
    if len(kept) < len(table.columns):
        note(f"replaced the columns {' and '.join(ANSWERS)} of an earlier call")
    rows = []
    for row, label, probability in zip(table.rows, labels, probabilities, strict=True):
        rows.append([*(row[place] for place in kept), label, probability])
    return Table([*(table.columns[place] for place in kept), *ANSWERS], rows)


def check_output(table, is_json):
    """Raise UserError if two columns have the same name, which an object of JSON cannot hold."""
    if is_json and len(set(table.columns)) < len(table.columns):
        raise UserError(f"{table.name} has several columns with the same name; give --out a name that ends in .csv.")
