"""The channels of the bonus: what the n-grams of the training reviews say about a token and about its text.

An n-gram is a word, a word in the scope of a negation (see `negation.is_negated`), or two or three successive words. It
has two kinds of values, or three if there are unlabelled reviews. The module `ngram_values` learns them:

- *naive Bayes*: log((p + 1) / (n + 1)), where p positive and n negative training reviews contain the n-gram (Wang &
  Manning 2012, "Baselines and Bigrams"). It is 0 if p + n < 2.
- *linear*: what the n-gram adds to the logit of a logistic regression on all n-grams.
- *soft*: the naive Bayes value on the unlabelled reviews, with the predictions of the logistic regression as labels.

The movies are split into five folds, and each value is learned five times, each time without one fold. A training
review gets the values that were learned without its movie. Values to which the review itself contributed would look
more reliable in training than they are on new movies. Every other text gets the mean of the five values.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from helpers.bonus.negation import is_negated
from helpers.data.reviews import select
from helpers.data.tokens import concat_ranges, text_of_tokens

AT_ONCE = 5000  # reviews whose channels are computed together, which limits the memory


@dataclass
class NgramTable:
    """The values of all n-grams. They determine the channels of any text."""

    words: list  # V words; the id of a word is its index
    keys: list  # two int64 arrays, sorted: the keys of the 2-grams and of the 3-grams, see `ngram_keys`
    values: np.ndarray  # float16 (G, kinds); rows: words and negated words by id, then 2-grams and 3-grams by key
    scale: np.ndarray  # float32 (C,): the channels are divided by it

    def channels(self, reviews):
        """Return the channels of all tokens of `reviews.Reviews`: (tokens, C), float16."""
        block = np.arange(len(reviews.labels)) // AT_ONCE
        channels = []
        for number in range(block.max(initial=0) + 1):
            channels.append(self.channels_of_block(select(reviews, block == number)))
        return np.concatenate(channels)

    def channels_of_block(self, reviews):
        """Return `channels`, without splitting the reviews into blocks.

        The first 3 · kinds channels of a token are the values of the word, the 2-gram and the 3-gram that end at it.
        The other channels are equal for all tokens of a text: for each kind except naive Bayes, the sum of the values
        of the distinct n-grams in the text.
        """
        rows = self.find(reviews)  # (3, tokens)
        values = np.pad(self.values.astype(np.float32), [(0, 1), (0, 0)])  # row -1, for no n-gram, is 0
        per_token = np.concatenate(values[rows], axis=1)  # (3, tokens, kinds) -> (tokens, 3 · kinds)
        text, row = distinct_ngrams(rows, reviews.starts, len(values))
        without_bayes = values.T[1:]  # (kinds - 1, rows)
        sums = [np.bincount(text, of_kind[row], len(reviews.labels)) for of_kind in without_bayes]
        per_text = np.stack(sums, axis=1)[text_of_tokens(reviews.starts)]  # (tokens, kinds - 1)
        channels = np.concatenate([per_token, per_text], axis=1, dtype=np.float32)
        return (channels / self.scale).astype(np.float16)

    def linear_values(self, reviews):
        """Return the sum of the linear values of the n-grams that end at each token, and the linear value of its word.

        The value of the word ignores negation. Both arrays are (tokens,).
        """
        values = np.append(self.values[:, 1].astype(np.float32), 0)  # the last one is for no n-gram
        return values[self.find(reviews)].sum(axis=0), values[self.word_ids(reviews)]

    def named_values(self, reviews):
        """Return the n-grams of one text, each once, with their linear values, such as {"bad (negated)": 0.5}."""
        negated, found = is_negated(reviews), {}
        for order, rows in enumerate(self.find(reviews), start=1):
            for end in np.flatnonzero(rows >= 0):
                tokens = reviews.tokens[end + 1 - order:end + 1]
                name = " ".join(reviews.words[token] for token in tokens)
                if order == 1 and negated[end]:
                    name += " (negated)"
                found[name] = float(self.values[rows[end], 1])
        return found

    def word_ids(self, reviews):
        """Return the id of each token, -1 for words without id: (tokens,)."""
        return pd.Index(self.words).get_indexer(reviews.words)[reviews.tokens]

    def find(self, reviews):
        """Return the rows of the n-grams that end at each token, see `find_ngrams`: (3, tokens)."""
        ids = self.word_ids(reviews)
        return find_ngrams(ids, reviews.starts, is_negated(reviews), len(self.words), self.keys)

    def state(self):
        """Return the table as a dict of lists and tensors, for `model.pt`. A word of an n-gram takes 2 bytes."""
        dtype = np.uint16 if len(self.words) <= 2**16 else np.int32
        ngrams = []
        for order, keys in zip((2, 3), self.keys, strict=True):
            ids = split_keys(keys, order, len(self.words)).astype(dtype)
            ngrams.append(torch.from_numpy(ids))
        return {"words": self.words, "ngrams": ngrams,
                "values": torch.from_numpy(self.values), "scale": torch.from_numpy(self.scale)}

    @classmethod
    def from_state(cls, state):
        """Return the table that `state` describes. Raises ValueError if its parts do not fit each other."""
        words, values = state["words"], state["values"].numpy()
        ids = [of_order.numpy().astype(np.int64) for of_order in state["ngrams"]]
        largest_id = max(of_order.max(initial=-1) for of_order in ids)
        if len(values) != 2 * len(words) + len(ids[0]) + len(ids[1]) or largest_id >= len(words):
            raise ValueError("the n-grams and their values do not fit each other")
        return cls(words, [join_keys(of_order, len(words)) for of_order in ids], values, state["scale"].numpy())


def ngram_keys(ids, starts, order, num_words):
    """Return an integer for the n-gram that ends at each token: (tokens,), int64.

    The key of the words a, b, c is (a · V + b) · V + c. It is -1 if the n-gram would begin before its text, or if
    one of its words has no id.

    Args:
        ids: (tokens,) ids of all texts, one text after the other; from 0 to V - 1, or -1 for a word without id.
        starts: (texts + 1,) where each text begins.
        order: words in an n-gram. V ** order must fit into 63 bits.
        num_words: V.
    """
    lengths = np.diff(starts)
    place = concat_ranges(np.zeros(len(lengths), np.int64), lengths)  # of a token in its text
    is_known = (ids >= 0) & (place >= order - 1)
    keys = ids.astype(np.int64)
    for back in range(1, order):
        earlier = np.roll(ids, back)  # the first tokens get ids from the end, but are not known: `place` < `back`
        is_known &= earlier >= 0
        keys += earlier * np.int64(num_words) ** back
    return np.where(is_known, keys, -1)


def split_keys(keys, order, num_words):
    """Return the ids of the words of n-grams: keys (n,) -> (n, order)."""
    powers = np.int64(num_words) ** np.arange(order)[::-1]
    return keys[:, None] // powers % num_words


def join_keys(ids, num_words):
    """Return the keys of n-grams: ids (n, order) -> (n,). The inverse of `split_keys`."""
    powers = np.int64(num_words) ** np.arange(ids.shape[1])[::-1]
    return ids @ powers


def find_ngrams(ids, starts, negated, num_words, keys):
    """Return the row of `NgramTable.values` of the word, the 2-gram and the 3-gram that end at each token.

    Args:
        ids, starts, num_words: as in `ngram_keys`.
        negated: (tokens,) bool, whether the word is in the scope of a negation.
        keys: of the 2-grams and of the 3-grams in the table, sorted.

    Returns:
        (3, tokens), -1 where the table has no such n-gram.
    """
    rows = [np.where(ids >= 0, ids + num_words * negated, -1)]
    first_row = 2 * num_words  # of the n-grams of this order
    for order, known in zip((2, 3), keys, strict=True):
        found = ngram_keys(ids, starts, order, num_words)
        place = np.searchsorted(known, found)
        is_known = np.append(known, -2)[place] == found  # `place` may be after the last key; -2 is no key
        rows.append(np.where(is_known, first_row + place, -1))
        first_row += len(known)
    return np.stack(rows)


def distinct_ngrams(rows, starts, num_rows):
    """Return the n-grams of each text, each n-gram once.

    Args:
        rows: (3, tokens), as `find_ngrams` returns them.
        starts: (texts + 1,) where each text begins.
        num_rows: more than the largest row.

    Returns:
        for each pair of a text and an n-gram in it: the number of the text (pairs,) and the row (pairs,).
    """
    text = text_of_tokens(starts)
    pairs = []
    for of_order in rows:
        codes = text * np.int64(num_rows) + of_order  # one integer for a text and a row
        pairs.append(pd.unique(codes[of_order >= 0]))
    return np.divmod(np.concatenate(pairs), num_rows)


def channels_by_fold(reviews, folds, tables):
    """Return the channels of texts, each from the table of its fold: folds (texts,) -> (tokens, C), float16."""
    of_folds = [table.channels(select(reviews, folds == fold)) for fold, table in enumerate(tables)]
    by_fold = np.concatenate(of_folds)  # the tokens of fold 0, then those of fold 1, ...
    fold_of_tokens = np.repeat(folds, np.diff(reviews.starts))
    position = np.argsort(fold_of_tokens, kind="stable")  # in `reviews`, of each row of `by_fold`
    channels = np.empty_like(by_fold)
    channels[position] = by_fold
    return channels
