"""Train the network of a solution for one epoch on the sample, with this project's loop."""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from check.locate import find_layers
from check.mistakes import ATTENTION, NORM
from check.solution import ROOT
from helpers.cli import UserError


def train(target, shown, timeout):
    """Return a rule's result: whether an epoch ends with a finite loss."""
    try:
        files = {path for path, _ in find_layers(target, str(shown)).values()}
    except UserError as error:
        return {"ok": False, "detail": str(error)}
    if len(files) != 1 or Path(*files).suffix != ".py":
        return {"ok": False, "detail": f"needs one .py file with {ATTENTION} and {NORM}"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
        command = [sys.executable, "sentiment_analysis.py", "--models", *files, "--sample", "--epochs", "1",
                   "--runs-dir", runs]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=timeout,
                                  stdin=subprocess.DEVNULL, env=os.environ | {"TQDM_DISABLE": "1"})
        except subprocess.TimeoutExpired:
            return {"ok": False, "detail": f"an epoch takes more than {timeout:g} seconds"}
        return read_result(done, Path(runs))


def read_result(done, runs):
    """Return a rule's result, given the finished process and the folder of its runs."""
    metrics = list(runs.rglob("metrics.json"))
    if done.returncode or not metrics:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")] or done.stderr.splitlines()
        return {"ok": False, "detail": f"stopped: {(lines or ['no message'])[-1].removeprefix('error: ')[:300]}"}
    epoch = json.loads(metrics[0].read_text(encoding="utf-8"))["epochs"][-1]
    loss = epoch.get("train_loss", math.nan)
    return {"ok": math.isfinite(loss), "detail": f"the loss after one epoch is {loss:.4g}"}
