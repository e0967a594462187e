"""A preset trained with the seeds 42, 43 and 44: mean and deviation of its test accuracy.

    python -m benchmarks.seeds --preset required --data-dir .data       about 10 minutes on 2 cores
    python -m benchmarks.seeds --preset bonus --data-dir .data
    python -m benchmarks.seeds --preset bonus-unsup --data-dir .data

Runs go to `runs/PRESET-SEED/`; one that is there already is taken as it is. The loss plot of seed 42 becomes a figure.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, ROOT, print_table, write_result

SEEDS = (42, 43, 44)
FILES = {"required": ("baseline", "loss"), "bonus": ("bonus", "loss_bonus"),
         "bonus-unsup": ("bonus_unsup", "loss_bonus_unsup")}  # preset: result, figure


def spread(values):
    """Mean and standard deviation (of a sample) of some figures."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", choices=FILES, default="required")
    parser.add_argument("--data-dir", default=".data")
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
    accuracy = spread([run["test"]["accuracy"] for run in runs])
    print(f"test accuracy {accuracy['mean']:.2%} ± {accuracy['sd']:.2%}")
    write_result(result, {
        "runs": runs, "test_accuracy": accuracy,
        "accuracy_without_known": spread([run["test"]["accuracy_without_known"] for run in runs]),
        "seconds": spread([run["seconds"] for run in runs])})
    first = Path(args.runs_dir, f"{args.preset}-{SEEDS[0]}")
    shutil.copyfile(first / "loss.png", RESULTS.parent / "figures" / f"{figure}.png")


if __name__ == "__main__":
    main()
