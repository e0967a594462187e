"""Read the code of a file: Python, a notebook, or a notebook that was exported as Python.

In a notebook only code cells count; lines for the shell (!) and magic lines (%) are left out. Of a notebook, only the
statements that the two classes need are run, because its cells train.
"""

import ast
import json
import re
import symtable
from pathlib import Path
from typing import NamedTuple

from check.mistakes import ATTENTION, NORM
from helpers.cli import UserError

MAGIC = re.compile(r"^\s*(!|%%?[A-Za-z]|\?)|^\s*[\w.]+\?{1,2}\s*$")
ASSIGNED = re.compile(r"^(\s*[\w, ]+=\s*)[!%][A-Za-z./].*$")
PYTHON_CELLS = {"%%time", "%%timeit", "%%capture", "%%prun"}  # cell magics whose cell is Python
NEEDED_CALLS = re.compile(r"torch\.set_default_")


class Source(NamedTuple):
    """The code of a file."""

    path: Path
    text: str | bytes
    tree: ast.Module
    is_notebook: bool  # or was exported from one


def read_source(path, shown):
    """Return the Source of a file. `shown` is how messages call it. Raises UserError if it is not code."""
    if path.suffix.lower() == ".ipynb":
        text = read_notebook(path, shown)
        return Source(path, text, parse(text, path, shown), True)
    data = path.read_bytes()
    try:
        return Source(path, data, parse(data, path, shown), False)
    except UserError:
        text = remove_magics(data.decode("utf-8", errors="replace"))
        if text is None:
            raise
        return Source(path, text, parse(text, path, shown), True)


def parse(text, path, shown):
    """Return the syntax tree of code. Raises UserError if it is not Python."""
    try:
        return ast.parse(text, path.name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{shown} is not valid Python: {error}.") from None


def read_notebook(path, shown):
    """Return the code cells of a notebook as one text. A cell for another file (%%writefile) writes that file."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8-sig"))
        cells = notebook.get("cells") or [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
        texts = [cell.get("source", cell.get("input", "")) for cell in cells if cell["cell_type"] == "code"]
        texts = ["".join(text) for text in texts]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{shown} is not a notebook, or it is damaged.") from None
    parts = []
    for text in texts:
        first, _, rest = text.lstrip().partition("\n")
        words = first.split()
        if words[:1] in (["%%writefile"], ["%%file"]) and len(words) > 1 and Path(words[-1]).suffix == ".py":
            write_neighbour(path.parent / Path(words[-1]).name, rest)
        elif not first.startswith("%%"):
            parts.append(clean_cell(text))
        elif words[0] in PYTHON_CELLS:
            parts.append(clean_cell(rest))
    return "\n\n".join(parts)


def clean_cell(text):
    """Return the Python code of a cell."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return remove_magics(text) or text
    return text


def write_neighbour(path, text):
    """Write the file of a cell, unless the submission has it."""
    if not path.exists():
        path.write_text(text, encoding="utf-8")


def remove_magics(text):
    """Return code without lines for the shell and magic lines; None if it has none. Lines keep their numbers."""
    lines, continued, changed = [], False, False
    for line in text.splitlines():
        if continued:
            new = ""
        elif MAGIC.match(line):
            indent = line[:len(line) - len(line.lstrip())]
            new = f"{indent}pass"
        else:
            new = ASSIGNED.sub(r"\1None", line)
        continued = new != line and line.rstrip().endswith("\\")
        changed = changed or new != line
        lines.append(new)
    return "\n".join(lines) + "\n" if changed else None


# The statements that the classes need


def select_needed(tree):
    """Return the module with only the statements that the two classes need, with those that these need, and so on."""
    needed, selected = {ATTENTION, NORM}, set()
    size = -1
    while size < len(selected):
        size = len(selected)
        for number, statement in enumerate(tree.body):
            if number not in selected and is_needed(statement, needed):
                selected.add(number)
                needed |= find_globals(statement)
    return ast.Module([tree.body[number] for number in sorted(selected)], [])


def is_needed(statement, needed):
    """Return whether a statement defines or changes one of the needed names, or the defaults of torch."""
    if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
        return True
    if isinstance(statement, ast.Expr):
        return bool(NEEDED_CALLS.match(ast.unparse(statement)))
    return bool(needed & {*find_bound(statement)})


def find_bound(statement):
    """Yield the names that a statement defines, and those whose attributes it sets."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            yield node.value.id


def find_globals(statement):
    """Return the global names that a statement reads."""
    names, tables = set(), [symtable.symtable(ast.unparse(statement), "statement", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
                names.add(symbol.get_name())
    return names


def list_defined(tree):
    """Return which of the two classes a module defines, by a class statement, an assignment or an import."""
    statements = [statement for statement in tree.body if not isinstance(statement, ast.ImportFrom)]
    defined = {name for statement in statements for name in find_bound(statement)}
    return {ATTENTION, NORM} & defined
