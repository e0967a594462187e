"""Files that are whole or absent, verified downloads, and how a command ends."""

import errno
import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import files
from files import (
    Unreachable,
    UserError,
    download,
    file_digest,
    only_process,
    run_command,
    whole_file,
    write_text,
)

CONTENT = bytes(range(256)) * 10_000  # more than one piece of what is copied at a time
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Files


@pytest.mark.parametrize("before", [None, "old"])
def test_whole_file_takes_its_place_at_the_end(tmp_path, before):
    path = tmp_path / "a" / "b.txt"
    if before:
        write_text(path, before)
    with whole_file(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert temporary.parent == path.parent, "another disk could not replace it in one step"
        assert path.exists() == bool(before)
        assert not before or path.read_text(encoding="utf-8") == before
    assert path.read_text(encoding="utf-8") == "new"
    assert names(path.parent) == ["b.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError(), KeyboardInterrupt()])
def test_whole_file_leaves_the_old_one_when_writing_fails(tmp_path, error):
    def write(path):
        with whole_file(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise error
    path = tmp_path / "b.txt"
    write_text(path, "old")
    with pytest.raises(type(error)):
        write(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["b.txt"]


def test_whole_file_leaves_nothing_when_nothing_was_written(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "b.txt"):
        pass
    assert names(tmp_path) == []


def test_whole_file_keeps_the_ending_of_the_name(tmp_path):
    """numpy and matplotlib go by it."""
    with whole_file(tmp_path / "b.npz") as temporary:
        assert temporary.suffix == ".npz"
        temporary.touch()


def test_folder_of_only_one_process_is_cleared_of_what_a_killed_one_left(tmp_path):
    with whole_file(tmp_path / "run" / "b.txt") as temporary:
        temporary.write_text("half", encoding="utf-8")
        left = temporary.read_bytes()
    temporary.write_bytes(left)
    (tmp_path / "run" / ".hidden").touch()
    with only_process(tmp_path / "run"):
        assert names(tmp_path / "run") == [".hidden", "b.txt"]


def test_folder_of_only_one_process_is_refused_to_a_second(tmp_path):
    run = tmp_path / "run"
    with only_process(run), pytest.raises(UserError, match="another process"), only_process(run):
        pass
    with only_process(run):
        pass


def test_disk_that_knows_no_locks_will_do(tmp_path, monkeypatch):
    def flock(*args):
        raise OSError(errno.ENOTSUP, "Operation not supported")
    monkeypatch.setattr(fcntl, "flock", flock)
    with only_process(tmp_path):
        pass


def test_write_text_is_utf_8(tmp_path):
    write_text(tmp_path / "b.txt", "Σ😀\n")
    assert (tmp_path / "b.txt").read_bytes() == "Σ😀\n".encode()


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_digest_of_a_file(tmp_path, algorithm):
    (tmp_path / "b").write_bytes(CONTENT)
    assert file_digest(tmp_path / "b", algorithm) == hashlib.new(algorithm, CONTENT).hexdigest()


# Downloads


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_download_of_the_right_file(server, tmp_path, algorithm):
    server.files["/it"] = CONTENT
    path = tmp_path / "new" / "it"
    download(server.url + "/it", path, hashlib.new(algorithm, CONTENT).hexdigest(), algorithm)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["it"]


def test_download_says_how_far_it_is(server, tmp_path, capsys):
    server.files["/it"] = CONTENT
    download(server.url + "/it", tmp_path / "it", SHA256)
    assert "downloading it" in capsys.readouterr().err


def refused(kind, path, *args):
    """The one sentence with which a download is refused; it names the address and the file's place."""
    with pytest.raises(kind) as caught:
        download(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert args[0] in message
    assert str(path) in message
    return caught.value


def test_missing_page_is_unreachable(server, tmp_path):
    path = tmp_path / "it"
    error = refused(Unreachable, path, server.url + "/it", path, SHA256)
    assert "Not Found" in str(error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"<html>log in first</html>", CONTENT[:-1], CONTENT + b"x"],
                         ids=["empty", "html", "short", "long"])
def test_another_file_is_refused_and_the_old_one_stays(server, tmp_path, content):
    server.files["/it"] = content
    path = tmp_path / "it"
    path.write_bytes(b"old")
    error = refused(UserError, path, server.url + "/it", path, SHA256)
    assert not isinstance(error, Unreachable), "the server did answer"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["it"]


def test_refused_connection_is_unreachable(tmp_path):
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        path = tmp_path / "it"
        refused(Unreachable, path, f"http://127.0.0.1:{unused.getsockname()[1]}/it", path, SHA256)
    assert names(tmp_path) == []


def test_unknown_server_is_unreachable(tmp_path, monkeypatch):
    def getaddrinfo(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    path = tmp_path / "it"
    refused(Unreachable, path, "http://server.invalid/it", path, SHA256)
    assert names(tmp_path) == []


@pytest.fixture
def odd_server():
    """Answers one request with `odd_server.answer`, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        class Odd:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/it"
            answer = b""

        def serve():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(Odd.answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Odd
        thread.join(5)


@pytest.mark.parametrize("answer", [
    b"", b"HTTP/1.1 500 Broken\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
    b"good morning\r\n\r\n",
], ids=["nothing", "broken", "cut off", "no HTTP"])
def test_server_that_does_not_speak_as_it_should_is_unreachable(odd_server, tmp_path, answer):
    odd_server.answer = answer
    path = tmp_path / "it"
    refused(Unreachable, path, odd_server.url, path, SHA256)
    assert names(tmp_path) == []


def test_connection_that_ends_early_is_refused(odd_server, tmp_path):
    odd_server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc"
    path = tmp_path / "it"
    refused(UserError, path, odd_server.url, path, SHA256)
    assert names(tmp_path) == []


def test_silent_server_is_unreachable(tmp_path, monkeypatch):
    urlopen = files.urllib.request.urlopen

    def urlopen_in_haste(url, timeout):
        assert 5 <= timeout <= 120
        return urlopen(url, timeout=0.1)
    monkeypatch.setattr(files.urllib.request, "urlopen", urlopen_in_haste)
    path = tmp_path / "it"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused(Unreachable, path, f"http://127.0.0.1:{silent.getsockname()[1]}/it", path, SHA256)
    assert names(tmp_path) == []


def test_full_disk_is_not_taken_for_the_network(server, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    server.files["/it"] = CONTENT
    monkeypatch.setattr(files.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as caught:
        download(server.url + "/it", tmp_path / "it", SHA256)
    assert not isinstance(caught.value, UserError)
    assert names(tmp_path) == []


def test_ctrl_c_in_a_download_leaves_nothing(server, tmp_path, monkeypatch):
    def stop(source, target, length):
        target.write(b"half")
        raise KeyboardInterrupt
    server.files["/it"] = CONTENT
    monkeypatch.setattr(files.shutil, "copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        download(server.url + "/it", tmp_path / "it", SHA256)
    assert names(tmp_path) == []


# Commands


def end(capsys, error=None):
    """Exit code and standard error of a command that raises `error`, or nothing."""
    def main():
        print("at work")
        if error:
            raise error
    code = 0
    try:
        run_command(main)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert out == "at work\n"
    return code, err


def test_command_that_goes_well(capsys):
    assert end(capsys) == (0, "")


@pytest.mark.parametrize("kind", [UserError, Unreachable])
def test_command_refuses_in_one_sentence(capsys, kind):
    assert end(capsys, kind("the archive is damaged; delete it.")) == (2, "error: the archive is damaged; delete it.\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("path", [None, "runs/required/model.pt"])
def test_command_and_the_disk(capsys, number, path):
    code, err = end(capsys, OSError(number, os.strerror(number), *[path] * bool(path)))
    assert code == 2
    assert err.startswith("error: ")
    assert os.strerror(number) in err
    assert path is None or path in err
    assert err.count("\n") == 1


def test_command_stopped_by_ctrl_c(capsys):
    code, err = end(capsys, KeyboardInterrupt())
    assert code == 130
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_bug_keeps_its_traceback(capsys):
    """Only what the user can mend is put into a sentence."""
    with pytest.raises(ZeroDivisionError):
        end(capsys, ZeroDivisionError())


def test_ctrl_c_as_the_shell_sees_it(tmp_path):
    code = """
import time
from files import run_command, whole_file
def main():
    with whole_file("result.txt") as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(60)
run_command(main)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=os.environ | {"PYTHONPATH": str(Path(files.__file__).parent)},
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # it may be ignored
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert names(tmp_path) == []
