"""Load the code of a solution."""

import contextlib
import linecache
import os
import sys
import traceback
import types
from pathlib import Path

from check.mistakes import ATTENTION, NORM
from helpers.cli import UserError
from helpers.source import read_source, select_needed

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ATTENTION, NORM
MAIN_GUARD = "if __name__ == \"__main__\""
OF_SCRIPTS = SystemExit, EOFError, FileNotFoundError  # what exit(), input() and loading data raise


def one_line(error):
    """Return the type of an error and its message, shortened, in one line. If it has none, show the line of code."""
    message = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    if not message and frames:
        message = f"line {frames[-1].lineno}, {frames[-1].line}"
    return f"{type(error).__name__}: {message[:200]}"


def load(path):
    """Return the module of a solution with both classes; from here on, `import models` gives it.

    Raises UserError if the path is not a Python file, its import fails, or a class is missing.
    """
    path = Path(path).resolve()
    check_file(path)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(path.parent))
    with hide_project():
        module = load_module(path, path)
    sys.modules["models"] = module
    for name in CLASSES:
        if not isinstance(getattr(module, name, None), type):
            raise UserError(f"{path} has no class {name}.")
    return module


def check_file(path):
    """Raise UserError if a path is not a Python file."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of the .py file in it.")
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    if path.suffix != ".py":
        kind = "a notebook" if path.suffix == ".ipynb" else "not a .py file"
        raise UserError(f"{path} is {kind}; save the two classes as a .py file.")


def load_module(path, shown, package=None):
    """Run the code of a file, and return its module, which `import models` gives from here on.

    `shown` is what messages call the file, and `package` is what its relative imports refer to. Raises UserError if the
    code fails.
    """
    source = read_source(path, shown)
    tree = select_needed(source.tree, CLASSES) if source.is_notebook else source.tree
    if source.is_notebook:  # its lines are not those of the file
        lines = source.text.splitlines(keepends=True)
        linecache.cache[str(path)] = len(source.text), None, lines, str(path)
    module = types.ModuleType("models")
    module.__file__, module.__package__ = str(path), package
    sys.modules["models"] = module
    arguments, sys.argv = sys.argv, [str(path)]
    try:
        exec(compile(tree, str(path), "exec"), module.__dict__)
    except ModuleNotFoundError as error:
        raise UserError(f"{shown} imports {error.name}, which is neither installed nor in the same folder.") from None
    except BaseException as error:
        line = find_line(error, path)
        hint = f" (what loads data, asks or exits belongs under {MAIN_GUARD})" if isinstance(error, OF_SCRIPTS) else ""
        raise UserError(f"{shown} cannot be imported: line {line} raises {one_line(error)}{hint}.") from None
    finally:
        sys.argv = arguments
    return module


def find_line(error, path):
    """Return the number of the last line of a file in the traceback of an error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else 1


# The solution must not find the modules of this project


@contextlib.contextmanager
def hide_project():
    """Hide this project's modules, so that `import helpers` finds the solution's."""
    hidden = remove_project()
    try:
        yield
    finally:
        sys.modules.update(hidden)


def remove_project():
    """Remove this project's modules from the loaded ones, and return them."""
    removed = {}
    for name in list(sys.modules):
        top = ROOT / name.partition(".")[0]
        if top.exists() or top.with_suffix(".py").exists():
            removed[name] = sys.modules.pop(name)
    return removed


def forget_project():
    """Make this project impossible to import in this process and in those that it starts."""
    remove_project()
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != ROOT]
    folders = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [folder for folder in folders if folder and Path(folder).resolve() != ROOT]
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
