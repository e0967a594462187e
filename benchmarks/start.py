"""A later start, and the peak memory of a whole training run at the default setting.

    python -m benchmarks.start --data-dir .data        about 3 minutes on 2 cores

From the start of the process to the end of the first training step, with the cache filled; the import of torch, timed
in the same process, is left out. Peak memory is that of a process that trains the required setting to its end.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import FIRST_STEPS, ROOT, data_parser, print_table, write_result
from helpers.cli import run_command

FIRST_STEP = """
import os, time
born = float(open("/proc/self/stat").read().split()[21]) / os.sysconf("SC_CLK_TCK")
before = time.clock_gettime(time.CLOCK_BOOTTIME); import torch; after = time.clock_gettime(time.CLOCK_BOOTTIME)
count = lambda loader: 1
seconds = lambda _: [time.clock_gettime(time.CLOCK_BOOTTIME) - born - (after - before), after - before]
""" + FIRST_STEPS


def run(code, *options):
    """Run a training process and return what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *code, *options, "--runs-dir", folder]
        return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True).stdout


def main():
    data_dir = str(Path(data_parser(__doc__).parse_args().data_dir).resolve())
    starts = []
    for _ in range(4):
        line = run(["-c", FIRST_STEP], "--data-dir", data_dir).splitlines()[-1]
        starts.append([float(word) for word in line.split()[1:]])
    seconds, torch_seconds = np.median(starts[1:], axis=0)  # the first may have filled the cache
    run(["sentiment_analysis.py"], "--data-dir", data_dir)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    row = {"first step, s": float(seconds), "import torch, s": float(torch_seconds), "peak memory, GB": peak}
    print_table([row])
    write_result("start", row)


if __name__ == "__main__":
    run_command(main)
