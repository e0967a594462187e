"""Files that are whole or absent, downloads that are verified, and one clear sentence for what goes wrong.

Used by every script of the project; run by none.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import sys
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path

import numpy as np
from tqdm import tqdm

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HALF_WRITTEN = ".half-written-"  # begins the name of a file that has not taken its place yet


class UserError(Exception):
    """Something that the user can mend: the message is one sentence on what was wrong and what to do."""


class Unreachable(UserError):
    """A server did not answer, so the file cannot be had now."""


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
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def only_process(folder):
    """Keep `folder` to this process, and clear away what a killed one left there half-written.

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
        yield
    finally:
        if fcntl:
            os.close(handle)


def write_text(path, text):
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path, arrays):
    """Write a dict of numpy arrays to an npz file, whole or not at all."""
    with whole_file(path) as temporary:
        np.savez(temporary, **arrays)


def read_arrays(path, names):
    """The arrays `names` of an npz file; None if it is absent, or damaged (said on standard error): make it again."""
    try:
        with np.load(path, allow_pickle=False) as arrays:  # a zip file, so each array carries its checksum
            return {name: arrays[name] for name in names}
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file fails in a dozen ways, and all mean the same
        print(f"{path} is damaged and is made again.", file=sys.stderr)
        return None


def file_digest(path, algorithm="sha256"):
    """Hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def download(url, path, digest, algorithm="sha256"):
    """Fetch `url` to `path` with a progress bar; the file is there afterwards only if its digest is the expected one.

    Raises Unreachable if the server does not answer, UserError if it answers with something else than the file.
    """
    path = Path(path)
    try:
        with whole_file(path) as temporary:
            with urllib.request.urlopen(url, timeout=30) as answer, open(temporary, "wb") as file:
                size = int(answer.headers.get("Content-Length") or 0) or None
                with tqdm.wrapattr(answer, "read", total=size, desc=f"downloading {path.name}", leave=False) as stream:
                    shutil.copyfileobj(stream, file, 1 << 20)
            if file_digest(temporary, algorithm) != digest:
                raise UserError(f"{url} answered with something else than the file that was asked for; "
                                f"fetch it by hand and put it at {path}.")
    except (OSError, HTTPException) as error:  # urllib's errors and time-outs are OSErrors
        if getattr(error, "errno", None) is not None and not isinstance(error, (TimeoutError, ConnectionError)):
            raise  # the disk, not the network
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise Unreachable(f"{url} cannot be reached ({reason}); "
                          f"fetch it elsewhere and put it at {path}.") from error


class Parser(argparse.ArgumentParser):
    """An argparse parser that refuses in one sentence."""

    def error(self, message):
        raise UserError(f"{message} (--help shows all options).")


def number(kind, low, high=float("inf")):
    """An argparse type: a number of that kind from `low` up to, not including, `high`."""
    def convert(text):
        value = kind(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"{text} is not at least {low} and below {high}")
        return value
    convert.__name__ = kind.__name__
    return convert


def run_command(main):
    """Call `main()` and end the process: 0 if it went well, 2 after one sentence, 130 after Ctrl-C."""
    message, code = None, 2
    try:
        main()
        return
    except UserError as error:
        message = error
    except OSError as error:  # a full disk, a folder that may not be written
        message = f"{error.filename or 'a file'}: {error.strerror or error}; mend that and run again."
    except KeyboardInterrupt:
        message, code = "stopped by Ctrl-C; nothing was left half-written.", 130
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
