"""The scope of negation, word by word, in sentences that people write."""

import numpy as np
import pytest

from helpers.bonus.negation import is_negated, starts_sentence
from helpers.data.reviews import make_reviews
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


@pytest.mark.parametrize(("before", "words", "negated"), [
    ("it is", "not n't never no nothing nobody none nor neither nowhere without hardly barely", "good"),
    ("not bad", "but yet however nevertheless although though despite while whilst spite than because", "bad"),
    ("not bad", ", - : ( ) [ ] / . .. ... ! ? ;", "bad")])
def test_words_that_begin_and_end_the_scope(before, words, negated):
    for word in words.split():
        text = [*before.split(), word, "good"]
        found = is_negated(make_reviews(text, np.arange(4), np.array([0, 4])))
        assert [text[i] for i in np.flatnonzero(found)] == [negated], word


def test_sentences_start_after_end_marks_and_with_each_text():
    reviews = as_reviews(["Good. Really good!! Yes...", "", "no", ". a"])
    assert np.flatnonzero(starts_sentence(reviews)).tolist() == [0, 2, 6, 8, 9, 10]


@pytest.mark.parametrize("function", [is_negated, starts_sentence])
def test_neighbouring_texts_do_not_matter(function):
    texts = ["I do not", "like it but", "", "although it is", "bad, fun. never", "again"]
    alone = [function(as_reviews([text])) for text in texts]
    assert function(as_reviews(texts)).tolist() == np.concatenate(alone).tolist()
