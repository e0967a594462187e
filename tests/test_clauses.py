"""Negation and concession, word by word, in sentences that people write."""

import numpy as np
import pytest

from helpers.clauses import conceded, first_of_sentences, negated
from helpers.predictor import as_reviews


def marked(function, text):
    """Return the words of a text that a function marks."""
    reviews = as_reviews([text])
    return " ".join(reviews.words[token] for token in reviews.tokens[function(reviews)])


@pytest.mark.parametrize(("text", "words"), [
    ("Not bad at all.", "bad at all"),
    ("It isn't funny, it is sad.", "funny"),
    ("I can't say that it was good or bad or anything else.", "say that it was good or"),
    ("No plot. Great songs.", "plot"),
    ("It is not only funny but wise.", ""),
    ("A film without charm but with songs", "charm"),
    ("Nobody cares. I never laughed!", "cares laughed"),
    ("not n't never", "n't never"),
    ("Less boring than I feared.", "boring"),
    ("Nothing less than brilliant.", ""),
    ("I expected a bad film, but no.", "a bad film"),
    ("I was never so bored.", ""), ("It was not so bad.", "so bad"),
    ("I have rarely seen a worse film.", "seen a"), ("It was never better.", "better"),
    ("Nobody sings better than her.", "sings"), ("It is not better than the book.", "better"),
    ("It does not get better than this.", "get"), ("It never got better than this.", "got"),
    ("A good film.", ""), ("", ""), ("not", "")])
def test_negated_words(text, words):
    assert marked(negated, text) == words


@pytest.mark.parametrize(("text", "words"), [
    ("Silly, but fun.", "silly ,"),
    ("It is long. It is slow but good.", "it is slow"),
    ("Although it is slow, I liked it.", "it is slow"),
    ("I liked it, even if it is slow. Great.", "it is slow ."),
    ("In spite of a weak script, it works.", "of a weak script"),
    ("Better than the silly first one, and shorter.", "the silly first one"),
    ("It is fun.", ""), ("", ""), ("but", "")])
def test_conceded_words(text, words):
    assert marked(conceded, text) == words


def test_sentences_begin_after_end_marks_and_with_each_text():
    reviews = as_reviews(["Good. Really good!! Yes...", "", "no", ". a"])
    assert np.flatnonzero(first_of_sentences(reviews)).tolist() == [0, 2, 6, 8, 9, 10]


def test_a_text_is_marked_as_if_it_stood_alone():
    texts = ["I do not", "like it but", "", "although it is", "bad, fun. never", "again"]
    together = as_reviews(texts)
    for function in (negated, conceded, first_of_sentences):
        alone = [function(as_reviews([text])) for text in texts]
        assert function(together).tolist() == np.concatenate(alone).tolist()
