"""Region embeddings beside plain loops, and on words that stand in for each other."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

from helpers import regions
from helpers.regions import RegionEmbedding, learn, load_regions, polarity, sum_regions
from helpers.reviews import Reviews


@pytest.mark.parametrize("width", [0, 1, 4])
@pytest.mark.parametrize("T", [1, 2, 6])
def test_sums_are_those_of_a_loop(T, width):
    x = torch.randn(3, T, 2, dtype=torch.float64)
    expected = [[sum(x[b, s] for s in range(T) if abs(s - t) <= width) for t in range(T)] for b in range(3)]
    torch.testing.assert_close(sum_regions(x, width), torch.stack([torch.stack(rows) for rows in expected]))


def test_embedding_is_the_formula(monkeypatch):
    monkeypatch.setattr(regions, "FEATURES", 2)
    embedding = RegionEmbedding(4, 1)
    state = {"vectors": torch.randint(-128, 128, (4, 2), dtype=torch.int8), "scale": torch.rand(2) / 100,
             "bias": torch.randn(2), "mean": torch.randn(2), "deviation": torch.rand(2) + 0.5}
    embedding.load_state_dict(state)
    ids = [2, 0, 3]
    for t, row in enumerate(embedding(torch.tensor([ids]))[0].tolist()):
        for i in range(2):
            total = sum(state["vectors"][word, i].item() for s, word in enumerate(ids) if abs(s - t) <= 1)
            h = math.tanh(state["scale"][i].item() * total + state["bias"][i].item())
            assert row[i] == pytest.approx((h - state["mean"][i].item()) / state["deviation"][i].item(), abs=1e-5)


@pytest.fixture
def texts():
    """Texts of words 2 to 9 in which 2 and 3 stand in one company (4, 5), 6 and 7 in another (8, 9)."""
    chance = np.random.default_rng(0)
    company = chance.integers(0, 2, 600)
    tokens = [np.concatenate([chance.integers(4, 6, 6), chance.integers(2, 4, 1), chance.integers(4, 6, 6)]) + 4 * other
              for other in company]
    return np.concatenate(tokens), np.arange(601) * 13


def test_words_of_one_company_have_similar_vectors(texts, monkeypatch):
    monkeypatch.setattr(regions, "BLOCK", 256)
    monkeypatch.setattr(regions, "FREQUENT", 1.0)
    monkeypatch.setattr(regions, "LEARNING_RATE", 0.05)
    ids, starts = texts
    found = learn(ids, starts, np.ones(10), 0, 0)
    unit = found.vectors.numpy().astype(float)[[2, 3, 6, 7]]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similar = unit @ unit.T
    assert min(similar[0, 1], similar[2, 3]) > max(similar[0, 2], similar[0, 3], similar[1, 2], similar[1, 3]) + 0.2
    assert not found.vectors[:2].any(), "neither unknown words nor padding"
    again = learn(ids, starts, np.ones(10), 0, 0)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in found.state_dict().items())


def test_polarity_is_the_difference_in_standard_errors():
    labels = np.array([1] * 30 + [0] * 30)
    texts = [[2, 2, 3] if label else [3, 4] if i % 2 else [3] for i, label in enumerate(labels)]
    reviews = Reviews([], np.concatenate(texts), np.cumsum([0, *map(len, texts)]), labels, *[None] * 3)
    found = polarity(reviews, 6, reviews.tokens)
    assert found[[2, 3, 5]].tolist() == [1, pytest.approx(0.02), pytest.approx(0.02)]
    assert found[4] == pytest.approx(15 / math.sqrt(19) / 4)


def test_neither_test_reviews_nor_unknown_words_are_read(monkeypatch, tmp_path):
    seen = []

    def learn(ids, starts, weights, width, seed):
        seen.append((ids.tolist(), starts.tolist(), len(weights), width))
        return RegionEmbedding(4, width)

    monkeypatch.setattr(regions, "learn", learn)
    test = np.array([False, False, True, False])
    reviews = Reviews(["good", "odd", "bad"], np.array([0, 1, 2, 2, 0, 0]), np.array([0, 2, 3, 4, 6]),
                      np.array([1, 0, 0, -1]), np.zeros(4), test, test)
    vocab = Vocab(Counter({"good": 2, "bad": 1}))
    train = np.array([True, True, False, False])
    learned = load_regions(reviews, train, vocab, 0, tmp_path)
    good, bad = vocab.stoi["good"], vocab.stoi["bad"]
    assert seen == [([good, 0, bad, good, good], [0, 2, 3, 5], 4, width) for width in regions.WIDTHS]
    assert len(load_regions(reviews, train, vocab, 0, tmp_path)) == len(learned) == len(seen)
