"""The benchmarks: means and tables of results, and the bonus without each of its parts."""

import numpy as np

from benchmarks import ablation, common
from helpers.imdb import SAMPLE
from sentiment_analysis import parse_args, settings_of


def test_table_of_means_and_deviations():
    values = [0.25, 0.5, 0.1]
    row = {"what": "toy"} | common.mean_row([{"loss": value} for value in values])
    mean, sd = np.mean(values), np.std(values, ddof=1)
    assert common.table([row]).splitlines()[-1] == f"| toy | {mean:.4f} ± {sd:.4f} |"


def test_the_bonus_trains_without_each_part(tmp_path):
    options = ["--preset", "bonus", "--data-dir", str(SAMPLE), "--cache-dir", str(tmp_path), "--epochs", "1"]
    args = parse_args([*options, "--device", "cpu"])
    losses = []
    for left_out in ablation.PARTS:
        pipeline = ablation.AblatedPipeline(settings_of(args), left_out)
        losses.append(ablation.train_and_validate(pipeline, 1, args)["train_loss"])
    assert np.isfinite(losses).all()
    assert len(set(losses)) == len(ablation.PARTS)
