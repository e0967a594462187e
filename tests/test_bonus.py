"""The network of the bonus, region embeddings and short texts, compared with formulas and plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.bonus import BonusReviewSet, BonusTransformer, regions
from helpers.bonus.ngrams import NgramTable, channels_by_fold, learn_values
from helpers.bonus.regions import Learner, RegionEmbedding, learn
from helpers.bonus.short_texts import ShortTextLoader
from helpers.imdb import make_reviews, select
from helpers.text import tokenize
from tests.toy import toy_vocab, words_of

# The network


class MaskedScale(nn.Module):
    """A block that reads the mask."""

    def __init__(self, d):
        super().__init__()
        self.fc = nn.Linear(d, d)

    def forward(self, x, mask):
        return self.fc(x) * mask.unsqueeze(2)


@pytest.mark.parametrize("masks_padding", [True, False])
def test_network_is_its_formula(masks_padding):
    """The blocks read [word vector + projected regions ; channels], and their mean over the tokens is classified."""
    embeddings = [RegionEmbedding(10, 0), RegionEmbedding(10, 1)]
    for embedding in embeddings:
        embedding.vectors[2:] = torch.randint(-128, 128, embedding.vectors[2:].shape)
        embedding.scale[:] = 0.01
    make_block = MaskedScale if masks_padding else lambda d: nn.Linear(d, d)
    network = BonusTransformer(toy_vocab(), make_block, 2, False, masks_padding, 2, embeddings).eval()
    ids, channels = torch.tensor([[3, 4, 5, 1], [5, 6, 7, 2]]), torch.randn(2, 4, 2)
    for row, length in ((0, 3 if masks_padding else 4), (1, 4)):
        of_row = ids[row:row + 1, :length]
        features = torch.cat([embedding(of_row)[0] for embedding in embeddings], dim=1)
        vectors = network.embedding.weight[of_row[0]] + features @ network.regions.fc.weight.T
        x = torch.cat([vectors, channels[row, :length]], dim=1)
        for block in network.blocks:
            x = x @ getattr(block, "fc", block).weight.T + getattr(block, "fc", block).bias
        expected = x.mean(dim=0) @ network.fc.weight[0] + network.fc.bias[0]
        torch.testing.assert_close(network(ids, channels)[row, 0], expected)
    network(ids, channels).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


# Regions


@pytest.mark.parametrize("width", [0, 1, 4])
def test_embedding_is_the_formula(monkeypatch, width):
    monkeypatch.setattr(regions, "FEATURES", 2)
    embedding = RegionEmbedding(4, width)
    state = {"vectors": torch.randint(-128, 128, (4, 2), dtype=torch.int8), "scale": torch.rand(2) / 100,
             "bias": torch.randn(2), "mean": torch.randn(2), "deviation": torch.rand(2) + 0.5}
    embedding.load_state_dict(state)
    vectors, scale, bias, mean, deviation = (tensor.tolist() for tensor in state.values())
    ids = [2, 0, 3, 3, 1]
    for t, row in enumerate(embedding(torch.tensor([ids]))[0].tolist()):
        for i in range(2):
            total = sum(vectors[ids[s]][i] for s in range(5) if abs(s - t) <= width)
            h = math.tanh(scale[i] * total + bias[i])
            assert row[i] == pytest.approx((h - mean[i]) / deviation[i], abs=1e-5)


@pytest.mark.parametrize("width", [0, 2])
def test_loss_is_the_formula(monkeypatch, width):
    """Each region predicts the five words on each side of it, and none of the negative words."""
    for name, value in {"FEATURES": 3, "NEGATIVES": 20, "FREQUENT": 0.1}.items():
        monkeypatch.setattr(regions, name, value)
    share, weights = np.array([0, 0.5, 0.3, 0.15, 0.05, 0]), np.array([1, 0.3, 0.9, 1, 0.6, 1])
    learner = Learner(share, weights, width)
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


def test_learning_is_deterministic_and_standardizes_the_features(monkeypatch):
    for name, value in {"FEATURES": 4, "BLOCK": 32, "FREQUENT": 1.0, "LEARNING_RATE": 0.05}.items():
        monkeypatch.setattr(regions, name, value)
    ids, starts = np.tile([2, 2, 3, 3, 4, 4], 60), np.array([0, 180, 360])
    first, again = (learn(ids, starts, np.ones(6), 2, seed=5) for _ in range(2))
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert first.bias.all()
    assert not first.vectors[[0, 1, 5]].any(), "words that do not occur have no vectors"
    text = regions.separate_texts(ids, starts, 8)
    assert text.tolist() == [0] * 8 + ids[:180].tolist() + [0] * 8 + ids[180:].tolist() + [0] * 8
    features = first(text)[text > 0]
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(dim=0), torch.full((4,), 0.3), atol=1e-3, rtol=0)


# Short texts

GOOD, BAD = ["great", "superb", "moving"], ["awful", "boring", "clumsy"]


@pytest.fixture(scope="module")
def loader():
    """The loader of reviews of 60 films. Every sentence tells the label; some of them negate the contrary."""
    chance, texts = np.random.default_rng(0), []
    for film in range(60):
        own, other = (GOOD, BAD) if film % 2 else (BAD, GOOD)
        sentences = [f"The film was {chance.choice(own)}.", f"it is {chance.choice(own)} .",
                     f"the story was not {chance.choice(other)} !"]
        texts.append(" ".join(chance.choice(sentences, 6)))
    texts[0] += " never hardly n't do did you they we"
    reviews = replace(make_reviews(*tokenize(texts), np.arange(60) % 2), movies=np.arange(60))
    words, keys, values, folds = learn_values(reviews, np.ones(60, bool), 1, 0)
    tables = [NgramTable(words, keys, of_fold, np.ones(7)) for of_fold in values]

    def make_set(texts, folds, vocab, device):
        return BonusReviewSet(texts, vocab, 50, device, False, channels_by_fold(texts, folds, tables))

    return ShortTextLoader(make_set(reviews, folds, toy_vocab(), "cpu"), folds, tables, 16, make_set)


def test_pass_has_all_reviews_spans_sentences_and_negations_with_the_fold_of_their_review(loader):
    texts, folds = loader.draw()
    assert len(texts.labels) == len(folds) == 60 + 75 + 24 + 12
    assert len(list(loader)) == len(loader) == math.ceil(len(folds) / 16)
    drawn, whole = list(map(" ".join, words_of(texts))), list(map(" ".join, words_of(loader.reviews)))
    assert drawn[:60] == whole
    for text, label, fold in zip(drawn[:159], texts.labels, folds, strict=False):
        sources = [i for i in range(60) if text in whole[i]]
        assert any(loader.reviews.labels[i] == label and loader.folds[i] == fold for i in sources), text
    assert all(text[-1] in ".!e" for text in drawn[135:159]), "sentences"
    drawn_set = loader.make_set(texts, folds, toy_vocab(), "cpu")
    channels = [loader.tables[fold].channels(select(texts, [i])) for i, fold in enumerate(folds)]
    assert np.array_equal(drawn_set.channels[:-1], np.concatenate(channels)[drawn_set.positions])


def test_negation_reverses_the_label(loader):
    assert len(loader.negations) > 50
    for text in loader.negations:
        words = [loader.reviews.words[token] for token in text.tokens]
        is_negated = any(word in words for word in ("not", "n't", "never", "hardly"))
        assert (any(word in words for word in GOOD) != is_negated) == text.label, words
    for before, after in zip(loader.negations[::2], loader.negations[1::2], strict=True):
        assert (before.label, before.fold) == (1 - after.label, after.fold)
        assert abs(len(before.tokens) - len(after.tokens)) == 1


@pytest.mark.parametrize(("sentence", "expected"), [
    ("it was x x x x x great .", "it was not x x x x x great ."), ("it was x x x x x x great .", None),
    ("it was , great .", None), ("i love it .", "i do n't love it ."), ("the love it .", None), ("i love", None),
    ("i love" + 14 * " x" + " .", None), ("rest it was great .", None), ("it was not awful .", "it was awful .")])
def test_one_predicate_of_a_short_clear_sentence_is_reversed(sentence, expected):
    """The scope of a negation is 6 words, and a sentence has 3 to 16 tokens. The rest of it must be neutral."""
    words = list(dict.fromkeys([*sentence.split(), "not", "n't", "do", "did", "never", "hardly"]))
    tokens = np.array([words.index(word) for word in sentence.split()])
    reviews = make_reviews(words, tokens, np.array([0, len(tokens)]), np.array([1]))
    linear = {"great": 2.0, "love": 1.0, "awful": -1.0, "rest": -0.5, "mild": -0.3}
    values = np.array([linear.get(word, 0) for word in words] * 2)
    values[len(words):] = -values[:len(words)]  # of negated words
    table = NgramTable(words, [np.zeros(0, np.int64)] * 2, np.stack([0 * values, values], axis=1), np.ones(7))
    train_set = BonusReviewSet(reviews, toy_vocab(), 50, "cpu", False, table.channels(reviews))
    negations = ShortTextLoader(train_set, np.zeros(1, int), [table], 16, None).negations
    found = [" ".join(words[token] for token in text.tokens) for text in negations]
    assert (found[1] if found else None) == expected
