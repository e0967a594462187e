"""What the n-grams of the training reviews say about a token: input channels beside its word vector.

Every token is given, for the 1-, 2- and 3-gram that ends there, numbers that say how positive that n-gram is:

- *naive Bayes*: log((p + 1) / (n + 1)), where p and n are the positive and negative training reviews that hold it
  (Wang & Manning 2012, "Baselines and Bigrams"). For a training review its own film's reviews are left out of p and n:
  counts that include the review itself look better in training than they ever are on new films.
- *linear*: the n-gram's summand in a logistic regression on all n-grams, fitted in folds by film. A training review is
  given the summands of the fit that did not see its film; any other review the mean over the fits.
- *soft*, if there are unlabelled reviews: naive Bayes' ratio counted on them, with the predictions of the same fits as
  labels; again a training review is given the counts of the fit that did not see its film.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from files import read_arrays, write_arrays
from imdb import keep, ranges

ORDERS = (1, 2, 3)
FOLDS = 5
PENALTY = 3.0  # of the logistic regression; 1, 3 and 10 were tried: validation loss 0.218, 0.213, 0.213
VERSION = 1  # to be raised with every change of what `build` gives


@dataclass
class Ngrams:
    """Which review holds which n-gram: a sparse matrix (reviews, G), its G columns ordered by order, then by key."""

    keys: list  # per order int64, sorted: what stands for an n-gram, see `ngram_keys`
    codes: np.ndarray  # int32 (pairs): the column; an n-gram counts once a review, however often it occurs there
    reviews: np.ndarray  # int32 (pairs): the row
    at: np.ndarray  # int32 (orders, tokens): the pair of the n-gram that ends at a token; -1 if there is none

    @property
    def G(self):
        return sum(map(len, self.keys))


@dataclass
class Table:
    """What every n-gram is worth: enough to give channels to any text."""

    words: list  # the words that n-grams are made of; a word's place is its id
    keys: list  # per order int64 (n-grams), sorted
    values: list  # per order float16 (n-grams, channels of an order)

    def ids(self, reviews):
        """The tokens of an `imdb.Reviews` as ids of `words`: (tokens), -1 where it has none."""
        return pd.Index(self.words).get_indexer(reviews.words)[reviews.tokens]

    def channels(self, tokens, starts):
        """Channels of texts: tokens (tokens), ids of `words` or -1, and starts (texts + 1) -> float16 (tokens, C)."""
        columns = []
        for order, keys, values in zip(ORDERS, self.keys, self.values, strict=True):
            wanted = ngram_keys(tokens, starts, order, len(self.words))
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            columns.append(values[place] * (keys[place] == wanted)[:, None])
        return np.concatenate(columns, axis=1)


def ngram_keys(tokens, starts, order, num_words):
    """One integer for the n-gram that ends at each token; -1 where it would begin before its review, or has no id.

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


def find_ngrams(tokens, starts, num_words, min_reviews, orders=ORDERS):
    """The n-grams that at least `min_reviews` reviews hold, as `Ngrams`; arguments as in `ngram_keys`."""
    review = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    parts = Ngrams([], [], [], [])
    columns = pairs_before = 0
    for order in orders:
        token_code, keys = pd.factorize(ngram_keys(tokens, starts, order, num_words))
        token_pair, pairs = pd.factorize(review * len(keys) + token_code)
        pair_review, pair_code = np.divmod(pairs, len(keys))
        kept = (np.bincount(pair_code, minlength=len(keys)) >= min_reviews) & (keys >= 0)
        parts.keys.append(np.sort(keys[kept]))
        column = columns + np.searchsorted(parts.keys[-1], keys)
        pair_kept = kept[pair_code]
        number = np.where(pair_kept, pairs_before + np.cumsum(pair_kept) - 1, -1)
        parts.codes.append(column[pair_code[pair_kept]].astype(np.int32))
        parts.reviews.append(pair_review[pair_kept].astype(np.int32))
        parts.at.append(number[token_pair].astype(np.int32))
        columns, pairs_before = columns + len(parts.keys[-1]), pairs_before + int(pair_kept.sum())
    return Ngrams(parts.keys, np.concatenate(parts.codes), np.concatenate(parts.reviews), np.stack(parts.at))


def count(codes, labels, G):
    """Positive and negative reviews of each n-gram: codes (pairs), labels (pairs) from 0 to 1 -> p (G), n (G)."""
    positive = np.bincount(codes, labels, G)
    return positive, np.bincount(codes, minlength=G) - positive


def log_count_ratio(positive, negative):
    """Naive Bayes' log((p + 1) / (n + 1))."""
    return np.log((positive + 1) / (negative + 1))


def ratios_without_own_movie(codes, labels, movies, G):
    """Naive Bayes' ratio of each pair counted on the reviews of all other movies; codes, labels, movies: (pairs)."""
    positive, negative = count(codes, labels, G)
    own, distinct = pd.factorize(movies * np.int64(G) + codes)
    own_positive, own_negative = count(own, labels, len(distinct))
    return log_count_ratio(positive[codes] - own_positive[own], negative[codes] - own_negative[own])


def fit_linear(codes, reviews, scale, labels, penalty=PENALTY, steps=40):
    """Logistic regression from which n-grams a review holds, each with the value `scale` of the n-gram, to its label.

    Args:
        codes, reviews: (pairs) which n-gram, which review; reviews are numbered as `labels` are.
        scale: (G), naive Bayes' ratios (Wang & Manning's features).
        labels: (reviews), 0 or 1.
        penalty: factor of half the squared norm of the coefficients, beside the sum of the reviews' losses.

    Returns:
        the n-grams' summands (G), which are coefficient times `scale`, and the intercept.
    """
    weights = torch.zeros(len(scale) + 1, dtype=torch.float64, requires_grad=True)  # the last is the intercept
    values = scale[codes]

    def loss_and_gradient():
        w = weights.detach().numpy()
        logits = np.bincount(reviews, values * w[codes], len(labels)) + w[-1]
        error = 1 / (1 + np.exp(-logits)) - labels
        gradient = np.bincount(codes, values * error[reviews], len(scale)) + penalty * w[:-1]
        weights.grad = torch.from_numpy(np.append(gradient, error.sum()))
        return torch.tensor((np.logaddexp(0, logits) - labels * logits).sum() + penalty / 2 * np.square(w[:-1]).sum())

    torch.optim.LBFGS([weights], max_iter=steps, history_size=10, line_search_fn="strong_wolfe").step(loss_and_gradient)
    w = weights.detach().numpy()
    return w[:-1] * scale, w[-1]


def build(reviews, train, min_reviews):
    """Channels of all labelled reviews, and the table for any other text.

    Args:
        reviews: an `imdb.Reviews`; unlabelled ones in it are used and stand last.
        train: (number of reviews) bool, the reviews whose labels may be seen.
        min_reviews: how many training or unlabelled reviews must hold an n-gram.

    Returns:
        float16 (tokens of labelled reviews, C), and a `Table`.
    """
    counted = keep(reviews, train | (reviews.labels < 0))
    starts, labels, movies = counted.starts, counted.labels.astype(float), counted.movies
    known = find_ngrams(counted.tokens, starts, len(reviews.words), min_reviews, orders=(1,)).keys[0]
    id_of = np.full(len(reviews.words), -1)
    id_of[known] = np.arange(len(known))
    ngrams = find_ngrams(id_of[counted.tokens], starts, len(known), min_reviews)
    G, has_label = ngrams.G, labels[ngrams.reviews] >= 0
    codes, rows = ngrams.codes[has_label], ngrams.reviews[has_label]
    unlabelled_codes, unlabelled_rows = ngrams.codes[~has_label], ngrams.reviews[~has_label]

    fold = np.random.permutation(movies.max() + 1)[movies] % FOLDS  # (reviews)
    linear, soft = np.zeros((FOLDS, G), np.float32), np.zeros((FOLDS, G), np.float32)
    for i in tqdm(range(FOLDS), desc="fitting n-grams", leave=False):
        seen = fold[rows] != i
        scale = log_count_ratio(*count(codes[seen], labels[rows[seen]], G))
        number, distinct = pd.factorize(rows[seen])
        linear[i], intercept = fit_linear(codes[seen], number, scale, labels[distinct])
        logits = np.bincount(unlabelled_rows, linear[i][unlabelled_codes], len(labels)) + intercept
        soft[i] = log_count_ratio(*count(unlabelled_codes, 1 / (1 + np.exp(-logits[unlabelled_rows])), G))

    # per kind of channel: what an n-gram is worth to a training review (pairs), and to any other (G)
    kinds = [(ratios_without_own_movie(codes, labels[rows], movies[rows], G),
              log_count_ratio(*count(codes, labels[rows], G))),
             (linear[fold[rows], codes], linear.mean(axis=0))]
    if len(unlabelled_codes):
        kinds.append((soft[fold[rows], codes], soft.mean(axis=0)))

    is_train = np.repeat(labels >= 0, np.diff(starts))  # (tokens)
    pair_of = np.append(np.where(has_label, np.cumsum(has_label) - 1, -1), -1)[ngrams.at[:, is_train]]
    columns, values = [], []
    ends = np.cumsum([0, *map(len, ngrams.keys)])
    for order in range(len(ORDERS)):
        of_order = []
        for of_pair, of_ngram in kinds:
            column = np.append(of_pair, 0)[pair_of[order]]
            scale = column.std() or 1.0  # channels of about the same size, so that one learning rate suits all
            columns.append((column / scale).astype(np.float16))
            of_order.append(of_ngram[ends[order]:ends[order + 1]] / scale)
        values.append(np.stack(of_order, axis=1).astype(np.float16))
    table = Table([reviews.words[i] for i in known], ngrams.keys, values)

    labelled = keep(reviews, reviews.labels >= 0)
    channels = table.channels(id_of[labelled.tokens], labelled.starts)
    channels[np.repeat(train[:len(labelled.labels)], np.diff(labelled.starts))] = np.stack(columns, axis=1)
    return channels, table


def load_channels(reviews, train, min_reviews, cache_dir):
    """`build`, kept in `cache_dir` under a name made of all that determines the result."""
    key = [reviews.digest, len(reviews.labels), hashlib.sha256(train.tobytes()).hexdigest(), min_reviews, PENALTY,
           FOLDS, VERSION, np.random.get_state()[1][:2].tolist()]
    path = Path(cache_dir, f"channels-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz")
    names = ["channels", "words", *(f"{part}{order}" for order in ORDERS for part in ("keys", "values"))]
    parts = read_arrays(path, names)
    if parts:
        keys, values = ([parts[f"{part}{order}"] for order in ORDERS] for part in ("keys", "values"))
        return parts["channels"], Table(parts["words"].tobytes().decode().split("\n"), keys, values)
    channels, table = build(reviews, train, min_reviews)
    parts = {"channels": channels, "words": np.frombuffer("\n".join(table.words).encode(), np.uint8)}
    for order, keys, values in zip(ORDERS, table.keys, table.values, strict=True):
        parts |= {f"keys{order}": keys, f"values{order}": values}
    write_arrays(path, parts)
    return channels, table
