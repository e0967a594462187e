"""What an epoch of short texts holds, read back as sentences."""

from collections import Counter

import numpy as np
import pytest
from torchtext.vocab import Vocab

from helpers.ngrams import NgramTable, build
from helpers.predictor import as_reviews
from helpers.short_texts import ShortTextLoader

GOOD, BAD = ["great", "superb", "moving"], ["awful", "boring", "clumsy"]


@pytest.fixture(scope="module")
def reviews():
    """Reviews of 60 films, each of sentences that say its label, with a negation of the contrary here and there."""
    chance, texts, labels = np.random.default_rng(0), [], []
    for film in range(60):
        label = film % 2
        own, other = (GOOD, BAD) if label else (BAD, GOOD)
        texts.append(" ".join(chance.choice([f"The film was {chance.choice(own)}.", f"it is {chance.choice(own)} .",
                                             f"the story was not {chance.choice(other)} !"]) for _ in range(6)))
        labels.append(label)
    texts[0] += " never hardly n't do did you they we"
    reviews = as_reviews(texts)
    reviews.labels, reviews.movies = np.array(labels), np.arange(60)
    return reviews


@pytest.fixture(scope="module")
def short_texts(reviews):
    words, keys, values, folds = build(reviews, np.ones(60, bool), 1, 0)
    tables = [NgramTable(words, keys, of_fold, np.ones(7)) for of_fold in values]
    return ShortTextLoader(reviews, folds, tables, 16, vocab=Vocab(Counter(reviews.words)), max_len=50)


def sentences(texts):
    return [" ".join(texts.words[token] for token in texts.tokens[a:b])
            for a, b in zip(texts.starts[:-1], texts.starts[1:], strict=True)]


def test_an_epoch_holds_all_reviews_and_the_short_texts(reviews, short_texts):
    np.random.seed(0)
    texts, folds = short_texts.draw()
    assert len(texts.labels) == len(folds) == 60 + 75 + 24 + 12
    said = sentences(texts)
    whole = sentences(reviews)
    assert said[:60] == whole
    assert texts.labels[:60].tolist() == reviews.labels.tolist()
    for text, label, fold in zip(said[60:159], texts.labels[60:159], folds[60:159], strict=True):
        sources = [i for i in range(60) if text in whole[i]]
        assert any(reviews.labels[i] == label and short_texts.folds[i] == fold for i in sources), text
    assert all(text.count(" ") >= 2 for text in said[60:135])
    assert {text.count(" ") > 12 for text in said[60:135]} == {True, False}
    assert all(text[-1] in ".!" for text in said[135:159])


def test_a_negation_reverses_the_label(short_texts):
    assert len(short_texts.negations) > 50
    said = [" ".join(short_texts.reviews.words[token] for token in text.tokens) for text in short_texts.negations]
    for words, text in zip(said, short_texts.negations, strict=True):
        is_positive = any(word in words for word in GOOD) != ("not" in words.split())
        assert is_positive == text.label, words
    for before, after in zip(short_texts.negations[::2], short_texts.negations[1::2], strict=True):
        assert (before.label, before.fold) == (1 - after.label, after.fold)
        assert abs(len(before.tokens) - len(after.tokens)) == 1


def test_loader_draws_anew_and_follows_numpys_seed(short_texts):
    def epoch(seed):
        np.random.seed(seed)
        return [(ids.tolist(), channels.shape[2], labels.tolist()) for ids, channels, labels in short_texts]

    first = epoch(0)
    assert len(first) == len(short_texts) == -(-171 // 16)
    assert first == epoch(0) != epoch(1)
    assert {channels for _, channels, _ in first} == {7}
