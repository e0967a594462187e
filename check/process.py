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

from check.locate import CODE, list_files
from helpers import UserError

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES, MAX_FILES = 200_000_000, 2000  # of a submission
MAX_NEIGHBOUR, MAX_NEIGHBOURS = 1_000_000, 200  # bytes and number of files that are copied with a single file
ENVIRONMENT = {"PYTORCH_JIT": "0", "TORCHDYNAMO_DISABLE": "1",  # compiled code cannot be watched
               "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
DEEP = "abcd"  # folders above the copy, so that a solution that deletes ".." or "../.." deletes nothing of others
START_TIME = 120  # seconds that the process may take before the solution starts
START = "import sys; sys.path.insert(0, sys.argv[1]); from check.worker import work; work(sys.argv[2])"


def judge_submission(path, timeout=60, strict=False):
    """Return the result for a submission: "submission", "id", "ok", "layers", "rules", and "error" if there is one.

    After a layer that takes longer than `timeout` seconds, the other one gets the same time.
    """
    failed = {}  # from each layer that ended the process to a sentence; the next try leaves it out
    while True:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            copy = Path(folder, *DEEP).resolve()  # each try has its own, because the solution may change it
            copy.mkdir(parents=True)
            try:
                news = run_worker(Path(path), copy, timeout, strict, failed)
            except UserError as error:
                news = {"error": str(error)}
            except OSError as error:
                news = {"error": f"{error.filename or path} cannot be copied: {error.strerror or error}."}
        if "layers" in news or "layer" not in news:
            break
        failed[news["layer"]] = news["error"]
    result = {"submission": str(path), "id": None, "ok": False, "layers": {}, "rules": {}}
    result |= {key: news[key] for key in (*result, "error") if key in news}
    items = [*result["layers"].values(), *result["rules"].values()]
    result["ok"] = "error" not in result and all(item.get("right", item.get("ok")) for item in items)
    return result


def copy_submission(path, target):
    """Copy a submission to a folder. Return its path there."""
    suffix = path.suffix.lower() if path.is_file() else ""
    if path.is_dir():
        copy_files(path, list_files(path), target)
        return target
    if suffix == ".zip":
        unpack(path, target)
        return target
    if suffix in CODE:
        folder = path.resolve().parent
        readable = [other for other in list_files(folder, depth=3) if os.access(other, os.R_OK)]
        small = [other for other in readable if other.stat().st_size <= MAX_NEIGHBOUR]
        small.sort(key=lambda other: len(other.parts))
        copy_files(folder, small[:MAX_NEIGHBOURS], target)
        shutil.copyfile(path, target / path.name)
        return target / path.name
    kind = "is not a .py file, a notebook, a folder or a zip" if path.exists() else "does not exist"
    raise UserError(f"{path} {kind}.")


def copy_files(source, files, target):
    """Copy files of a folder. Raises UserError beyond the limits."""
    check_limits(source, [path.stat().st_size for path in files])
    for path in files:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def check_limits(path, sizes):
    if len(sizes) > MAX_FILES or sum(sizes) > MAX_BYTES:
        limits = f"{MAX_FILES:,} files or {MAX_BYTES // 1_000_000} MB"
        raise UserError(f"{path} holds more than {limits}; hand in only the code, the README and the PDF.")


def unpack(path, target):
    """Unpack a zip. `extract` keeps every file inside the folder, and reads no more than the size that was checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            check_limits(path, [entry.file_size for entry in entries])
            for entry in entries:
                entry.filename = entry.filename.replace("\\", "/")  # some programs for Windows write backslashes
                archive.extract(entry, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be unpacked ({reason}); make the zip again.") from None


def run_worker(path, copy, timeout, strict, failed):
    """Run check/worker.py on a copy of a submission, without the layers in `failed`. Return its answer, a dict."""
    target = copy_submission(path, copy)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        answer, nothing = Path(work, "answer"), subprocess.DEVNULL
        order = {"answer": answer, "shown": path, "name": path.resolve().name, "path": target, "folder": copy,
                 "strict": strict, "failed": failed}
        process = subprocess.Popen([sys.executable, "-P", "-c", START, ROOT, json.dumps(order, default=str)], cwd=copy,
                                   env=os.environ | ENVIRONMENT, stdin=nothing, stdout=nothing, stderr=nothing,
                                   start_new_session=True)
        ended = wait(process, answer, timeout)
        news = {"stage": f"judging {path}"} | read_answer(answer)
    if "layers" not in news:
        news.setdefault("error", f"{news['stage']} {ended}.")
        news["error"] = news["error"].replace(f"{copy}{os.sep}", "")
    return news


def read_answer(path):
    """Return what a process has written so far: lines of JSON, each a dict."""
    news = {}
    with contextlib.suppress(OSError, ValueError):  # the last line may be incomplete
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            news |= json.loads(line)
    return news


def wait(process, answer, timeout):
    """Wait for a process, and end all that it started. Return how it ended. The time begins when torch is imported."""
    begin, deadline = time.monotonic(), None
    try:
        while deadline is None or time.monotonic() < deadline:
            if deadline is None and ("started" in read_answer(answer) or time.monotonic() - begin > START_TIME):
                deadline = time.monotonic() + timeout
            with contextlib.suppress(subprocess.TimeoutExpired):
                return describe_end(process.wait(0.05))
        reason = "does a loop in it never end" if "layer" in read_answer(answer) else "does it train or load data"
        return f"took more than {timeout:g} seconds ({reason}?)"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):  # ended; not on Windows
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def describe_end(code):
    """Return how a process ended, given its exit code. After a signal such as SIGSEGV, the code is negative."""
    return f"ended the process (exit code {code}{f', {signal.Signals(-code).name}' if code < 0 else ''})"
