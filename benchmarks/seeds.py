"""A preset trained with the seeds 42, 43 and 44: mean and deviation of its test accuracy.

    python -m benchmarks.seeds --preset required --data-dir .data       about 10 minutes on 2 cores
    python -m benchmarks.seeds --preset bonus --data-dir .data
    python -m benchmarks.seeds --preset bonus-unsup --data-dir .data

Runs go to `runs/PRESET-SEED/`; one that is there already is taken as it is. The loss plot of seed 42 becomes a figure.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, ROOT, data_parser, mean_and_sd, print_table, write_result
from helpers.cli import run_command

SEEDS = (42, 43, 44)
FILES = {"required": ("baseline", "loss"), "bonus": ("bonus", "loss_bonus"),
         "bonus-unsup": ("bonus_unsup", "loss_bonus_unsup")}  # preset: result, figure


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--preset", choices=FILES, default="required")
    parser.add_argument("--runs-dir", default="runs")
    args = parser.parse_args()
    result, figure = FILES[args.preset]
    runs = []
    for seed in SEEDS:
        folder = Path(args.runs_dir, f"{args.preset}-{seed}")
        if not (folder / "metrics.json").exists():
            command = [sys.executable, ROOT / "sentiment_analysis.py", "--preset", args.preset, "--seed", str(seed)]
            places = ["--name", folder.name, "--runs-dir", args.runs_dir, "--data-dir", args.data_dir]
            subprocess.run(command + places, check=True)
        runs.append(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    print_table([{"seed": run["seed"], "test accuracy, %": 100 * run["test"]["accuracy"],
                  "valid accuracy, %": 100 * run["epochs"][-1]["valid_accuracy"],
                  "s an epoch": float(np.median([epoch["seconds"] for epoch in run["epochs"]])),
                  "s in all": run["seconds"]} for run in runs])
    accuracy = mean_and_sd([run["test"]["accuracy"] for run in runs])
    print(f"test accuracy {accuracy['mean']:.2%} ± {accuracy['sd']:.2%}")
    write_result(result, {
        "runs": runs, "test_accuracy": accuracy,
        "accuracy_without_duplicates": mean_and_sd([run["test"]["accuracy_without_duplicates"] for run in runs]),
        "seconds": mean_and_sd([run["seconds"] for run in runs])})
    first = Path(args.runs_dir, f"{args.preset}-{SEEDS[0]}")
    shutil.copyfile(first / "loss.png", RESULTS.parent / "figures" / f"{figure}.png")


if __name__ == "__main__":
    run_command(main)
