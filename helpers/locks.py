"""Lock folders and temporary files, and delete temporary files that killed processes left."""

import contextlib
import os
import uuid
from pathlib import Path

from helpers.cli import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HALF_WRITTEN = ".half-written-"  # the name of a temporary file starts with this


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


@contextlib.contextmanager
def temporary_file(folder, name):
    """Yield the path of a temporary file in `folder`. It is deleted at the end, unless it has been moved.

    The path ends with the last 50 characters of `name`: numpy and matplotlib choose the format by the ending.
    """
    # The name is unique among all processes, even those of other machines that write to the same network disk.
    path = folder / f"{HALF_WRITTEN}{uuid.uuid4().hex[:12]}.{name[-50:]}"
    with contextlib.nullcontext() if fcntl is None else new_locked_file(path):
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def new_locked_file(path):
    """Create a file and lock it, so that no other process deletes it with `delete_leftovers`."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        with contextlib.suppress(OSError):  # the disk does not support locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        is_deleted = os.fstat(handle).st_nlink == 0  # by another process, before the file was locked
        if not is_deleted:
            break
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


def delete_leftovers(folder):
    """Delete the temporary files in `folder` that killed processes left.

    Files of running processes are locked and stay. Without locks (Windows, some network disks), nothing is deleted.
    """
    if fcntl is None:
        return
    for leftover in Path(folder).glob(f"{HALF_WRITTEN}*"):
        # An OSError means that the file is locked or already deleted, or that it is another user's.
        with contextlib.suppress(OSError), open(leftover, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
