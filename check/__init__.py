"""Check solutions and whole submissions: python -m check PATH..., or check.feedback(MySelfAttention) in a notebook."""

import contextlib
import html
import json
import multiprocessing
import os
import signal
import tempfile
import warnings
from pathlib import Path

from check.mistakes import ATTENTION, NORM
from check.process import describe_end
from check.worker import limit, pretend_gpu, refuse
from helpers import UserError

SECONDS, LONGEST = 5, 20  # of computing time for the whole verdict, and of time on a machine that is busy
MEMORY = 2 << 30  # bytes that the layer may use, in addition to what the notebook uses
LINES, CHARACTERS = 20, 4000  # that are shown of what the layer prints
PRINTED = f"printed by the first call, with x of shape (2, 3, 4), at most {LINES} lines:"


def feedback(cls, layer=None):
    """Return the verdict on a class, an object that prints well in a notebook.

    The layer runs in a child process with one thread and little time, so that an endless loop or a crash cannot end
    the notebook. `layer` says which layer the class should be, "MySelfAttention" or "MyLayerNorm". By default, the
    names of the class and of its base classes tell.
    """
    if not isinstance(cls, type):
        return Feedback("this", refuse(f"feedback needs a class, not an object of type {type(cls).__name__}"))
    names = " ".join(base.__name__ for base in cls.__mro__).lower()
    layer = layer or (NORM if "norm" in names else ATTENTION)
    with tempfile.TemporaryFile("w+", buffering=1, encoding="utf-8", errors="replace") as file:  # written line by line
        if hasattr(os, "fork"):
            verdict = judge_in_child(layer, cls, file)
        else:
            verdict = judge_here(layer, cls, file)
            verdict["notes"].append("note: this system has no fork, so that an endless loop cannot be stopped")
        file.seek(0)
        return Feedback(cls.__name__, verdict, file.read(CHARACTERS).splitlines())


class Feedback:
    """What a student reads. `right` says whether the class is right, and `verdict` is what `judge` returns."""

    def __init__(self, name, verdict, printed=()):
        self.verdict, self.right = verdict, verdict["right"]
        mistakes = (verdict["mistake"] or "unknown mistake").replace("+", ", ")
        if self.right:
            self.headline = f"✓ {name} is right: its results equal the loops, and its gradients are correct"
        elif "error" in verdict:
            self.headline = f"✗ {name} cannot be judged"
        else:
            self.headline = f"✗ {name} is wrong: {mistakes}"
        of_layer = {*mistakes.split(", "), "unknown"}
        notes = [note.split(": ", 1) for note in verdict["notes"]]
        if mistakes == "not-filled-in":
            self.headline, notes = f"{name} is not filled in yet: it raises NotImplementedError", []
        self.rows = [("your layer" if label in of_layer else label, text) for label, text in notes]
        self.printed = [PRINTED, *printed[:LINES]] if printed else []

    def __repr__(self):
        rows = [f"{label:<12}{text}" for label, text in self.rows]
        return "\n  ".join([self.headline, *rows, *self.printed])

    def _repr_html_(self):
        color = {"✓": "#2e7d32", "✗": "#c62828"}.get(self.headline[0], "#757575")
        lines = [f"<b>{html.escape(self.headline)}</b>"]
        lines += [f"<i>{label}:</i> {html.escape(text)}" for label, text in self.rows]
        printed = html.escape("\n".join(self.printed))
        text = "<br>".join(lines) + (f"<pre>{printed}</pre>" if printed else "")
        return f'<div style="border-left: 4px solid {color}; padding: 2px 12px">{text}</div>'


def judge_here(layer, cls, file):
    """Return the verdict on a class, found in this process. What the first call prints goes to a file."""
    import torch  # which the command needs only in the processes of submissions

    from check.cases import build
    from check.judge import judge
    with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        with contextlib.redirect_stdout(file), contextlib.suppress(Exception, SystemExit):  # they come again in `judge`
            build(layer, cls, 3, 4)(torch.randn(2, 3, 4))
        file.flush()
        try:
            return judge(layer, cls)
        except UserError as error:
            return refuse(str(error))


def judge_in_child(layer, cls, file):
    """Return the verdict on a class, found by a forked process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(sender, layer, cls, file), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns when a process with several threads forks
        process.start()
    sender.close()  # so that the end of the child ends the pipe
    try:
        if receiver.poll(LONGEST):
            return json.loads(receiver.recv())
    except EOFError:
        process.join(1)
        if process.exitcode not in (-signal.SIGXCPU, -signal.SIGKILL):  # of the limit of computing time
            return refuse(f"it {describe_end(process.exitcode)}")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # the child, and what it started
        process.kill()
        process.join()
    return refuse(f"it did not finish within {SECONDS} seconds; does a loop in it never end?")


def answer(sender, layer, cls, file):
    """Serve as the child process: send the verdict on a class."""
    import torch
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    torch.set_num_threads(1)
    with contextlib.suppress(OSError):  # only Linux has this file
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limit(pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, SECONDS)
    pretend_gpu()
    sender.send(json.dumps(judge_here(layer, cls, file)))
    os._exit(0)  # without the clean-up of the notebook's process
