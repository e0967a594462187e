"""Region embeddings, compared with plain loops, and learned from words that replace each other."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

from helpers.bonus import regions
from helpers.bonus.regions import RegionEmbedding, learn, load_regions, polarity, separate_texts, sum_regions
from helpers.data.reviews import Reviews, make_reviews


@pytest.mark.parametrize("width", [0, 1, 4])
@pytest.mark.parametrize("T", [1, 2, 6])
def test_sums_are_those_of_a_loop(T, width):
    x, expected = torch.randn(3, T, 2, dtype=torch.float64), torch.zeros(3, T, 2, dtype=torch.float64)
    for t in range(T):
        for s in range(T):
            if abs(s - t) <= width:
                expected[:, t] += x[:, s]
    torch.testing.assert_close(sum_regions(x, width), expected)


def test_embedding_is_the_formula(monkeypatch):
    monkeypatch.setattr(regions, "FEATURES", 2)
    embedding = RegionEmbedding(4, 1)
    state = {"vectors": torch.randint(-128, 128, (4, 2), dtype=torch.int8), "scale": torch.rand(2) / 100,
             "bias": torch.randn(2), "mean": torch.randn(2), "deviation": torch.rand(2) + 0.5}
    embedding.load_state_dict(state)
    vectors, scale, bias, mean, deviation = (tensor.tolist() for tensor in state.values())
    ids = [2, 0, 3]
    for t, row in enumerate(embedding(torch.tensor([ids]))[0].tolist()):
        for i in range(2):
            total = sum(vectors[ids[s]][i] for s in range(3) if abs(s - t) <= 1)
            h = math.tanh(scale[i] * total + bias[i])
            assert row[i] == pytest.approx((h - mean[i]) / deviation[i], abs=1e-5)


def test_texts_are_separated_by_padding():
    words = separate_texts(np.array([5, 6, 7]), np.array([0, 2, 2, 3]), gap=2)
    assert words.tolist() == [0, 0, 5, 6, 0, 0, 0, 0, 7, 0, 0]


@pytest.fixture
def texts():
    """Texts of words 2 to 9: words 2 and 3 are always among 4 and 5, and words 6 and 7 among 8 and 9."""
    chance, texts = np.random.default_rng(0), []
    for shift in 4 * chance.integers(0, 2, 600):
        before, word, after = chance.integers(4, 6, 6), chance.integers(2, 4, 1), chance.integers(4, 6, 6)
        texts.append(np.concatenate([before, word, after]) + shift)
    return np.concatenate(texts), np.arange(601) * 13


def test_words_with_the_same_neighbours_have_similar_vectors(texts, monkeypatch):
    monkeypatch.setattr(regions, "BLOCK", 256)
    monkeypatch.setattr(regions, "FREQUENT", 1.0)
    monkeypatch.setattr(regions, "LEARNING_RATE", 0.05)
    ids, starts = texts
    learned = learn(ids, starts, np.ones(10), 0, 0)
    unit = learned.vectors.numpy().astype(float)[[2, 3, 6, 7]]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert min(cosine[0, 1], cosine[2, 3]) > max(cosine[0, 2], cosine[0, 3], cosine[1, 2], cosine[1, 3]) + 0.2
    assert not learned.vectors[:2].any(), "unknown words and padding have no vectors"
    again = learn(ids, starts, np.ones(10), 0, 0).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in learned.state_dict().items())


def test_polarity_is_the_difference_in_standard_errors():
    labels = np.array([1] * 30 + [0] * 30)
    texts = [[2, 2, 3]] * 30 + [[3], [3, 4]] * 15
    reviews = make_reviews([], np.concatenate(texts), np.cumsum([0, *map(len, texts)]), labels)
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
    assert len(load_regions(reviews, train, vocab, 0, tmp_path)) == len(learned) == len(seen), "cached"
