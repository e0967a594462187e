"""Time a run on the sample, on an idle and on a busy machine, with our `GOMP_SPINCOUNT` and with the default.

    python -m benchmarks.busy        about 5 minutes on 2 cores that are otherwise idle

`helpers/runtime.py` sets GOMP_SPINCOUNT, how long a waiting thread of torch spins before it sleeps. Each run is
a new process with an empty cache. Runs with both values take turns. On the busy machine, two other processes use a core
each.
"""

import os
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks.common import ROOT, print_table, seconds_of, write_result
from helpers.cli import Parser, run_command

UNSET = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
# 300,000 is the default of libgomp. Since the user sets it here, helpers/runtime.py does not change it.
ENVIRONMENTS = {"ours": UNSET, "default": UNSET | {"GOMP_SPINCOUNT": "300000"}}
LIMIT = 120  # seconds; a run that takes longer is stopped and counts as this long


def run_sample(environment):
    """Train on the sample in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "sentiment_analysis.py", "--sample", "--cache-dir", folder, "--runs-dir", folder]
        try:
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            print(f"stopped after {LIMIT} s")


def time_runs(number):
    """Return the seconds of `number` runs with each value: a dict of two lists."""
    seconds = {"ours": [], "default": []}
    for i in range(number):
        for name in sorted(seconds, reverse=i % 2):  # the two take turns at being first
            seconds[name].append(seconds_of(run_sample, ENVIRONMENTS[name]))
    return seconds


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind (default: %(default)s)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    idle = time_runs(args.runs)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        busy = time_runs(args.runs)
    finally:
        for process in others:
            process.kill()
    rows = []
    for machine, seconds in (("idle", idle), ("busy", busy)):
        ours, default = float(np.median(seconds["ours"])), float(np.median(seconds["default"]))
        rows.append({"machine": machine, "ours, s": ours, "default, s": default, "ours / default": ours / default})
    print_table(rows)
    write_result("busy", {"rows": rows, "load_before": load, "runs": {"idle": idle, "busy": busy}})


if __name__ == "__main__":
    run_command(main)
