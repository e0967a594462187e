"""Find the scope of negations: the words whose meaning a "not" or a "never" reverses.

After Das & Chen 2001, "Yahoo! for Amazon", and Pang, Lee & Vaithyanathan 2002, "Thumbs up?", who mark the words between
a negation and the next punctuation mark. Here the scope is shorter, and some conjunctions end it as well. The rule
looks at words, not at grammar, so it is wrong about some sentences.

All functions take a `reviews.Reviews` and return a bool for each of its tokens.
"""

import numpy as np

NEGATIONS = {"not", "n't", "never", "no", "nothing", "nobody", "none", "nor", "neither", "nowhere", "without", "hardly",
             "barely"}  # "cannot" is two tokens: "can" and "not"
NOT_NEGATED = {"only", "just"}  # "not only" and "not just" negate nothing
SCOPE = 6  # most tokens that a negation reverses
ENDS = {".", "!", "?", ";", "..", "..."}  # of a sentence
CONJUNCTIONS = {"but", "yet", "however", "nevertheless", "although", "though", "despite", "while", "whilst", "spite",
                "than", "because"}
STOPS = ENDS | CONJUNCTIONS | {",", "-", ":", "(", ")", "[", "]", '"', "/"}  # these end the scope of a negation


def is_one_of(reviews, words):
    """Return whether each token is one of a set of words."""
    is_wanted = np.array([word in words for word in reviews.words], bool)
    return is_wanted[reviews.tokens]


def starts_text(reviews):
    """Return whether each token is the first one of its text."""
    first = np.zeros(len(reviews.tokens), bool)
    not_empty = np.diff(reviews.starts) > 0
    first[reviews.starts[:-1][not_empty]] = True
    return first


def starts_sentence(reviews):
    """Return whether each token is the first one of its sentence. Several end marks in a row end one sentence."""
    is_end = is_one_of(reviews, ENDS)
    follows_end = np.append(False, is_end)[:-1]
    return (follows_end & ~is_end) | starts_text(reviews)


def is_negated(reviews):
    """Return whether each token is in the scope of a negation.

    The scope is the next `SCOPE` tokens. It ends earlier at one of `STOPS` and at the end of the text.
    """
    place = np.arange(len(reviews.tokens))
    precedes_not_negated = np.append(is_one_of(reviews, NOT_NEGATED), False)[1:]
    negation = is_one_of(reviews, NEGATIONS) & ~precedes_not_negated
    follows_negation = np.append(False, negation)[:-1]
    scope_start = last_place(follows_negation)
    barrier = last_place(is_one_of(reviews, STOPS) | starts_text(reviews))
    # If the token after the negation is a barrier, the scope is empty.
    return (scope_start > barrier) & (place - scope_start < SCOPE)


def last_place(marks):
    """Return, for each token, the place of the last marked token up to and including it; -1 if there is none."""
    return np.maximum.accumulate(np.where(marks, np.arange(len(marks)), -1))
