"""Write files completely or not at all, cache arrays, and verify downloads."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import urllib.request
import uuid
import zipfile
from http.client import HTTPException
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.cli import Unreachable, UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HALF_WRITTEN = ".half-written-"  # the name of a temporary file starts with this


@contextlib.contextmanager
def whole_file(path):
    """Yield a temporary path to write to. It replaces `path` if the block succeeds; otherwise it is deleted."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because os.replace is atomic only within a disk. The name is unique among all processes, even
    # those of other machines that write to the same network disk.
    temporary = path.with_name(f"{HALF_WRITTEN}{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def only_process(folder):
    """Let no other process write to `folder`, and delete temporary files that a killed process left there.

    The folder is created if it is missing, and removed at the end if it is empty. Raises UserError if another process
    is writing to it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for leftover in folder.glob(f"{HALF_WRITTEN}*"):
            leftover.unlink()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # fails, as it should, unless the folder is empty


@contextlib.contextmanager
def locked(folder):
    """Hold a lock on `folder`. The system releases it when the process ends, even if the process is killed.

    Raises UserError if another process holds the lock. Windows and some network disks have no such locks: there,
    nothing is locked.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is writing to {folder}; wait for it, or choose another name.") from error
        except OSError:
            pass  # the disk does not support locks
        yield
    finally:
        os.close(handle)


def write_text(path, text):
    """Write `text` as UTF-8 to `path`, completely or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cached_arrays(cache_dir, name, key, names, make):
    """Return numpy arrays from a file in `cache_dir`. If it is missing or damaged, compute the arrays and write it.

    Args:
        cache_dir: the folder of the file.
        name: the start of the file's name.
        key: everything that the arrays depend on, as JSON types; its digest is part of the file's name.
        names: names of the arrays.
        make: a function that computes the arrays, a dict from `names`.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = Path(cache_dir, f"{name}-{digest}.npz")
    try:
        with np.load(path, allow_pickle=False) as arrays:  # a zip file, so each array has a checksum
            return {array: arrays[array] for array in names}
    except FileNotFoundError:
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


@contextlib.contextmanager
def open_url(url):
    """Yield the answer of a server.

    Raises Unreachable if the answer is missing or incomplete. Its message is the beginning of a sentence.
    """
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            yield answer
    except (OSError, HTTPException, ValueError) as error:  # the errors of urllib and time-outs are OSErrors
        is_network = isinstance(error, (TimeoutError, ConnectionError))
        if getattr(error, "errno", None) is not None and not is_network:
            raise  # an error of the disk
        reason = str(getattr(error, "reason", error))
        in_one_line = " ".join(reason.split())
        raise Unreachable(f"{url} cannot be reached ({in_one_line})") from error


def download(url, path, digest, algorithm="sha256"):
    """Download `url` to `path` with a progress bar. The file is written only if it has the expected digest.

    Raises Unreachable if the server does not answer, and UserError if it sends another file.
    """
    path = Path(path)
    try:
        with whole_file(path) as temporary:
            copy_url(url, temporary, f"downloading {path.name}")
            if file_digest(temporary, algorithm) != digest:
                raise UserError(f"{url} did not send the expected file; download it yourself and put it at {path}.")
    except Unreachable as error:
        raise Unreachable(f"{error}; download it on another machine and put it at {path}.") from error


def copy_url(url, path, title):
    """Copy what a server sends to `path`, with a progress bar."""
    with open_url(url) as answer, open(path, "wb") as file:
        size = int(answer.headers.get("Content-Length") or 0) or None
        with tqdm.wrapattr(answer, "read", total=size, desc=title, leave=False) as stream:
            shutil.copyfileobj(stream, file, 1 << 20)
