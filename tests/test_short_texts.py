"""The short texts of an epoch, read back as sentences."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from torchtext.vocab import Vocab

from helpers.bonus.ngram_values import learn_values
from helpers.bonus.ngrams import NgramTable, channels_by_fold
from helpers.bonus.pipeline import BonusReviewSet
from helpers.bonus.short_texts import ShortTextLoader
from helpers.data.reviews import make_reviews
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
    assert all(text[-1] in ".!" for text in drawn[135:159]), "sentences"


def test_negation_reverses_the_label(loader):
    assert len(loader.negations) > 50
    for text in loader.negations:
        words = [loader.reviews.words[token] for token in text.tokens]
        is_positive = any(word in words for word in GOOD) != ("not" in words)
        assert is_positive == text.label, words
    for before, after in zip(loader.negations[::2], loader.negations[1::2], strict=True):
        assert (before.label, before.fold) == (1 - after.label, after.fold)
        assert abs(len(before.tokens) - len(after.tokens)) == 1


def test_opinions_are_found_with_the_table_of_the_fold(loader):
    """Only the table of fold 2 knows any value."""
    nothing, table = (replace(loader.tables[2], values=factor * loader.tables[2].values) for factor in (0, 1))
    tables = [nothing, nothing, table, nothing, nothing]
    of_fold = ShortTextLoader(loader.dataset, loader.folds, tables, 16, None).negations
    assert {text.fold for text in of_fold} == {2}
    assert len(of_fold) == sum(text.fold == 2 for text in loader.negations)


def make_loader(words, lengths, tables=(), labels=None):
    """Return the loader of reviews with these words, one after the other, all of fold 0."""
    tokens, distinct = pd.factorize(np.array(words))
    labels = np.ones(len(lengths), int) if labels is None else labels
    reviews = make_reviews(list(distinct), tokens, np.cumsum([0, *lengths]), labels)
    return ShortTextLoader(SimpleNamespace(reviews=reviews), np.zeros(len(lengths), int), tables, 16, None)


ROW_OF = {"was": 0, "great": 1, "love": 2, "awful": 3, "rest": 4, "not awful": 5 + 3, "was great": 10}


def is_reversed(sentence, label, **values):
    """Return whether a sentence is reversed: a review of one sentence, and the linear values of n-grams."""
    linear = np.zeros(11)
    for gram, value in values.items():
        linear[ROW_OF[gram.replace("_", " ")]] = value if label else -value
    keys = [np.array([0 * 5 + 1]), np.zeros(0, np.int64)]  # of "was great"
    table = NgramTable(list(ROW_OF)[:5], keys, np.stack([0 * linear, linear], axis=1), np.ones(7))
    words = [*sentence.split(), "not", "n't", "never", "do", "did"]
    loader = make_loader(words, [len(words) - 5, 5], [table], np.array([label, label]))
    return {0: False, 2: True}[len(loader.negations)]


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(("sentence", "values", "gram", "threshold"), [
    ("it was great .", {"great": 0.55}, "was_great", 0.7 - 0.55),  # evidence of the sentence
    ("it was not awful .", {"awful": -0.5}, "not_awful", 0.7),  # the same, which may be contrary to the label
    ("it was great .", {"was_great": 0.5}, "great", 0.5),  # in the scope of a new negation
    ("it was not awful .", {"not_awful": 1}, "awful", -0.3)])  # in the scope of the negation that is removed
def test_opinion_is_reversed_if_it_is_clear_enough(sentence, values, gram, threshold, label):
    for factor in (-1.05, 0.95, 1.05):
        assert is_reversed(sentence, label, **values, **{gram: factor * threshold}) == (factor > 1)


@pytest.mark.parametrize("rest", [-0.42, -0.38, 0.38, 0.42])
@pytest.mark.parametrize("label", [0, 1])
def test_opinion_is_reversed_if_the_rest_of_the_sentence_is_neutral(rest, label):
    assert is_reversed("rest was great .", label, great=2, rest=rest) == (abs(rest) < 0.4)
    assert is_reversed("rest was not awful .", label, not_awful=3, awful=-1, rest=rest) == (abs(rest) < 0.4)


@pytest.mark.parametrize(("sentence", "expected"), [
    ("it was x x x x x great .", True), ("it was x x x x x x great .", False), ("it was , great .", False),
    ("i love it .", True), ("the love it .", False), ("was great .", False), ("it was great and is x .", False),
    ("i love", False), ("i love .", True), ("i love" + 13 * " x" + " .", True), ("i love" + 14 * " x" + " .", False)])
def test_one_predicate_of_a_short_sentence_is_reversed(sentence, expected):
    """The scope of a negation is 6 words, and a sentence has 3 to 16 tokens."""
    assert is_reversed(sentence, 1, great=0.9, love=0.9) == expected


def test_spans_are_from_anywhere_and_have_log_uniform_lengths_from_3_to_100():
    np.random.seed(0)
    review, first, last = make_loader(["x"] * 5 * 200, [5] * 200).draw_spans()
    places = set(zip(first - 5 * review, last - 5 * review, strict=True))
    assert places == {(0, 3), (1, 4), (2, 5), (0, 4), (1, 5), (0, 5)}
    _, first, last = make_loader(["x"] * 100 * 2000, [100] * 2000).draw_spans()
    lengths = last - first
    assert (len(lengths), lengths.min()) == (2500, 3)
    for length in (3, 5, 10, 20, 50, 80, 99):
        expected = np.log((length + 1) / 3) / np.log(100 / 3)
        assert (lengths <= length).mean() == pytest.approx(expected, abs=0.03)


def test_texts_are_drawn_again_for_each_pass_and_follow_numpys_seed(loader):
    def batches(seed):
        np.random.seed(seed)
        return [(ids.tolist(), channels.shape[2], labels.tolist()) for ids, channels, labels in loader]

    first = batches(0)
    assert len(first) == len(loader) == -(-171 // 16)
    assert first == batches(0) != batches(1)
    assert {channels for _, channels, _ in first} == {7}
