"""Negation and the channels of n-grams, compared with plain loops and counts on a toy corpus, and with sklearn."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from helpers.bonus import ngrams
from helpers.bonus.ngrams import NgramTable, is_negated, learn_values
from helpers.imdb import make_reviews, select
from tests.toy import words_of

WORDS = ["a", "good", "bad", "but", "not", "very", "rare"]
V = len(WORDS)


@pytest.fixture(params=[False, True], ids=["labels", "unsup"])
def corpus(request):
    """Toy reviews of 12 films to train on, 6 for validation and test and 6 unlabelled; which are to train on."""
    chance, part = np.random.default_rng(1), np.repeat(["train", "other", "unsup"], [36, 18, 18 * request.param])
    labels = (chance.random(len(part)) < 0.7).astype(int)  # unequal, so that the intercept matters
    texts = []
    for label in labels:
        chances = [.2, .3, .1, .15, .15, .1] if label else [.2, .1, .3, .15, .15, .1]
        texts.append(chance.choice(6, chance.integers(0, 9), p=chances))
    texts[0] = np.append(texts[0], 6)  # "rare" is in one review
    labels[part == "unsup"] = -1
    starts = np.cumsum([0, *map(len, texts)])
    reviews = make_reviews(WORDS, np.concatenate(texts).astype(np.int32), starts, labels)
    return replace(reviews, movies=np.arange(len(part)) // 3), part == "train"


def in_scope(words, i):
    """Return whether there is a negation up to 6 words before word i, without a stop after it: a loop."""
    for j in range(i - 1, max(i - 7, -1), -1):
        if words[j + 1] in ngrams.STOPS:
            return False
        if words[j] in ngrams.NEGATIONS and words[j + 1] not in ngrams.NOT_NEGATED:
            return True
    return False


def test_negation_is_that_of_a_loop():
    chance = np.random.default_rng(0)
    words = ["good", "bad", "it", "was", "not", "n't", "never", "only", "but", ",", ".", "because"]
    tokens, starts = chance.integers(0, len(words), 3000), np.arange(0, 3001, 15)
    reviews = make_reviews(words, tokens, np.append(starts, 3000))  # the last text is empty
    expected = [in_scope(text, i) for text in words_of(reviews) for i in range(len(text))]
    assert is_negated(reviews).tolist() == expected
    assert 500 < sum(expected) < 2500


def grams_of(words):
    """Return the word, the 2-gram and the 3-gram that end at each token, or None. A negated word is ("not", word)."""
    ids = [WORDS.index(word) for word in words]
    single = [("not", ids[i]) if in_scope(words, i) else (ids[i],) for i in range(len(ids))]
    return [single, *([tuple(ids[i + 1 - n:i + 1]) if i + 1 >= n else None for i in range(len(ids))] for n in (2, 3))]


def distinct(words):
    return set().union(*grams_of(words)) - {None}


def rows_of(table):
    """Return the row of each n-gram in the values of a table: a dict."""
    grams = [(word,) for word in range(V)] + [("not", word) for word in range(V)]
    grams += [(key // V, key % V) for key in table.keys[0].tolist()]
    grams += [(key // V**2, key // V % V, key % V) for key in table.keys[1].tolist()]
    return {gram: row for row, gram in enumerate(grams)}


def naive_bayes_value(gram, texts, labels):
    """Return the value of an n-gram by the formula, from plain counts."""
    p = sum(label for text, label in zip(texts, labels, strict=True) if gram in distinct(text))
    n = sum(1 - label for text, label in zip(texts, labels, strict=True) if gram in distinct(text))
    if gram[0] != "not":
        return math.log((p + 1) / (n + 1)) if p + n > 1.5 else 0.0  # at least 2, whatever the rounding
    contrary = 1 / (1 + math.exp(naive_bayes_value(gram[1:], texts, labels) / 2))
    return math.log((p + 4 * contrary) / (n + 4 * (1 - contrary)))


def tables_of(reviews, train):
    """Return the table of each fold, and the fold of each training review."""
    words, keys, values, folds = learn_values(reviews, train, min_reviews=1, seed=0)
    assert words == WORDS
    return [NgramTable(words, keys, of_fold, np.ones(1)) for of_fold in values], folds


def test_words_of_a_table_are_in_enough_reviews(corpus):
    reviews, _ = corpus
    counts = Counter(word for words in words_of(reviews) for word in set(words))
    for least in (1, 5, 30):
        words, _, _ = ngrams.find_vocabulary(reviews, least)
        assert words == [word for word in WORDS if counts[word] >= least]


def test_values_are_plain_counts_of_the_other_films(corpus):
    """Soft values count the predictions of the linear fit, by which as many training reviews are positive as are."""
    reviews, train = corpus
    tables, folds = tables_of(reviews, train)
    texts, labels, movies = words_of(select(reviews, train)), reviews.labels[train], reviews.movies[train]
    unlabelled = words_of(select(reviews, reviews.labels < 0))
    assert all(len(set(folds[movies == movie])) == 1 for movie in set(movies))
    assert set(folds) == set(range(5)) == set(range(len(tables)))
    for fold, table in enumerate(tables):
        seen = [i for i in range(len(texts)) if folds[i] != fold and texts[i]]
        row_of, values = rows_of(table), table.values.astype(float)
        for gram, row in row_of.items():
            expected = naive_bayes_value(gram, [texts[i] for i in seen], labels[seen])
            assert values[row, 0] == pytest.approx(expected, abs=4e-3), gram
        if not unlabelled:
            continue
        logits = [np.array([sum(values[row_of[gram], 1] for gram in distinct(text)) for text in some])
                  for some in ([texts[i] for i in seen], unlabelled)]
        intercepts = np.linspace(-5, 5, 10_001)
        positive = (1 / (1 + np.exp(-logits[0] - intercepts[:, None]))).sum(axis=1)
        intercept = intercepts[np.argmin(np.abs(positive - labels[seen].sum()))]
        soft_labels = 1 / (1 + np.exp(-logits[1] - intercept))
        for gram, row in row_of.items():
            assert values[row, 2] == pytest.approx(naive_bayes_value(gram, unlabelled, soft_labels), abs=1e-2), gram


def test_linear_values_are_those_of_sklearn():
    """The features of a review are the values of its n-grams; a negated word also counts as minus half its word."""
    chance, words = np.random.default_rng(0), 3
    X, values = chance.random((60, 9)) < 0.4, chance.normal(size=9)
    features = X * values
    features[:, :words] -= X[:, words:2 * words] * values[:words] / 2
    labels = (features @ chance.normal(size=9) + 0.5 * chance.normal(size=60) > 0).astype(int)
    reviews, rows = np.nonzero(X)
    summands, intercept = ngrams.fit_linear(rows, reviews, values, labels, words)
    expected = LogisticRegression(C=1 / 3, tol=1e-8).fit(features, labels)
    np.testing.assert_allclose(X @ summands + intercept, expected.decision_function(features), atol=5e-3)


def test_channels_are_values_and_sums(corpus, monkeypatch):
    reviews, train = corpus
    (table, *_), _ = tables_of(reviews, train)
    kinds = 3 if (reviews.labels < 0).any() else 2
    value_of = {gram: table.values[row].astype(float) for gram, row in rows_of(table).items()}
    nothing, channels = np.zeros(kinds), table.channels(reviews)
    for i, words in enumerate(words_of(reviews)):
        found = channels[reviews.starts[i]:reviews.starts[i + 1]].astype(float)
        sums = sum((value_of.get(gram, nothing) for gram in distinct(words)), nothing)[1:]
        for place, grams in enumerate(zip(*grams_of(words), strict=True)):
            expected = [*(value_of.get(gram, nothing) for gram in grams), sums]
            np.testing.assert_allclose(found[place], np.concatenate(expected), atol=3e-2)
    monkeypatch.setattr(ngrams, "AT_ONCE", 7)
    renumbered = replace(reviews, words=["new", *WORDS[::-1]], tokens=V - reviews.tokens)
    assert np.array_equal(table.channels(renumbered), channels)


def test_second_load_learns_nothing_and_another_input_is_learned_again(corpus, tmp_path, monkeypatch):
    reviews, train = corpus
    tables, mean, folds = ngrams.load_tables(reviews, train, 2, 0, tmp_path)
    scaled = ngrams.channels_by_fold(select(reviews, train), folds, tables).astype(float)
    np.testing.assert_allclose(scaled.std(axis=0)[scaled.any(axis=0)], 1, atol=2e-2)
    np.testing.assert_allclose(mean.values, np.mean([table.values for table in tables], axis=0), atol=2e-3)
    restored = NgramTable.from_state(mean.state())
    assert np.array_equal(restored.channels(reviews), mean.channels(reviews)), "as in model.pt"
    for arguments in ((reviews, train & (reviews.movies > 0), 2, 0), (reviews, train, 5, 0), (reviews, train, 2, 7),
                      (replace(reviews, movies=reviews.movies // 2), train, 2, 0)):
        ngrams.load_tables(*arguments, tmp_path)
    monkeypatch.setattr(ngrams, "learn_values", None)
    again = ngrams.load_tables(reviews, train, 2, 0, tmp_path)[1]
    assert np.array_equal(again.channels(reviews), mean.channels(reviews))
    assert len(list(tmp_path.iterdir())) == 5
