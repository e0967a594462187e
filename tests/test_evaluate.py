"""`evaluate` and its metrics, compared with plain counts on one review at a time."""

import math
from dataclasses import asdict, replace

import pytest
import torch

from helpers import evaluate
from helpers.data.batches import predict_logits
from helpers.inference.predictor import Predictor
from helpers.pipeline import Pipeline
from models import MyTransformer
from sentiment_analysis import REQUIRED, load_imdb_data
from tests.toy import QUICK, read_json


def test_metrics_are_plain_counts():
    logits, labels = [2.0, -1.0, 0.5, -3.0, 0.0, 1.5], [1, 1, 0, 0, 0, 0]
    losses = [math.log1p(math.exp(-x if y else x)) for x, y in zip(logits, labels, strict=True)]
    assert evaluate.compute_metrics(torch.tensor(logits), torch.tensor(labels, dtype=torch.float32)) == {
        "loss": pytest.approx(sum(losses) / 6), "accuracy": 3 / 6, "confusion": [[2, 2], [1, 1]]}


def test_accuracy_is_also_computed_without_duplicates(data):
    settings = replace(REQUIRED, min_freq=2)
    _, _, test_set, _, _, test_loader, vocab, _ = load_imdb_data(settings, data / "aclImdb", data / "cache")
    model = MyTransformer(vocab, 500, 1)
    test_set.duplicate = torch.arange(60) % 3 == 0
    predictor = Predictor(model, vocab, Pipeline(asdict(settings)), "IMDB", calibration=(1, 0, 0))
    metrics = evaluate.compute_test_metrics(predictor, test_set, predict_logits(model, test_loader, ""))
    correct = []
    for i in range(60):
        label, ids = test_set[i]
        correct.append((model(ids.unsqueeze(0)).item() > 0) == label.item())
    assert metrics["duplicates"] == 20
    assert metrics["accuracy"] == pytest.approx(sum(correct) / 60)
    assert metrics["accuracy_without_duplicates"] == pytest.approx((sum(correct) - sum(correct[::3])) / 40)


@pytest.mark.parametrize(("preset", "file"), [("required", ""), ("bonus-unsup", "loss.png")])
def test_presets_learn_and_evaluate_prints_the_metrics_of_the_training(call, capsys, data, tmp_path, preset, file):
    where = "--data-dir", data, "--cache-dir", data / "cache"
    code, trained, _ = call(*where, "--runs-dir", tmp_path, *QUICK, "--preset", preset, "--blocks", 2, "--epochs", 4)
    metrics = read_json(tmp_path / preset / "metrics.json")
    assert (code, bool(metrics["settings"]["bonus"])) == (0, preset == "bonus-unsup")
    assert metrics["test"]["accuracy"] > 0.9
    evaluated = call("evaluate", "--run", tmp_path / preset / file, *where)
    evaluate.print_test(metrics["test"], "IMDB")
    summary = capsys.readouterr().out
    evaluate.print_details(metrics["test"])
    assert summary in trained
    assert evaluated == (0, summary + capsys.readouterr().out, "")


def test_printed_metrics(capsys):
    excerpts = {"5": {"accuracy": 0.61, "calibration_error": 0.05},
                "all": {"accuracy": 0.875, "calibration_error": 0.1}}
    metrics = {"loss": 0.25, "accuracy": 0.855, "confusion": [[1234, 5], [67, 890]], "duplicates": 3,
               "accuracy_without_duplicates": 0.845, "excerpts": excerpts}
    evaluate.print_test(metrics, "IMDB")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["IMDB", "test", "accuracy", "85.50%"]
    assert [line[-2:] for line in lines[2:]] == [["1,234", "5"], ["67", "890"]]
    evaluate.print_details(metrics)
    out = capsys.readouterr().out
    assert all(part in out for part in ("0.2500", "84.50%", " 3 ", "5 tokens 61.0% (0.050)", "87.5% (0.100)"))
