"""Files are written completely or not at all, through links too; leftovers of killed processes are deleted."""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import threading
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from helpers import files, locks
from helpers.cli import UserError
from tests.toy import ROOT


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
    assert (tmp_path / "b.txt").read_bytes() == "Σ😀\n".encode()
    assert names(tmp_path) == ["b.txt"]


@pytest.mark.parametrize("place", ["full", "folder", "loop", "proc"])
def test_an_error_names_the_file_that_the_user_knows(tmp_path, place):
    path = {"full": "/dev/full", "folder": tmp_path, "loop": tmp_path / "loop", "proc": "/proc/x.csv"}[place]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=rf"^\[Errno \d+\] [A-Z][a-z ]+: '{path}'"):
        files.write_text(path, "new")
    assert names(tmp_path) == ["loop"]


# Links, pipes and devices


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("links", [["../b/table"], ["{}/b/table"], ["second.csv", "third.csv", "{}/b/table"]],
                         ids=["relative", "absolute", "chain"])
def test_target_of_a_link_is_replaced(tmp_path, links, before):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    target = tmp_path / "b" / "table"
    if before:
        target.write_text(before)
    for name, link in zip(["first.csv", "second.csv", "third.csv"], links, strict=False):
        (tmp_path / "a" / name).symlink_to(link.format(tmp_path))
    with files.whole_file(tmp_path / "a" / "first.csv") as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".csv", "the format is chosen by the name that was given"
        assert temporary.parent.samefile(tmp_path / "b"), "it can be moved only within a disk"
        assert names(tmp_path / "b") == [temporary.name, *(["table"] if before else [])]
    assert [path.is_symlink() for path in (tmp_path / "a").iterdir()] == [True] * len(links)
    assert target.read_text() == "new"
    assert names(tmp_path / "b") == ["table"]


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_permissions_of_a_file_stay_whatever_the_length_of_its_name(tmp_path, mode):
    path = tmp_path / ("é" * 125 + ".csv")  # 254 bytes
    path.touch()
    path.chmod(mode)
    files.write_text(path, "new")
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", ["table", "link"])
def test_write_protected_file_stays(tmp_path, monkeypatch, name):
    path = tmp_path / "table"
    path.write_text("old")
    path.chmod(0o444)
    (tmp_path / "link").symlink_to("table")
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o200))  # root may write all
    with pytest.raises(PermissionError) as caught:
        files.write_text(tmp_path / name, "new")
    assert caught.value.filename == str(tmp_path / name)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["link", "table"]


def test_pipe_gets_the_content(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    files.write_torch(tmp_path / "link", torch.arange(3))
    reader.join(10)
    (tmp_path / "it.pt").write_bytes(received[0])
    assert files.read_torch(tmp_path / "it.pt").tolist() == [0, 1, 2]
    assert names(tmp_path) == ["it.pt", "link", "pipe"]


@pytest.mark.parametrize(("path", "is_file"), [("/dev/stdout", True), ("/dev/fd/1", False), ("link", True)])
def test_standard_output_keeps_what_is_printed_before_and_after(tmp_path, path, is_file):
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "log").write_text("earlier\n")
    code = "import sys; from helpers import files; print(1); files.write_text(sys.argv[1], '2\\n'); print(3)"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    with open(tmp_path / "log", "a") as log:
        done = subprocess.run([sys.executable, "-c", code, path], stdout=log if is_file else subprocess.PIPE, text=True,
                              cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "log").read_text() + (done.stdout or "") == "earlier\n1\n2\n3\n"
    assert names(tmp_path) == ["link", "log"]


def test_device_is_not_replaced(monkeypatch):
    replace = Mock()
    monkeypatch.setattr(os, "replace", replace)
    files.write_text("/dev/null", "new")
    assert not replace.called


# Locks and leftovers


WRITE = """
import sys
from helpers import files
with files.whole_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("clear", [
    lambda folder: files.write_text(folder / "b.txt", "new"),
    lambda folder: files.cached_arrays(folder, "a", 1, ["x"], lambda: {"x": np.zeros(1)}),
    lambda folder: files.only_process(folder).__enter__()], ids=["write", "cache", "run"])
def test_temporary_files_of_killed_processes_are_deleted_and_those_of_running_ones_stay(tmp_path, clear):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", WRITE, tmp_path / "a.txt"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env=environment)
    name = process.stdout.readline().strip()
    (tmp_path / ".hidden").touch()
    clear(tmp_path)
    assert name in names(tmp_path)
    process.kill()
    process.communicate()
    assert name in names(tmp_path)
    clear(tmp_path)
    assert not [other for other in names(tmp_path) if other.startswith(".half")]
    assert ".hidden" in names(tmp_path)


def test_a_file_that_is_deleted_before_it_is_locked_is_created_again(tmp_path, monkeypatch):
    lock = fcntl.flock

    def delete_first(handle, mode):
        monkeypatch.setattr(fcntl, "flock", lock)
        for path in tmp_path.iterdir():
            path.unlink()
        lock(handle, mode)
    monkeypatch.setattr(fcntl, "flock", delete_first)
    with locks.temporary_file(tmp_path, "a") as path:
        locks.delete_leftovers(tmp_path)
        assert path.exists()


def test_empty_folder_of_a_run_is_removed(tmp_path):
    with files.only_process(tmp_path / "empty"):
        pass
    assert names(tmp_path) == []


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
    versions = damaged(path.read_bytes(), 3)
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


def test_git_keeps_the_bytes_of_every_file():
    """A line end that git changes would change a digest."""
    def git(*command, **options):
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True, **options).stdout
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    listed = git("ls-files", "-z").split("\0")[:-1]
    lines = git("check-attr", "text", "eol", "--stdin", "-z", input="\0".join(listed)).split("\0")[:-1]
    values = dict(zip(zip(lines[::3], lines[1::3], strict=True), lines[2::3], strict=True))
    assert listed
    for name in listed:
        content = (ROOT / name).read_bytes() if (ROOT / name).exists() else b""
        is_kept = values[name, "text"] == "unset"
        assert is_kept or values[name, "eol"] == "lf", name
        assert is_kept or b"\0" not in content and b"\r\n" not in content, name
