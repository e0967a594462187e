"""Find the submissions in a folder, the files of a submission, and the files that define the two classes."""

import contextlib
import os
import re
from pathlib import Path

from check.mistakes import ATTENTION, NORM
from check.source import find_imported, list_defined, read_source
from helpers import UserError

CLASSES = ATTENTION, NORM
CODE = {".py", ".ipynb"}
PACKED = {".zip", ".rar", ".7z", ".tar", ".gz", ".tgz"}  # all but .zip are refused, by name
JUNK = re.compile(r"\..*|__MACOSX|__pycache__|node_modules|site-packages")  # left by a system or an editor
README = re.compile(r"readme(\.md|\.txt)?", re.IGNORECASE)
MINGPT = re.compile(r"(karpathy-)?mingpt(-(main|master|[0-9a-f]{7,40}))?", re.IGNORECASE)  # names of its folder


def list_submissions(path):
    """Return the submissions that a path stands for: the zips and folders in it if it is a set, else the path."""
    if not path.is_dir() or not is_set(path):
        return [path]
    submissions = []
    for inner in sorted({path / file.relative_to(path).parts[0] for file in list_files(path)}):
        if inner.is_dir():
            submissions += list_submissions(inner)
        elif inner.suffix.lower() in PACKED:
            submissions.append(inner)
    return submissions


def is_set(folder):
    """Return whether a folder holds a zip, or else no code, README or PDF of its own and two folders with code."""
    files = list_files(folder)
    own = {file.suffix.lower() for file in files if file.parent == folder}
    if ".zip" in own:
        return True
    if own & {*CODE, ".pdf"} or any(README.fullmatch(file.name) for file in files if file.parent == folder):
        return False
    with_code = [file for file in files if file.suffix.lower() in {*CODE, ".zip"} and not is_mingpt(file, folder)]
    folders = {file.relative_to(folder).parts[0] for file in with_code}
    return len(folders) > 1 or any(is_set(folder / name) for name in folders)


def list_files(folder, depth=99):
    """Return the files in a folder and its folders, `depth` levels deep, without links, junk and what is unreadable."""
    files = []
    for place, folders, names in os.walk(folder):
        level = len(Path(place).relative_to(folder).parts)
        folders[:] = [name for name in folders if level < depth and not JUNK.fullmatch(name)]
        files += [Path(place, name) for name in names if not JUNK.fullmatch(name)]
    return sorted(path for path in files if path.is_file() and not path.is_symlink())


def is_mingpt(path, folder):
    """Return whether a file is minGPT's own code, judging by its folder."""
    return any(map(MINGPT.fullmatch, path.relative_to(folder).parts[:-1]))


def list_code(folder):
    """Return the student's own Python files and notebooks."""
    code = [path for path in list_files(folder) if path.suffix.lower() in CODE]
    return [path for path in code if not is_mingpt(path, folder)]


def find_base(folder):
    """Return the folder that holds the files. Folders that hold one folder and nothing else are skipped."""
    inner = [path for path in folder.iterdir() if not JUNK.fullmatch(path.name)]
    return find_base(inner[0]) if len(inner) == 1 and inner[0].is_dir() else folder


def find_layers(path, shown):
    """Return where the two classes are: a dict from each class that is found to its path and what messages call it.

    A file counts with those that it imports. Raises UserError if two files define a class, or if one cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    for notebook in [file for file in list_code(folder) if file.suffix.lower() == ".ipynb"]:
        with contextlib.suppress(UserError):
            read_source(notebook, notebook)  # writes the files of its %%writefile cells
    places = {file: f"{file.relative_to(folder)} in {shown}" for file in list_code(folder)} | {path: str(shown)}
    trees, problems = {}, []
    for file in list_code(path) if path.is_dir() else [path]:
        try:
            source = read_source(file, places[file])
            trees[file] = source.tree
            problems += source.problems
        except UserError as error:
            problems.append(str(error))
    found = {}
    for name in CLASSES:
        files = [file for file, tree in trees.items() if name in list_defined(tree)]
        if path in trees and not files:
            files = follow_imports(name, path, trees[path], places)
        files = ([file for file in files if file.name == "models.py"] or
                 [file for file in files if file.suffix == ".py"] or files)
        if len(files) > 1:
            one, other = (file.relative_to(folder) for file in files[:2])
            raise UserError(f"{shown} defines {name} in {one} and in {other}; keep one of them.")
        if files:
            found[name] = files[0], places[files[0]]
    if len(found) < 2 and problems:
        raise UserError(problems[0])
    return found


def follow_imports(name, path, tree, files):
    """Return a list with the first file that defines a class among those that a file imports, directly or not."""
    waiting, seen = find_imported(path, tree, files), {path}
    for file in waiting:  # grows
        if file in seen:
            continue
        seen.add(file)
        with contextlib.suppress(UserError):
            tree = read_source(file, file.name).tree
            if name in list_defined(tree):
                return [file]
            waiting += find_imported(file, tree, files)
    return []
