"""Learn the values of n-grams from the training and the unlabelled reviews; see `ngrams` for what they are."""

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.bonus.negation import is_negated
from helpers.bonus.ngrams import NgramTable, channels_by_fold, distinct_ngrams, find_ngrams, ngram_keys
from helpers.data.reviews import identity_of, select
from helpers.data.tokens import text_of_tokens
from helpers.files import cached_arrays

FOLDS = 5
PENALTY = 3.0  # of the logistic regression; validation loss with 1, 3 and 10: 0.218, 0.213 and 0.213
PRIOR = 4.0  # the prior of a negated word counts as much as this many reviews
VERSION = 8  # raise it with every change to the result of `learn_values`


def frequent_keys(ids, starts, order, num_words, min_reviews):
    """Return the sorted keys of the n-grams that at least `min_reviews` reviews contain; see `ngram_keys`."""
    code, keys = pd.factorize(ngram_keys(ids, starts, order, num_words))
    pairs = pd.unique(text_of_tokens(starts) * len(keys) + code)  # of a review and an n-gram in it
    num_reviews = np.bincount(pairs % max(len(keys), 1), minlength=len(keys))
    return np.sort(keys[(num_reviews >= min_reviews) & (keys >= 0)])


def naive_bayes(rows, labels, num_rows, num_words):
    """Return the naive Bayes values of all n-grams: (num_rows,).

    For a negated word, a prior is added to the counts instead of 1. By this prior, the value of a negated word is minus
    half the value of the word.

    Args:
        rows, labels: (pairs,) for each n-gram of each review, the row of the n-gram and the label of the review, from 0
            to 1.
        num_rows: G.
        num_words: V. The first V rows are words, the next V are negated words.
    """
    positive = np.bincount(rows, labels, num_rows)
    negative = np.bincount(rows, minlength=num_rows) - positive
    is_counted = positive + negative > 1.5  # at least 2, whatever the rounding of soft labels
    values = np.where(is_counted, np.log((positive + 1) / (negative + 1)), 0.0)
    is_negated_word = slice(num_words, 2 * num_words)
    contrary = 1 / (1 + np.exp(values[:num_words] / 2))  # probability that the negated word is positive, by the prior
    positive, negative = positive[is_negated_word], negative[is_negated_word]
    values[is_negated_word] = np.log((positive + PRIOR * contrary) / (negative + PRIOR * (1 - contrary)))
    return values


def fit_linear(rows, reviews, values, labels, num_words):
    """Fit a logistic regression to the labels. The features of a review are the naive Bayes values of its n-grams.

    A negated word has a weight of its own, and also counts as minus half an occurrence of its word. Because of the
    penalty, a rare negated word relies on the latter.

    Args:
        rows, reviews: (pairs,) for each n-gram of each review, the row of the n-gram and the number of the review.
        values: (G,) naive Bayes values.
        labels: (reviews,), 0 or 1.
        num_words: V.

    Returns:
        what each n-gram adds to the logit (G,), and the intercept.
    """
    from sklearn.linear_model import LogisticRegression  # here, because it takes a second, and cached runs skip it
    from sklearn.preprocessing import OneHotEncoder

    sparse_matrix = type(OneHotEncoder().fit_transform([[0]]))  # scipy's; the exercise forbids importing scipy
    is_negated_word = (rows >= num_words) & (rows < 2 * num_words)
    word = rows[is_negated_word] - num_words
    features = np.append(values[rows], -values[word] / 2)
    places = np.append(reviews, reviews[is_negated_word]), np.append(rows, word)
    X = sparse_matrix((features, places), shape=(len(labels), len(values)))
    model = LogisticRegression(C=1 / PENALTY).fit(X, labels)
    summands = model.coef_[0] * values
    summands[num_words:2 * num_words] -= summands[:num_words] / 2
    return summands, model.intercept_[0]


def find_vocabulary(counted, min_reviews):
    """Return the frequent words, 2-grams and 3-grams, and the ids of all tokens.

    Args:
        counted: the training and unlabelled reviews, a `reviews.Reviews`.
        min_reviews: minimum number of these reviews that contain an n-gram.

    Returns:
        words (list), ids (tokens,) with -1 for other words, and keys (list): those of 2-grams and those of 3-grams.
    """
    frequent = frequent_keys(counted.tokens, counted.starts, 1, len(counted.words), min_reviews)
    id_of = np.full(len(counted.words), -1)
    id_of[frequent] = np.arange(len(frequent))
    ids = id_of[counted.tokens]
    keys = [frequent_keys(ids, counted.starts, order, len(frequent), min_reviews) for order in (2, 3)]
    return [counted.words[i] for i in frequent], ids, keys


def learn_values(reviews, train, min_reviews, seed):
    """Count and fit the values of all n-grams.

    Args:
        reviews: a `reviews.Reviews`. Its unlabelled reviews are used.
        train: (reviews,) bool, the reviews whose labels may be seen.
        min_reviews: minimum number of training and unlabelled reviews that contain an n-gram.
        seed: of the folds.

    Returns:
        words and keys as in `find_vocabulary`, values (FOLDS, G, kinds) float16, and the fold of each training review
        (training reviews,).
    """
    counted = select(reviews, train | (reviews.labels < 0))
    labels = counted.labels.astype(float)
    words, ids, keys = find_vocabulary(counted, min_reviews)
    num_words, num_rows = len(words), 2 * len(words) + len(keys[0]) + len(keys[1])
    rows = find_ngrams(ids, counted.starts, is_negated(counted), num_words, keys)
    review, row = distinct_ngrams(rows, counted.starts, num_rows)  # (pairs,) both
    is_labelled = labels[review] >= 0  # (pairs,)
    fold_of_movie = np.random.default_rng(seed).permutation(counted.movies.max() + 1) % FOLDS
    fold = fold_of_movie[counted.movies]  # (reviews,)

    values = []
    for left_out in tqdm(range(FOLDS), desc="fitting n-grams", leave=False):
        is_seen = is_labelled & (fold[review] != left_out)
        bayes = naive_bayes(row[is_seen], labels[review[is_seen]], num_rows, num_words)
        seen_number, seen_reviews = pd.factorize(review[is_seen])  # numbers without gaps
        linear, intercept = fit_linear(row[is_seen], seen_number, bayes, labels[seen_reviews], num_words)
        kinds = [bayes, linear]
        if not is_labelled.all():
            other_review, other_row = review[~is_labelled], row[~is_labelled]
            logits = np.bincount(other_review, linear[other_row], len(labels)) + intercept
            soft_labels = 1 / (1 + np.exp(-logits[other_review]))
            kinds.append(naive_bayes(other_row, soft_labels, num_rows, num_words))
        values.append(np.stack(kinds, axis=1).astype(np.float16))
    return words, keys, np.stack(values), fold[labels >= 0]


def load_tables(reviews, train, min_reviews, seed, cache_dir):
    """Return n-gram tables, from `cache_dir` if an earlier call left them there; see `learn_values` for the arguments.

    Returns:
        an `NgramTable` for each fold, one for all other texts, and the fold of each training review.
    """
    def make():
        words, keys, values, folds = learn_values(reviews, train, min_reviews, seed)
        tables = [NgramTable(words, keys, of_fold, scale=1) for of_fold in values]
        scale = channels_by_fold(select(reviews, train), folds, tables).std(axis=0, dtype=np.float64)
        scale[scale == 0] = 1
        return {"words": words, "keys2": keys[0], "keys3": keys[1], "values": values, "folds": folds,
                "scale": scale.astype(np.float32)}

    key = [identity_of(reviews, train), min_reviews, seed, PENALTY, PRIOR, FOLDS, VERSION]
    parts = cached_arrays(cache_dir, "ngrams", key, ["words", "keys2", "keys3", "values", "folds", "scale"], make)
    words, keys, scale = list(map(str, parts["words"])), [parts["keys2"], parts["keys3"]], parts["scale"]
    mean = parts["values"].mean(axis=0, dtype=np.float32).astype(np.float16)
    tables = [NgramTable(words, keys, of_fold, scale) for of_fold in parts["values"]]
    return tables, NgramTable(words, keys, mean, scale), parts["folds"]
