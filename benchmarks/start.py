"""A later start, and the peak memory of a whole training run at the default setting.

    python -m benchmarks.start --data-dir .data        about 3 minutes on 2 cores

From the start of the process to the end of the first training step, with the cache filled; the import of torch, timed
in the same process, is left out. Peak memory is that of a process that trains the required setting to its end.
"""

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
WHOLE_RUN = """
import resource, sentiment_analysis
sentiment_analysis.main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run(code, data_dir):
    """Run a training process and return the last line that it prints, as words."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, "--data-dir", data_dir, "--runs-dir", folder]
        return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True).stdout.splitlines()[-1].split()


def main():
    data_dir = str(Path(data_parser(__doc__).parse_args().data_dir).resolve())
    starts = [list(map(float, run(FIRST_STEP, data_dir)[1:])) for _ in range(4)]
    seconds, torch_seconds = np.median(starts[1:], axis=0)  # the first may have filled the cache
    peak = int(run(WHOLE_RUN, data_dir)[0]) * 1024 / 1e9
    row = {"first step, s": float(seconds), "import torch, s": float(torch_seconds), "peak memory, GB": peak}
    print_table([row])
    write_result("start", row)


if __name__ == "__main__":
    run_command(main)
