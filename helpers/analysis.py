"""After training: write the network to `model.pt`, and its data, errors and attention to `analysis.json`.

The report reads `analysis.json`, so it can be built without the reviews.
"""

import json
import re
from pathlib import Path

import numpy as np

from helpers.data.archive import read_files
from helpers.data.text import LINE_BREAK
from helpers.evaluate import compute_test_metrics
from helpers.files import write_text
from helpers.inference.explain import attention_weights
from helpers.inference.predictor import as_reviews

SENTENCES = ["The plot is weak, yet the cast is superb.", "It was not bad at all."]
LENGTHS = [0, 100, 200, 300, 500, 10**6]  # tokens: the ranges for which errors are counted
EXAMPLES = 2  # confident errors that are shown for each label
EXAMPLE_TOKENS = 100  # longest review that is shown as an example
EXAMPLE_WORDS = 40  # words that are shown of an example


def store_model(predictor, data, source, logits, folder):
    """Calibrate a network, write `model.pt` and `analysis.json`, and return a dict of calibration and test metrics.

    Args:
        predictor: a `Predictor` with the trained network.
        data, source, logits: as in `analyse`.
        folder: folder of the run.
    """
    predictor.calibrate(data.valid_set.reviews)
    test_metrics = compute_test_metrics(predictor, data.test_set, logits)
    analysis = analyse(predictor, data, source, logits)
    write_text(folder / "analysis.json", json.dumps(analysis, indent=1, ensure_ascii=False) + "\n")
    predictor.save(folder / "model.pt")
    return {"calibration": predictor.calibration, "test": test_metrics}


def remove_model(folder):
    """Delete what `store_model` wrote in an earlier run of this name."""
    for name in ("model.pt", "analysis.json"):
        Path(folder, name).unlink(missing_ok=True)


def analyse(predictor, data, source, logits):
    """Return what the report shows about a network, apart from its metrics: a dict of JSON types.

    Args:
        predictor: the trained and calibrated `Predictor`. Its vocabulary still has GloVe's vectors.
        data: the `pipeline.ImdbData` of the run.
        source: the archive or the folder that the data were read from.
        logits: the network's own logits of the test reviews, (reviews,).
    """
    reviews = data.test_set.reviews
    probabilities = predictor.calibrated(logits, reviews).sigmoid().numpy()
    names, texts = read_test_reviews(source, len(reviews.labels))
    stars = np.array([int(re.search(r"_(\d+)\.txt$", name)[1]) for name in names])
    lengths = np.diff(reviews.starts)
    wrong = (logits.cpu().numpy() > 0) != (reviews.labels == 1)
    examples = confident_errors(texts, wrong, lengths, stars, reviews.labels, probabilities)
    return {
        "data": describe_data(data.train_set.reviews, data.valid_set.reviews, reviews, predictor.vocab),
        "error_by_stars": error_by_stars(wrong, stars),
        "error_by_length": error_by_length(wrong, lengths),
        "examples_of_at_most": EXAMPLE_TOKENS,
        "examples": examples,
        "attention": [describe_attention(predictor, sentence) for sentence in SENTENCES]}


def read_test_reviews(source, number):
    """Return the names and the texts of the `number` test reviews, sorted by name as `reviews.read_reviews` does.

    The loaded reviews hold neither ratings nor texts. Reading stops after the last test review, because in the IMDB
    archive, three quarters of the reviews come after it.
    """
    files = {}
    for name, content in read_files(source, {"test/neg", "test/pos"}):
        if name.startswith("test/") and "/urls_" not in name:
            files[name] = content.decode(errors="replace")
            if len(files) == number:
                break
    names = sorted(files)
    return names, [files[name] for name in names]


def describe_data(train, valid, test, vocab):
    """Return the sizes of the data: training, validation and test `reviews.Reviews`, and the vocabulary."""
    sizes = {"train": len(train.labels), "valid": len(valid.labels), "test": len(test.labels)}
    has_vector = (vocab.vectors != 0).any(dim=1)
    words = {"words": len(vocab), "in_glove": has_vector.double().mean().item()}
    not_test = np.concatenate([train.movies, valid.movies])
    movies = {"movies": len(np.unique(not_test)), "most_reviews_of_a_movie": int(np.bincount(not_test).max()),
              "movies_in_both": len(np.intersect1d(not_test, test.movies))}
    lengths = np.concatenate([np.diff(reviews.starts) for reviews in (train, valid, test)])
    tokens = {"median_tokens": int(np.median(lengths)), "p95_tokens": int(np.quantile(lengths, 0.95))}
    return sizes | words | movies | tokens


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
        probabilities: (reviews,), the probability that the review is positive.
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
    """Return the tokens of a sentence, the attention weights of the first block, and the probability: a dict."""
    reviews = as_reviews([sentence])
    weights = attention_weights(predictor, reviews)
    words = [reviews.words[token] for token in reviews.tokens]
    return {"sentence": sentence,
            "words": words[:len(weights)],  # a network may read fewer tokens
            "weights": weights.astype(float).round(4).tolist(),
            "probability": predictor.logits(reviews)[0].sigmoid().item()}
