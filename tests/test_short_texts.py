"""The short texts of an epoch, read back as sentences."""

from collections import Counter

import numpy as np
import pytest
from torchtext.vocab import Vocab

from helpers.bonus.ngram_values import learn_values
from helpers.bonus.ngrams import NgramTable, channels_by_fold
from helpers.bonus.pipeline import BonusReviewSet
from helpers.bonus.short_texts import ShortTextLoader
from helpers.inference.predictor import as_reviews
from tests.toy import words_of

GOOD, BAD = ["great", "superb", "moving"], ["awful", "boring", "clumsy"]


@pytest.fixture(scope="module")
def reviews():
    """Reviews of 60 films. Every sentence tells the label; some of them negate the contrary."""
    chance, texts, labels = np.random.default_rng(0), [], []
    for film in range(60):
        label = film % 2
        own, other = (GOOD, BAD) if label else (BAD, GOOD)
        sentences = []
        for _ in range(6):
            sentences.append(chance.choice([f"The film was {chance.choice(own)}.", f"it is {chance.choice(own)} .",
                                            f"the story was not {chance.choice(other)} !"]))
        texts.append(" ".join(sentences))
        labels.append(label)
    texts[0] += " never hardly n't do did you they we"
    reviews = as_reviews(texts)
    reviews.labels, reviews.movies = np.array(labels), np.arange(60)
    return reviews


@pytest.fixture(scope="module")
def loader(reviews):
    words, keys, values, folds = learn_values(reviews, np.ones(60, bool), 1, 0)
    tables = [NgramTable(words, keys, of_fold, np.ones(7)) for of_fold in values]

    def make_set(texts, folds, vocab, device):
        return BonusReviewSet(texts, vocab, 50, channels_by_fold(texts, folds, tables), device)

    train_set = make_set(reviews, folds, Vocab(Counter(reviews.words)), "cpu")
    return ShortTextLoader(train_set, folds, tables, 16, make_set)


def test_epoch_has_all_reviews_spans_sentences_and_negations(reviews, loader):
    np.random.seed(0)
    texts, folds = loader.draw()
    assert len(texts.labels) == len(folds) == 60 + 75 + 24 + 12
    drawn = list(map(" ".join, words_of(texts)))
    whole = list(map(" ".join, words_of(reviews)))
    assert drawn[:60] == whole
    assert texts.labels[:60].tolist() == reviews.labels.tolist()
    for text, label, fold in zip(drawn[60:159], texts.labels[60:159], folds[60:159], strict=True):
        sources = [i for i in range(60) if text in whole[i]]
        assert any(reviews.labels[i] == label and loader.folds[i] == fold for i in sources), text
    spans, sentences = drawn[60:135], drawn[135:159]
    lengths = [len(text.split()) for text in spans]
    assert 3 <= min(lengths) <= 13 < max(lengths)
    assert all(text[-1] in ".!" for text in sentences)


def test_negation_reverses_the_label(loader):
    assert len(loader.negations) > 50
    for text in loader.negations:
        words = [loader.reviews.words[token] for token in text.tokens]
        is_positive = any(word in words for word in GOOD) != ("not" in words)
        assert is_positive == text.label, words
    for before, after in zip(loader.negations[::2], loader.negations[1::2], strict=True):
        assert (before.label, before.fold) == (1 - after.label, after.fold)
        assert abs(len(before.tokens) - len(after.tokens)) == 1


def test_texts_are_drawn_again_for_each_pass_and_follow_numpys_seed(loader):
    def batches(seed):
        np.random.seed(seed)
        return [(ids.tolist(), channels.shape[2], labels.tolist()) for ids, channels, labels in loader]

    first = batches(0)
    assert len(first) == len(loader) == -(-171 // 16)
    assert first == batches(0) != batches(1)
    assert {channels for _, channels, _ in first} == {7}
