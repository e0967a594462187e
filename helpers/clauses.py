"""Which words of a text are negated or conceded: small words that shift what the others say.

After Pang, Lee & Vaithyanathan 2002, "Thumbs up?", who mark the words after a negation, and Polanyi & Zaenen 2006,
"Contextual valence shifters". All functions take a `reviews.Reviews` and return (tokens) bool; no text is parsed, so
they are right about most sentences and not about all.
"""

import functools

import numpy as np

NEGATIONS = {"not", "n't", "never", "no", "nothing", "nobody", "none", "nor", "neither", "nowhere", "without", "hardly",
             "barely", "rarely", "less", "expected", "hoped", "wanted"}  # what was expected is not what there is
NOT_NEGATED = {"only", "just", "less"}  # "not only", "nothing less than" deny nothing
WITHOUT_EQUAL = {"never", "rarely", "nothing", "nobody", "none"}  # "never so bored", "nothing better than this"
REACH = 6  # tokens after a negation
ENDS = {".", "!", "?", ";", "..", "..."}  # of a sentence
TURNS = {"but", "yet", "however", "nevertheless"}  # what stands before them in a sentence is conceded
OPENINGS = {"although", "though", "despite", "while", "whilst", "spite", "than"}  # of what is conceded
COMMAS = {",", "-"}
STOPS = ENDS | COMMAS | TURNS | OPENINGS | {":", "(", ")", "[", "]", '"', "/", "because"}  # where a negation ends


def is_one_of(reviews, words):
    """Return whether each token is one of a set of words."""
    return np.array([word in words for word in reviews.words], bool)[reviews.tokens]


def before(marks):
    """Mark the tokens that stand right before a marked one."""
    return np.append(marks, False)[1:]


def after(marks):
    """Mark the tokens that stand right after a marked one."""
    return np.append(False, marks)[:-1]


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
    return after(end) & ~end | first_of_texts(reviews)


def negated(reviews):
    """Mark the words in the scope of a negation: `REACH` tokens, but not beyond a mark, a turn or the text's end.

    Nor beyond the word that says of something that it has no equal: "so" in "never so bored", "worse" in "rarely a
    worse film" and "does not get worse than this".
    """
    one_of = functools.partial(is_one_of, reviews)
    negation = one_of(NEGATIONS)
    negation &= ~before(one_of(NOT_NEGATED)) & ~(one_of(NOT_NEGATED) & after(negation))
    last = last_before(after(negation)) - 1  # the last negation before each token; less than 0 if there is none
    compared = one_of({"better", "worse", "more", "less"})
    has_no_equal = one_of({"so", "such"}) | compared & (after(one_of({"a"})) | before(one_of({"than"})))
    has_no_equal &= (last >= 0) & one_of(WITHOUT_EQUAL)[np.maximum(last, 0)]
    has_no_equal |= compared & after(one_of({"get", "gets"})) & before(one_of({"than"}))
    stop = one_of(STOPS) | has_no_equal
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
