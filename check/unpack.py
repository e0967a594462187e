"""Copy a submission to a temporary folder. Zips and folders beyond the limits are refused."""

import os
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from helpers.cli import UserError

MAX_BYTES, MAX_FILES = 200_000_000, 2000
MAX_NEIGHBOUR = 5_000_000  # bytes of a file that is copied because it lies next to the solution
SKIPPED = {"__pycache__", "node_modules", "site-packages"}  # and all names that start with a dot
HAND_IN = "hand in only the code, the README and the PDF"
JUNK = {"__MACOSX", ".DS_Store"}


def copy_submission(path, target):
    """Copy a submission to the folder `target`, and return the path in it that stands for the submission.

    Raises UserError if it is of another kind or exceeds the limits.
    """
    path = Path(path)
    if path.is_dir():
        copy_folder(path, target)
        return target
    if not path.exists():
        raise UserError(f"{path} does not exist.")
    if path.suffix.lower() == ".zip" and path.is_file():
        unpack(path, target)
        return target
    if path.suffix.lower() not in (".py", ".ipynb") or not path.is_file():
        raise UserError(f"{path} is not a .py file, a notebook, a folder or a zip.")
    copy_neighbours(path, target)
    return target / path.name


def copy_folder(source, target):
    """Copy the files of a folder. Raises UserError if they exceed the limits. Links and hidden folders are left out."""
    files = size = 0
    for path in walk(source):
        files, size = files + 1, size + path.stat().st_size
        check_limits(source, files, size)
        copy(path, target / path.relative_to(source))
    refuse_zips(source, [str(path.relative_to(target)) for path in walk(target)])


def copy_neighbours(path, target):
    """Copy a file and the small files next to it, as long as they stay within the limits."""
    copy(path, target / path.name)
    files = size = 0
    for other in walk(path.resolve().parent, depth=3):
        bytes_ = other.stat().st_size
        if bytes_ > MAX_NEIGHBOUR:
            continue
        files, size = files + 1, size + bytes_
        if files > MAX_FILES or size > MAX_BYTES:
            return
        copy(other, target / other.relative_to(path.resolve().parent))


def walk(folder, depth=20):
    """Yield the files of a folder, and then those of its folders, `depth` levels down."""
    folders = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        elif entry.is_dir(follow_symlinks=False) and entry.name not in SKIPPED and not entry.name.startswith("."):
            folders.append(entry.path)
    for inner in folders if depth else []:
        yield from walk(inner, depth - 1)


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def check_limits(path, files, size):
    """Raise UserError if a submission has too many files or bytes."""
    if files > MAX_FILES:
        raise UserError(f"{path} holds more than {MAX_FILES:,} files; {HAND_IN}.")
    if size > MAX_BYTES:
        raise UserError(f"{path} holds more than {MAX_BYTES // 1_000_000} MB; {HAND_IN}.")


def unpack(path, target):
    """Unpack a zip. Raises UserError with one sentence if it is damaged, unsafe, or exceeds the limits."""
    if not path.stat().st_size:
        raise UserError(f"{path} is empty; make the zip again.")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not a zip, or it is damaged; make the zip again.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            check_entries(path, entries)
            written = 0
            for entry in entries:
                written += extract(archive, entry, target / clean_name(entry), MAX_BYTES - written)
                check_limits(path, 0, written)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be unpacked ({message}); make the zip again.") from None


def check_entries(path, entries):
    """Raise UserError if a zip should not be unpacked."""
    names = [clean_name(entry) for entry in entries]
    if not names:
        raise UserError(f"{path} is empty; {HAND_IN}.")
    if any(entry.flag_bits & 1 for entry in entries):
        raise UserError(f"{path} is encrypted; make the zip without a password.")
    check_limits(path, len(entries), sum(entry.file_size for entry in entries))
    for entry, name in zip(entries, names, strict=True):
        if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in PurePosixPath(name).parts:
            raise UserError(f"{path} holds {show(name)}, which would be unpacked outside its folder.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UserError(f"{path} holds {show(name)}, a link; put the file itself into the zip.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path} holds {show(twice[0])} twice; keep one of the two.")
    refuse_zips(path, names)


def refuse_zips(path, names):
    """Raise UserError if a submission with files of these names holds zips only."""
    real = [name for name in names if not JUNK & {*PurePosixPath(name).parts}]
    if real and all(name.lower().endswith(".zip") for name in real):
        inner = show(real[0])
        if path.is_dir():
            raise UserError(f"{path} holds a zip, {inner}, and no code; give the path of the zip.")
        raise UserError(f"{path} holds another zip, {inner}, and no code; zip the files themselves.")


def clean_name(entry):
    """Return the name of an entry with slashes. Some programs for Windows write backslashes."""
    return entry.filename.replace("\\", "/")


def show(name):
    """Return a name, shortened, with "?" for each character that cannot be printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:100]


def extract(archive, entry, target, limit):
    """Write an entry to a file, and return its number of bytes. Reading stops one byte above `limit`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source:
        data = source.read(limit + 1)
    target.write_bytes(data)
    return len(data)
