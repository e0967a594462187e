"""Calibrated probabilities: temperature scaling with a temperature that depends on the length of the text.

Networks are overconfident, and the amount depends on the number of tokens n. The logit is therefore multiplied by
16 ^ tanh(a + b log n + c (log n)²), which does not change the label (temperature scaling, Guo et al. 2017, "On
calibration of modern neural networks"). a, b and c minimise the loss on validation reviews and excerpts of them.
"""

import numpy as np
import torch
from torch.nn import functional as F

PENALTY = 1e-6  # on the scaled a, b and c; without it, they are unbounded if all reviews are classified correctly


def powers(lengths):
    """Return 1, log n and (log n)² for each number of tokens n: lengths (texts,) -> (texts, 3)."""
    log = torch.log(torch.as_tensor(np.maximum(lengths, 1), dtype=torch.float64))
    return torch.stack([torch.ones_like(log), log, log.square()], dim=1)


def sharpness(calibration, lengths):
    """Return the factors for the logits: calibration (a, b, c), lengths (texts,) -> (texts,)."""
    return 16 ** torch.tanh(powers(lengths) @ torch.as_tensor(calibration, dtype=torch.float64))


def fit(logits, lengths, labels):
    """Return a, b and c with the least binary cross-entropy: logits, lengths, labels (texts,) -> list of 3 floats."""
    scaled = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    scale = powers(lengths).amax(dim=0)  # without it, the first step would end where tanh is flat
    optimizer = torch.optim.LBFGS([scaled], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(sharpness(scaled / scale, lengths) * logits, labels.double())
        value = value + PENALTY * scaled.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return (scaled / scale).tolist()
