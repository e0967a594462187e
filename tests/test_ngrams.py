"""The channels of n-grams, compared with plain counts on a toy corpus, and the linear fit with its optimality."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.bonus import ngram_values, ngrams
from helpers.bonus.ngram_values import fit_linear, frequent_keys, learn_values, load_tables
from helpers.bonus.ngrams import NgramTable, channels_by_fold
from helpers.data.reviews import Reviews, select

WORDS = ["a", "good", "bad", "but", "not", "very", "rare"]
BUT, NOT = WORDS.index("but"), WORDS.index("not")
V = len(WORDS)


@pytest.fixture(params=[False, True], ids=["labels", "unsup"])
def corpus(request):
    """Toy reviews of 12 films to train on, 3 for validation, 3 for test and 6 unlabelled, and which are to train on."""
    chance, part = np.random.default_rng(1), np.repeat(["train", "valid", "test", "unsup"], [36, 9, 9, 18])
    if not request.param:
        part = part[:54]
    labels = (chance.random(len(part)) < 0.7).astype(int)  # unequal, so that the intercept matters
    texts = []
    for label in labels:
        probabilities = [.2, .3, .1, .15, .15, .1] if label else [.2, .1, .3, .15, .15, .1]
        texts.append(chance.choice(6, chance.integers(0, 9), p=probabilities))
    texts[0] = np.append(texts[0], 6)  # "rare" is in one review
    labels[part == "unsup"] = -1
    reviews = Reviews(WORDS, np.concatenate(texts).astype(np.int32), np.cumsum([0, *map(len, texts)]), labels,
                      np.arange(len(part)) // 3, part == "test", np.zeros(len(part), bool))
    return reviews, part == "train"


def texts_of(reviews):
    return [reviews.tokens[a:b].tolist() for a, b in zip(reviews.starts[:-1], reviews.starts[1:], strict=True)]


def is_negated(text, i):
    """Return whether there is a "not" up to 6 words before word i, without a "but" after it."""
    for word in reversed(text[max(0, i - 6):i]):
        if BUT in (word, text[i]):
            return False
        if word == NOT:
            return True
    return False


def ngrams_of(text):
    """Return the word, the 2-gram and the 3-gram that end at each token, or None. A negated word is ("not", word)."""
    words = [("not", word) if is_negated(text, i) else (word,) for i, word in enumerate(text)]
    pairs = [tuple(text[i - 1:i + 1]) if i >= 1 else None for i in range(len(text))]
    triples = [tuple(text[i - 2:i + 1]) if i >= 2 else None for i in range(len(text))]
    return [words, pairs, triples]


def distinct(text):
    """Return the distinct n-grams of a text."""
    words, pairs, triples = ngrams_of(text)
    return {*words, *pairs, *triples} - {None}


def key_of(gram):
    return sum(word * V**back for back, word in enumerate(reversed(gram)))


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
    of_word = naive_bayes_value(gram[1:], texts, labels)
    contrary = 1 / (1 + math.exp(of_word / 2))
    return math.log((p + 4 * contrary) / (n + 4 * (1 - contrary)))


def tables_of(reviews, train):
    """Return the table of each fold, and the fold of each training review."""
    words, keys, values, folds = learn_values(reviews, train, min_reviews=1, seed=0)
    assert words == WORDS
    return [NgramTable(words, keys, of_fold, np.ones(1)) for of_fold in values], folds


def same(a, b):
    return a.words == b.words and all(map(np.array_equal, [*a.keys, a.values, a.scale], [*b.keys, b.values, b.scale]))


@pytest.mark.parametrize("min_reviews", [1, 2, 5])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_frequent_ngrams_are_those_of_plain_counts(corpus, order, min_reviews):
    reviews, _ = corpus
    count = Counter()
    for text in texts_of(reviews):
        count.update({tuple(text[i:i + order]) for i in range(len(text) - order + 1)})
    expected = sorted(key_of(gram) for gram, number in count.items() if number >= min_reviews)
    assert frequent_keys(reviews.tokens, reviews.starts, order, V, min_reviews).tolist() == expected


def test_values_are_plain_counts_of_the_other_films(corpus):
    reviews, train = corpus
    tables, folds = tables_of(reviews, train)
    texts, labels, movies = texts_of(select(reviews, train)), reviews.labels[train], reviews.movies[train]
    assert all(len(set(folds[movies == movie])) == 1 for movie in set(movies))
    assert set(folds) == set(range(5)) == set(range(len(tables)))
    for i, table in enumerate(tables):
        others = np.flatnonzero(folds != i)
        for gram, row in rows_of(table).items():
            expected = naive_bayes_value(gram, [texts[j] for j in others], labels[others])
            assert table.values[row, 0] == pytest.approx(expected, abs=4e-3), gram


@pytest.mark.parametrize("corpus", [True], indirect=True, ids=["unsup"])
def test_soft_values_count_the_predictions_of_the_linear_fit(corpus):
    """With the intercept of the fit, as many training reviews are predicted to be positive as are positive."""
    reviews, train = corpus
    tables, folds = tables_of(reviews, train)
    texts, labels = texts_of(select(reviews, train)), reviews.labels[train]
    unlabelled = texts_of(select(reviews, reviews.labels < 0))
    for i, table in enumerate(tables):
        row_of, linear = rows_of(table), table.values[:, 1].astype(float)

        def logit(text, row_of=row_of, linear=linear):
            return sum(linear[row_of[gram]] for gram in distinct(text))

        seen = [j for j in np.flatnonzero(folds != i) if texts[j]]
        logits, candidates = np.array([logit(texts[j]) for j in seen]), np.linspace(-5, 5, 10_001)
        positive = (1 / (1 + np.exp(-logits - candidates[:, None]))).sum(axis=1)
        intercept = candidates[np.argmin(np.abs(positive - labels[seen].sum()))]
        assert abs(intercept) > 0.05
        soft_labels = [1 / (1 + math.exp(-logit(text) - intercept)) for text in unlabelled]
        for gram, row in row_of.items():
            expected = naive_bayes_value(gram, unlabelled, soft_labels)
            assert table.values[row, 2] == pytest.approx(expected, abs=1e-2), gram


def test_channels_are_values_and_sums(corpus):
    reviews, train = corpus
    (table, *_), _ = tables_of(reviews, train)
    kinds = table.values.shape[1]
    assert kinds == (3 if (reviews.labels < 0).any() else 2)
    nothing = np.zeros(kinds)
    value_of = {gram: table.values[row].astype(float) for gram, row in rows_of(table).items()}
    for i, text in enumerate(texts_of(reviews)):
        channels = table.channels(select(reviews, [i])).astype(float)
        for order, grams in enumerate(ngrams_of(text)):
            expected = [value_of.get(gram, nothing) for gram in grams]
            found = channels[:, order * kinds:(order + 1) * kinds]
            np.testing.assert_allclose(found, np.reshape(expected, (-1, kinds)), atol=1e-2)
        sums = sum((value_of.get(gram, nothing) for gram in distinct(text)), nothing)[1:]
        np.testing.assert_allclose(channels[:, 3 * kinds:], np.tile(sums, (len(text), 1)), atol=3e-2)


def test_linear_fit_has_the_least_loss():
    """The gradient of the sum of log(1 + exp(-y z)) + 3 / 2 |w|² is 0. The loss is convex."""
    chance, words = np.random.default_rng(0), 3
    X, values = chance.random((60, 9)) < 0.4, chance.normal(size=9)
    features = X * values
    features[:, :words] -= X[:, words:2 * words] * values[:words] / 2
    labels = (features @ chance.normal(size=9) + 0.5 * chance.normal(size=60) > 0).astype(float)
    reviews, rows = np.nonzero(X)
    order = chance.permutation(len(rows))
    summands, intercept = fit_linear(rows[order], reviews[order], values, labels, words)
    errors = 1 / (1 + np.exp(-(X @ summands + intercept))) - labels
    summands[words:2 * words] += summands[:words] / 2
    gradient = np.append(features.T @ errors + 3 * summands / values, errors.sum())
    np.testing.assert_allclose(gradient, 0, atol=5e-3)
    assert np.abs(summands).max() > 0.1


def test_channels_depend_neither_on_the_numbers_of_words_nor_on_the_reviews_at_once(corpus, monkeypatch):
    reviews, train = corpus
    (table, *_), _ = tables_of(reviews, train)
    other = replace(reviews, words=["new", *WORDS[::-1]], tokens=V - reviews.tokens)
    expected = table.channels(reviews)
    for at_once in (1, 7, 10_000):
        monkeypatch.setattr(ngrams, "AT_ONCE", at_once)
        assert np.array_equal(table.channels(other), expected)


@pytest.mark.parametrize("length", [0, 2])
def test_text_without_known_words_has_channels_of_zero(corpus, length):
    table = NgramTable(["b"], [np.array([0]), np.array([0])], np.ones((4, 2), np.float16), np.ones(7))
    text = replace(select(corpus[0], [0]), tokens=np.zeros(length, np.int32), starts=np.array([0, length]))
    assert table.channels(text).tolist() == [[0] * 7] * length


@pytest.mark.parametrize("num_words", [1, 7, 2**16, 2**16 + 1, 2**20])
def test_saved_table_is_the_table(num_words):
    """Even if it has no 2-grams or 3-grams, and if its ids have more than 16 bits."""
    words = list(map(str, range(num_words)))
    largest = [num_words**2 - 1, num_words**3 - 1]
    for keys in ([np.array([0, key]) for key in largest], [np.zeros(0, np.int64), np.array(largest[1:])],
                 [np.zeros(0, np.int64), np.zeros(0, np.int64)]):
        values = np.random.randn(2 * num_words + sum(map(len, keys)), 3).astype(np.float16)
        table = NgramTable(words, keys, values, np.ones(11, np.float32))
        state = table.state()
        assert all(ids.element_size() == (2 if num_words <= 2**16 else 4) for ids in state["ngrams"])
        assert same(NgramTable.from_state(state), table)


@pytest.mark.parametrize("damage", [{"words": ["b", "a", "c"]}, {"values": torch.zeros(6, 2)},
                                    {"ngrams": [torch.tensor([[0, 2]]), torch.zeros(0, 3)]}])
def test_parts_of_different_tables_are_refused(damage):
    table = NgramTable(["a", "b"], [np.array([3]), np.zeros(0, np.int64)], np.ones((5, 2), np.float16), np.ones(7))
    state = table.state()
    assert same(NgramTable.from_state(state), table)
    with pytest.raises(ValueError, match="do not fit"):
        NgramTable.from_state(state | damage)


def test_second_load_learns_nothing_and_another_input_is_learned_again(corpus, tmp_path, monkeypatch):
    reviews, train = corpus
    tables, mean, folds = load_tables(reviews, train, 2, 0, tmp_path)
    scaled = channels_by_fold(select(reviews, train), folds, tables).astype(float)
    np.testing.assert_allclose(scaled.std(axis=0)[scaled.any(axis=0)], 1, atol=2e-2)
    np.testing.assert_allclose(mean.values, np.mean([table.values for table in tables], axis=0), atol=2e-3)
    with monkeypatch.context() as patch:
        patch.setattr(ngram_values, "learn_values", None)
        again, mean_again, folds_again = load_tables(reviews, train, 2, 0, tmp_path)
    assert folds.tolist() == folds_again.tolist()
    assert all(map(same, [*tables, mean], [*again, mean_again]))
    fewer, other_movies = train & (reviews.movies > 0), replace(reviews, movies=reviews.movies // 2)
    for arguments in ((reviews, fewer, 2, 0), (reviews, train, 5, 0), (reviews, train, 2, 7),
                      (other_movies, train, 2, 0)):
        load_tables(*arguments, tmp_path)
    for name in ("PENALTY", "PRIOR", "VERSION"):
        monkeypatch.setattr(ngram_values, name, 9.0)
        load_tables(reviews, train, 2, 0, tmp_path)
    assert len(list(tmp_path.iterdir())) == 8
