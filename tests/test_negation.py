"""The scope of negation, word by word, in sentences that people write."""

import numpy as np
import pytest

from helpers.bonus.negation import is_negated, starts_sentence
from helpers.inference.predictor import as_reviews


@pytest.mark.parametrize(("text", "words"), [
    ("Not bad at all.", "bad at all"),
    ("It isn't funny, it is sad.", "funny"),
    ("I can't say that it was good or bad or anything else.", "say that it was good or"),
    ("I cannot recommend it.", "recommend it"),
    ("No plot. Great songs.", "plot"),
    ("It is not only funny but wise.", ""), ("not just good", ""),
    ("A film without charm but with songs", "charm"),
    ("Nobody cares. I never laughed!", "cares laughed"),
    ("It is neither funny nor sad.", "funny nor sad"),
    ("not good although long", "good"), ("not worse than that", "worse"), ("no fun (or sense)", "fun"),
    ("not n't never", "n't never"),
    ("A good film.", ""), ("", ""), ("not", "")])
def test_words_in_the_scope_of_a_negation(text, words):
    reviews = as_reviews([text])
    assert " ".join(reviews.words[token] for token in reviews.tokens[is_negated(reviews)]) == words


def test_sentences_start_after_end_marks_and_with_each_text():
    reviews = as_reviews(["Good. Really good!! Yes...", "", "no", ". a"])
    assert np.flatnonzero(starts_sentence(reviews)).tolist() == [0, 2, 6, 8, 9, 10]


@pytest.mark.parametrize("function", [is_negated, starts_sentence])
def test_neighbouring_texts_do_not_matter(function):
    texts = ["I do not", "like it but", "", "although it is", "bad, fun. never", "again"]
    alone = [function(as_reviews([text])) for text in texts]
    assert function(as_reviews(texts)).tolist() == np.concatenate(alone).tolist()
