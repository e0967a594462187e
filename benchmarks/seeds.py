"""Train a preset with the seeds 42, 43 and 44: mean and standard deviation of the test accuracy.

    python -m benchmarks.seeds --preset required --data-dir .data       about 10 minutes on 2 cores
    python -m benchmarks.seeds --preset bonus --data-dir .data          about an hour
    python -m benchmarks.seeds --preset bonus-unsup --data-dir .data    about two hours

Runs are in `runs/PRESET-SEED/`. Runs that are already there are not trained again.
"""

import json
import shutil
import subprocess
import sys

import numpy as np

from benchmarks.common import RESULTS, ROOT, data_parser, print_table, run_folder, write_result
from helpers.cli import run_command, user_path
from report.findings import mean_and_sd

SEEDS = (42, 43, 44)
FILES = {"required": ("baseline", "loss"), "bonus": ("bonus", "loss_bonus"),
         "bonus-unsup": ("bonus_unsup", "loss_bonus_unsup")}  # preset: result, figure


def run_seed(seed, args):
    """Return the metrics of the run with that seed, which is trained if it is missing."""
    folder = run_folder(args.runs_dir, args.preset, seed)
    if not (folder / "metrics.json").exists():
        command = [sys.executable, ROOT / "sentiment_analysis.py", "--preset", args.preset, "--seed", str(seed)]
        places = ["--name", folder.name, "--runs-dir", args.runs_dir, "--data-dir", args.data_dir]
        subprocess.run([*command, *places, "--cache-dir", args.cache_dir], check=True)
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def summarize(run):
    """Return the row of a run for the printed table."""
    seconds = [epoch["seconds"] for epoch in run["epochs"]]
    return {"seed": run["seed"], "test accuracy, %": 100 * run["test"]["accuracy"],
            "valid accuracy, %": 100 * run["epochs"][-1]["valid_accuracy"],
            "s per epoch": float(np.median(seconds)), "s in total": run["seconds"]}


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--preset", choices=FILES, default="required")
    parser.add_argument("--runs-dir", type=user_path, default="runs",
                        help="folder for the runs (default: %(default)s)")
    args = parser.parse_args()
    runs = [run_seed(seed, args) for seed in SEEDS]
    print_table([summarize(run) for run in runs])
    accuracy = mean_and_sd([run["test"]["accuracy"] for run in runs])
    print(f"test accuracy {accuracy['mean']:.2%} ± {accuracy['sd']:.2%}")
    result, figure = FILES[args.preset]
    write_result(result, {
        "runs": runs, "test_accuracy": accuracy,
        "accuracy_without_duplicates": mean_and_sd([run["test"]["accuracy_without_duplicates"] for run in runs]),
        "seconds": mean_and_sd([run["seconds"] for run in runs])})
    plot = run_folder(args.runs_dir, args.preset, SEEDS[0]) / "loss.png"
    shutil.copyfile(plot, RESULTS.parent / "figures" / f"{figure}.png")


if __name__ == "__main__":
    run_command(main)
