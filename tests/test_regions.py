"""Region embeddings their loss and how they are learned, compared with plain loops."""

import contextlib
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchtext.vocab import Vocab

from helpers.bonus import regions
from helpers.bonus.regions import Learner, RegionEmbedding, learn, load_regions, polarity, sum_regions
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


@pytest.mark.parametrize("width", [0, 2])
def test_loss_is_the_formula(monkeypatch, width):
    """Each region predicts the five words on each side of it, and none of the negative words."""
    for name, value in {"FEATURES": 3, "NEGATIVES": 20, "FREQUENT": 0.1}.items():
        monkeypatch.setattr(regions, name, value)
    share, weights = np.array([0, 0.5, 0.3, 0.15, 0.05, 0]), np.array([1, 0.3, 0.9, 1, 0.6, 1])
    torch.manual_seed(0)
    learner = Learner(share, weights, width)
    assert not learner.embedding.weight[[0, 5]].any(), "words that do not occur add nothing to a region"
    for parameter in (learner.bias, learner.before.weight, learner.after.weight):
        nn.init.normal_(parameter)
    words = torch.from_numpy(np.random.default_rng(0).choice(5, 40, p=[0.2, 0.4, 0.2, 0.1, 0.1]))
    torch.manual_seed(1)
    loss = learner.loss(words)
    torch.manual_seed(1)
    chance = [0, *(weights[word] * min(1, math.sqrt(0.1 / share[word])) for word in range(1, 5))]
    is_target = [draw < chance[word] for draw, word in zip(torch.rand(40).tolist(), words.tolist(), strict=True)]
    negatives = torch.multinomial(torch.from_numpy(share**0.75 + 1e-12), 20, replacement=True)
    expected = 0
    for side, output in ((-1, learner.before.weight), (1, learner.after.weight)):
        of_true, of_false = [], []
        for t in np.flatnonzero(words):
            region = learner.embedding.weight[words[max(t - width, 0):t + width + 1]].sum(dim=0)
            h = torch.tanh(region + learner.bias)
            of_false.append(F.softplus(output[negatives] @ h).mean())
            for s in range(t + side * (width + 1), t + side * (width + 6), side):
                if 0 <= s < 40 and is_target[s]:
                    of_true.append(F.softplus(-output[words[s]] @ h))
        expected += sum(of_true) / len(of_true) + 5 * sum(of_false) / len(of_false)
    torch.testing.assert_close(loss, expected)


@contextlib.contextmanager
def recorded_rates(kind):
    """Yield a list to which every step of optimizers of a kind adds its learning rate."""
    rates = []

    def record(optimizer, *_):
        if isinstance(optimizer, kind):
            rates.append(optimizer.param_groups[0]["lr"])

    hook = register_optimizer_step_pre_hook(record)
    yield rates
    hook.remove()


def test_learning_reads_all_blocks_twice_in_random_order_and_standardizes_the_features(monkeypatch):
    for name, value in {"FEATURES": 4, "BLOCK": 32, "FREQUENT": 1.0}.items():
        monkeypatch.setattr(regions, name, value)
    chance, learners, blocks = np.random.default_rng(0), [], []
    starts = np.cumsum([0, *chance.integers(1, 9, 40)])
    ids, loss = chance.integers(2, 9, starts[-1]), Learner.loss

    def recorded_loss(self, words):
        learners.append(self)
        blocks.append(words.tolist())
        return loss(self, words)

    monkeypatch.setattr(Learner, "loss", recorded_loss)
    with recorded_rates(torch.optim.Optimizer) as rates:
        learned = learn(ids, starts, np.ones(10), 2, seed=5)
    number, order = len(blocks) // 2, np.random.RandomState(5)
    order = [*order.permutation(number), *order.permutation(number)]
    assert torch.initial_seed() == 5
    assert rates[::2] == pytest.approx(2e-3 * (1 - np.arange(len(blocks)) / len(blocks))), "of the vectors"
    assert rates[1::2] == [1e-3] * len(blocks), "of the bias"
    text = sum((blocks[order.index(i)] for i in range(number)), [])
    assert blocks == [text[32 * i:32 * i + 32] for i in order]
    text = torch.tensor(text)
    places = torch.nonzero(text).flatten()
    assert text[places].tolist() == ids.tolist()
    assert (places.diff()[starts[1:-1] - 1] > 2 + 5).all(), "no region predicts a word of another text"

    error = learned.scale * learned.vectors - learners[-1].embedding.weight
    assert (error.abs() <= 0.51 * learned.scale).all()
    assert learned.bias.equal(learners[-1].bias)
    assert learned.bias.all()
    assert not learned.vectors[[0, 1, 9]].any(), "words that do not occur have no vectors"
    features = learned(text)[places]
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(dim=0), torch.full((4,), 0.3), atol=1e-3, rtol=0)
    again = learn(ids, starts, np.ones(10), 2, seed=5).state_dict()
    assert all(map(torch.equal, learned.state_dict().values(), again.values()))


def test_polarity_is_the_difference_in_standard_errors():
    labels = np.array([1] * 30 + [0] * 30)
    texts = [[2, 2, 3]] * 30 + [[3], [3, 4, 4]] * 15
    reviews = make_reviews([], np.concatenate(texts), np.cumsum([0, *map(len, texts)]), labels)
    found = polarity(reviews, 6, reviews.tokens)
    assert found[[2, 3, 5]].tolist() == [1, pytest.approx(0.02), pytest.approx(0.02)]
    assert found[4] == pytest.approx(15 / math.sqrt(19) / 4)


def test_neither_test_and_validation_reviews_nor_unknown_words_are_read(monkeypatch, tmp_path):
    seen = []

    def learn(ids, starts, weights, width, seed):
        seen.append((ids.tolist(), starts.tolist(), weights.round(4).tolist(), width, seed))
        return RegionEmbedding(len(weights), width)

    monkeypatch.setattr(regions, "learn", learn)
    test = np.array([False, False, True, False, False])
    reviews = Reviews(["good", "odd", "bad"], np.array([0, 1, 2, 2, 0, 0, 2]), np.array([0, 2, 3, 4, 6, 7]),
                      np.array([1, 0, 0, -1, 1]), np.zeros(5), test, test)
    vocab = Vocab(Counter({"good": 2, "bad": 1}))
    train = np.array([True, True, False, False, False])
    for seed in (0, 7, 7):  # the last one is cached
        learned = load_regions(reviews, train, vocab, seed, tmp_path)
    in_one_review = round(1 / math.sqrt(1 + 4) / 4, 4)
    weights = [in_one_review, 0.02, in_one_review, in_one_review]
    assert (vocab.stoi["good"], vocab.stoi["bad"], len(learned)) == (2, 3, 2)
    assert seen == [([2, 0, 3, 2, 2], [0, 2, 3, 5], weights, width, seed) for seed in (0, 7) for width in (2, 10)]
    other_unlabelled_text = replace(reviews, tokens=np.array([0, 1, 2, 2, 2, 0, 2]))
    load_regions(other_unlabelled_text, train, vocab, 0, tmp_path)
    load_regions(reviews, train, Vocab(Counter({"good": 2})), 0, tmp_path)
    for name in ("FEATURES", "AHEAD", "PASSES", "LEARNING_RATE", "BLOCK", "NEGATIVES", "FREQUENT", "DEVIATION"):
        monkeypatch.setattr(regions, name, 3)
        load_regions(reviews, train, vocab, 0, tmp_path)
    assert len(seen) == 2 * (2 + 2 + 8), "another text, vocabulary or setting is another key"
