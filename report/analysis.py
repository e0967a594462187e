"""What the network of a run does on the test reviews: its errors, and what its attention reads in a sentence."""

import json

import numpy as np
import torch

from helpers.files import file_digest, reading, write_text
from helpers.imdb import ARCHIVE, SAMPLE, find_source, load_reviews, make_reviews, select
from helpers.predictor import Predictor
from helpers.text import tokenize
from predict.explain import attention_weights

SENTENCE = "This is not a bad film, and the acting is superb."
LENGTHS = np.array([100, 200, 400, 800])  # tokens: the longest review of each group but the last
LONGEST_EXAMPLE = 80  # tokens
EXAMPLES = 2  # of each label


def read_json(path):
    """Return what a JSON file of a run holds."""
    with reading(path, "run the command that writes it again."):
        return json.loads(path.read_text(encoding="utf-8"))


def update_analysis(folder, data, data_dir, cache_dir):
    """Write `analysis.json` to the folder of a run if it is missing or belongs to another `model.pt`.

    Without `model.pt`, nothing is written. `data` is "IMDB" or "SAMPLE".

    Raises:
        FileNotFoundError: neither `data_dir` nor `cache_dir` has the reviews. They are not downloaded.
    """
    path, model = folder / "analysis.json", folder / "model.pt"
    if not model.exists():
        return
    digest = file_digest(model)
    if path.exists() and read_json(path)["model_sha256"] == digest:
        return
    path.unlink(missing_ok=True)
    predictor = Predictor.load(model)
    source = SAMPLE if data == "SAMPLE" else local_source(data_dir)
    reviews = load_reviews(source, cache_dir, predictor.pipeline.parts)
    analysis = {"model_sha256": digest, **analyse(predictor, select(reviews, reviews.test))}
    write_text(path, json.dumps(analysis, indent=1, ensure_ascii=False) + "\n")


def local_source(data_dir):
    """Return the archive or the extracted folder at `data_dir`, as `find_source` does, but without a download.

    If there is neither, the path does not exist. Cached reviews can be loaded nevertheless.
    """
    parts = ("train", "aclImdb/train", ARCHIVE)
    is_there = data_dir.is_file() or any((data_dir / part).exists() for part in parts)
    return find_source(data_dir) if is_there else data_dir / ARCHIVE


def analyse(predictor, reviews):
    """Return what the report shows of the labelled `Reviews`: the content of `analysis.json` without the digest."""
    logits = predictor.logits(reviews).numpy()
    is_wrong = (logits > 0) != reviews.labels
    return {"by_stars": errors_by_stars(reviews.stars, is_wrong),
            "by_length": errors_by_length(np.diff(reviews.starts), is_wrong),
            "longest_example": LONGEST_EXAMPLE,
            "examples": confident_errors(reviews, logits, is_wrong),
            "attention": attention(predictor, SENTENCE)}


def errors_by_stars(stars, is_wrong):
    """Return a row of the table for each number of stars: stars, is_wrong (reviews,) -> list of dicts."""
    return [error_row(str(number), is_wrong[stars == number]) for number in np.unique(stars)]


def errors_by_length(lengths, is_wrong):
    """Return a row of the table for each group of LENGTHS: lengths, is_wrong (reviews,) -> list of dicts."""
    groups = np.searchsorted(LENGTHS, lengths)
    names = [f"{first + 1}–{last}" for first, last in zip([0, *LENGTHS[:-1]], LENGTHS, strict=True)]
    names.append(f"over {LENGTHS[-1]}")
    return [error_row(name, is_wrong[groups == i]) for i, name in enumerate(names) if (groups == i).any()]


def error_row(group, is_wrong):
    """Return a row of a table: the name of a group of reviews, their number, and the share that is wrong."""
    return {"group": group, "reviews": len(is_wrong), "errors": is_wrong.mean()}


def confident_errors(reviews, logits, is_wrong):
    """Return short reviews on which the network is most sure and wrong, a list of dicts.

    Args:
        reviews: labelled `Reviews`.
        logits, is_wrong: (reviews,).
    """
    is_short = np.diff(reviews.starts) <= LONGEST_EXAMPLE
    examples = []
    for label in (0, 1):
        candidates = np.flatnonzero(is_wrong & is_short & (reviews.labels == label))
        surest = np.argsort(-np.abs(logits[candidates]), kind="stable")[:EXAMPLES]
        for i in candidates[surest]:
            tokens = reviews.tokens[reviews.starts[i]:reviews.starts[i + 1]]
            text = " ".join(reviews.words[token] for token in tokens)
            examples.append({"text": text, "stars": int(reviews.stars[i]), "probability": probability(logits[i])})
    return examples


def probability(logit):
    """Return the probability that a logit stands for."""
    return torch.as_tensor(logit).sigmoid().item()


def attention(predictor, sentence):
    """Return what the first block reads in a sentence, or None if `models.py` has no `blocks[0].attention.weights`.

    Returns:
        a dict: "tokens" (T strings), "weights" (T lists of T floats: row i is what token i reads), "probability".
    """
    reviews = make_reviews(*tokenize([sentence]))
    weights = attention_weights(predictor, reviews, len(reviews.tokens))
    if weights is None:
        return None
    return {"tokens": [reviews.words[token] for token in reviews.tokens], "weights": weights.tolist(),
            "probability": probability(predictor.logits(reviews)[0])}
