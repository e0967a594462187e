"""The n-gram channels beside plain Python counts on a toy corpus, and beside scikit-learn's logistic regression."""

import math
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import features
from features import Table, build, find_ngrams, fit_linear, frequent_keys, load_channels, ratios_without_own_movie
from imdb import Reviews

WORDS = ["a", "good", "bad", "film", "not", "very", "rare"]


@pytest.fixture(params=[False, True], ids=["labels", "unsup"])
def corpus(request):
    """Reviews of words whose label they tell: of 12 films for training, 3 for validation, 3 for test, unlabelled."""
    chance = np.random.default_rng(1)
    films = [film for film in range(18) for _ in range(3)] + [film for film in range(18, 24) for _ in range(3)]
    part = np.repeat(["train", "valid", "test", "unsup"], [36, 9, 9, 18])
    if not request.param:
        films, part = films[:54], part[:54]
    labels = chance.integers(0, 2, len(films))
    texts = [chance.choice(6, chance.integers(0, 9), p=[.2, .3, .1, .15, .15, .1] if label else
                           [.2, .1, .3, .15, .15, .1]) for label in labels]
    texts[0] = np.append(texts[0], 6)  # one word stands in one review
    labels[part == "unsup"] = -1
    reviews = Reviews(WORDS, np.concatenate(texts).astype(np.int32), np.cumsum([0, *map(len, texts)]), labels,
                      np.array(films), part == "test", "toy")
    return reviews, part == "train"


def texts_of(reviews):
    return [reviews.tokens[a:b].tolist() for a, b in zip(reviews.starts[:-1], reviews.starts[1:], strict=True)]


def ngrams_of(text, order):
    """The n-gram that ends at each token, None where there is none."""
    return [tuple(text[i - order + 1:i + 1]) if i >= order - 1 else None for i in range(len(text))]


def held(text):
    """The distinct n-grams of a text."""
    return {gram for order in (1, 2, 3) for gram in ngrams_of(text, order) if gram}


def naive_bayes(gram, texts, labels):
    p = sum(gram in held(text) for text, label in zip(texts, labels, strict=True) if label == 1)
    n = sum(gram in held(text) for text, label in zip(texts, labels, strict=True) if label == 0)
    return math.log((p + 1) / (n + 1)) if p + n >= 2 else 0.0


def train_texts(reviews, train):
    return [text for text, chosen in zip(texts_of(reviews), train, strict=True) if chosen], reviews.labels[train]


def code_of(gram, num_words):
    return sum(word * num_words**back for back, word in enumerate(reversed(gram)))


def find(reviews, min_reviews):
    keys = [frequent_keys(reviews.tokens, reviews.starts, order, 7, min_reviews) for order in (1, 2, 3)]
    return keys, find_ngrams(reviews.tokens, reviews.starts, 7, keys)


# The n-grams


@pytest.mark.parametrize("min_reviews", [1, 2, 5])
def test_frequent_ngrams_are_those_that_reviews_hold(corpus, min_reviews):
    reviews, _ = corpus
    count = Counter(gram for text in texts_of(reviews) for gram in held(text))
    for order in (1, 2, 3):
        expected = sorted(code_of(gram, 7) for gram, n in count.items() if len(gram) == order and n >= min_reviews)
        assert frequent_keys(reviews.tokens, reviews.starts, order, 7, min_reviews).tolist() == expected


def test_ngrams_are_found_where_they_stand(corpus):
    reviews, _ = corpus
    keys, ngrams = find(reviews, 2)
    columns = [(order, key) for order in (1, 2, 3) for key in keys[order - 1].tolist()]
    pairs = list(zip(ngrams.reviews.tolist(), ngrams.codes.tolist(), strict=True))
    expected = {(i, columns.index((len(gram), code_of(gram, 7)))) for i, text in enumerate(texts_of(reviews))
                for gram in held(text) if (len(gram), code_of(gram, 7)) in columns}
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected
    for order in (1, 2, 3):
        wanted = [(i, (order, code_of(gram, 7)) if gram else None)
                  for i, text in enumerate(texts_of(reviews)) for gram in ngrams_of(text, order)]
        for pair, (i, column) in zip(ngrams.at[order - 1].tolist(), wanted, strict=True):
            if column in columns:
                assert pairs[pair] == (i, columns.index(column))
            else:
                assert pair == -1


def test_words_without_id_break_ngrams():
    keys = [np.array([0, 1]), np.array([1]), np.array([1])]
    ngrams = find_ngrams(np.array([0, 1, -1, 0, 1, 0]), np.array([0, 5, 6]), 2, keys)
    assert ngrams.at.tolist() == [[0, 1, -1, 0, 1, 2], [-1, 3, -1, -1, 3, -1], [-1] * 6]


def test_ratio_is_counted_without_the_reviews_own_movie(corpus):
    reviews, train = corpus
    keys, ngrams = find(reviews, 1)
    chosen = train[ngrams.reviews]
    codes, rows = ngrams.codes[chosen], ngrams.reviews[chosen]
    ratios = ratios_without_own_movie(codes, reviews.labels[rows].astype(float), reviews.movies[rows],
                                      sum(map(len, keys)))
    columns = [(order, key) for order in (1, 2, 3) for key in keys[order - 1].tolist()]
    grams = {(len(gram), code_of(gram, 7)): gram for text in texts_of(reviews) for gram in held(text)}
    texts = texts_of(reviews)
    for ratio, code, row in zip(ratios.tolist(), codes.tolist(), rows.tolist(), strict=True):
        others = [i for i in np.flatnonzero(train) if reviews.movies[i] != reviews.movies[row]]
        expected = naive_bayes(grams[columns[code]], [texts[i] for i in others], reviews.labels[others])
        assert ratio == pytest.approx(expected, abs=1e-12)
    assert np.ptp(ratios) > 1


def test_linear_fit_is_scikit_learns():
    chance = np.random.default_rng(0)
    X = chance.random((60, 8)) < 0.4
    scale = chance.normal(size=8)
    labels = (X @ chance.normal(size=8) + 0.5 * chance.normal(size=60) > 0).astype(float)
    rows, codes = np.nonzero(X)
    summands, intercept = fit_linear(codes, rows, scale, labels, penalty=2.0, steps=200)
    other = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(X * scale, labels)
    np.testing.assert_allclose(summands, other.coef_[0] * scale, atol=1e-4)
    assert intercept == pytest.approx(other.intercept_[0], abs=1e-4)


# The channels


def test_naive_bayes_channels_are_plain_counts(corpus):
    reviews, train = corpus
    channels, table = build(reviews, train, 1, seed=0)
    values = channels * table.scale
    kinds = 3 if (reviews.labels < 0).any() else 2
    assert values.shape == ((reviews.labels >= 0) @ np.diff(reviews.starts), 4 * kinds - 1)
    texts, first = texts_of(reviews), 0
    for i in np.flatnonzero(reviews.labels >= 0):
        others = train & (reviews.movies != reviews.movies[i]) if train[i] else train
        counted, labels = train_texts(reviews, others)
        for order in (1, 2, 3):
            expected = [naive_bayes(gram, counted, labels) if gram else 0 for gram in ngrams_of(texts[i], order)]
            np.testing.assert_allclose(values[first:first + len(texts[i]), (order - 1) * kinds], expected, atol=4e-3)
        first += len(texts[i])
    assert first == len(values)


def test_last_channels_are_sums_over_the_review(corpus):
    """Of the linear, then of the soft summands, each distinct n-gram once: the table says what each is worth."""
    reviews, train = corpus
    channels, table = build(reviews, train, 1, seed=0)
    values, texts, first = channels * table.scale, texts_of(reviews), 0
    worth = {}
    column = 0
    for order, keys in zip((1, 2, 3), table.keys, strict=True):
        for key in keys.tolist():
            worth[order, key], column = table.values[column].astype(float), column + 1
    for i in np.flatnonzero(reviews.labels >= 0):
        if not train[i]:
            grams = {(len(gram), code_of(gram, len(table.words))) for gram in held(texts[i])}
            total = sum((worth[gram] for gram in grams if gram in worth), np.zeros(table.values.shape[1]))[1:]
            for row in values[first:first + len(texts[i])]:
                np.testing.assert_allclose(row[-len(total):], total, atol=2e-2)
        first += len(texts[i])


def test_labels_of_a_film_do_not_reach_its_own_training_reviews(corpus):
    """The rule of the module: turn a film's labels round, and the channels of its own reviews stay."""
    reviews, train = corpus
    labelled = np.repeat(reviews.movies[reviews.labels >= 0], np.diff(reviews.starts)[reviews.labels >= 0])
    channels, table = build(reviews, train, 1, seed=0)
    turned = np.where((reviews.movies == 4) & train, 1 - reviews.labels, reviews.labels)
    others, other_table = build(Reviews(**vars(reviews) | {"labels": turned}), train, 1, seed=0)
    before, after = channels * table.scale, others * other_table.scale
    np.testing.assert_allclose(after[labelled == 4], before[labelled == 4], atol=1e-2)
    changed = np.abs(after - before).max(axis=0)
    assert changed[[0, 1, -1]].min() > 0.05, "but those of other films feel it"


def test_labels_outside_the_training_reviews_are_never_read(corpus):
    reviews, train = corpus
    turned = np.where(train | (reviews.labels < 0), reviews.labels, 1 - reviews.labels)
    channels, _ = build(reviews, train, 1, seed=0)
    others, _ = build(Reviews(**vars(reviews) | {"labels": turned}), train, 1, seed=0)
    assert np.array_equal(channels, others)


def test_table_gives_new_texts_what_build_gave_them(corpus):
    reviews, train = corpus
    channels, table = build(reviews, train, 1, seed=0)
    labelled = (reviews.labels >= 0)
    tokens = table.ids(reviews)
    first = 0
    for i in np.flatnonzero(labelled):
        text = tokens[reviews.starts[i]:reviews.starts[i + 1]]
        if not train[i]:
            alone = table.channels(text, np.array([0, len(text)]))
            np.testing.assert_allclose(alone, channels[first:first + len(text)], rtol=1e-3)
        first += len(text)


def test_table_of_a_text_without_known_words():
    table = Table(["a"], [np.array([0]), np.array([0]), np.array([0])], np.ones((3, 2), np.float16), np.ones(7))
    assert table.channels(np.array([-1, -1]), np.array([0, 2])).tolist() == [[0] * 7] * 2
    assert table.channels(np.array([], np.int64), np.array([0, 0])).shape == (0, 7)


# The cache


def test_second_load_builds_nothing(corpus, tmp_path, monkeypatch):
    reviews, train = corpus
    channels, table = load_channels(reviews, train, 1, 0, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(features, "build", None)
        again, table_again = load_channels(reviews, train, 1, 0, tmp_path)
    assert np.array_equal(channels, again)
    assert table.words == table_again.words
    assert all(np.array_equal(a, b) for a, b in zip(table.keys, table_again.keys, strict=True))
    assert np.array_equal(table.values, table_again.values)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert np.array_equal(channels, load_channels(reviews, train, 1, 0, tmp_path)[0])


def test_what_determines_the_channels_is_in_the_name(corpus, tmp_path):
    reviews, train = corpus
    fewer = train & (reviews.movies > 0)
    for arguments in ((train, 1, 0), (fewer, 1, 0), (train, 2, 0), (train, 1, 7)):
        load_channels(reviews, *arguments, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
