"""What training stores for the report, in `analysis.json`: data, errors and attention of a network.

The report is then built without the reviews.
"""

import re

import numpy as np

from helpers.data.archive import read_files
from helpers.data.text import LINE_BREAK
from helpers.inference.explain import attention_weights
from helpers.inference.predictor import as_reviews

SENTENCES = ["The plot is weak, yet the cast is superb.", "It was not bad at all."]
LENGTHS = [0, 100, 200, 300, 500, 10**6]  # tokens: the ranges for which errors are counted
EXAMPLES = 2  # confident errors of each label
EXAMPLE_TOKENS = 100  # longest review that is shown as an example
EXAMPLE_WORDS = 40  # words that are shown of it


def analyse(predictor, train_set, valid_set, test_set, source, logits):
    """Return what the report tells of a network besides its metrics, as a dict of JSON types.

    Args:
        predictor: the trained and calibrated `Predictor`. Its vocabulary still has GloVe's vectors.
        train_set, valid_set, test_set: the `batches.ReviewSet`s of `load_imdb_data`.
        source: the archive or the folder that they were read from.
        logits: the network's own logits of `test_set`, (reviews,).
    """
    reviews = test_set.reviews
    probabilities = predictor.calibrated(logits, reviews).sigmoid().numpy()
    names, texts = read_test_reviews(source)
    stars = np.array([int(re.search(r"_(\d+)\.txt$", name)[1]) for name in names])
    lengths = np.diff(reviews.starts)
    wrong = (logits.cpu().numpy() > 0) != (reviews.labels == 1)
    return {
        "data": describe_data(train_set.reviews, valid_set.reviews, reviews, predictor.vocab),
        "error_by_stars": error_by_stars(wrong, stars),
        "error_by_length": error_by_length(wrong, lengths),
        "examples_of_at_most": EXAMPLE_TOKENS,
        "examples": confident_errors(texts, wrong, lengths, stars, reviews.labels, probabilities),
        "attention": [describe_attention(predictor, sentence) for sentence in SENTENCES]}


def read_test_reviews(source):
    """Return the names and the texts of the test reviews, sorted by name as `reviews.read_reviews` sorts them."""
    files = {}
    for name, content in read_files(source, {"test/neg", "test/pos"}):
        if name.startswith("test/") and "/urls_" not in name:
            files[name] = content.decode(errors="replace")
    names = sorted(files)
    return names, [files[name] for name in names]


def describe_data(train, valid, test, vocab):
    """Return the sizes of the data: training, validation and test `reviews.Reviews`, and the vocabulary."""
    lengths = np.concatenate([np.diff(reviews.starts) for reviews in (train, valid, test)])
    movies = np.concatenate([train.movies, valid.movies])
    has_vector = (vocab.vectors != 0).any(dim=1)
    return {
        "train": len(train.labels), "valid": len(valid.labels), "test": len(test.labels),
        "words": len(vocab), "in_glove": has_vector.double().mean().item(),
        "movies": len(np.unique(movies)), "most_reviews_of_a_movie": int(np.bincount(movies).max()),
        "movies_in_both": len(np.intersect1d(movies, test.movies)),
        "median_tokens": int(np.median(lengths)), "p95_tokens": int(np.quantile(lengths, 0.95))}


def error_by_stars(wrong, stars):
    """Return the error rate for each rating: wrong, stars (reviews,) -> list of dicts."""
    rows = []
    for number in np.unique(stars):
        chosen = stars == number
        rows.append({"stars": int(number), "reviews": int(chosen.sum()), "error": float(wrong[chosen].mean())})
    return rows


def error_by_length(wrong, lengths):
    """Return the error rate for each range of LENGTHS that has reviews: wrong, lengths (reviews,) -> list of dicts."""
    rows = []
    for low, high in zip(LENGTHS[:-1], LENGTHS[1:], strict=True):
        chosen = (lengths > low) & (lengths <= high)
        if chosen.any():
            rows.append({"above": low, "to": high, "reviews": int(chosen.sum()), "error": float(wrong[chosen].mean())})
    return rows


def confident_errors(texts, wrong, lengths, stars, labels, probabilities):
    """Return the most confident errors of each label among short reviews, as a list of dicts.

    Args:
        texts: the reviews, a list of strings.
        wrong, lengths, stars, labels: (reviews,).
        probabilities: (reviews,), of a positive review.
    """
    examples = []
    confidence = np.abs(probabilities - 0.5)
    for label in (0, 1):
        candidates = np.flatnonzero(wrong & (lengths <= EXAMPLE_TOKENS) & (labels == label))
        order = np.argsort(-confidence[candidates], kind="stable")
        for i in candidates[order][:EXAMPLES]:
            examples.append({"text": shorten(texts[i]), "stars": int(stars[i]), "label": label,
                             "tokens": int(lengths[i]), "probability": float(probabilities[i])})
    return examples


def shorten(text):
    """Return the first words of a text without line breaks."""
    words = LINE_BREAK.sub(" ", text).split()
    if len(words) > EXAMPLE_WORDS:
        words = [*words[:EXAMPLE_WORDS], "…"]
    return " ".join(words)


def describe_attention(predictor, sentence):
    """Return the tokens of a sentence, the weights of the first block (T, T), and the probability of positive."""
    reviews = as_reviews([sentence])
    weights = attention_weights(predictor, reviews)
    words = [reviews.words[token] for token in reviews.tokens]
    return {"sentence": sentence,
            "words": words[:len(weights)],  # a network may read fewer tokens
            "weights": weights.astype(float).round(4).tolist(),
            "probability": predictor.logits(reviews)[0].sigmoid().item()}
