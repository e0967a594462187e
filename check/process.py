"""Judge a submission in a process of its own, in a temporary copy, with limited time and memory.

The process of the command never imports or runs what was handed in.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from check.locate import CODE, list_clean
from helpers import UserError

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 4 << 30  # bytes for a solution, or less on a small machine
MAX_BYTES, MAX_FILES = 200_000_000, 2000
MAX_NEIGHBOUR = 5_000_000  # bytes of a file that is copied because it lies next to the solution
HAND_IN = "hand in only the code, the README and the PDF"
ENVIRONMENT = {"PYTORCH_JIT": "0", "TORCHDYNAMO_DISABLE": "1",  # compiled code cannot be watched
               "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
DEEP = "abcd"  # folders above the copy, so that a solution that deletes ".." or "../.." deletes nothing of others
START_TIME = 120  # seconds that the process may take before the solution starts
START = "import sys; sys.path.insert(0, sys.argv[1]); from check.worker import work; work(sys.argv[2])"
NOT_A_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


class Options(NamedTuple):
    """Options of the command line that say how to judge."""

    timeout: float = 60  # seconds for a submission; if a layer exceeds it, the other layer gets it again
    strict: bool = False  # whether biases are a mistake
    jobs: int = 1  # submissions that are judged at the same time


def judge_submission(path, options):
    """Return the result for a submission.

    Returns:
        A dict: "submission", the path; "id", a text, or None; "ok", a bool; "layers" and "rules", dicts; and "error",
        a sentence, if it cannot be judged.
    """
    failed = {}  # from each layer that ended the process to a sentence; the next try leaves it out
    while True:
        news, ended = try_submission(path, options, failed)
        is_done = "layers" in news or "refused" in news
        if is_done or "layer" not in news:
            break
        failed[news["layer"]] = f"{news['stage']} {ended}."
    result = {"submission": str(path), "id": news.get("id"), "ok": False, "layers": news.get("layers", {}),
              "rules": news.get("rules", {})}
    if "layers" not in news:
        result["error"] = news.get("refused") or f"{news['stage']} {ended}."
    add_loops(result)
    all_right = "error" not in result and all(layer["right"] for layer in result["layers"].values())
    result["ok"] = all_right and all(rule["ok"] for rule in result["rules"].values())
    return result


def add_loops(result):
    """Add the rule that the two layers of a folder or zip have no loop."""
    judged = [name for name, layer in result["layers"].items() if "error" not in layer]
    looping = [name for name in judged if "loop" in (result["layers"][name]["mistake"] or "").split("+")]
    if judged and result["rules"]:
        detail = f"{' and '.join(looping)}: a loop; use matrix products" if looping else "none"
        result["rules"]["loops"] = {"ok": not looping, "detail": detail}


def try_submission(path, options, failed):
    """Judge a submission without the layers in `failed`. Return the news of its process, and how the process ended.

    Each try has its own copy, because the solution may have changed the last one.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder, *DEEP).resolve()
        copy.mkdir(parents=True)
        try:
            target, unread = copy_submission(Path(path), copy)
            news, ended = run_worker(path, target, copy, unread, options, failed)
        except UserError as error:
            return {"refused": str(error)}, ""
        except OSError as error:
            return {"refused": f"{path} cannot be copied: {error.strerror or error}."}, ""
    if "refused" in news:
        news["refused"] = news["refused"].replace(f"{copy}{os.sep}", "")
    return news, ended


# The copy


def copy_submission(path, target):
    """Copy a submission to the folder `target`.

    Raises UserError if it is of another kind or exceeds the limits.

    Returns:
        The path in it that stands for the submission, and the names of files that cannot be read.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return target, copy_folder(path, target)
    if suffix == ".zip" and path.is_file():
        unpack(path, target)
        return target, []
    if suffix in CODE and path.is_file():
        unread = copy_neighbours(path.resolve().parent, target)
        shutil.copyfile(path, target / path.name)
        return target / path.name, unread
    kind = "is not a .py file, a notebook, a folder or a zip" if path.exists() else "does not exist"
    raise UserError(f"{path} {kind}.")


def copy_folder(source, target):
    """Copy the files of a folder, without links and junk. Return the names of files that cannot be read.

    Raises UserError if the folder exceeds the limits.
    """
    files = list_clean(source)
    check_limits(source, len(files), sum(path.stat().st_size for path in files))
    return copy_files(files, source, target)


def copy_neighbours(source, target):
    """Copy the small files of a folder, as long as they stay within the limits. Return those that cannot be read."""
    files, size = [], 0
    for path in list_clean(source, depth=3)[:MAX_FILES]:
        bytes_ = path.stat().st_size
        if bytes_ <= MAX_NEIGHBOUR and size + bytes_ <= MAX_BYTES:
            files.append(path)
            size += bytes_
    return copy_files(files, source, target)


def copy_files(files, source, target):
    """Copy files of the folder `source`. Return the names of those that cannot be read."""
    unread = []
    for path in files:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, place)
        except PermissionError:
            unread.append(str(path.relative_to(source)))
            place.unlink(missing_ok=True)
    return unread


def check_limits(path, number, size):
    """Raise UserError if there are too many files or bytes."""
    if number > MAX_FILES or size > MAX_BYTES:
        raise UserError(f"{path} holds more than {MAX_FILES:,} files or {MAX_BYTES // 1_000_000} MB; {HAND_IN}.")


def unpack(path, target):
    """Unpack a zip. `extract` keeps every file inside the folder, and reads no more than the size that was checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            check_limits(path, len(entries), sum(entry.file_size for entry in entries))
            for entry in entries:
                entry.filename = entry.filename.replace("\\", "/")  # some programs for Windows write backslashes
                archive.extract(entry, target)
    except NOT_A_ZIP as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be unpacked ({reason}); make the zip again.") from None
    if not entries:
        raise UserError(f"{path} is empty; {HAND_IN}.")


# The process


def run_worker(path, target, copy, unread, options, failed):
    """Run check/worker.py on a copy of a submission. Return its news, a dict, and how the process ended."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        answer = Path(work, "answer")
        order = {"answer": answer, "shown": path, "name": Path(path).resolve().name, "path": target, "folder": copy,
                 "unread": unread, "strict": options.strict, "memory": choose_memory(options.jobs), "failed": failed}
        command = [sys.executable, "-P", "-c", START, str(ROOT), json.dumps(order, default=str)]
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=copy, env=os.environ | ENVIRONMENT, stdin=nothing, stdout=nothing,
                                   stderr=nothing, start_new_session=True)
        ended = wait(process, answer, options.timeout)
        news = {"stage": f"judging {path}"} | read_answer(answer)
    if "took more than" in ended:
        ended += " (does a loop in it never end?)" if "layer" in news else " (does it train or load data?)"
    return news, ended


def read_answer(path):
    """Return what a process has written so far: lines of JSON, each a dict."""
    news = {}
    with contextlib.suppress(OSError, ValueError):  # the last line may be incomplete
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            news |= json.loads(line)
    return news


def wait(process, answer, timeout):
    """Wait for a process, and end all processes that it started. Return how it ended.

    The time counts from the moment when the answer has "started". Before that, the process imports torch.
    """
    begin, deadline = time.monotonic(), None
    try:
        while deadline is None or time.monotonic() < deadline:
            if deadline is None and ("started" in read_answer(answer) or time.monotonic() - begin > START_TIME):
                deadline = time.monotonic() + timeout
            with contextlib.suppress(subprocess.TimeoutExpired):
                return describe_end(process.wait(0.05))
        return f"took more than {timeout:g} seconds"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):  # ended; not on Windows
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def describe_end(code):
    """Return how a process ended, given its exit code. After a signal such as SIGSEGV, the code is negative."""
    name = ""
    with contextlib.suppress(ValueError):
        name = f", {signal.Signals(-code).name}"
    return f"ended the process (exit code {code}{name})"


def choose_memory(jobs):
    """Return how many bytes a solution may use, so that all jobs together fit into the memory of the machine."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return MEMORY
    return max(2 << 30, min(MEMORY, int(0.8 * total / jobs)))
