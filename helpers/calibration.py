"""Probabilities that are true: of the texts to which a network gives 80 %, it is right about eight in ten.

A network that sums the evidence of hundreds of words is too sure of it, and how much so depends on how many there are.
Its logit is therefore multiplied by a number that depends on the number of tokens n (temperature scaling, Guo et al.
2017, "On calibration of modern neural networks", with a curve for the temperature):

    sharpness(n) = 16 ^ tanh(a + b log n + c (log n)²)

so from 1/16 to 16, however far n is from what was seen. The label stays as it is. a, b and c are those with the
least loss on parts of the validation reviews.
"""

import numpy as np
import torch
from torch.nn import functional as F

from helpers.reviews import cut_spans

LENGTHS = (5, 10, 20, 50)  # tokens of the parts with which certainty is measured, beside whole reviews

PENALTY = 1e-6  # of a, b and c: a few reviews that are all judged right would make them infinite


def powers(lengths):
    """Return 1, log n and (log n)² for each number of tokens, (texts, 3)."""
    log = torch.log(torch.as_tensor(np.maximum(lengths, 1), dtype=torch.float64))
    return torch.stack([torch.ones_like(log), log, log.square()], dim=1)


def sharpness(calibration, lengths):
    """Return what the logits of texts of so many tokens are multiplied by: calibration (3,), lengths (texts)."""
    return 16 ** torch.tanh(powers(lengths) @ torch.as_tensor(calibration, dtype=torch.float64))


def fit(logits, lengths, labels):
    """Return a, b and c for the least binary cross-entropy; logits, lengths, labels: (texts)."""
    scaled = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    scale = powers(lengths).amax(dim=0)  # a first step of the same size in all three would leap to where tanh is flat
    optimizer = torch.optim.LBFGS([scaled], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(sharpness(scaled / scale, lengths) * logits, labels.double())
        value = value + PENALTY * scaled.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return (scaled / scale).tolist()


def reliability(logits, labels, bins=20):
    """Return the reliability diagram, (bins, 3): texts in each range of probability, sum of what is claimed, and right.

    A point of the diagram is the second and the third, divided by the first.
    """
    claimed = torch.sigmoid(logits.abs())
    right = ((logits > 0) == (labels > 0.5)).float()
    number = ((claimed - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    return torch.zeros(bins, 3).index_add(0, number, torch.stack([torch.ones_like(claimed), claimed, right], dim=1))


def calibration_error(logits, labels):
    """Return the expected calibration error over 20 ranges: the mean difference of share right and what is claimed."""
    _, claimed, right = reliability(logits, labels).T
    return (right - claimed).abs().sum().item() / len(logits)


def parts_of(reviews, seed=0):
    """Return parts of reviews, cut at random: a dict from the number of tokens, or "all", to `reviews.Reviews`."""
    chance = np.random.default_rng(seed)
    parts = {str(length): cut_spans(reviews, length, chance) for length in LENGTHS} | {"all": reviews}
    return {length: part for length, part in parts.items() if len(part.labels)}
