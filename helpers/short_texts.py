"""Short texts to train on beside whole reviews, drawn anew in each epoch: a network that has only seen reviews is as
sure of five words as of five hundred, and takes "not bad" for bad.

- *spans*: 3 to 100 tokens from anywhere in a review (the logarithm of their number is uniform), with its label;
- *sentences* of reviews, with the review's label;
- *contrasts*: two sentences of opposite labels, put together so that one concedes the other ("A, but B", "although A,
  B"); the label is that of the one that is not conceded;
- *negations*: a sentence whose label hangs on one predicate, with a negation put in or taken out, which turns the
  label, and the sentence as it was.

Sentences for the last two are those whose words, by the n-grams of other films, clearly say what their review says.
"""

import numpy as np

from helpers.batches import BucketLoader, ReviewSet
from helpers.clauses import STOPS, first_of_sentences, is_one_of, negated
from helpers.ngrams import channels_by_fold
from helpers.reviews import Reviews, keep

SPANS, SENTENCES, CONTRASTS, NEGATED = 1.25, 0.4, 0.2, 0.2  # in an epoch, for each review
TURNS = ["but", "but", ", but", ", but", ", yet", "but still"]
OPENINGS = ["although", "though", "even though", "despite", "while", "even if", "in spite of"]
BE, PERSONS = {"is", "was", "are", "were"}, {"i", "you", "we", "they"}
VERBS = {"like", "love", "recommend", "enjoy", "want", "care", "hate", "believe", "laugh", "miss", "regret", "waste"}
AFTER_BE, BEFORE_VERB = ["not", "n't", "never", "hardly"], ["do n't", "did n't", "never"]


class ShortTextLoader(BucketLoader):
    """Batches of whole reviews and short texts, drawn and shuffled anew in each epoch (numpy's seed).

    Args:
        reviews: the training reviews, a `reviews.Reviews`.
        folds: (reviews) the fold of each, see `ngrams`.
        tables: an `ngrams.NgramTable` for each fold.
        batch_size: texts in a batch.
        of_set: the other arguments of a `ReviewSet`.
    """

    def __init__(self, reviews, folds, tables, batch_size, **of_set):
        self.reviews, self.folds, self.tables, self.batch_size, self.of_set = reviews, folds, tables, batch_size, of_set
        self.id_of = {word: number for number, word in enumerate(reviews.words)}
        self.first = np.flatnonzero(first_of_sentences(reviews))
        self.last = np.append(self.first[1:], len(reviews.tokens))  # of each sentence, exclusive
        self.review = np.searchsorted(reviews.starts, self.first, side="right") - 1
        self.find_opinions()
        self.spans, self.sentences = int(SPANS * len(folds)), int(SENTENCES * len(folds))
        self.contrasts = int(CONTRASTS * len(folds)) if all(map(len, self.opinions)) else 0
        self.negated = int(NEGATED * len(folds)) if self.negations else 0

    def __len__(self):
        texts = len(self.folds) + self.spans + self.sentences + self.contrasts + self.negated
        return -(-texts // self.batch_size)

    def find_opinions(self):
        """Find the sentences of 3 to 16 tokens that clearly say what their review says, and what negates them."""
        linear, word = np.zeros(len(self.reviews.tokens)), np.zeros(len(self.reviews.tokens))
        for i, table in enumerate(self.tables):
            chosen = np.repeat(self.folds == i, np.diff(self.reviews.starts))
            linear[chosen], word[chosen] = table.linear_values(keep(self.reviews, self.folds == i))
        sign = 2 * self.reviews.labels[self.review] - 1
        length = self.last - self.first
        clear = np.add.reduceat(linear, self.first) * sign > 0.7 if len(linear) else np.zeros(0, bool)
        opinions = np.flatnonzero((length >= 3) & (length <= 16) & clear)
        group = self.folds[self.review] * 2 + (sign > 0)
        # per fold and label: both sentences of a contrast must be new to the table that gives them their values
        self.opinions = [opinions[group[opinions] == i] for i in range(2 * len(self.tables))]
        self.negations = list(self.find_negations(opinions, sign, word))

    def find_negations(self, opinions, sign, word):
        """Yield fold, label and tokens of opinions that turn with a negation, as they are and turned."""
        reviews, tokens = self.reviews, self.reviews.tokens
        marked, negation = negated(reviews), is_one_of(reviews, {"not", "n't", "never"})
        be, verb = is_one_of(reviews, BE), is_one_of(reviews, VERBS)
        verb[1:] &= is_one_of(reviews, PERSONS)[:-1]
        stop = is_one_of(reviews, STOPS)
        for i in opinions:
            part = slice(self.first[i], self.last[i])
            places, value = np.flatnonzero(negation[part]), word[part].sum()
            where = np.flatnonzero(be[part] | verb[part])
            if len(places) == 1 and places[0]:
                scope = word[part][marked[part]].sum()
                turned = np.delete(tokens[part], places)
                if -scope * sign[i] < 0.3 or abs(value - scope - word[part][places[0]]) > 0.4:
                    continue
            elif len(where) == 1 and where[0] and not len(places) and not marked[part].any():
                at = where[0] + be[part][where[0]]  # after "is", before a verb
                scope = word[part][at:at + 6][np.cumsum(stop[part][at:at + 6]) == 0].sum()
                if scope * sign[i] < 0.5 or abs(value - scope) > 0.4:
                    continue
                choice = AFTER_BE if be[part][where[0]] else BEFORE_VERB
                turned = np.insert(tokens[part], at, self.ids(choice[i % len(choice)]))
            else:
                continue
            fold, label = self.folds[self.review[i]], sign[i] > 0
            yield fold, label, tokens[part]
            yield fold, 1 - label, turned

    def ids(self, words):
        """Return the ids of words, separated by spaces, as far as the reviews have them."""
        return np.array([self.id_of[word] for word in words.split() if word in self.id_of], np.int32)

    def draw(self):
        """Return the texts of an epoch, whole reviews included, and the fold of each: `reviews.Reviews`, (texts)."""
        tokens, starts = self.reviews.tokens, self.reviews.starts
        spans = np.random.randint(len(self.folds), size=self.spans)
        longest = np.diff(starts)[spans]
        length = np.minimum(np.exp(np.random.uniform(np.log(3), np.log(100), self.spans)).astype(int), longest)
        first = starts[spans] + np.random.randint(longest - length + 1)
        sentences = np.random.randint(len(self.first), size=self.sentences)
        review = np.concatenate([np.arange(len(self.folds)), spans, self.review[sentences]])
        begin = np.concatenate([starts[:-1], first, self.first[sentences]])
        end = np.concatenate([starts[1:], first + length, self.last[sentences]])
        texts = [tokens[a:b] for a, b in zip(begin, end, strict=True)]
        made = [self.contrast() for _ in range(self.contrasts)]
        made += [self.negations[np.random.randint(len(self.negations))] for _ in range(self.negated)]
        folds = np.append(self.folds[review], [fold for fold, _, _ in made]).astype(int)
        labels = np.append(self.reviews.labels[review], [label for _, label, _ in made]).astype(int)
        texts += [text for _, _, text in made]
        nothing = np.zeros(len(texts), np.int64)
        return Reviews(self.reviews.words, np.concatenate(texts), np.cumsum([0, *map(len, texts)]), labels, nothing,
                       nothing.astype(bool), nothing.astype(bool)), folds

    def contrast(self):
        """Return fold, label and tokens of two sentences one of which concedes the other."""
        fold, label = np.random.randint(len(self.tables)), np.random.randint(2)
        said, conceded = (self.reviews.tokens[self.first[i]:self.last[i]] for i in
                          (np.random.choice(self.opinions[2 * fold + label]),
                           np.random.choice(self.opinions[2 * fold + 1 - label])))
        kind = np.random.randint(3)
        if kind == 0:
            return fold, label, np.concatenate([conceded[:-1], self.ids(np.random.choice(TURNS)), said])
        opening = self.ids(np.random.choice(OPENINGS))
        if kind == 1:
            return fold, label, np.concatenate([opening, conceded[:-1], self.ids(","), said])
        return fold, label, np.concatenate([said[:-1], self.ids(","), opening, conceded])

    def plan(self):
        """Draw the texts of an epoch, and return its batches as `BucketLoader` does."""
        texts, folds = self.draw()
        self.dataset = ReviewSet(texts, channels=channels_by_fold(texts, folds, self.tables), **self.of_set)
        return super().plan()
