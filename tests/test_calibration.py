"""Calibration beside labels that are drawn with known probabilities, and beside plain loops."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from helpers.calibration import calibration_error, fit, parts_of, sharpness
from helpers.predictor import as_reviews


def test_fit_finds_the_sharpness_that_labels_were_drawn_with():
    chance = np.random.default_rng(0)
    lengths, true = np.exp(chance.uniform(1, 6, 200_000)).astype(int), np.array([-1.2, 0.5, -0.06])
    logits = chance.normal(0, 3, len(lengths))
    scale = 16 ** np.tanh(true[0] + true[1] * np.log(lengths) + true[2] * np.log(lengths) ** 2)
    labels = chance.random(len(lengths)) < 1 / (1 + np.exp(-logits * scale))
    found = fit(torch.from_numpy(logits), lengths, torch.from_numpy(labels))
    for length in (3, 20, 400):
        expected = 16 ** np.tanh(true @ [1, np.log(length), np.log(length) ** 2])
        assert sharpness(found, np.array([length])).item() == pytest.approx(expected, rel=0.05)


def test_texts_that_are_all_judged_right_make_no_logit_infinite():
    found = fit(torch.tensor([5.0, -5.0, 3.0]), np.array([10, 20, 30]), torch.tensor([1, 0, 1]))
    assert np.isfinite(found).all()
    assert (sharpness(found, np.array([0, 1, 20, 10**6])) >= 1 / 16).all()
    assert (sharpness(found, np.array([0, 1, 20, 10**6])) <= 16).all()


def test_no_calibration_leaves_logits_as_they_are():
    assert sharpness([0, 0, 0], np.array([0, 1, 500])).tolist() == [1, 1, 1]


def test_error_is_that_of_plain_bins():
    chance = np.random.default_rng(1)
    logits, labels = chance.normal(0, 2, 5000), chance.integers(0, 2, 5000)
    claimed, right = 1 / (1 + np.exp(-np.abs(logits))), (logits > 0) == labels
    share, mean = calibration_curve(right, 2 * claimed - 1, n_bins=20)  # of the bins that are not empty
    size = np.histogram(2 * claimed - 1, 20, (0, 1))[0]
    expected = np.sum(size[size > 0] * np.abs(share - (mean + 1) / 2)) / 5000
    found = calibration_error(torch.from_numpy(logits).float(), torch.from_numpy(labels))
    assert found == pytest.approx(expected, abs=1e-4)
    sure = torch.tensor([9.0, -9.0, 9.0, -9.0])
    assert calibration_error(sure, torch.tensor([1, 0, 0, 0])) == pytest.approx(0.25, abs=1e-3)


def test_parts_are_cut_from_the_reviews_that_are_long_enough():
    reviews = as_reviews([" ".join(f"w{i}x{j}" for j in range(n)) for i, n in enumerate((4, 5, 30, 60))])
    parts = parts_of(reviews)
    assert list(parts) == ["5", "10", "20", "50", "all"]
    for length, count in (("5", 3), ("10", 2), ("20", 2), ("50", 1)):
        part = parts[length]
        assert np.diff(part.starts).tolist() == [int(length)] * count
        for start in part.starts[:-1]:
            review, first = map(int, part.words[part.tokens[start]].removeprefix("w").split("x"))
            text = [part.words[token] for token in part.tokens[start:start + int(length)]]
            assert text == [f"w{review}x{first + j}" for j in range(int(length))]
    assert list(parts_of(as_reviews(["short"]))) == ["all"]
