"""The n-gram channels beside plain Python counts on a toy corpus, and the linear fit beside its own optimality."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from helpers import ngrams
from helpers.ngrams import NgramTable, build, find_ngrams, fit_linear, frequent_keys, load_channels
from helpers.reviews import Reviews

ORDERS = (1, 2, 3)
WORDS = ["a", "good", "bad", "film", "not", "very", "rare"]


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
                   np.arange(len(part)) // 3, part == "test", np.zeros(len(part), bool), "toy")
    return data, part == "train"


def texts_of(data):
    return [data.tokens[a:b].tolist() for a, b in zip(data.starts[:-1], data.starts[1:], strict=True)]


def ngrams_of(text, order):
    """Return the n-gram that ends at each token, None where there is none."""
    return [tuple(text[i - order + 1:i + 1]) if i >= order - 1 else None for i in range(len(text))]


def held(text):
    """Return the distinct n-grams of a text."""
    return {gram for order in ORDERS for gram in ngrams_of(text, order) if gram}


def naive_bayes(gram, texts, labels):
    p = sum(gram in held(text) for text, label in zip(texts, labels, strict=True) if label == 1)
    n = sum(gram in held(text) for text, label in zip(texts, labels, strict=True) if label == 0)
    return math.log((p + 1) / (n + 1)) if p + n >= 2 else 0.0


def number_of(gram):
    return sum(word * 7**back for back, word in enumerate(reversed(gram)))


def per_review(values, data):
    """Return the rows of each labelled review's tokens, and its number: values (tokens of labelled reviews, C)."""
    labelled = np.flatnonzero(data.labels >= 0)
    rows = np.split(values, np.cumsum(np.diff(data.starts)[labelled]))
    assert len(rows.pop()) == 0
    return list(zip(labelled, rows, strict=True))


@pytest.mark.parametrize("min_reviews", [1, 2, 5])
def test_frequent_ngrams_are_found_where_they_stand(corpus, min_reviews):
    data, _ = corpus
    texts = texts_of(data)
    count = Counter(gram for text in texts for gram in held(text))
    grams = sorted((gram for gram, reviews in count.items() if reviews >= min_reviews),
                   key=lambda gram: (len(gram), number_of(gram)))
    keys = [frequent_keys(data.tokens, data.starts, order, 7, min_reviews) for order in ORDERS]
    assert [array.tolist() for array in keys] == [
        [number_of(gram) for gram in grams if len(gram) == order] for order in ORDERS]
    found = find_ngrams(data.tokens, data.starts, 7, keys)
    pairs = [(row, grams[code]) for row, code in zip(found.reviews.tolist(), found.codes.tolist(), strict=True)]
    assert sorted(pairs) == sorted((i, gram) for i, text in enumerate(texts) for gram in held(text) if gram in grams)
    for order in ORDERS:
        standing = [(i, gram) for i, text in enumerate(texts) for gram in ngrams_of(text, order)]
        assert [pairs[pair] if pair >= 0 else None for pair in found.at[order - 1].tolist()] == [
            (i, gram) if gram in grams else None for i, gram in standing]


def test_words_without_id_break_ngrams():
    keys = [np.array([0, 1]), np.array([1]), np.array([1])]
    found = find_ngrams(np.array([0, 1, -1, 0, 1, 0]), np.array([0, 5, 6]), 2, keys)
    assert found.at.tolist() == [[0, 1, -1, 0, 1, 2], [-1, 3, -1, -1, 3, -1], [-1] * 6]


def test_linear_fit_is_where_the_loss_is_least():
    """The gradient of the sum of log(1 + exp(-y z)) + penalty / 2 |w|² vanishes there; it is convex, so only there."""
    chance = np.random.default_rng(0)
    X, scale = chance.random((60, 8)) < 0.4, chance.normal(size=8)
    labels = (X @ chance.normal(size=8) + 0.5 * chance.normal(size=60) > 0).astype(float)
    rows, codes = np.nonzero(X)
    order = chance.permutation(len(rows))
    summands, intercept = fit_linear(codes[order], rows[order], scale, labels)
    errors = 1 / (1 + np.exp(-(X @ summands + intercept))) - labels
    gradient = np.append((X * scale).T @ errors + ngrams.PENALTY * summands / scale, errors.sum())
    np.testing.assert_allclose(gradient, 0, atol=5e-3)
    assert np.abs(summands).max() > 0.1


def test_channels_are_plain_counts_and_sums_over_the_review(corpus):
    """Naive Bayes' are counted without a training review's own film; sums are of the values in the table."""
    data, train = corpus
    channels, table = build(data, train, 1, seed=0)
    texts, kinds = texts_of(data), table.values.shape[1]
    assert table.words == WORDS
    assert kinds == (3 if (data.labels < 0).any() else 2)
    assert channels.shape[1] == 4 * kinds - 1
    keys = [(order, key) for order, of_order in zip(ORDERS, table.keys, strict=True) for key in of_order.tolist()]
    value_of = dict(zip(keys, table.values.astype(float), strict=True))
    for i, rows in per_review(channels * table.scale, data):
        counted = np.flatnonzero(train & (data.movies != data.movies[i]) if train[i] else train)
        for order in ORDERS:
            expected = [gram and naive_bayes(gram, [texts[j] for j in counted], data.labels[counted]) or 0.0
                        for gram in ngrams_of(texts[i], order)]
            np.testing.assert_allclose(rows[:, (order - 1) * kinds], expected, atol=4e-3)
        if not train[i]:
            total = sum((value_of[len(gram), number_of(gram)] for gram in held(texts[i])
                         if (len(gram), number_of(gram)) in value_of), np.zeros(kinds))[1:]
            np.testing.assert_allclose(rows[:, 3 * kinds:], np.tile(total, (len(rows), 1)), atol=2e-2)


def test_labels_of_a_film_do_not_reach_its_own_training_reviews(corpus):
    """The rule of the module: turn a film's labels round, and the channels of its own reviews stay."""
    data, train = corpus
    turned = np.where((data.movies == 4) & train, 1 - data.labels, data.labels)
    (channels, table), (others, other_table) = (
        build(replace(data, labels=labels), train, 1, seed=0) for labels in (data.labels, turned))
    before, after = channels * table.scale, others * other_table.scale
    own = np.concatenate([np.full(len(rows), data.movies[i] == 4) for i, rows in per_review(before, data)])
    np.testing.assert_allclose(after[own], before[own], atol=1e-2)
    assert np.abs(after - before).max(axis=0)[[0, 1, -1]].min() > 0.05, "but those of other films feel it"


def test_labels_outside_the_training_reviews_are_never_read(corpus):
    data, train = corpus
    turned = np.where(train | (data.labels < 0), data.labels, 1 - data.labels)
    channels, table = build(data, train, 1, seed=0)
    assert np.array_equal(build(replace(data, labels=turned), train, 1, seed=0)[0], channels)


def test_table_gives_new_texts_what_build_gave_them(corpus):
    """Whatever else stands beside them, and whatever the numbers of their words."""
    data, train = corpus
    channels, table = build(data, train, 1, seed=0)
    for i, rows in per_review(channels, data):
        if not train[i]:
            tokens = 7 - data.tokens[data.starts[i]:data.starts[i + 1]]
            alone = replace(data, words=["new", *WORDS[::-1]], tokens=tokens, starts=np.array([0, len(tokens)]))
            np.testing.assert_allclose(table.channels(alone), rows, rtol=1e-3)


@pytest.mark.parametrize("length", [0, 2])
def test_table_of_a_text_without_known_words(corpus, length):
    table = NgramTable(["b"], [np.array([0]), np.array([0]), np.array([0])], np.ones((3, 2), np.float16), np.ones(7))
    text = replace(corpus[0], tokens=np.zeros(length, np.int32), starts=np.array([0, length]))
    assert table.channels(text).tolist() == [[0] * 7] * length


def test_second_load_builds_nothing_that_determines_the_same(corpus, tmp_path, monkeypatch):
    data, train = corpus
    kind = "unsup" if (data.labels < 0).any() else "labels"
    channels, table = load_channels(data, train, kind, 0, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ngrams, "build", None)
        again, table_again = load_channels(data, train, kind, 0, tmp_path)
    assert np.array_equal(channels, again)
    assert table.words == table_again.words
    for a, b in zip([*table.keys, table.values, table.scale],
                    [*table_again.keys, table_again.values, table_again.scale], strict=True):
        assert np.array_equal(a, b)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert np.array_equal(channels, load_channels(data, train, kind, 0, tmp_path)[0])
    other_kind, fewer = {"unsup": "labels", "labels": "unsup"}[kind], train & (data.movies > 0)
    for arguments in ((data, fewer, kind, 0), (data, train, other_kind, 0), (data, train, kind, 7),
                      (replace(data, digest="other"), train, kind, 0)):
        load_channels(*arguments, tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
