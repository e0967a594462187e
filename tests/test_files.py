"""Files are written completely or not at all; downloads are verified."""

import contextlib
import errno
import fcntl
import hashlib
import socket
import threading
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from helpers import files
from helpers.cli import Unreachable, UserError

CONTENT = bytes(range(256)) * 10_000  # more than what is copied at a time
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("before", [None, "old"])
def test_whole_file_replaces_the_old_one_at_the_end(tmp_path, before):
    path = tmp_path / "a" / "b.npz"
    if before:
        files.write_text(path, before)
    with files.whole_file(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        inode = temporary.stat().st_ino
        assert temporary.suffix == ".npz", "numpy and matplotlib choose the format by it"
        assert (path.read_text(encoding="utf-8") if path.exists() else None) == before
    assert path.read_text(encoding="utf-8") == "new"
    assert path.stat().st_ino == inode, "it must be replaced, not copied"
    assert names(path.parent) == ["b.npz"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError(), KeyboardInterrupt()])
def test_whole_file_leaves_the_old_one_when_writing_fails(tmp_path, error):
    def write(path):
        with files.whole_file(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise error
    files.write_text(tmp_path / "b.txt", "Σ😀\n")
    with pytest.raises(type(error)):
        write(tmp_path / "b.txt")
    with pytest.raises(FileNotFoundError, match="'[^']*/never_written.txt'"), files.whole_file(
            tmp_path / "never_written.txt"):
        pass
    assert (tmp_path / "b.txt").read_bytes() == "Σ😀\n".encode()
    assert names(tmp_path) == ["b.txt"]


def test_temporary_files_of_a_killed_process_are_deleted(tmp_path):
    with files.whole_file(tmp_path / "run" / "b.txt") as temporary:
        temporary.write_text("half", encoding="utf-8")
        left = temporary.read_bytes()
    temporary.write_bytes(left)
    (tmp_path / "run" / ".hidden").touch()
    with files.only_process(tmp_path / "run"):
        assert names(tmp_path / "run") == [".hidden", "b.txt"]
    with files.only_process(tmp_path / "empty"):
        pass
    assert names(tmp_path) == ["run"]


def test_second_process_is_refused_if_the_disk_supports_locks(tmp_path, monkeypatch):
    run = tmp_path / "run"
    with files.only_process(run):
        for _ in range(2):  # the refusal keeps the folder and its lock
            with pytest.raises(UserError, match="another process"), files.only_process(run):
                pass
    with files.only_process(run):
        monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOTSUP, "Operation not supported")))
        with files.only_process(run):
            pass


def damaged(content, step):
    """Return the content of a file cut, with each `step`th byte flipped, and replaced by a page."""
    cut = [content[:size] for size in (0, 1, 100, len(content) // 2, -100, -22, -1)]
    flipped = [content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1:] for i in range(0, len(content), step)]
    return [*cut, b"<html>no space left</html>", *flipped]


def test_cached_arrays_are_made_once_for_a_key_and_again_when_damaged(tmp_path, capsys):
    arrays = {"a": np.arange(40), "b": np.array(["x", "été"])}
    make = Mock(return_value=arrays)

    def load(key, cache=tmp_path / "cache"):
        found = files.cached_arrays(cache, "numbers", key, list(arrays), make)
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
        return make.call_count
    assert [load(key) for key in (["x", 1], ["x", 1], ["x", 2], ["x", 1])] == [1, 1, 2, 2]
    assert load(["x", 1], tmp_path / "other") == 3
    assert capsys.readouterr().err == ""
    (path,) = (tmp_path / "other").iterdir()
    versions = damaged(path.read_bytes(), 2)
    np.savez(path, a=np.array([None]), b=arrays["b"])  # pickled, so reading it could execute code
    versions.append(path.read_bytes())
    for content in versions:
        path.write_bytes(content)
        load(["x", 1], tmp_path / "other")
    assert make.call_count - 3 > len(versions) / 2
    assert capsys.readouterr().err == f"{path} is damaged; computing it again\n" * (make.call_count - 3)


def test_damaged_torch_file_is_refused(tmp_path):
    path, numbers, refused = tmp_path / "b.pt", torch.arange(40), 0
    files.write_torch(path, numbers)
    assert files.read_torch(path).equal(numbers)
    versions = damaged(path.read_bytes(), 3)
    for content in versions:
        path.write_bytes(content)
        found = None
        with contextlib.suppress(Exception):  # any exception is a refusal
            found = files.read_torch(path)
        assert found is None or found.equal(numbers)
        refused += found is None
    assert refused > len(versions) / 2


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_download_of_the_right_file(server, tmp_path, capsys, algorithm):
    server.files["/it"] = CONTENT
    path, digest = tmp_path / "new" / "it", hashlib.new(algorithm, CONTENT).hexdigest()
    files.download(server.url + "/it", path, digest, algorithm)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["it"]
    assert files.file_digest(path, algorithm) == digest
    assert "downloading it" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "answer"), [
    (Unreachable, b""),
    (Unreachable, b"good morning\r\n\r\n"),
    (Unreachable, b"HTTP/1.1 404 Not Found\r\n\r\n"),
    (Unreachable, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"),
    (UserError, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc"),
    (UserError, b"HTTP/1.1 200 OK\r\n\r\n<html>log in first</html>"),
    (UserError, b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT + b"x"),
    (Unreachable, None),
    (Unreachable, "silence"),
], ids=["nothing", "no HTTP", "missing", "cut in a chunk", "cut", "html", "long", "no server", "silent server"])
def test_wrong_or_missing_answer_is_refused_and_the_old_file_stays(tmp_path, monkeypatch, kind, answer):
    def serve():
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    path, urlopen = tmp_path / "it", files.urllib.request.urlopen
    path.write_bytes(b"old")
    if answer == "silence":
        monkeypatch.setattr(files.urllib.request, "urlopen", lambda url, timeout: urlopen(url, timeout=timeout / 100))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/it"
        if answer is None:
            listening.close()
        elif answer != "silence":
            threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(kind, match=f"^{url}.*{path}.$") as caught:
            files.download(url, path, SHA256)
    assert caught.type is kind
    assert answer != b"HTTP/1.1 404 Not Found\r\n\r\n" or "Not Found" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["it"]


def test_unknown_server_is_unreachable(tmp_path, monkeypatch):
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=error))
    with pytest.raises(Unreachable, match="not known"):
        files.download("http://server.invalid/it", tmp_path / "it", SHA256)


@pytest.mark.parametrize(("error", "raised"), [
    (OSError(errno.ENOSPC, "No space left on device"), OSError), (KeyboardInterrupt(), KeyboardInterrupt),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), Unreachable),
    (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), Unreachable)])
def test_full_disk_and_ctrl_c_are_not_network_errors_and_leave_no_file(server, tmp_path, monkeypatch, error, raised):
    server.files["/it"] = b"short enough to be sent before the error"
    monkeypatch.setattr(files.shutil, "copyfileobj", Mock(side_effect=error))
    with pytest.raises(raised) as caught:
        files.download(server.url + "/it", tmp_path / "it", SHA256)
    assert caught.type is raised
    assert names(tmp_path) == []
