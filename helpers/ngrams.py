"""The bonus's channels: what the n-grams of the training reviews say about a token and its review.

An n-gram (of 1, 2 or 3 words) has a value of two or three kinds:

- *naive Bayes*: log((p + 1) / (n + 1)), where p and n are the positive and negative training reviews that hold it
  (Wang & Manning 2012, "Baselines and Bigrams"). For a training review its own film's reviews are left out of p and n:
  counts that include the review itself look better in training than they ever are on new films.
- *linear*: its summand in a logistic regression on all n-grams, fitted in folds by film. For a training review it is
  the summand of the fit that did not see its film; for any other review the mean over the fits.
- *soft*, if there are unlabelled reviews: naive Bayes' ratio counted on them, with the predictions of the same fits as
  labels; again a training review is given the counts of the fit that did not see its film.

Each is 0 for an n-gram that fewer than two training reviews hold. A token's channels are the values of the 1-, 2- and
3-gram that end there, and, of all kinds but naive Bayes, the sums over its review, each n-gram counted once.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.files import cached_arrays
from helpers.reviews import keep
from helpers.tokens import ranges

ORDERS = (1, 2, 3)
FOLDS = 5
MIN_REVIEWS = {"labels": 2, "unsup": 4}  # that must hold an n-gram: what `model.pt` has room for
PENALTY = 3.0  # of the logistic regression; 1, 3 and 10 were tried: validation loss 0.218, 0.213, 0.213
VERSION = 4  # to be raised with every change of what `build` gives


@dataclass
class Occurrences:
    """Which review holds which n-gram: a sparse matrix (reviews, G), and the place of its entries in the texts."""

    codes: np.ndarray  # int64 (pairs): the column; an n-gram counts once a review, however often it occurs there
    reviews: np.ndarray  # int64 (pairs): the row
    at: np.ndarray  # int64 (orders, tokens): the pair of the n-gram that ends at a token; -1 if there is none


@dataclass
class NgramTable:
    """The values of every n-gram: enough to give channels to any text."""

    words: list  # the words that n-grams are made of; a word's place is its id
    keys: list  # per order int64, sorted: what stands for an n-gram, see `ngram_keys`
    values: np.ndarray  # float16 (G, kinds): of each n-gram, ordered by order, then by key
    scale: np.ndarray  # float32 (C): what a channel is divided by, so that one learning rate suits all

    def channels(self, reviews):
        """Return the channels of a `reviews.Reviews`, float16 (tokens, C)."""
        tokens = pd.Index(self.words).get_indexer(reviews.words)[reviews.tokens]
        found = find_ngrams(tokens, reviews.starts, len(self.words), self.keys)
        values = self.values[found.codes].astype(np.float32)
        return (values_at_tokens(found, values, reviews.starts) / self.scale).astype(np.float16)


def ngram_keys(tokens, starts, order, num_words):
    """Return an integer for the n-gram that ends at each token; -1 if it would begin before its review, or has no id.

    Args:
        tokens: (tokens) ids below `num_words` of all reviews one after the other; -1 is a word without id.
        starts: (reviews + 1) where each review begins.
        order: tokens in an n-gram; `num_words` to this power must fit into 63 bits.
    """
    place = ranges(np.zeros(len(starts) - 1, np.int64), np.diff(starts))  # of a token in its review
    known = (tokens >= 0) & (place >= order - 1)
    keys = tokens.astype(np.int64)
    for back in range(1, order):
        earlier = np.roll(tokens, back)
        known &= earlier >= 0
        keys += earlier * np.int64(num_words) ** back
    return np.where(known, keys, -1)


def frequent_keys(tokens, starts, order, num_words, min_reviews):
    """Return the sorted keys of the n-grams that at least `min_reviews` reviews hold; see `ngram_keys`."""
    review = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    code, keys = pd.factorize(ngram_keys(tokens, starts, order, num_words))
    pairs = pd.unique(review * len(keys) + code)
    return np.sort(keys[(np.bincount(pairs % max(len(keys), 1), minlength=len(keys)) >= min_reviews) & (keys >= 0)])


def find_ngrams(tokens, starts, num_words, keys):
    """Return where the n-grams of `keys` (per order, sorted) occur, as `Occurrences`; see `ngram_keys`."""
    review = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    codes, reviews, at = [], [], []
    columns = pairs_before = 0
    for order, wanted in zip(ORDERS, keys, strict=True):
        found = ngram_keys(tokens, starts, order, num_words)
        column = np.searchsorted(wanted, found)
        there = np.flatnonzero(np.append(wanted, -2)[column] == found)
        number, pairs = pd.factorize(review[there] * np.int64(len(wanted)) + column[there])
        row, code = np.divmod(pairs, max(len(wanted), 1))
        codes.append(code + columns)
        reviews.append(row)
        at.append(np.full(len(tokens), -1))
        at[-1][there] = number + pairs_before
        columns, pairs_before = columns + len(wanted), pairs_before + len(pairs)
    return Occurrences(np.concatenate(codes), np.concatenate(reviews), np.stack(at))


def values_at_tokens(found, values, starts):
    """Put the values of each pair of `found` (pairs, kinds) to the tokens (tokens, orders * kinds + kinds - 1).

    Per token the n-grams of each order that end there, then the sums of all kinds but the first over its review.
    """
    values = np.pad(values, [(0, 1), (0, 0)])  # the last, -1, is "none"
    sums = [np.bincount(found.reviews, column[:-1], len(starts) - 1) for column in values.T[1:]]
    return np.concatenate([*values[found.at], np.repeat(np.stack(sums, axis=1), np.diff(starts), axis=0)],
                          axis=1, dtype=np.float32)


def count(codes, labels, G):
    """Count the positive and negative reviews of each n-gram: codes, labels from 0 to 1 (pairs) -> p (G), n (G)."""
    positive = np.bincount(codes, labels, G)
    return positive, np.bincount(codes, minlength=G) - positive


def log_count_ratio(positive, negative):
    """Return log((p + 1) / (n + 1)), 0 where p + n is below 2 (soft labels add up to 2 not to the last bit)."""
    return np.where(positive + negative > 1.5, np.log((positive + 1) / (negative + 1)), 0.0)


def ratios_without_own_movie(codes, labels, movies, G):
    """Return each pair's log-count ratio on the reviews of all other movies; codes, labels, movies: (pairs)."""
    positive, negative = count(codes, labels, G)
    own, distinct = pd.factorize(movies * np.int64(G) + codes)
    own_positive, own_negative = count(own, labels, len(distinct))
    return log_count_ratio(positive[codes] - own_positive[own], negative[codes] - own_negative[own])


def fit_linear(codes, reviews, scale, labels):
    """Fit a logistic regression from the n-grams of a review, each with the value `scale` of the n-gram, to its label.

    Args:
        codes, reviews: (pairs) which n-gram, which review; reviews are numbered as `labels` are.
        scale: (G), naive Bayes' ratios (Wang & Manning's features).
        labels: (reviews), 0 or 1.

    Returns:
        the n-grams' summands (G), which are coefficient times `scale`, and the intercept.
    """
    from sklearn.linear_model import LogisticRegression  # here, because it takes a second, and only a first start fits
    from sklearn.preprocessing import OneHotEncoder

    sparse_matrix = type(OneHotEncoder().fit_transform([[0]]))  # scipy's class; the exercise allows no import of scipy
    X = sparse_matrix((scale[codes], (reviews, codes)), shape=(len(labels), len(scale)))
    model = LogisticRegression(C=1 / PENALTY).fit(X, labels)
    return model.coef_[0] * scale, model.intercept_[0]


def build(reviews, train, min_reviews, seed):
    """Return the channels of all labelled reviews, and the table for any other text.

    Args:
        reviews: a `reviews.Reviews`; unlabelled ones in it are used and stand last.
        train: (number of reviews) bool, the reviews whose labels may be seen.
        min_reviews: how many training or unlabelled reviews must hold an n-gram.
        seed: of the folds.

    Returns:
        float16 (tokens of labelled reviews, C), and an `NgramTable`.
    """
    counted = keep(reviews, train | (reviews.labels < 0))
    starts, labels, movies = counted.starts, counted.labels.astype(float), counted.movies
    frequent = frequent_keys(counted.tokens, starts, 1, len(reviews.words), min_reviews)
    id_of = np.full(len(reviews.words), -1)
    id_of[frequent] = np.arange(len(frequent))
    tokens = id_of[counted.tokens]
    keys = [frequent_keys(tokens, starts, order, len(frequent), min_reviews) for order in ORDERS]
    found, G = find_ngrams(tokens, starts, len(frequent), keys), sum(map(len, keys))
    has_label = labels[found.reviews] >= 0
    codes, rows = found.codes[has_label], found.reviews[has_label]
    unlabelled_codes, unlabelled_rows = found.codes[~has_label], found.reviews[~has_label]

    fold = np.random.default_rng(seed).permutation(movies.max() + 1)[movies] % FOLDS  # (reviews)
    linear, soft = np.zeros((FOLDS, G), np.float32), np.zeros((FOLDS, G), np.float32)
    for i in tqdm(range(FOLDS), desc="fitting n-grams", leave=False):
        seen = fold[rows] != i
        ratios = log_count_ratio(*count(codes[seen], labels[rows[seen]], G))
        number, distinct = pd.factorize(rows[seen])
        linear[i], intercept = fit_linear(codes[seen], number, ratios, labels[distinct])
        logits = np.bincount(unlabelled_rows, linear[i][unlabelled_codes], len(labels)) + intercept
        soft[i] = log_count_ratio(*count(unlabelled_codes, 1 / (1 + np.exp(-logits[unlabelled_rows])), G))

    # per kind of channel: an n-gram's value to a training review (pairs), and to any other (G)
    kinds = [(ratios_without_own_movie(codes, labels[rows], movies[rows], G),
              log_count_ratio(*count(codes, labels[rows], G))),
             (linear[fold[rows], codes], linear.mean(axis=0))]
    if len(unlabelled_codes):
        kinds.append((soft[fold[rows], codes], soft.mean(axis=0)))

    values = np.zeros((len(found.codes), len(kinds)), np.float32)
    values[has_label] = np.stack([of_pair for of_pair, _ in kinds], axis=1)
    of_train = values_at_tokens(found, values, starts)[np.repeat(labels >= 0, np.diff(starts))]
    scale = of_train.std(axis=0)
    scale[scale == 0] = 1
    of_ngrams = np.stack([of_ngram for _, of_ngram in kinds], axis=1).astype(np.float16)
    table = NgramTable([reviews.words[i] for i in frequent], keys, of_ngrams, scale)

    labelled = reviews.labels >= 0
    is_train = np.repeat(train[labelled], np.diff(reviews.starts)[labelled])  # of each token
    channels = np.empty((len(is_train), len(scale)), np.float16)
    channels[is_train] = of_train / scale
    channels[~is_train] = table.channels(keep(reviews, labelled & ~train))
    return channels, table


def load_channels(reviews, train, kind, seed, cache_dir):
    """Return `build(...)` for a kind of MIN_REVIEWS, kept in `cache_dir`."""
    def make():
        channels, table = build(reviews, train, MIN_REVIEWS[kind], seed)
        return {"channels": channels, "words": table.words, "values": table.values, "scale": table.scale,
                **dict(zip(names, table.keys, strict=True))}

    names = [f"keys{order}" for order in ORDERS]
    key = [reviews.digest, len(reviews.labels), hashlib.sha256(train.tobytes()).hexdigest(), MIN_REVIEWS[kind], seed,
           PENALTY, FOLDS, VERSION]
    parts = cached_arrays(cache_dir, "channels", key, ["channels", "words", "values", "scale", *names], make)
    table = NgramTable(list(map(str, parts["words"])), [parts[name] for name in names], parts["values"], parts["scale"])
    return parts["channels"], table
