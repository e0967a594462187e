"""Calibration, on labels that are drawn with known probabilities, and compared with plain bins."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from torch import nn
from torch.nn import functional as F
from torchtext.vocab import Vocab

from helpers.data.reviews import make_reviews
from helpers.evaluate import compute_metrics
from helpers.inference.calibration import calibration_error, cut_excerpts, fit, sharpness
from helpers.inference.predictor import Predictor, as_reviews
from helpers.pipeline import Pipeline
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


def test_penalty_decides_if_all_texts_are_classified_correctly():
    """It is 1e-6 times the squares of a, b log n and c (log n)², where n is the longest text."""
    logits, lengths = torch.tensor([0.5, -0.4, 0.3], dtype=torch.float64), np.array([10, 20, 30])
    found = np.array(fit(logits, lengths, torch.tensor([1, 0, 1])))

    def loss(calibration):
        right = sharpness(calibration, lengths) * logits.abs()
        return F.softplus(-right).mean().item() + 1e-6 * np.sum((calibration * np.log(30) ** [0, 1, 2]) ** 2)

    assert loss(found) < min(loss(0.9 * found), loss(1.1 * found))


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
    many = as_reviews(["a b c d e f g"] * 50)
    first, again, other = ([words[0] for words in words_of(cut_excerpts(many, seed)["5"])] for seed in (0, 0, 1))
    assert set(first) == {"a", "b", "c"}, "from any place, the end included"
    assert first == again != other


class SumOfWords(nn.Embedding):
    """A network whose logit is the sum of the values of the words."""

    def forward(self, ids):
        return super().forward(ids).sum(dim=1)


@pytest.fixture
def network():
    """A `Predictor` with a calibration, reviews with random labels, and a function that returns the logits of texts."""
    chance = np.random.default_rng(0)
    lengths, vocab = chance.integers(3, 70, 80), Vocab(Counter(f"w{i}" for i in range(40)))
    tokens = chance.integers(0, 40, lengths.sum()).astype(np.int32)
    reviews = make_reviews(vocab.itos[2:], tokens, np.cumsum([0, *lengths]), chance.integers(0, 2, 80))
    model = SumOfWords(42, 1, padding_idx=1, _weight=torch.from_numpy(chance.normal(0, 0.3, (42, 1))).float())
    model.weight.data[1] = 0

    def logits_of(texts):
        return torch.tensor([sum(model.weight[vocab.stoi[word]].item() for word in text) for text in words_of(texts)])

    return Predictor(model, vocab, Pipeline({"max_len": 500}), "IMDB", (-0.5, 0.0, 0.0)), reviews, logits_of


def test_calibration_is_fitted_to_four_draws_of_excerpts(network):
    predictor, reviews, logits_of = network
    texts = [texts for draw in range(4) for texts in cut_excerpts(reviews, draw).values()]
    lengths = np.concatenate([np.diff(of_length.starts) for of_length in texts])
    labels = torch.from_numpy(np.concatenate([of_length.labels for of_length in texts]))
    expected = fit(torch.cat([logits_of(of_length) for of_length in texts]), lengths, labels)
    predictor.calibrate(reviews)
    assert predictor.calibration == pytest.approx(expected, rel=1e-2)


def test_sign_of_the_logit_decides(network):
    """On excerpts and on whole reviews. Calibrated logits are 0.28 times those of the network."""
    predictor, reviews, logits_of = network
    metrics = predictor.excerpt_metrics(reviews, predictor.logits(reviews))
    for length, texts in cut_excerpts(reviews, 0).items():
        logits, labels = logits_of(texts), torch.from_numpy(texts.labels)
        assert metrics[length]["accuracy"] == pytest.approx(((logits > 0) == labels).double().mean().item())
        error = calibration_error(logits * 16 ** np.tanh(-0.5), labels)
        assert metrics[length]["calibration_error"] == pytest.approx(error, abs=1e-4)
    logits, labels = torch.tensor([0.01, -0.01, 0.01]), torch.tensor([1.0, 0, 0])
    assert compute_metrics(logits, labels)["confusion"] == [[1, 1], [0, 1]]
