"""Time and memory of `predict --file` on the 25,000 test reviews as a CSV file, from the start of the process.

    python -m benchmarks.predict --data-dir .data        about a minute on 2 cores
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.common import ROOT, data_parser, print_table, write_result
from helpers.archive import find_source, read_files
from helpers.cli import run_command


def main():
    files = sorted(read_files(find_source(data_parser(__doc__).parse_args().data_dir), {"test/neg", "test/pos"}))
    rows = [(content.decode(), name.split("/")[1]) for name, content in files if "/urls_" not in name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "reviews.csv")
        pd.DataFrame(rows, columns=["review", "sentiment"]).to_csv(path, index=False)
        command = [sys.executable, ROOT / "sentiment_analysis.py", "predict", "--file", path, "--out"]
        started = time.perf_counter()
        done = subprocess.run([*command, Path(folder, "answers.csv")], check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
        seconds = time.perf_counter() - started
    print(done.stdout, end="")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    row = {"reviews": len(rows), "seconds": seconds, "peak memory, GB": memory}
    print_table([row])
    write_result("predict", row)


if __name__ == "__main__":
    run_command(main)
