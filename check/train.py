"""Train the network of a solution for one epoch on the sample, with this project's loop."""

import ast
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from check.locate import choose_file, find_layers, list_code
from check.solution import CLASSES, ROOT
from helpers.cli import UserError
from helpers.source import list_defined, read_source, select_needed

NETWORK = "MyTransformer"
EXTRACTED = "network_of_the_notebook.py"


def train(target, shown, timeout):
    """Return a rule's result: whether an epoch ends with a finite loss."""
    try:
        path = find_network(target, str(shown))
    except UserError as error:
        return {"ok": False, "detail": str(error)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
        command = [sys.executable, "sentiment_analysis.py", "--models", str(path), "--sample", "--epochs", "1",
                   "--runs-dir", runs]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=timeout,
                                  stdin=subprocess.DEVNULL, env=os.environ | {"TQDM_DISABLE": "1"})
        except subprocess.TimeoutExpired:
            return {"ok": False, "detail": f"an epoch takes more than {timeout:g} seconds"}
        return read_result(done, Path(runs))


def find_network(target, shown):
    """Return the .py file with the network of a submission, or else with its two layers.

    Code of a notebook is copied to a file. Raises UserError if the submission has neither.
    """
    sources = {}
    for path in [target] if target.is_file() else list_code(target):
        with contextlib.suppress(UserError):
            sources[path] = read_source(path, shown)
    with_network = choose_file([path for path, source in sources.items() if NETWORK in list_defined(source.tree)])
    with_layers = {Path(path) for path, _ in find_layers(target, shown).values()}
    files = with_network or [*with_layers]
    if len(files) != 1:
        raise UserError(f"{shown} needs one file that defines {NETWORK}, or {' and '.join(CLASSES)}")
    if files[0].suffix.lower() != ".ipynb":  # also an exported notebook, of which --models selects what is needed
        return files[0]
    path = files[0].with_name(EXTRACTED)
    needed = select_needed(sources[files[0]].tree, [*CLASSES, NETWORK])
    path.write_text(ast.unparse(needed), encoding="utf-8")
    return path


def read_result(done, runs):
    """Return a rule's result, given the finished process and the folder of its runs."""
    metrics = list(runs.rglob("metrics.json"))
    if done.returncode or not metrics:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")] or done.stderr.splitlines()
        return {"ok": False, "detail": f"stopped: {(lines or ['no message'])[-1].removeprefix('error: ')[:300]}"}
    epoch = json.loads(metrics[0].read_text(encoding="utf-8"))["epochs"][-1]
    loss = epoch.get("train_loss", math.nan)
    return {"ok": math.isfinite(loss), "detail": f"the loss after one epoch is {loss:.4g}"}
