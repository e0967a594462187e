"""Files are whole, downloads are verified, damaged files and errors give one sentence."""

import contextlib
import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest
import torch

from helpers import UserError, run
from helpers.files import DownloadError, cached_arrays, download, reading, whole_file, write_text

CONTENT = bytes(range(256)) * 10_000  # more than what is copied at a time
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [None, OSError(), KeyboardInterrupt()])
def test_file_is_replaced_at_the_end_or_not_at_all(tmp_path, error):
    path = tmp_path / "new" / "b.npz"
    write_text(path, "Σ😀\n")
    stops = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with stops, whole_file(path) as temporary:
        assert temporary.suffix == ".npz", "numpy and matplotlib choose the format by it"
        temporary.write_text("new")
        assert path.read_bytes() == "Σ😀\n".encode()
        if error:
            raise error
    assert path.read_bytes() == ("Σ😀\n" if error else "new").encode()
    assert names(path.parent) == ["b.npz"]


@pytest.fixture
def url(tmp_path_factory):
    """The address of a server on this machine, which has one file: `it`."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "it").write_bytes(CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_download_of_the_right_file(url, tmp_path):
    download(f"{url}/it", tmp_path / "new" / "it", hashlib.md5(CONTENT).hexdigest(), "md5")
    assert (tmp_path / "new" / "it").read_bytes() == CONTENT


@pytest.mark.parametrize(("name", "digest"), [("it", "0" * 64), ("missing", SHA256), (None, SHA256)],
                         ids=["other file", "missing", "no server"])
def test_file_that_cannot_be_downloaded_leaves_nothing(url, tmp_path, name, digest):
    address = f"{url}/{name}" if name else "http://127.0.0.1:9/it"
    with pytest.raises(DownloadError, match=f"^{address} .*put it at {tmp_path / 'it'}"):
        download(address, tmp_path / "it", digest)
    assert names(tmp_path) == []


def test_arrays_are_computed_once_for_a_key_and_a_damaged_file_is_one_sentence(tmp_path):
    calls = []

    def make():
        calls.append(len(calls))
        return {"numbers": np.arange(1000) + len(calls), "words": np.array(["a", "été"])}

    def load(key):
        arrays = cached_arrays(tmp_path, "it", key, make)
        assert arrays["words"].tolist() == ["a", "été"]
        return arrays["numbers"][0]

    assert [load([1, "a"]), load([1, "a"]), load([2, "a"])] == [1, 1, 2]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="delete it and run again"):
        load([1, "a"])


@pytest.mark.parametrize("error", [ValueError("line 3\nmore"), EOFError()])
def test_any_error_of_a_parser_is_one_sentence(error):
    with pytest.raises(UserError, match=r"^it.csv cannot be read \(.+\); save it as UTF-8.$"), \
            reading("it.csv", "save it as UTF-8."):
        raise error


@pytest.mark.parametrize("error", [
    UserError("give a file."), FileNotFoundError(2, "No such file or directory", "it.csv"), MemoryError(),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), KeyboardInterrupt()])
def test_errors_that_a_user_can_fix_are_one_line_and_exit_code_2(capsys, error):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    out, err = capsys.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")


def test_mistakes_in_the_program_are_not_hidden():
    with pytest.raises(RuntimeError):
        run(lambda: torch.zeros(2) @ torch.zeros(3))
