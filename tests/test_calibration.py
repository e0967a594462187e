"""Calibration, on labels that are drawn with known probabilities, and compared with plain bins."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from helpers.inference.calibration import calibration_error, cut_excerpts, fit, sharpness
from helpers.inference.predictor import as_reviews
from tests.toy import words_of


def test_fit_finds_the_sharpness_that_labels_were_drawn_with():
    chance = np.random.default_rng(0)
    lengths, true = np.exp(chance.uniform(1, 6, 200_000)).astype(int), np.array([-1.2, 0.5, -0.06])
    logits = chance.normal(0, 3, len(lengths))
    factor = 16 ** np.tanh(true[0] + true[1] * np.log(lengths) + true[2] * np.log(lengths) ** 2)
    labels = chance.random(len(lengths)) < 1 / (1 + np.exp(-logits * factor))
    found = fit(torch.from_numpy(logits), lengths, torch.from_numpy(labels))
    for length in (3, 20, 400):
        expected = 16 ** np.tanh(true @ [1, np.log(length), np.log(length) ** 2])
        assert sharpness(found, np.array([length])).item() == pytest.approx(expected, rel=0.05)


def test_fit_is_finite_if_all_texts_are_classified_correctly():
    found = fit(torch.tensor([5.0, -5.0, 3.0]), np.array([10, 20, 30]), torch.tensor([1, 0, 1]))
    assert np.isfinite(found).all()
    factors = sharpness(found, np.array([0, 1, 20, 10**6]))
    assert 1 / 16 <= factors.min() <= factors.max() <= 16


def test_default_calibration_does_not_change_logits():
    assert sharpness([0, 0, 0], np.array([0, 1, 500])).tolist() == [1, 1, 1]


def test_error_is_that_of_plain_bins():
    chance = np.random.default_rng(1)
    logits, labels = chance.normal(0, 2, 5000), chance.integers(0, 2, 5000)
    probability, is_correct = 1 / (1 + np.exp(-np.abs(logits))), (logits > 0) == labels
    accuracy, mean = calibration_curve(is_correct, 2 * probability - 1, n_bins=20)  # of the bins that are not empty
    size = np.histogram(2 * probability - 1, 20, (0, 1))[0]
    expected = np.sum(size[size > 0] * np.abs(accuracy - (mean + 1) / 2)) / 5000
    found = calibration_error(torch.from_numpy(logits).float(), torch.from_numpy(labels))
    assert found == pytest.approx(expected, abs=1e-4)
    sure = torch.tensor([9.0, -9.0, 9.0, -9.0])
    assert calibration_error(sure, torch.tensor([1, 0, 0, 0])) == pytest.approx(0.25, abs=1e-3)


def test_excerpts_are_cut_from_the_reviews_that_are_long_enough():
    texts = [" ".join(f"w{i}x{j}" for j in range(n)) for i, n in enumerate((4, 5, 30, 60))]
    excerpts = cut_excerpts(as_reviews(texts))
    assert list(excerpts) == ["5", "10", "20", "50", "all"]
    for length, count in (("5", 3), ("10", 2), ("20", 2), ("50", 1)):
        assert np.diff(excerpts[length].starts).tolist() == [int(length)] * count
        for words in words_of(excerpts[length]):
            review, first = map(int, words[0].removeprefix("w").split("x"))
            assert words == [f"w{review}x{first + j}" for j in range(int(length))]
    assert list(cut_excerpts(as_reviews(["short"]))) == ["all"]
