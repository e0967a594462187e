"""Measure which accuracy a preset reaches: mean and standard deviation over the seeds 42, 43 and 44.

    python -m benchmarks.seeds --preset required        about 15 minutes on 2 cores: 85 %
    python -m benchmarks.seeds --preset bonus           about an hour: 93.0 %
    python -m benchmarks.seeds --preset bonus-unsup     about two hours: 93.6 %

Runs that `sentiment_analysis.py` has finished are read and not trained again. `--runs` names other folders of runs.
"""

from pathlib import Path

from benchmarks.common import data_parser, mean_row, read_json, write_result
from helpers import run
from sentiment_analysis import parse_args, train

PRESETS = ["required", "bonus", "bonus-unsup"]
SEEDS = (42, 43, 44)


def finished_run(preset, seed, data_dir, cache_dir):
    """Return the folder of the run of a preset and seed, which is trained if it is missing."""
    options = ["--preset", preset, "--seed", str(seed), "--data-dir", data_dir, "--cache-dir", cache_dir]
    folder = parse_args(options).out
    if (folder / "checkpoint.pt").exists():
        train(parse_args([*options, "--resume"]))
    elif not (folder / "metrics.json").exists():
        train(parse_args(options))
    return folder


def figures(metrics):
    """Return the figures of a run, given its `metrics.json`."""
    return {"test accuracy, %": 100 * metrics["test"]["accuracy"], "test loss": metrics["test"]["loss"],
            "validation accuracy, %": 100 * metrics["epochs"][-1]["valid_accuracy"]}


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="required", help="settings")
    parser.add_argument("--runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs of the preset")
    args = parser.parse_args()
    folders = args.runs or [finished_run(args.preset, seed, args.data_dir, args.cache_dir) for seed in SEEDS]
    runs = [read_json(folder / "metrics.json") for folder in folders]
    row = {"preset": args.preset, "runs": len(runs)} | mean_row([figures(metrics) for metrics in runs])
    write_result(args.preset.replace("-", "_"), {"rows": [row], "runs": runs})


if __name__ == "__main__":
    run(main)
