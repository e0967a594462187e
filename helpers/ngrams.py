"""The bonus's channels: what the n-grams of the training reviews say about a token and its text.

An n-gram is a word, a word in the scope of a negation (see `negation.is_negated`), or two or three words that follow
each other. It has a value of two or three kinds:

- *naive Bayes*: log((p + 1) / (n + 1)), where p and n are the positive and negative training reviews that hold it
  (Wang & Manning 2012, "Baselines and Bigrams"); 0 if these are fewer than two. A negated word's p and n start not from
  1 but from a prior: that it says half the contrary of the word.
- *linear*: its summand in a logistic regression on all n-grams.
- *soft*, if there are unlabelled reviews: naive Bayes' ratio counted on them, with the regression's predictions as
  labels.

All of them exist in five versions, one a fold of the films. A training review is given the version that did not see its
film: values that the review itself had a part in look better in training than they ever are on new films. Any other
text is given the mean of the versions. See `CHANNELS` for what a token is given.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.files import cached_arrays
from helpers.negation import is_negated
from helpers.reviews import identity_of, keep
from helpers.tokens import ranges, text_of_tokens

FOLDS = 5
MIN_REVIEWS = {"labels": 2, "unsup": 5}  # that must hold an n-gram: what `model.pt` has room for
PENALTY = 3.0  # of the logistic regression; 1, 3 and 10 were tried: validation loss 0.218, 0.213, 0.213
PRIOR = 4.0  # how many reviews the prior of a negated word counts for
AT_ONCE = 5000  # reviews, which bounds the memory
VERSION = 8  # to be raised with every change of what `build` gives


@dataclass
class NgramTable:
    """The values of every n-gram: enough to give channels to any text."""

    words: list  # the words that n-grams are made of; a word's place is its id
    keys: list  # int64, sorted, of 2-grams and of 3-grams: what stands for an n-gram, see `ngram_keys`
    values: np.ndarray  # float16 (G, kinds): of words, negated words, 2-grams and 3-grams, in the order of ids and keys
    scale: np.ndarray  # float32 (C): what a channel is divided by, so that one learning rate suits all

    def channels(self, reviews):
        """Return the channels of a `reviews.Reviews`, float16 (tokens, C)."""
        block = np.arange(len(reviews.labels)) // AT_ONCE
        blocks = (keep(reviews, block == i) for i in range(block.max(initial=0) + 1))
        return np.concatenate([self.channels_of_block(part) for part in blocks])

    def channels_of_block(self, reviews):
        """Return the channels of so few reviews that the memory suffices.

        Each token is given, per order and kind, the value of the n-gram that ends there. All tokens of a text are given
        the sum of the values of the n-grams in it, each n-gram once, for every kind but naive Bayes.
        """
        tokens = pd.Index(self.words).get_indexer(reviews.words)[reviews.tokens]
        codes = find_ngrams(tokens, reviews.starts, is_negated(reviews), len(self.words), self.keys)
        values = np.pad(self.values.astype(np.float32), [(0, 1), (0, 0)])  # the last, -1, is "none"
        per_token = np.concatenate(values[codes], axis=1)  # (3, tokens, kinds) -> (tokens, 3 kinds)
        holder, held = count_once(codes, reviews.starts, len(values))
        num_texts = len(reviews.labels)
        sums = np.stack([np.bincount(holder, of_kind[held], num_texts) for of_kind in values.T[1:]], axis=1)
        channels = np.concatenate([per_token, sums[text_of_tokens(reviews.starts)]], axis=1, dtype=np.float32)
        return (channels / self.scale).astype(np.float16)

    def linear_values(self, reviews):
        """Return the linear value of the n-grams that end at each token, and of its word if it is not negated."""
        tokens = pd.Index(self.words).get_indexer(reviews.words)[reviews.tokens]
        codes = find_ngrams(tokens, reviews.starts, is_negated(reviews), len(self.words), self.keys)
        values = np.append(self.values[:, 1].astype(np.float32), 0)  # the last, -1, is "none"
        return values[codes].sum(axis=0), values[tokens]


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
    review = text_of_tokens(starts)
    code, keys = pd.factorize(ngram_keys(tokens, starts, order, num_words))
    pairs = pd.unique(review * len(keys) + code)
    return np.sort(keys[(np.bincount(pairs % max(len(keys), 1), minlength=len(keys)) >= min_reviews) & (keys >= 0)])


def find_ngrams(tokens, starts, is_negated, num_words, keys):
    """Return (3, tokens): the row of `NgramTable.values` of the word, 2-gram, 3-gram that ends there; -1 if none."""
    codes = [np.where(tokens >= 0, tokens + num_words * is_negated, -1)]
    before = 2 * num_words
    for order, wanted in zip((2, 3), keys, strict=True):
        found = ngram_keys(tokens, starts, order, num_words)
        row = np.searchsorted(wanted, found)
        codes.append(np.where(np.append(wanted, -2)[row] == found, row + before, -1))
        before += len(wanted)
    return np.stack(codes)


def count_once(codes, starts, G):
    """Return the pairs of a review and an n-gram that it holds, each once: reviews (pairs), codes (pairs)."""
    review = text_of_tokens(starts)
    return np.divmod(np.concatenate([pd.unique((review * np.int64(G) + row)[row >= 0]) for row in codes]), G)


def naive_bayes(codes, labels, G, num_words):
    """Return naive Bayes' ratios of all n-grams, (G,); codes, labels from 0 to 1: (pairs)."""
    positive = np.bincount(codes, labels, G)
    negative = np.bincount(codes, minlength=G) - positive
    # soft labels add up to 2 not to the last bit
    ratios = np.where(positive + negative > 1.5, np.log((positive + 1) / (negative + 1)), 0.0)
    marked = slice(num_words, 2 * num_words)
    contrary = 1 / (1 + np.exp(ratios[:num_words] / 2))
    ratios[marked] = np.log((positive[marked] + PRIOR * contrary) / (negative[marked] + PRIOR * (1 - contrary)))
    return ratios


def fit_linear(codes, reviews, ratios, labels, num_words):
    """Fit a logistic regression from the n-grams of a review, each with its ratio as value, to its label.

    A negated word is a feature of its own, and minus half the word: regularisation draws what is rare to the latter.

    Args:
        codes, reviews: (pairs) which n-gram, which review; reviews are numbered as `labels` are.
        ratios: (G), naive Bayes' (Wang & Manning's features).
        labels: (reviews), 0 or 1.

    Returns:
        the n-grams' summands (G), and the intercept.
    """
    from sklearn.linear_model import LogisticRegression  # here, because it takes a second, and only a first start fits
    from sklearn.preprocessing import OneHotEncoder

    sparse_matrix = type(OneHotEncoder().fit_transform([[0]]))  # scipy's class; the exercise allows no import of scipy
    marked = (codes >= num_words) & (codes < 2 * num_words)
    word = codes[marked] - num_words
    X = sparse_matrix((np.append(ratios[codes], -ratios[word] / 2),
                       (np.append(reviews, reviews[marked]), np.append(codes, word))), shape=(len(labels), len(ratios)))
    model = LogisticRegression(C=1 / PENALTY).fit(X, labels)
    summands = model.coef_[0] * ratios
    summands[num_words:2 * num_words] -= summands[:num_words] / 2
    return summands, model.intercept_[0]


def build(reviews, train, min_reviews, seed):
    """Count and fit the values of all n-grams.

    Args:
        reviews: a `reviews.Reviews`; unlabelled ones in it are used.
        train: (number of reviews) bool, the reviews whose labels may be seen.
        min_reviews: how many training or unlabelled reviews must hold an n-gram.
        seed: of the folds.

    Returns:
        words (list), keys of 2-grams and of 3-grams, values float16 (FOLDS, G, kinds), and the fold of each
        training review (training reviews,).
    """
    counted = keep(reviews, train | (reviews.labels < 0))
    starts, labels = counted.starts, counted.labels.astype(float)
    frequent = frequent_keys(counted.tokens, starts, 1, len(reviews.words), min_reviews)
    id_of = np.full(len(reviews.words), -1)
    id_of[frequent] = np.arange(len(frequent))
    tokens, V = id_of[counted.tokens], len(frequent)
    keys = [frequent_keys(tokens, starts, order, V, min_reviews) for order in (2, 3)]
    G = 2 * V + sum(map(len, keys))
    rows, codes = count_once(find_ngrams(tokens, starts, is_negated(counted), V, keys), starts, G)
    has_label = labels[rows] >= 0
    unlabelled_rows, unlabelled_codes = rows[~has_label], codes[~has_label]
    rows, codes = rows[has_label], codes[has_label]

    fold = np.random.default_rng(seed).permutation(counted.movies.max() + 1)[counted.movies] % FOLDS  # (reviews)
    values = np.zeros((FOLDS, G, 2 + bool(len(unlabelled_rows))), np.float16)
    for i in tqdm(range(FOLDS), desc="fitting n-grams", leave=False):
        seen = fold[rows] != i
        ratios = naive_bayes(codes[seen], labels[rows[seen]], G, V)
        number, distinct = pd.factorize(rows[seen])
        linear, intercept = fit_linear(codes[seen], number, ratios, labels[distinct], V)
        values[i, :, 0], values[i, :, 1] = ratios, linear
        if len(unlabelled_rows):
            logits = np.bincount(unlabelled_rows, linear[unlabelled_codes], len(labels)) + intercept
            soft = 1 / (1 + np.exp(-logits[unlabelled_rows]))
            values[i, :, 2] = naive_bayes(unlabelled_codes, soft, G, V)
    return [reviews.words[i] for i in frequent], keys, values, fold[labels >= 0]


def channels_by_fold(reviews, folds, tables):
    """Return the channels of texts, each by the table of its fold, float16 (tokens, C); folds: (texts)."""
    by_fold = np.concatenate([table.channels(keep(reviews, folds == i)) for i, table in enumerate(tables)])
    channels = np.empty_like(by_fold)
    channels[np.argsort(np.repeat(folds, np.diff(reviews.starts)), kind="stable")] = by_fold
    return channels


def load_tables(reviews, train, kind, seed, cache_dir):
    """Build the n-grams for a kind of MIN_REVIEWS, or take them from `cache_dir`.

    Returns:
        a `NgramTable` for each fold, one for all other texts, and the fold of each training review.
    """
    def make():
        words, keys, values, folds = build(reviews, train, MIN_REVIEWS[kind], seed)
        tables = [NgramTable(words, keys, of_fold, 1) for of_fold in values]
        scale = channels_by_fold(keep(reviews, train), folds, tables).std(axis=0, dtype=np.float64)
        scale[scale == 0] = 1
        return {"words": words, "keys2": keys[0], "keys3": keys[1], "values": values, "folds": folds,
                "scale": scale.astype(np.float32)}

    key = [identity_of(reviews, train), MIN_REVIEWS[kind], seed, PENALTY, PRIOR, FOLDS, VERSION]
    parts = cached_arrays(cache_dir, "ngrams", key, ["words", "keys2", "keys3", "values", "folds", "scale"], make)
    words, keys, values = list(map(str, parts["words"])), [parts["keys2"], parts["keys3"]], parts["values"]
    tables = [NgramTable(words, keys, of_fold, parts["scale"]) for of_fold in values]
    mean = NgramTable(words, keys, values.mean(axis=0, dtype=np.float32).astype(np.float16), parts["scale"])
    return tables, mean, parts["folds"]
