"""Write files completely or not at all, and cache arrays."""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from helpers.locks import HALF_WRITTEN, delete_leftovers, locked, temporary_file


@contextlib.contextmanager
def whole_file(path):
    """Yield a temporary path to write to. Its content replaces that of `path` if the block succeeds.

    If the block fails, `path` stays as it is. If `path` is a symbolic link, the link stays, and the file that it leads
    to is replaced. A pipe or a device, such as /dev/stdout, gets the content at the end of the block.
    Raises PermissionError if the file is write-protected.
    """
    path = Path(path)
    target = follow_links(path)
    if target.is_file() and not os.access(target, os.W_OK):  # os.replace would ignore the write protection
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    # The temporary file is in the folder of the target, because os.replace is atomic only within a disk.
    folder = Path(tempfile.gettempdir()) if is_stream(target) else target.parent
    folder.mkdir(parents=True, exist_ok=True)
    delete_leftovers(folder)
    try:
        with temporary_file(folder, path.name) as temporary:
            yield temporary
            move_content(temporary, target)
    except OSError as error:
        has_no_name = error.filename is None and error.errno is not None  # a full disk, for example
        if has_no_name or HALF_WRITTEN in str(error.filename):
            error.filename = str(path)  # the name that the user knows
        raise


def follow_links(path):
    """Return the path that a chain of symbolic links leads to. No file needs to exist there.

    Raises OSError if the links form a loop.
    """
    for _ in range(40):  # as many as Linux follows
        if is_descriptor(path) or not path.is_symlink():
            return path
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def is_descriptor(path):
    """Return whether a path names an open file of this process, such as /dev/fd/1, to which /dev/stdout links."""
    folders = (Path("/dev/fd").resolve(), Path("/proc/self/fd").resolve())
    return path.name.isdecimal() and path.parent.resolve() in folders


def is_stream(path):
    """Return whether a path is an open file of this process, a pipe or a device. These are written to, not replaced."""
    is_special = path.exists() and not path.is_file() and not path.is_dir()
    return is_special or is_descriptor(path)


def move_content(temporary, target):
    """Replace the file `target` by the file `temporary`, or write the content to `target` if it is a stream."""
    if not is_stream(target):
        with contextlib.suppress(OSError):  # the target is new, or the disk has no permissions
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
        return
    sys.stdout.flush()  # what was printed before comes first
    # An open file is written at its current position. Opening its path again would begin at position 0.
    destination = os.dup(int(target.name)) if is_descriptor(target) else target
    with open(destination, "wb") as stream, open(temporary, "rb") as file:
        shutil.copyfileobj(file, stream)


@contextlib.contextmanager
def only_process(folder):
    """Let no other process write to `folder`, and delete temporary files that a killed process left there.

    The folder is created if it is missing, and removed at the end if it is empty. Raises UserError if another process
    is writing to it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        delete_leftovers(folder)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # fails, as it should, unless the folder is empty


def write_text(path, text):
    """Write `text` as UTF-8 to `path`, completely or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cached_arrays(cache_dir, name, key, names, make):
    """Return numpy arrays from a file in `cache_dir`. If it is missing or damaged, compute and store the arrays.

    Args:
        cache_dir: the folder of the file.
        name: the start of the file's name.
        key: everything that the arrays depend on, as JSON types; its digest is part of the file's name.
        names: names of the arrays.
        make: a function that computes the arrays and returns them as a dict from name to array.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = Path(cache_dir, f"{name}-{digest}.npz")
    delete_leftovers(cache_dir)
    try:
        with np.load(path, allow_pickle=False) as arrays:  # the file is a zip, so each array has a checksum
            return {array: arrays[array] for array in names}
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception:  # a damaged file can fail in many ways
        print(f"{path} is damaged; computing it again", file=sys.stderr)
    arrays = make()
    with whole_file(path) as temporary:
        np.savez(temporary, **arrays)
    return arrays


def write_torch(path, content):
    """Write `content` with `torch.save`, completely or not at all."""
    import torch  # here, because not every command that writes files needs torch

    buffer = io.BytesIO()  # if the disk is full, torch.save raises a RuntimeError that does not say so
    torch.save(content, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_torch(path):
    """Return what `write_torch` wrote, on the CPU. No code from the file is executed.

    Every error except FileNotFoundError means that the file is damaged or of another kind. torch itself verifies no
    checksums, so it would load flipped bits as weights, and it does not limit the unpacked size.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        unpacked_size = sum(member.file_size for member in archive.infolist())  # torch.save does not compress
        if unpacked_size > Path(path).stat().st_size or archive.testzip():
            raise ValueError("the file is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def file_digest(path, algorithm="sha256"):
    """Return the hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
