"""`evaluate` and its metrics, beside plain counts on one review at a time."""

import math
from dataclasses import asdict, replace

import pytest
import torch

from helpers import evaluate
from helpers.predictor import Predictor
from models import MyTransformer
from sentiment_analysis import REQUIRED, load_imdb_data
from tests.toy import QUICK, read_json


def test_metrics_are_plain_counts():
    logits, labels = [2.0, -1.0, 0.5, -3.0, 0.0], [1, 1, 0, 0, 0]
    losses = [math.log1p(math.exp(-x if y else x)) for x, y in zip(logits, labels, strict=True)]
    assert evaluate.compute_metrics(torch.tensor(logits), torch.tensor(labels, dtype=torch.float32)) == {
        "loss": pytest.approx(sum(losses) / 5), "accuracy": 3 / 5, "confusion": [[2, 1], [1, 1]]}


def test_duplicates_count_in_one_accuracy_and_not_in_the_other(data):
    settings = replace(REQUIRED, min_freq=2)
    _, _, test_set, *_, vocab, _ = load_imdb_data(settings, data / "aclImdb", data / "cache")
    model = MyTransformer(vocab, 500, 1)
    test_set.duplicate = torch.arange(60) % 3 == 0
    predictor = Predictor(model, vocab, asdict(settings), "IMDB", calibration=(1, 0, 0))
    metrics = evaluate.compute_test_metrics(predictor, test_set)
    assert not model.training
    alone = map(test_set.__getitem__, range(60))
    right = [(model(ids.unsqueeze(0)).item() > 0) == label.item() for ids, label in alone]
    assert metrics["duplicates"] == 20
    assert metrics["accuracy"] == pytest.approx(sum(right) / 60)
    assert metrics["accuracy_without_duplicates"] == pytest.approx((sum(right) - sum(right[::3])) / 40)


@pytest.mark.parametrize(("preset", "ngrams"), [("required", None), ("bonus", "labels"), ("bonus-unsup", "unsup")])
def test_presets_learn_and_evaluate_prints_the_lines_of_the_training(call, data, tmp_path, preset, ngrams):
    where = "--data-dir", data, "--cache-dir", data / "cache"
    code, out, _ = call(*where, "--runs-dir", tmp_path, *QUICK, "--preset", preset, "--blocks", "2", "--epochs", "4")
    *_, test, confusion, parts, _ = out.splitlines()
    assert (code, test[:15]) == (0, "IMDB test loss ")
    assert call("evaluate", "--run", tmp_path / preset, *where) == (0, f"{test}\n{confusion}\n{parts}\n", "")
    metrics = read_json(tmp_path / preset / "metrics.json")
    assert (metrics["settings"]["ngrams"], metrics["settings"]["channels"] > 0) == (ngrams, ngrams is not None)
    assert metrics["test"]["accuracy"] > 0.9
