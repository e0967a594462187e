"""What the figures of a run say: the report chooses its sentences by these findings."""

import re
from collections import Counter

import numpy as np

CLEAR, MIXED = (1, 10), (4, 7)  # stars of the clearest and of the most mixed reviews of IMDB
DIFFERENT = 1.2  # the report calls an error rate higher if it is more than this many times the other
SIMILAR = 0.15  # rows of attention weights count as similar if their median distance from their mean is smaller
LEVEL = 0.01  # share by which the last validation loss may exceed the lowest and still be "level"
FILM_WORDS = re.compile(r"\b(film|movie|show|director|actor|actress|episode|cinema)s?\b", re.IGNORECASE)


def mean_and_sd(values):
    """Return mean and standard deviation of a sample; of a single value, the deviation is None."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def curve_findings(epochs):
    """Return the course of the losses. `epochs` is a list of {"train_loss", "valid_loss"}.

    "trend" is "single" (one epoch), "fall" (both losses fall in every epoch), "level" (the validation loss is lowest
    before the last epoch, but only by a share of LEVEL), "turn" (lowest before the last epoch) or "uneven".
    """
    train = [epoch["train_loss"] for epoch in epochs]
    valid = [epoch["valid_loss"] for epoch in epochs]
    best = int(np.argmin(valid)) + 1
    train_falls, valid_falls = bool((np.diff(train) < 0).all()), bool((np.diff(valid) < 0).all())
    if len(epochs) == 1:
        trend = "single"
    elif best < len(epochs):
        trend = "level" if valid[-1] <= (1 + LEVEL) * min(valid) else "turn"
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
    by_stars, lengths = analysis["error_by_stars"], [row["error"] for row in analysis["error_by_length"]]
    found = {"stars": None, "length": None}
    clear, mixed = mean_error(by_stars, CLEAR), mean_error(by_stars, MIXED)
    if clear is not None and mixed is not None:
        found["stars"] = {"clear": clear, "mixed": mixed, "mixed_is": compare_errors(clear, mixed)}
    if len(lengths) > 1:
        shortest, longest = lengths[0], lengths[-1]
        found["length"] = {"shortest": shortest, "longest": longest, "longest_is": compare_errors(shortest, longest)}
    return found


def mean_error(rows, stars):
    """Return the error rate of the reviews with given stars, or None if no review has them."""
    chosen = [row for row in rows if row["stars"] in stars]
    reviews = sum(row["reviews"] for row in chosen)
    return sum(row["reviews"] * row["error"] for row in chosen) / reviews if reviews else None


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
    words = [re.findall(r"[\w'’]+", one["sentence"].lower()) for one in sentences]
    lengths = [len(of_sentence) for of_sentence in words]
    found = {"sentences": len(sentences), "cut": len([one for one in sentences if one["cut"]])}
    found |= {"words": sum(lengths), "mean_length": sum(lengths) / len(sentences), "longest": max(lengths)}
    found["distinct_words"] = len(set().union(*words))

    prefixes = Counter(one["prefix"] for one in sentences)
    endings, of_films = Counter(), Counter()  # of_films: sentences of each prefix that turn to films
    for one in sentences:
        ending = one["sentence"][len(one["prefix"]):]
        endings[ending] += 1
        of_films[one["prefix"]] += bool(FILM_WORDS.search(ending))
    found["repeated"] = sum(number for number in endings.values() if number > 1)
    film_prefixes = [prefix for prefix, number in prefixes.items() if of_films[prefix] > number / 2]
    return found | {"prefixes": len(prefixes), "film_prefixes": len(film_prefixes)}
