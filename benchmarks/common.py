"""Code shared by the benchmarks: options, tables, timing, and results as JSON with the machine that made them."""

import json
import platform
import time
from pathlib import Path

import torch

from helpers.cli import Parser, user_path
from helpers.files import write_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "report" / "results"


def data_parser(doc, cache=True):
    """Return a parser with `--data-dir` and, if `cache` is true, `--cache-dir`; `doc` is the docstring of a script."""
    parser = Parser(description=doc.partition("\n")[0])
    parser.add_argument("--data-dir", type=user_path, default=".data",
                        help="folder with the IMDB reviews (default: %(default)s)")
    if cache:
        parser.add_argument("--cache-dir", type=user_path, default=".cache",
                            help="folder for cached results (default: %(default)s)")
    return parser


def run_folder(runs_dir, preset, seed):
    """Return the folder of the run of a preset with a seed, as `benchmarks.seeds` names it."""
    return Path(runs_dir, f"{preset}-{seed}")


def seconds_of(function, *args):
    """Return the wall-clock seconds that `function(*args)` takes."""
    started = time.perf_counter()
    function(*args)
    return time.perf_counter() - started


def print_table(rows, header=True):
    """Print dicts with the same keys as aligned columns."""
    if header:
        print("  ".join(f"{key:>13}" for key in rows[0]), flush=True)
    for row in rows:
        cells = []
        for key, value in row.items():
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
            cells.append(text.rjust(max(13, len(key))))
        print("  ".join(cells), flush=True)


def write_result(name, result):
    """Write `report/results/NAME.json`."""
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "python": platform.python_version(),
               "torch": torch.__version__}
    write_text(RESULTS / f"{name}.json", json.dumps(result | {"machine": machine}, indent=1) + "\n")


def cpu_name():
    """Return the name of the processor, or "CPU" if the system does not know it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "CPU"
