"""Files that are whole or absent, and downloads that are verified."""

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

HALF_WRITTEN = ".half-written-"  # begins the name of a file that has not taken its place yet


@contextlib.contextmanager
def whole_file(path):
    """Yield a temporary path beside `path`: it replaces `path` if the block ends well, and vanishes if not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Same folder: os.replace is atomic within a disk. A name that no other process has, on whatever machine it runs.
    temporary = path.with_name(f"{HALF_WRITTEN}{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # the one that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def only_process(folder):
    """Keep `folder` to this process, and clear away what a killed one left there half-written, and it if left empty.

    Raises UserError if another process holds it. The system frees it when the process ends, in whatever way.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle = fcntl and os.open(folder, os.O_RDONLY)
    try:
        try:
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is writing to {folder}; wait for it, or choose another name.") from error
        except OSError:
            pass  # some network disks know no locks
        for leftover in folder.glob(f"{HALF_WRITTEN}*"):
            leftover.unlink()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # fails, as it should, unless the folder is empty
    finally:
        if fcntl:
            os.close(handle)


def write_text(path, text):
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cached_arrays(cache_dir, name, key, names, make):
    """Return the dict of numpy arrays `names` that `make()` gives, kept in `cache_dir` from the first call on.

    The file is called after `name` and `key`, which is all that determines the arrays; a damaged one is made again.
    """
    path = Path(cache_dir, f"{name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz")
    try:
        with np.load(path, allow_pickle=False) as arrays:  # a zip file, so each array carries its checksum
            return {name: arrays[name] for name in names}
    except FileNotFoundError:
        pass
    except Exception:  # a damaged file fails in a dozen ways, and all mean the same
        print(f"{path} is damaged and is made again.", file=sys.stderr)
    arrays = make()
    with whole_file(path) as temporary:
        np.savez(temporary, **arrays)
    return arrays


def write_torch(path, content):
    """Write `content` with `torch.save`, whole or not at all."""
    import torch  # here, because not every command that writes files needs it

    buffer = io.BytesIO()  # torch.save answers a full disk with a RuntimeError that does not say so
    torch.save(content, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_torch(path):
    """Return what `write_torch` wrote, on the CPU, without executing code from the file.

    Any error but FileNotFoundError means that the file is damaged or of another kind. torch compares no checksums, and
    would take flipped bits for weights; nor does it mind a zip bomb.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > Path(path).stat().st_size or archive.testzip():
            raise ValueError("the file is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def file_digest(path, algorithm="sha256"):
    """Return the hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextlib.contextmanager
def open_url(url):
    """Yield a server's answer. Raises Unreachable, a part of a sentence, if there is none, or if it breaks off."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            yield answer
    except (OSError, HTTPException, ValueError) as error:  # urllib's errors and time-outs are OSErrors
        if getattr(error, "errno", None) is not None and not isinstance(error, (TimeoutError, ConnectionError)):
            raise  # the disk, not the network
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise Unreachable(f"{url} cannot be reached ({reason})") from error


def download(url, path, digest, algorithm="sha256"):
    """Fetch `url` to `path` with a progress bar; the file is there afterwards only if its digest is the expected one.

    Raises Unreachable if the server does not answer, UserError if it answers with something else than the file.
    """
    path = Path(path)
    try:
        with whole_file(path) as temporary:
            with open_url(url) as answer, open(temporary, "wb") as file:
                size = int(answer.headers.get("Content-Length") or 0) or None
                with tqdm.wrapattr(answer, "read", total=size, desc=f"downloading {path.name}", leave=False) as stream:
                    shutil.copyfileobj(stream, file, 1 << 20)
            if file_digest(temporary, algorithm) != digest:
                raise UserError(f"{url} answered with something else than the file that was asked for; "
                                f"fetch it by hand and put it at {path}.")
    except Unreachable as error:
        raise Unreachable(f"{error}; fetch it elsewhere and put it at {path}.") from error
