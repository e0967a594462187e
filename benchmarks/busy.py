"""Training beside busy processes and on a quiet machine, with and without the `GOMP_SPINCOUNT` of helpers/runtime.py.

    python -m benchmarks.busy --data-dir .data        about 6 minutes on 2 cores that have nothing else to do

Each time is that of a new process: a whole run on the sample from the start of the process and with an empty cache, and
the first tenth of an epoch of the required setting. Runs with and without take turns on the quiet machine. "Without" is
how torch's threads wait unless told otherwise, 300,000 turns. Beside two processes that use a core each such a run is
stopped after two minutes, and then stands in the table with 120 seconds.
"""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.common import FIRST_STEPS, ROOT, data_parser, print_table, write_result
from helpers.cli import run_command

SAMPLE, TENTH = "sample run", "tenth of epoch"
FIRST_TENTH = """
import time
count = lambda loader: len(loader) // 10
seconds = lambda started: [time.perf_counter() - started]
""" + FIRST_STEPS
UNTOLD = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
# libgomp's own number of turns, given as a user would, so that helpers/runtime.py lets it stand
ENVIRONMENTS = {"with": UNTOLD, "without": UNTOLD | {"GOMP_SPINCOUNT": "300000"}}
LIMIT = 120  # seconds for a run without, beside busy processes


def seconds(what, wait, data_dir, limit=None):
    """Return the seconds that SAMPLE or TENTH takes in a process of its own, `limit` if it is stopped after as many."""
    with tempfile.TemporaryDirectory() as folder:
        options = {SAMPLE: ["sentiment_analysis.py", "--sample", "--cache-dir", folder],
                   TENTH: ["-c", FIRST_TENTH, "--data-dir", data_dir]}[what]
        started = time.perf_counter()
        try:
            output = subprocess.run([sys.executable, *options, "--runs-dir", folder], cwd=ROOT, env=ENVIRONMENTS[wait],
                                    check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                    timeout=limit).stdout
        except subprocess.TimeoutExpired:
            return float(limit)
        return time.perf_counter() - started if what == SAMPLE else float(output.split()[-1])


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="of runs on the quiet machine (default: %(default)s)")
    args = parser.parse_args()
    data_dir, load = os.path.abspath(args.data_dir), os.getloadavg()[0]
    seconds(TENTH, "with", data_dir)  # fills the cache

    runs = {("quiet", what): {"with": [], "without": []} for what in (SAMPLE, TENTH)}
    for what in (SAMPLE, TENTH):
        for pair in range(args.pairs):
            for wait in sorted(ENVIRONMENTS, reverse=pair % 2):
                runs["quiet", what][wait].append(seconds(what, wait, data_dir))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for what in (SAMPLE, TENTH):
            runs["busy", what] = {"with": [seconds(what, "with", data_dir) for _ in range(2)],
                                  "without": [seconds(what, "without", data_dir, LIMIT)]}
    finally:
        for process in busy:
            process.kill()

    rows = []
    for (machine, what), taken in runs.items():
        row = {"machine": machine, "what": what} | {f"{wait}, s": float(np.median(taken[wait])) for wait in taken}
        pairs = [a / b for a, b in zip(taken["with"], taken["without"], strict=False)]
        quiet = float(np.median(runs["quiet", what]["with"]))
        rows.append(row | {"with / without": float(np.median(pairs)), "with / quiet": row["with, s"] / quiet})
    print_table(rows)
    write_result("busy", {"rows": rows, "load_before": load, "runs": [
        {"machine": machine, "what": what} | taken for (machine, what), taken in runs.items()]})


if __name__ == "__main__":
    run_command(main)
