"""The benchmarks: means and tables of results, and the bonus without each of its parts."""

import json

import numpy as np

from benchmarks import ablation, common
from helpers.imdb import SAMPLE
from sentiment_analysis import parse_args, settings_of


def test_readme_has_the_tables_of_the_results(tmp_path, monkeypatch):
    values = [0.25, 0.5, 0.1]
    row = {"what": "toy"} | common.mean_row([{"loss": value, "accuracy, %": 100 * value} for value in values])
    (tmp_path / "toy.json").write_text(json.dumps({"rows": [row]}), encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table: toy missing -->\n| old |\n\nafter\n", encoding="utf-8")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "README", readme)
    common.main()
    *others, figures, empty, after = readme.read_text(encoding="utf-8").split("\n")[:-1]
    assert others == ["before", "<!-- table: toy missing -->", "| what | loss | accuracy, % |", "| --- | --- | --- |"]
    mean, sd = np.mean(values), np.std(values, ddof=1)
    assert figures == f"| toy | {mean:.4f} ± {sd:.4f} | {100 * mean:.2f} ± {100 * sd:.2f} |"
    assert (empty, after) == ("", "after")


def test_the_bonus_trains_without_each_part(tmp_path):
    options = ["--preset", "bonus", "--data-dir", str(SAMPLE), "--cache-dir", str(tmp_path), "--epochs", "1"]
    args = parse_args([*options, "--device", "cpu"])
    losses = []
    for left_out in ablation.PARTS:
        pipeline = ablation.AblatedPipeline(settings_of(args), left_out)
        losses.append(ablation.train_and_validate(pipeline, 1, args)["train_loss"])
    assert np.isfinite(losses).all()
    assert len(set(losses)) == len(ablation.PARTS)
