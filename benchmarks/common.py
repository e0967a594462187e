"""What benchmarks have in common: the option for the data; one table printed, one JSON with the machine written."""

import json
import platform
from pathlib import Path

import numpy as np
import torch

from helpers.cli import Parser
from helpers.files import write_text

# Code for a process of its own: train, say what `seconds(started)` gives after `count(loader)` steps, and stop.
FIRST_STEPS = """
import sentiment_analysis
train_epoch = sentiment_analysis.train_epoch
def first_steps(model, loader, optimizer, *rest):
    step, left, started = optimizer.step, count(loader), time.perf_counter()
    def counted():
        nonlocal left
        step()
        left -= 1
        if not left:
            print("seconds", *seconds(started))
            raise SystemExit
    optimizer.step = counted
    train_epoch(model, loader, optimizer, *rest)
sentiment_analysis.train_epoch = first_steps
sentiment_analysis.main()
"""
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "report" / "results"


def data_parser(doc):
    """Return a parser with `--data-dir`; `doc` is the benchmark's docstring."""
    parser = Parser(description=doc.partition("\n")[0])
    parser.add_argument("--data-dir", default=".data", help="folder with the IMDB reviews (default: %(default)s)")
    return parser


def print_table(rows, header=True):
    """Print dicts with the same keys as aligned columns."""
    if header:
        print("  ".join(f"{key:>13}" for key in rows[0]), flush=True)
    for row in rows:
        cells = (f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
        print("  ".join(f"{cell:>{max(13, len(key))}}" for key, cell in zip(row, cells, strict=True)), flush=True)


def write_result(name, result):
    """Write `report/results/NAME.json`."""
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "python": platform.python_version(),
               "torch": torch.__version__}
    write_text(RESULTS / f"{name}.json", json.dumps(result | {"machine": machine}, indent=1) + "\n")


def mean_and_sd(values):
    """Return mean and standard deviation (of a sample, None for a single value) of some values."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def cpu_name():
    """Return the processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or "CPU"
