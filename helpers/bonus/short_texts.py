"""Short texts that the network is trained on, in addition to whole reviews.

A network that has only seen whole reviews is as sure of five words as of five hundred. So every pass over the training
reviews also includes:

- *spans*: 3 to 100 tokens from anywhere in a review, with the label of the review. Their length is drawn log-uniformly.
- *sentences* of reviews, with the label of the review.
- *negations*: sentences whose label depends on one predicate, and the same sentences with a negation inserted or
  removed, which get the opposite label.
"""

from typing import NamedTuple

import numpy as np

from helpers.batches import BucketLoader
from helpers.bonus.ngrams import SCOPE, STOPS, is_negated, is_one_of, starts_sentence
from helpers.imdb import make_reviews, select

SPANS, SENTENCES, NEGATIONS = 1.25, 0.4, 0.2  # texts in a pass, for each training review
SPAN_LENGTHS = 3, 100  # tokens
SENTENCE_LENGTHS = 3, 16  # tokens of a sentence that is negated

# Thresholds on sums of linear n-gram values, which are summands of a logit.
CLEAR = 0.7  # a sentence with more evidence for its label expresses an opinion
NEGATED_EVIDENCE, PLAIN_EVIDENCE = 0.3, 0.5  # least evidence in the scope of a negation that is removed, inserted
REST = 0.4  # most evidence, for either label, in the rest of the sentence

BE, PERSONS = {"is", "was", "are", "were"}, {"i", "you", "we", "they"}
VERBS = {"like", "love", "recommend", "enjoy", "want", "care", "hate", "believe", "laugh", "miss", "regret", "waste"}
AFTER_BE, BEFORE_VERB = ["not", "n't", "never", "hardly"], ["do n't", "did n't", "never"]
REMOVABLE = {"not", "n't", "never"}


class Text(NamedTuple):
    """A text to train on."""

    tokens: np.ndarray
    label: int
    fold: int  # of the n-gram table from which the text gets its channels


class Negator:
    """Insert or remove the negation of a sentence, where that reverses what the sentence says.

    Args:
        reviews: a `imdb.Reviews`.
        values: (tokens,) the linear value of the word at each token, ignoring negation.
    """

    def __init__(self, reviews, values):
        self.tokens, self.values = reviews.tokens, values
        self.id_of = {word: number for number, word in enumerate(reviews.words)}
        self.negated = is_negated(reviews)
        self.removable = is_one_of(reviews, REMOVABLE)
        self.be = is_one_of(reviews, BE)
        follows_person = np.append(False, is_one_of(reviews, PERSONS))[:-1]
        self.verb = is_one_of(reviews, VERBS) & follows_person
        self.stop = is_one_of(reviews, STOPS)

    def reverse(self, part, sign, choice):
        """Return the tokens of the sentence `part` (a slice) with the contrary meaning, or None.

        None means that the result might not be contrary, for example if the rest of the sentence expresses an opinion.

        Args:
            sign: 1 if the sentence is positive, -1 if it is negative.
            choice: an integer, which chooses among the words to insert.
        """
        negations = np.flatnonzero(self.removable[part])
        predicates = np.flatnonzero(self.be[part] | self.verb[part])
        if len(negations) == 1 and negations[0] > 0:
            return self.without_negation(part, negations[0], sign)
        is_plain = not len(negations) and not self.negated[part].any()
        if is_plain and len(predicates) == 1 and predicates[0] > 0:
            return self.with_negation(part, predicates[0], sign, choice)
        return None

    def without_negation(self, part, place, sign):
        """Return the tokens of `part` without the negation at `place`, or None."""
        values = self.values[part]
        scope = values[self.negated[part]].sum()
        rest = values.sum() - scope - values[place]
        if -scope * sign < NEGATED_EVIDENCE or abs(rest) > REST:
            return None
        return np.delete(self.tokens[part], place)

    def with_negation(self, part, place, sign, choice):
        """Return the tokens of `part` with a negation after a form of "be" or before another verb, or None."""
        is_be = self.be[part][place]
        begin = place + 1 if is_be else place
        values = self.values[part]
        candidates = slice(begin, begin + SCOPE)
        before_stop = np.cumsum(self.stop[part][candidates]) == 0
        scope = values[candidates][before_stop].sum()
        rest = values.sum() - scope
        if scope * sign < PLAIN_EVIDENCE or abs(rest) > REST:
            return None
        words = AFTER_BE if is_be else BEFORE_VERB
        inserted = words[choice % len(words)].split()
        if any(word not in self.id_of for word in inserted):
            return None
        ids = [self.id_of[word] for word in inserted]
        return np.insert(self.tokens[part], begin, np.array(ids, np.int32))


class ShortTextLoader(BucketLoader):
    """Batches of whole reviews and of short texts, which are drawn again for each pass (numpy's seed).

    Args:
        train_set: the training reviews, a `batches.ReviewSet`.
        folds: (reviews,) the fold of each review, see `ngrams`.
        tables: an `ngrams.NgramTable` for each fold.
        batch_size: texts in a batch.
        make_set: a function that returns the `ReviewSet` of texts; its arguments are `imdb.Reviews`, the fold of
            each text, the vocabulary and the device.
    """

    def __init__(self, train_set, folds, tables, batch_size, make_set):
        super().__init__(train_set, batch_size)
        self.reviews, self.folds, self.tables, self.make_set = train_set.reviews, folds, tables, make_set
        self.first = np.flatnonzero(starts_sentence(self.reviews))
        self.last = np.append(self.first[1:], len(self.reviews.tokens))  # one past the last token of each sentence
        # The number of the review that contains each sentence.
        self.review = np.searchsorted(self.reviews.starts, self.first, side="right") - 1
        self.negations = self.find_negations()
        self.num_spans = int(SPANS * len(folds))
        self.num_sentences = int(SENTENCES * len(folds))
        self.num_negations = int(NEGATIONS * len(folds)) if self.negations else 0

    def __len__(self):
        texts = len(self.folds) + self.num_spans + self.num_sentences + self.num_negations
        return -(-texts // self.batch_size)

    def find_negations(self):
        """Return the opinions that a negation reverses, each followed by its contrary: a list of `Text`."""
        evidence = np.zeros(len(self.reviews.tokens))
        values = np.zeros(len(self.reviews.tokens))
        for fold, table in enumerate(self.tables):
            in_fold = self.folds == fold
            of_fold = np.repeat(in_fold, np.diff(self.reviews.starts))
            evidence[of_fold], values[of_fold] = table.linear_values(select(self.reviews, in_fold))
        negator = Negator(self.reviews, values)
        texts = []
        for i in self.find_opinions(evidence):
            part = slice(self.first[i], self.last[i])
            label, fold = int(self.reviews.labels[self.review[i]]), int(self.folds[self.review[i]])
            reverse = negator.reverse(part, 2 * label - 1, i)
            if reverse is not None:
                texts += [Text(self.reviews.tokens[part], label, fold), Text(reverse, 1 - label, fold)]
        return texts

    def find_opinions(self, evidence):
        """Return the numbers of the sentences whose n-grams clearly say what the review says.

        Args:
            evidence: (tokens,) the linear values of the n-grams that end at each token, by tables that have not seen
                the review.
        """
        if not len(evidence):
            return np.zeros(0, np.int64)
        sign = 2 * self.reviews.labels[self.review] - 1
        length = self.last - self.first
        shortest, longest = SENTENCE_LENGTHS
        is_clear = np.add.reduceat(evidence, self.first) * sign > CLEAR
        return np.flatnonzero((length >= shortest) & (length <= longest) & is_clear)

    def draw_spans(self):
        """Return review, first token and last token (exclusive) of spans: three arrays (spans,)."""
        starts = self.reviews.starts
        review = np.random.randint(len(self.folds), size=self.num_spans)
        available = np.diff(starts)[review]
        length = np.exp(np.random.uniform(*np.log(SPAN_LENGTHS), self.num_spans)).astype(int)
        length = np.minimum(length, available)
        first = starts[review] + np.random.randint(available - length + 1)
        return review, first, first + length

    def draw(self):
        """Return the texts of a pass, whole reviews included, and the fold of each: `imdb.Reviews`, (texts,)."""
        tokens, starts = self.reviews.tokens, self.reviews.starts
        span_review, span_first, span_last = self.draw_spans()
        sentence = np.random.randint(len(self.first), size=self.num_sentences)
        review = np.concatenate([np.arange(len(self.folds)), span_review, self.review[sentence]])
        first = np.concatenate([starts[:-1], span_first, self.first[sentence]])
        last = np.concatenate([starts[1:], span_last, self.last[sentence]])
        negations = [self.negations[np.random.randint(len(self.negations))] for _ in range(self.num_negations)]

        texts = [tokens[a:b] for a, b in zip(first, last, strict=True)] + [text.tokens for text in negations]
        labels = np.append(self.reviews.labels[review], [text.label for text in negations]).astype(int)
        folds = np.append(self.folds[review], [text.fold for text in negations]).astype(int)
        ends = np.cumsum([len(text) for text in texts])
        return make_reviews(self.reviews.words, np.concatenate(texts), np.append(0, ends), labels), folds

    def plan(self):
        """Draw the texts of a pass, and return its batches as `BucketLoader` does."""
        texts, folds = self.draw()
        self.dataset = self.make_set(texts, folds, self.dataset.vocab, self.dataset.ids.device)
        return super().plan()
