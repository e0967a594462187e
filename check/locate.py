"""Find the submissions in a folder, the files of a submission, and the files that define the two classes."""

import contextlib
import re

from check.mistakes import ATTENTION, NORM
from check.source import find_imported, list_defined, read_source
from helpers import UserError

CLASSES = ATTENTION, NORM
CODE = {".py", ".ipynb"}
PACKED = {".zip", ".rar", ".7z", ".tar", ".gz", ".tgz"}  # all but .zip are refused, by name
JUNK = {"__MACOSX", "__pycache__", "node_modules", "site-packages"}  # and all names that start with a dot
MINGPT_FOLDER = re.compile(r"(karpathy-)?mingpt(-(main|master|[0-9a-f]{7,40}))?", re.IGNORECASE)
MINGPT_CLASSES = {"GPT", "CausalSelfAttention"}, {"BPETokenizer", "Encoder"}, {"CfgNode"}  # classes of its three files


# Files


def list_files(folder):
    """Return the files of a folder and of all folders in it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def list_clean(folder, depth=99):
    """Return the files of a folder, sorted, without links, junk, and what cannot be read.

    `depth` is how many folders inside each other are searched.
    """
    files, folders = [], []
    for path in list_inside(folder):
        if path.is_dir() and not path.is_symlink():
            folders.append(path)
        elif path.is_file() and not path.is_symlink():
            files.append(path)
    for inner in folders if depth else []:
        files += list_clean(inner, depth - 1)
    return files


def list_inside(path):
    """Return what is directly in a folder, without junk. A folder that cannot be read, and a file, hold nothing."""
    try:
        return sorted(inner for inner in path.iterdir() if not is_junk(inner, path))
    except OSError:
        return []


def is_junk(path, folder):
    """Return whether a path in a folder was left there by an operating system or an editor."""
    return any(part in JUNK or part.startswith(".") for part in path.relative_to(folder).parts)


def is_mingpt(path, folder):
    """Return whether a file is minGPT's own code, judging by its folder or by the classes that it defines."""
    if any(map(MINGPT_FOLDER.fullmatch, path.relative_to(folder).parts[:-1])):
        return True
    text = ""
    if path.suffix == ".py":
        with contextlib.suppress(OSError):  # it cannot be read
            text = path.read_text(encoding="utf-8", errors="replace")
    classes = {*re.findall(r"^class (\w+)", text, re.MULTILINE)}
    return not classes & {*CLASSES} and any(theirs <= classes for theirs in MINGPT_CLASSES)


def list_code(folder):
    """Return the student's own Python files and notebooks."""
    code = [path for path in list_clean(folder) if path.suffix.lower() in CODE]
    return [path for path in code if not is_mingpt(path, folder)]


def is_readme(path):
    """Return whether a path is that of a README."""
    return path.stem.lower() == "readme" and path.suffix.lower() in ("", ".md", ".txt")


def find_base(folder):
    """Return the folder that holds the files. Folders that hold one folder and nothing else are skipped."""
    inner = list_inside(folder)
    return find_base(inner[0]) if len(inner) == 1 and inner[0].is_dir() else folder


# Sets of submissions


def list_submissions(path):
    """Return the submissions that a path stands for, and the files of code beside them, which are left out.

    A folder is a set of submissions if it holds a zip, or if it has no code, README or PDF of its own and at least two
    folders with code. Each zip and folder in a set may be a set again. Any other path is one submission.
    """
    if not is_set(path):
        return [path], []
    submissions, left_out = [], []
    for inner in list_inside(path):
        if inner.is_dir() and list_clean(inner):
            more, beside = list_submissions(inner)
            submissions += more
            left_out += beside
        elif inner.suffix.lower() in PACKED:
            submissions.append(inner)
        elif inner.suffix.lower() in CODE:
            left_out.append(inner)
    return submissions, left_out


def is_set(path):
    """Return whether a path is a folder with several submissions, or with zips."""
    inside = list_inside(path)
    if any(is_zip(inner) for inner in inside):
        return True
    if any(is_readme(inner) or inner.suffix.lower() in CODE | {".pdf"} for inner in inside if inner.is_file()):
        return False
    folders = [inner for inner in inside if inner.is_dir()]
    with_code = [folder for folder in folders if list_code(folder) or any(map(is_zip, list_clean(folder)))]
    return len(with_code) > 1 or any(map(is_set, folders))


def is_zip(path):
    """Return whether a path is that of a zip."""
    return path.suffix.lower() == ".zip" and path.is_file()


# The two classes


def find_layers(path, shown):
    """Return where the two classes are: a dict from each class that is found to its path and what messages call it.

    Args:
        path: a folder, or a file, which counts with the files beside it that it imports.
        shown: what messages call the path.
    Raises:
        UserError: two files define a class, or a file that may define a missing class is not Python.
    """
    folder = path if path.is_dir() else path.parent
    write_cells(folder)
    sources, problems = {}, []
    for file in [path] if path.is_file() else list_code(path):
        place = f"{file.relative_to(folder)} in {shown}" if path.is_dir() else str(shown)
        try:
            sources[file] = read_source(file, place)
        except UserError as error:
            problems.append(str(error))
    problems += [f"{source.broken}." for source in sources.values() if source.broken]
    found = {}
    for name in CLASSES:
        files = [file for file, source in sources.items() if name in list_defined(source.tree)]
        if path.is_file():
            files = files or follow_imports(name, sources)
        files = choose_files(files)
        if len(files) > 1:
            one, other = (file.relative_to(folder) for file in files[:2])
            raise UserError(f"{shown} defines {name} in {one} and in {other}; keep one of them.")
        if files:
            inner = files[0].relative_to(folder)
            found[name] = files[0], str(shown) if files[0] == path else f"{inner} in {shown}"
    if len(found) < 2 and problems:
        raise UserError(problems[0])
    return found


def write_cells(folder):
    """Read the notebooks of a folder, which writes the files of their %%writefile cells."""
    for path in list_code(folder):
        if path.suffix.lower() == ".ipynb":
            with contextlib.suppress(UserError):
                read_source(path, path.name)


def follow_imports(name, sources):
    """Return the first file that defines a class among those that a file imports, and those that these import."""
    (path, source), = sources.items()
    others = [other for other in list_code(path.parent) if other.suffix == ".py"]
    waiting, seen = find_imported(path, source.tree, others), {path}
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        with contextlib.suppress(UserError):
            tree = read_source(file, file.name).tree
            if name in list_defined(tree):
                return [file]
            waiting += find_imported(file, tree, others)
    return []


def choose_files(files):
    """Return the files named models.py; if there are none, the Python files; if there are none, all files."""
    named = [file for file in files if file.name == "models.py"]
    return named or [file for file in files if file.suffix == ".py"] or files
