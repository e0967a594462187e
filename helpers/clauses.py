"""Which words of a text are negated or conceded: small words that shift what the others say.

After Pang, Lee & Vaithyanathan 2002, "Thumbs up?", who mark the words after a negation, and Polanyi & Zaenen 2006,
"Contextual valence shifters". All functions take a `reviews.Reviews` and return (tokens) bool; no text is parsed, so
they are right about most sentences and not about all.
"""

import numpy as np

NEGATIONS = {"not", "n't", "never", "no", "nothing", "nobody", "none", "nor", "neither", "nowhere", "without", "hardly",
             "barely", "rarely"}
NOT_NEGATED = {"only", "just"}  # "not only" denies nothing
REACH = 6  # tokens after a negation
ENDS = {".", "!", "?", ";", "..", "..."}  # of a sentence
TURNS = {"but", "yet", "however", "nevertheless"}  # what stands before them in a sentence is conceded
OPENINGS = {"although", "though", "despite", "while", "whilst", "spite"}  # of a conceded clause
COMMAS = {",", "-"}
STOPS = ENDS | COMMAS | TURNS | OPENINGS | {":", "(", ")", "[", "]", '"', "/", "because"}  # where a negation ends


def is_one_of(reviews, words):
    """Return whether each token is one of a set of words."""
    return np.array([word in words for word in reviews.words], bool)[reviews.tokens]


def last_before(marks):
    """Return, for each token, the place of the last marked one up to and with it; -1 if there is none."""
    return np.maximum.accumulate(np.where(marks, np.arange(len(marks)), -1))


def first_of_texts(reviews):
    """Mark the first token of each text that has any."""
    first = np.zeros(len(reviews.tokens), bool)
    first[reviews.starts[:-1][np.diff(reviews.starts) > 0]] = True
    return first


def first_of_sentences(reviews):
    """Mark the first token of each sentence; end marks that follow each other end one sentence."""
    end = is_one_of(reviews, ENDS)
    return np.append(False, end)[:-1] & ~end | first_of_texts(reviews)


def negated(reviews):
    """Mark the words in the scope of a negation: `REACH` tokens, but not beyond a mark, a turn or the text's end."""
    negation = is_one_of(reviews, NEGATIONS) & ~np.append(is_one_of(reviews, NOT_NEGATED), False)[1:]
    stop = is_one_of(reviews, STOPS)
    last = np.append(-1, last_before(negation))[:-1]  # before each token
    barrier = np.maximum(last_before(stop), last_before(first_of_texts(reviews)))
    return (last >= 0) & (np.arange(len(stop)) - last <= REACH) & (last >= barrier)


def conceded(reviews):
    """Mark the words before the last turn of a sentence ("silly" in "silly but fun"), and clauses of concession."""
    if not len(reviews.tokens):
        return np.zeros(0, bool)
    first, turn, place = first_of_sentences(reviews), is_one_of(reviews, TURNS), np.arange(len(reviews.tokens))
    sentence = np.cumsum(first) - 1
    last_turn = np.full(sentence[-1] + 1, -1)
    last_turn[sentence[turn]] = place[turn]
    opening = is_one_of(reviews, OPENINGS)
    opening[1:] |= is_one_of(reviews, {"even"})[:-1] & is_one_of(reviews, {"if"})[1:]
    comma = is_one_of(reviews, COMMAS)
    opened = last_before(opening)
    return (place < last_turn[sentence]) | ((opened >= 0) & (place > opened) & (opened >= last_before(comma | first)))
