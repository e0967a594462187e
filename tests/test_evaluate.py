"""`evaluate` and its metrics, beside plain counts and one review at a time."""

import math
from dataclasses import replace

import pytest
import torch

from helpers import evaluate
from helpers.batches import predict_logits
from models import MyTransformer
from sentiment_analysis import REQUIRED, load_imdb_data
from tests.toy import QUICK


def test_metrics_are_plain_counts():
    logits, labels = [2.0, -1.0, 0.5, -3.0, 0.0], [1, 1, 0, 0, 0]
    losses = [math.log1p(math.exp(-x if y else x)) for x, y in zip(logits, labels, strict=True)]
    assert evaluate.compute_metrics(torch.tensor(logits), torch.tensor(labels, dtype=torch.float32)) == {
        "loss": pytest.approx(sum(losses) / 5), "accuracy": 3 / 5, "confusion": [[2, 1], [1, 1]]}


def test_test_metrics_are_those_of_one_review_at_a_time(data):
    """The logits stand in the order of the set; duplicates count in the one accuracy and not in the other."""
    _, _, test_set, *_, test_loader, vocab, _ = load_imdb_data(replace(REQUIRED, min_freq=2), data / "aclImdb",
                                                               data / "cache")
    model = MyTransformer(vocab, 500, 1)
    logits = predict_logits(model, test_loader, "test")
    assert not model.training
    expected = torch.tensor([model(ids.unsqueeze(0)).item() for ids, _ in map(test_set.__getitem__, range(60))])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    test_set.duplicate = torch.arange(60) % 3 == 0
    result = evaluate.test_metrics(model, test_loader)
    right = [(logit > 0) == (label == 1) for logit, label in zip(expected.tolist(), test_set.labels, strict=True)]
    assert result["duplicates"] == 20
    assert result["accuracy"] == pytest.approx(sum(right) / 60)
    assert result["accuracy_without_duplicates"] == pytest.approx(sum(r for i, r in enumerate(right) if i % 3) / 40)


@pytest.mark.parametrize("preset", ["required", "bonus", "bonus-unsup"])
def test_evaluate_prints_the_lines_of_the_training(call, data, tmp_path, preset):
    where = "--data-dir", data, "--cache-dir", data / "cache"
    code, out, _ = call(*where, "--runs-dir", tmp_path, *QUICK, "--preset", preset, "--blocks", "2", "--epochs", "4")
    assert code == 0
    *_, test, confusion, _ = out.splitlines()
    assert test.startswith("IMDB test loss ")
    assert call("evaluate", "--run", tmp_path / preset, *where) == (0, f"{test}\n{confusion}\n", "")
