"""What the figures of a run say: the report chooses its sentences by these findings."""

import re
from collections import Counter

import numpy as np

CLEAR, MIXED = (1, 10), (4, 7)  # stars of the clearest and of the most mixed reviews of IMDB
DIFFERENT = 1.2  # a ratio of error rates from which the report calls one higher
SIMILAR = 0.15  # median distance of the rows of attention weights from their mean, below which they count as similar
FILM_WORDS = re.compile(r"\b(film|movie|show|director|actor|actress|episode|cinema)s?\b", re.IGNORECASE)


def mean_and_sd(values):
    """Return mean and standard deviation of a sample; of a single value, the deviation is None."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def curve_findings(epochs):
    """Return the course of the losses. `epochs` is a list of {"train_loss", "valid_loss"}.

    "trend" is "single" (one epoch), "fall" (both losses fall in every epoch), "turn" (the validation loss is lowest
    before the last epoch) or "uneven".
    """
    train = [epoch["train_loss"] for epoch in epochs]
    valid = [epoch["valid_loss"] for epoch in epochs]
    best = int(np.argmin(valid)) + 1
    train_falls, valid_falls = bool((np.diff(train) < 0).all()), bool((np.diff(valid) < 0).all())
    if len(epochs) == 1:
        trend = "single"
    elif best < len(epochs):
        trend = "turn"
    else:
        trend = "fall" if train_falls and valid_falls else "uneven"
    lower = [v < t for t, v in zip(train, valid, strict=True)]
    return {"trend": trend, "best": best, "train_falls": train_falls, "lowest": min(valid), "last": valid[-1],
            "gap": valid[-1] - train[-1], "valid_lower_at_first": lower[0], "valid_lower_throughout": all(lower)}


def compare_errors(first, second):
    """Return whether the error rate `second` is "higher" or "lower" than `first`, or "similar"."""
    if second > DIFFERENT * first:
        return "higher"
    return "lower" if first > DIFFERENT * second else "similar"


def error_findings(analysis):
    """Return how errors depend on stars and on length; None where one kind of review is missing."""
    rates = []
    for stars in (CLEAR, MIXED):
        rows = [row for row in analysis["error_by_stars"] if row["stars"] in stars]
        reviews = sum(row["reviews"] for row in rows)
        rates.append(sum(row["reviews"] * row["error"] for row in rows) / reviews if reviews else None)
    lengths = [row["error"] for row in analysis["error_by_length"]]
    return {
        "stars": None if None in rates else {"clear": rates[0], "mixed": rates[1], "mixed_is": compare_errors(*rates)},
        "length": None if len(lengths) < 2 else {
            "shortest": lengths[0], "longest": lengths[-1], "longest_is": compare_errors(lengths[0], lengths[-1])}}


def attention_findings(attention):
    """Return the two tokens of a sentence that are read most, and whether most tokens read the same ones."""
    weights = np.array(attention["weights"])
    shares = weights.mean(axis=0)
    order = np.argsort(-shares)[:2]
    distances = np.abs(weights - shares).sum(axis=1) / 2  # total variation between each row and the mean, from 0 to 1
    return {"most_read": [{"word": attention["words"][i], "share": float(shares[i])} for i in order],
            "same_rows": bool(np.median(distances) < SIMILAR)}


def reading(sentences):
    """Return figures of the sentences of `gpt2_sentences.json`, a list of {"prefix", "sentence", "cut"}."""
    words, endings, of_films = [], [], Counter()
    for one in sentences:
        words.append(re.findall(r"[\w'’]+", one["sentence"].lower()))
        ending = one["sentence"][len(one["prefix"]):]
        endings.append(ending)
        of_films[one["prefix"]] += bool(FILM_WORDS.search(ending))
    count = Counter(endings)
    repeated = sum(number for number in count.values() if number > 1)
    prefixes = Counter(one["prefix"] for one in sentences)
    film_prefixes = [prefix for prefix in prefixes if of_films[prefix] > prefixes[prefix] / 2]
    total = sum(map(len, words))
    return {"sentences": len(sentences), "repeated": repeated, "cut": sum(one["cut"] for one in sentences),
            "mean_length": total / len(sentences), "longest": max(map(len, words)),
            "distinct_words": len({word for sentence in words for word in sentence}), "words": total,
            "prefixes": len(prefixes), "film_prefixes": len(film_prefixes), "of_films": sum(of_films.values())}
