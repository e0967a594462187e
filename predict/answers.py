"""Classify texts: their labels, and what users should know about them."""

from typing import NamedTuple

import numpy as np

from helpers import UserError
from helpers.imdb import make_reviews, select
from helpers.text import text_of_tokens, tokenize

SURE = 0.55  # a lower probability of the label is shown with the words "hard to say"


class Answer(NamedTuple):
    """The answer to a text. That to a blank text is `Answer()`."""
    label: str | None = None  # "positive" or "negative"
    probability: float | None = None  # of the label
    sure: bool = False
    known: float | None = None  # share of the words that are in the vocabulary
    note: str | None = None


def classify(predictor, texts):
    """Return an `Answer` for each text. Raises UserError if all texts are blank."""
    reviews = make_reviews(*tokenize(texts))
    lengths = np.diff(reviews.starts)  # (texts,)
    if not lengths.any():
        raise UserError("found no text to classify; give a film review in English.")
    reviews = select(reviews, lengths > 0)
    probabilities = predictor.logits(reviews).double().sigmoid().tolist()
    known = known_shares(reviews, predictor.vocab).tolist()
    max_len = predictor.pipeline.settings["max_len"]
    answers = [Answer()] * len(texts)
    for i, positive, share in zip(np.flatnonzero(lengths), probabilities, known, strict=True):
        label, probability = ("positive", positive) if positive > 0.5 else ("negative", 1 - positive)
        notes = [f"only {max_len} tokens of the text are read"] if lengths[i] > max_len else []
        if share < 0.5:
            notes.append("the network knows fewer than half of the words")
        answers[i] = Answer(label, probability, probability >= SURE, share, "; ".join(notes) or None)
    return answers


def known_shares(reviews, vocab):
    """Return the share of the words (tokens with a letter) of each text that are in the vocabulary: (texts,)."""
    is_word = np.array([any(map(str.isalpha, word)) for word in reviews.words])
    is_in_vocab = np.array([vocab.stoi[word] != vocab.stoi["<unk>"] for word in reviews.words])
    text = text_of_tokens(reviews.starts)  # (tokens,)
    words = np.bincount(text, is_word[reviews.tokens])
    known = np.bincount(text, (is_word & is_in_vocab)[reviews.tokens])
    return known / np.maximum(words, 1)
