"""Read and write files: written completely or not at all, downloads verified, arrays cached."""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import urllib.request
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers import UserError


@contextlib.contextmanager
def reading(path, advice):
    """Raise UserError in place of any error of the parser that reads `path`. `advice` ends the sentence."""
    try:
        yield
    except (UserError, FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in many ways
        reason = str(error).partition("\n")[0][:100] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); {advice}") from error


@contextlib.contextmanager
def whole_file(path):
    """Yield a temporary path to write to. It replaces `path` if the block succeeds, and is deleted if it fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")  # on the same disk, so that the replacing is atomic
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Write `text` as UTF-8, completely or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_digest(path, algorithm="sha256"):
    """Return the hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


class DownloadError(UserError):
    """A file cannot be downloaded."""


def download(url, path, digest, algorithm="sha256"):
    """Download a file, and keep it only if it has the expected digest. Raises DownloadError if that fails."""
    advice = f"run again, or download it yourself and put it at {path}."
    with whole_file(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer, open(temporary, "wb") as file:
                size = int(answer.headers.get("Content-Length", 0)) or None
                with tqdm.wrapattr(answer, "read", total=size, desc=f"downloading {Path(path).name}") as stream:
                    shutil.copyfileobj(stream, file, 1 << 20)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{url} cannot be downloaded ({error}); {advice}") from error
        if file_digest(temporary, algorithm) != digest:
            raise DownloadError(f"{url} did not send the expected file; {advice}")


def cached_arrays(cache_dir, name, key, make):
    """Return a dict of arrays from a file in `cache_dir`. If it is missing, compute it by `make()`.

    `key` is everything that the arrays depend on, as JSON types. Its digest is part of the file's name.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = Path(cache_dir, f"{name}-{digest}.npz")
    if path.exists():
        with reading(path, "delete it and run again."), np.load(path) as arrays:  # a zip, which has checksums
            return dict(arrays)
    arrays = make()
    with whole_file(path) as temporary:
        np.savez(temporary, **arrays)
    return arrays
