"""Judge a submission in a process of its own, in a temporary copy, with limited time and memory."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from check.readme import join
from check.solution import MAIN_GUARD, ROOT
from check.unpack import copy_submission
from helpers.cli import UserError

MEMORY = 4 << 30  # bytes for a solution, or less on a small machine
COMPILE = {"PYTORCH_JIT": "0", "TORCHDYNAMO_DISABLE": "1"}  # compiled code cannot be traced
ENVIRONMENT = COMPILE | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg",
                         "PYTHONDONTWRITEBYTECODE": "1"}
DEEP = "abcd"  # folders above the copy, so that a solution that deletes ".." or "../.." deletes nothing of others
START_TIME = 120  # seconds that the process may take before the solution starts
START = "import sys; sys.path.insert(0, sys.argv[1]); from check.worker import work; work(sys.argv[2])"


class Options(NamedTuple):
    """Options of the command line that say how to judge."""

    timeout: float = 60  # seconds for a submission; if a layer exceeds it, the other layer gets it again
    strict: bool = False  # whether biases are a mistake
    run: bool = False  # whether to train the network for an epoch
    jobs: int = 1  # submissions that are judged at the same time


def judge_submission(path, options):
    """Return the result for a submission: a dict with "submission", "ok", "rules", and either "layers" or "error"."""
    failed = {}  # from each layer that ended the process to a sentence
    while True:
        result, layer = try_submission(path, options, failed)
        if layer is None:
            return add_loops(result)
        failed[layer] = result["error"]


def try_submission(path, options, failed):
    """Return the result for a submission without the layers in `failed`, and the layer that ended the process or None.

    Each try has its own copy, because the solution may have changed the last one.
    """
    result, layer = {"submission": str(path), "rules": {}}, None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work, \
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as copy:
        copy = Path(copy, *DEEP).resolve()
        copy.mkdir(parents=True)
        try:
            target = copy_submission(path, copy)
            news, ended = run_worker(path, target, copy, Path(work), options, failed)
            result |= {key: news[key] for key in ("rules", "layers") if key in news}
            if not news.keys() & {"layers", "refused"}:
                layer = news.get("layer")
            if "layers" not in news:
                raise UserError(news.get("refused") or f"{news['stage']} {ended}.")
            if options.run and not failed:
                from check.train import train
                result["rules"]["run"] = train(target, path, 5 * options.timeout)
        except UserError as error:
            result["error"] = str(error).replace(f"{copy}{os.sep}", "")
        except OSError as error:
            result["error"] = f"{path} cannot be copied: {error.strerror or error}."
    return result, layer


def add_loops(result):
    """Add "ok" and, for a folder or zip, the rule that the two layers have no loop."""
    layers = result.get("layers", {})
    run = [name for name, layer in layers.items() if "error" not in layer and layer["mistake"] != "missing"]
    if run and result["rules"]:
        looping = [name for name in run if "loop" in (layers[name]["mistake"] or "").split("+")]
        loops = "runs a loop" if len(looping) == 1 else "run loops"
        detail = f"{join(looping)} {loops}; use matrix products" if looping else f"none in {join(run)}"
        result["rules"]["loops"] = {"ok": not looping, "detail": detail}
    right = bool(layers) and all(layer["right"] for layer in layers.values())
    kept = all(rule["ok"] for rule in result["rules"].values())
    return result | {"ok": "error" not in result and right and kept}


def run_worker(path, target, copy, work, options, failed):
    """Run `check.worker` on a copy of a submission. Return its answer, a dict, and how the process ended."""
    order, answer = work / "order.json", work / "answer.json"
    content = {"answer": answer, "shown": path, "name": Path(path).resolve().name, "path": target, "folder": copy,
               "started": work / "started", "strict": options.strict, "memory": choose_memory(options.jobs),
               "failed": failed}
    order.write_text(json.dumps(content, default=str), encoding="utf-8")
    command = [sys.executable, "-P", "-c", START, str(ROOT), str(order)]
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=copy, env=os.environ | ENVIRONMENT, stdin=nothing, stdout=nothing,
                               stderr=nothing, start_new_session=True)
    ended = wait(process, work / "started", options.timeout)
    news = {"stage": f"judging {path}"}
    with contextlib.suppress(OSError, ValueError):
        news |= json.loads(answer.read_text(encoding="utf-8"))
    if "took more than" in ended:
        ended += explain_timeout(news)
    return news, ended


def wait(process, started, timeout):
    """Wait for a process and end all that it started. Return how it ended.

    The time counts from the moment when the file `started` exists. Before that, the process imports torch.
    """
    begin, deadline = time.monotonic(), None
    try:
        while deadline is None or time.monotonic() < deadline:
            if deadline is None and (started.exists() or time.monotonic() - begin > START_TIME):
                deadline = time.monotonic() + timeout
            with contextlib.suppress(subprocess.TimeoutExpired):
                return describe_end(process.wait(0.05))
        return f"took more than {timeout:g} seconds"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):  # ended; not on Windows
            os.killpg(process.pid, signal.SIGKILL)  # with all processes that the solution started
        process.kill()
        process.wait()


def describe_end(code):
    """Return how a process ended, given its exit code. After a signal such as SIGSEGV, the code is negative."""
    reason = ""
    with contextlib.suppress(ValueError):
        reason = f", {signal.Signals(-code).name}"
    return f"ended the process (exit code {code}{reason})"


def explain_timeout(news):
    """Return a possible reason why a stage takes too long."""
    if news["stage"].startswith("the import"):
        return f" (training belongs under {MAIN_GUARD})"
    return " (does a loop in it never end?)" if "layer" in news else ""


def choose_memory(jobs):
    """Return how many bytes a solution may use, so that all jobs together fit into the memory of the machine."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return MEMORY
    return max(2 << 30, min(MEMORY, int(0.8 * total / jobs)))
