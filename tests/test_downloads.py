"""Downloads are complete and verified; whatever else a server does gives one sentence."""

import errno
import hashlib
import socket
import threading
from unittest.mock import Mock

import pytest

from helpers import downloads
from helpers.cli import Unreachable, UserError
from helpers.files import file_digest

CONTENT = bytes(range(256)) * 10_000  # more than what is copied at a time
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_download_of_the_right_file(server, tmp_path, capsys, algorithm):
    server.files["/it"] = CONTENT
    path, digest = tmp_path / "new" / "it", hashlib.new(algorithm, CONTENT).hexdigest()
    downloads.download(server.url + "/it", path, digest, len(CONTENT), algorithm)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["it"]
    assert file_digest(path, algorithm) == digest
    assert "downloading it" in capsys.readouterr().err


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EARLY = "the connection ended early"


@pytest.mark.parametrize(("kind", "reason", "answer"), [
    (Unreachable, "cannot be reached", b""),
    (Unreachable, "cannot be reached", b"good morning\r\n\r\n"),
    (Unreachable, "cannot be reached .*Not Found", b"HTTP/1.1 404 Not Found\r\n\r\n"),
    (Unreachable, "cannot be reached", None),
    (Unreachable, "cannot be reached .*timed out", "silence"),
    (Unreachable, EARLY, CHUNKED + b"ff\r\nabc"),
    (Unreachable, f"{EARLY} .3 of 1,000,000 bytes", LENGTH + b"abc"),
    (Unreachable, f"{EARLY} .0 of 1,000,000 bytes", LENGTH),
    (Unreachable, f"{EARLY} .2,559,999 of 2,560,000 bytes", b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT[:-1]),
    (UserError, "did not send the expected file", CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"),
    (UserError, "did not send the expected file", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    (UserError, "did not send the expected file", b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT + b"x"),
], ids=["nothing", "no HTTP", "missing", "no server", "silent server", "cut in a chunk", "cut", "cut at once",
        "cut without a length", "other in chunks", "other", "long"])
def test_wrong_or_missing_answer_is_refused_and_the_old_file_stays(tmp_path, monkeypatch, kind, reason, answer):
    def serve():
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    path, urlopen = tmp_path / "it", downloads.urllib.request.urlopen
    path.write_bytes(b"old")
    if answer == "silence":
        monkeypatch.setattr(downloads.urllib.request, "urlopen",
                            lambda url, timeout: urlopen(url, timeout=timeout / 100))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/it"
        if answer is None:
            listening.close()
        elif answer != "silence":
            threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(kind, match=f"^{url}.*{reason}.*{path}.$") as caught:
            downloads.download(url, path, SHA256, len(CONTENT))
    assert caught.type is kind
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["it"]


def test_unknown_server_is_unreachable(tmp_path, monkeypatch):
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=error))
    with pytest.raises(Unreachable, match="not known"):
        downloads.download("http://server.invalid/it", tmp_path / "it", SHA256, len(CONTENT))


@pytest.mark.parametrize(("error", "raised"), [
    (OSError(errno.ENOSPC, "No space left on device"), OSError), (KeyboardInterrupt(), KeyboardInterrupt),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), Unreachable),
    (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), Unreachable)])
def test_full_disk_and_ctrl_c_are_not_network_errors_and_leave_no_file(server, tmp_path, monkeypatch, error, raised):
    server.files["/it"] = b"short enough to be sent before the error"
    monkeypatch.setattr(downloads.shutil, "copyfileobj", Mock(side_effect=error))
    with pytest.raises(raised) as caught:
        downloads.download(server.url + "/it", tmp_path / "it", SHA256, len(CONTENT))
    assert caught.type is raised
    assert names(tmp_path) == []
