"""The n-gram channels beside plain Python counts on a toy corpus, and the linear fit beside its own optimality."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from helpers import ngrams
from helpers.ngrams import NgramTable, build, channels_by_fold, fit_linear, frequent_keys, load_tables
from helpers.reviews import Reviews, keep

WORDS = ["a", "good", "bad", "but", "not", "very", "rare"]
V = len(WORDS)


@pytest.fixture(params=[False, True], ids=["labels", "unsup"])
def corpus(request):
    """Reviews of words whose label they tell: of 12 films for training, 3 for validation, 3 for test, 6 unlabelled."""
    chance, part = np.random.default_rng(1), np.repeat(["train", "valid", "test", "unsup"], [36, 9, 9, 18])
    if not request.param:
        part = part[:54]
    labels = chance.integers(0, 2, len(part))
    texts = [chance.choice(6, chance.integers(0, 9), p=[.2, .3, .1, .15, .15, .1] if label else
                           [.2, .1, .3, .15, .15, .1]) for label in labels]
    texts[0] = np.append(texts[0], 6)  # one word stands in one review
    labels[part == "unsup"] = -1
    data = Reviews(WORDS, np.concatenate(texts).astype(np.int32), np.cumsum([0, *map(len, texts)]), labels,
                   np.arange(len(part)) // 3, part == "test", np.zeros(len(part), bool))
    return data, part == "train"


def texts_of(data):
    return [data.tokens[a:b].tolist() for a, b in zip(data.starts[:-1], data.starts[1:], strict=True)]


def ngrams_of(text):
    """Return the 1-, 2- and 3-gram that ends at each token, if any; a negated word is ("not", word)."""
    negated = []
    for i, word in enumerate(text):
        before = text[max(0, i - 6):i]
        since = before[::-1].index(4) if 4 in before else None  # words since the last "not"
        negated.append(since is not None and 3 not in [*before[len(before) - since:], word])
    return [[("not", word) if mark else (word,) for word, mark in zip(text, negated, strict=True)],
            *([tuple(text[i - order + 1:i + 1]) if i >= order - 1 else None for i in range(len(text))]
              for order in (2, 3))]


def held(text):
    """Return the distinct n-grams of a text."""
    return {gram for of_order in ngrams_of(text) for gram in of_order if gram}


def number_of(gram):
    return sum(word * V**back for back, word in enumerate(reversed(gram)))


def rows_of(table):
    """Return which row of a table's values is that of which n-gram."""
    rows = [*((word,) for word in range(V)), *(("not", word) for word in range(V))]
    for order, keys in zip((2, 3), table.keys, strict=True):
        rows += [tuple(key // V**back % V for back in reversed(range(order))) for key in keys.tolist()]
    return {gram: row for row, gram in enumerate(rows)}


def log_ratio(gram, texts, labels, of_word=None):
    p = sum(label for text, label in zip(texts, labels, strict=True) if gram in held(text))
    n = sum(1 - label for text, label in zip(texts, labels, strict=True) if gram in held(text))
    if of_word is None:
        return math.log((p + 1) / (n + 1)) if p + n >= 2 else 0.0
    contrary = 1 / (1 + math.exp(of_word / 2))
    return math.log((p + 4 * contrary) / (n + 4 * (1 - contrary)))


def tables_of(data, train, min_reviews=1):
    words, keys, values, folds = build(data, train, min_reviews, seed=0)
    assert words == WORDS
    return [NgramTable(words, keys, of_fold, np.ones(1)) for of_fold in values], folds


@pytest.mark.parametrize("min_reviews", [1, 2, 5])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_frequent_ngrams_are_those_of_plain_counts(corpus, order, min_reviews):
    data, _ = corpus
    count = Counter(gram for text in texts_of(data) for gram in {
        tuple(text[i:i + order]) for i in range(len(text) - order + 1)})
    assert frequent_keys(data.tokens, data.starts, order, V, min_reviews).tolist() == sorted(
        number_of(gram) for gram, reviews in count.items() if reviews >= min_reviews)


def test_values_are_plain_counts_of_the_other_films(corpus):
    """Naive Bayes' ratios, and the rule of the module: a fold's values know nothing of its own films."""
    data, train = corpus
    tables, folds = tables_of(data, train)
    texts, labels = texts_of(keep(data, train)), data.labels[train]
    movies = data.movies[train]
    assert all(len(set(folds[movies == movie])) == 1 for movie in set(movies))
    for i, table in enumerate(tables):
        others = [j for j in range(len(texts)) if folds[j] != i]
        for gram, row in rows_of(table).items():
            of_word = log_ratio(gram[1:], [texts[j] for j in others], labels[others]) if gram[0] == "not" else None
            expected = log_ratio(gram, [texts[j] for j in others], labels[others], of_word)
            assert table.values[row, 0] == pytest.approx(expected, abs=4e-3), gram
    turned = np.where(train, data.labels, 1 - data.labels)
    turned[data.labels < 0] = -1
    assert all(np.array_equal(a.values, b.values) for a, b in zip(
        tables, tables_of(replace(data, labels=turned), train)[0], strict=True)), "of other reviews no label is read"


def test_channels_are_values_and_sums(corpus):
    data, train = corpus
    (table, *_), _ = tables_of(data, train)
    rows, kinds = rows_of(table), table.values.shape[1]
    assert kinds == (3 if (data.labels < 0).any() else 2)
    value_of = {gram: table.values[row].astype(float) for gram, row in rows.items()}
    nothing = np.zeros(kinds)
    for i, text in enumerate(texts_of(data)):
        channels = table.channels(keep(data, np.arange(len(data.labels)) == i)).astype(float)
        grams = ngrams_of(text)
        for order in range(3):
            expected = [value_of.get(gram, nothing) for gram in grams[order]]
            found = channels[:, order * kinds:(order + 1) * kinds]
            np.testing.assert_allclose(found, np.reshape(expected, (-1, kinds)), atol=1e-2)
        sums = sum((value_of.get(gram, nothing) for gram in held(text)), nothing)[1:]
        np.testing.assert_allclose(channels[:, 3 * kinds:], np.tile(sums, (len(text), 1)), atol=3e-2)


def test_linear_fit_is_where_the_loss_is_least():
    """The gradient of the sum of log(1 + exp(-y z)) + penalty / 2 |w|² vanishes there; it is convex, so only there."""
    chance, words = np.random.default_rng(0), 3
    X, ratios = chance.random((60, 9)) < 0.4, chance.normal(size=9)
    features = X * ratios
    features[:, :words] -= X[:, words:2 * words] * ratios[:words] / 2
    labels = (features @ chance.normal(size=9) + 0.5 * chance.normal(size=60) > 0).astype(float)
    rows, codes = np.nonzero(X)
    order = chance.permutation(len(rows))
    summands, intercept = fit_linear(codes[order], rows[order], ratios, labels, words)
    errors = 1 / (1 + np.exp(-(X @ summands + intercept))) - labels
    summands[words:2 * words] += summands[:words] / 2
    gradient = np.append(features.T @ errors + ngrams.PENALTY * summands / ratios, errors.sum())
    np.testing.assert_allclose(gradient, 0, atol=5e-3)
    assert np.abs(summands).max() > 0.1


def test_each_text_gets_the_channels_of_its_fold(corpus):
    data, train = corpus
    tables, folds = tables_of(data, train)
    texts = keep(data, train)
    found = np.split(channels_by_fold(texts, folds, tables), texts.starts[1:-1])
    for i, fold in enumerate(folds):
        alone = tables[fold].channels(keep(texts, np.arange(len(folds)) == i))
        assert np.array_equal(found[i], alone)


def test_words_have_their_values_whatever_their_numbers(corpus):
    data, train = corpus
    (table, *_), _ = tables_of(data, train)
    other = replace(data, words=["new", *WORDS[::-1]], tokens=V - data.tokens)
    assert np.array_equal(table.channels(other), table.channels(data))


@pytest.mark.parametrize("length", [0, 2])
def test_table_of_a_text_without_known_words(corpus, length):
    table = NgramTable(["b"], [np.array([0]), np.array([0])], np.ones((4, 2), np.float16), np.ones(7))
    text = replace(keep(corpus[0], np.arange(len(corpus[0].labels)) == 0), tokens=np.zeros(length, np.int32),
                   starts=np.array([0, length]))
    assert table.channels(text).tolist() == [[0] * 7] * length


def test_second_load_builds_nothing_that_determines_the_same(corpus, tmp_path, monkeypatch):
    data, train = corpus
    kind = "unsup" if (data.labels < 0).any() else "labels"
    tables, mean, folds = load_tables(data, train, kind, 0, tmp_path)
    scaled = channels_by_fold(keep(data, train), folds, tables).astype(float)
    np.testing.assert_allclose(scaled.std(axis=0)[scaled.any(axis=0)], 1, atol=2e-2)
    np.testing.assert_allclose(mean.values, np.mean([table.values for table in tables], axis=0), atol=2e-3)
    with monkeypatch.context() as patch:
        patch.setattr(ngrams, "build", None)
        again, mean_again, folds_again = load_tables(data, train, kind, 0, tmp_path)
    assert folds.tolist() == folds_again.tolist()
    for a, b in zip([*tables, mean], [*again, mean_again], strict=True):
        assert a.words == b.words
        assert all(map(np.array_equal, [*a.keys, a.values, a.scale], [*b.keys, b.values, b.scale]))
    other_kind, fewer = {"unsup": "labels", "labels": "unsup"}[kind], train & (data.movies > 0)
    for arguments in ((data, fewer, kind, 0), (data, train, other_kind, 0), (data, train, kind, 7),
                      (replace(data, movies=data.movies // 2), train, kind, 0)):
        load_tables(*arguments, tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
