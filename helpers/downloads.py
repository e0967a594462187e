"""Download files and verify them."""

import contextlib
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from helpers.cli import Unreachable, UserError
from helpers.files import file_digest, whole_file


@contextlib.contextmanager
def open_url(url):
    """Open a URL and yield the response.

    Raises Unreachable if there is no response, or if it is incomplete. The message is the beginning of a sentence; the
    caller completes it.
    """
    problem = " cannot be reached"
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            problem = ": the connection ended early"
            yield answer
    except (OSError, HTTPException, ValueError) as error:  # the errors of urllib and time-outs are OSErrors
        is_network = isinstance(error, (TimeoutError, ConnectionError))
        if getattr(error, "errno", None) is not None and not is_network:
            raise  # an error of the disk
        reason = str(getattr(error, "reason", error))
        in_one_line = " ".join(reason.split())
        raise Unreachable(f"{url}{problem} ({in_one_line})") from error


def download(url, path, digest, size, algorithm="sha256"):
    """Download `url` to `path` with a progress bar. The file is written only if it has the expected digest.

    Args:
        url: the address of the file.
        path: where to write it.
        digest: the expected hexadecimal digest of the file.
        size: its size in bytes.
        algorithm: the hash function of `digest`, a name that `hashlib` knows.

    Raises:
        Unreachable: the server does not answer, or the connection ends early.
        UserError: the server sends another file.
    """
    path = Path(path)
    try:
        with whole_file(path) as temporary:
            copy_url(url, temporary, size, f"downloading {path.name}")
            if file_digest(temporary, algorithm) != digest:
                raise UserError(f"{url} did not send the expected file; download it yourself and put it at {path}.")
    except Unreachable as error:
        raise Unreachable(f"{error}; run again, or download it on another machine and put it at {path}.") from error


def copy_url(url, path, size, title):
    """Copy what a server sends to `path`, with a progress bar. Raises Unreachable if the connection ends early.

    `size` is the expected number of bytes. It is used only if the response has no header Content-Length.
    """
    with open_url(url) as answer, open(path, "wb") as file:
        size = int(answer.headers.get("Content-Length") or size)
        with tqdm.wrapattr(answer, "read", total=size, desc=title, leave=False) as stream:
            shutil.copyfileobj(stream, file, 1 << 20)
        is_chunked = "Transfer-Encoding" in answer.headers  # http.client itself then notices an early end
        if file.tell() < size and not is_chunked:
            raise ConnectionError(f"{file.tell():,} of {size:,} bytes arrived")
