"""Find the files of a submission, and the one that defines each of the two classes."""

import contextlib
import re

from check.mistakes import ATTENTION, NORM
from check.unpack import JUNK
from helpers.cli import UserError
from helpers.source import list_defined, read_source

CODE = {".py", ".ipynb"}
MINGPT_FOLDER = re.compile(r"(karpathy-)?mingpt(-(main|master|[0-9a-f]{7,40}))?", re.IGNORECASE)
MINGPT_CLASSES = {"GPT", "CausalSelfAttention"}, {"BPETokenizer", "Encoder"}, {"CfgNode"}  # classes of its three files


def find_base(folder):
    """Return the folder that holds the files. Folders that hold one folder and nothing else are skipped."""
    inner = [path for path in folder.iterdir() if path.name not in JUNK]
    return find_base(inner[0]) if len(inner) == 1 and inner[0].is_dir() else folder


def list_files(folder):
    """Return the files of a folder and of all folders in it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def is_junk(path, folder):
    """Return whether a path in a folder was left there by an operating system or an editor."""
    parts = path.relative_to(folder).parts
    return bool(JUNK & {*parts}) or any(part.startswith(".") or part == "__pycache__" for part in parts)


def is_mingpt(path, folder):
    """Return whether a file is minGPT's own code, judging by its folder or by the classes that it defines."""
    if any(map(MINGPT_FOLDER.fullmatch, path.relative_to(folder).parts[:-1])):
        return True
    if path.suffix != ".py":
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    classes = {*re.findall(r"^class (\w+)", text, re.MULTILINE)}
    return not classes & {ATTENTION, NORM} and any(theirs <= classes for theirs in MINGPT_CLASSES)


def is_own(path, folder):
    """Return whether a file may be the student's."""
    return not is_junk(path, folder) and not is_mingpt(path, folder)


def list_code(folder):
    """Return the paths of the student's own Python files and notebooks."""
    return [path for path in list_files(folder) if path.suffix.lower() in CODE and is_own(path, folder)]


def find_layers(path, shown):
    """Return where the two classes are: a dict from each class that is found to its file.

    A file is a pair: its path, and what messages call it. A single file stands for both classes, whatever it defines.
    Raises UserError if two files define a class, or if a file that may define a missing class cannot be read.
    """
    if path.is_file():
        read_source(path, shown)
        return {ATTENTION: (str(path), shown), NORM: (str(path), shown)}
    write_cells(path)
    defined, broken = {}, None
    for file in list_code(path):
        place = f"{file.relative_to(path)} in {shown}"
        try:
            defined[file] = list_defined(read_source(file, place).tree)
        except UserError as error:
            broken = broken or error
    found = {}
    for name in (ATTENTION, NORM):
        files = choose_file([file for file, names in defined.items() if name in names])
        if len(files) > 1:
            one, other = (file.relative_to(path) for file in files[:2])
            raise UserError(f"{shown} defines {name} in {one} and in {other}; keep one of them.")
        if files:
            found[name] = str(files[0]), f"{files[0].relative_to(path)} in {shown}"
    if len(found) < 2 and broken:
        raise broken
    return found


def write_cells(folder):
    """Read the notebooks of a folder, which writes the files of their %%writefile cells."""
    for path in list_code(folder):
        if path.suffix.lower() == ".ipynb":
            with contextlib.suppress(UserError):
                read_source(path, path.name)


def choose_file(files):
    """Return the files named models.py; if there are none, the Python files; if there are none, all files."""
    for group in ([file for file in files if file.name == "models.py"],
                  [file for file in files if file.suffix == ".py"]):
        if group:
            return group
    return files
