"""How far the results of a layer are from those that a hypothesis predicts."""

import math

import torch

EXACT, FLOAT32 = 1e-9, 1e-4  # tolerances for rounding errors, relative to the largest number in a result


def distance(case, function, least=0.0):
    """Return the distance of a case from a function's result, as in `measure`; infinity if the size is different."""
    try:
        expected = torch.as_tensor(function(case), dtype=torch.float64).expand_as(case.y)
    except (RuntimeError, TypeError):
        return math.inf
    return measure(case, expected[None], least).item()


def measure(case, expected, least=0.0):
    """Return the largest difference of a case from each expected result.

    The differences are relative to the largest number in a result, or to `least`. NaN equals NaN. For large inputs,
    numbers that overflow are ignored.

    Args:
        case: its y is (B, T, d).
        expected: (n, B, T, d).
        least: the smallest number by which a difference is divided.
    Returns:
        n distances. Infinity means that a result is finite where the other is not.
    """
    known, finite = expected.isfinite(), case.y.isfinite()
    different = torch.zeros(len(expected), dtype=torch.bool)
    if case.kind == "large":
        known = known & finite
    else:
        different = (known != finite).flatten(1).any(1)
    numbers = torch.where(known, expected, 0)
    differences = torch.where(known, expected - case.y, 0).abs().flatten(1).amax(1)
    largest = numbers.abs().flatten(1).amax(1).clamp(min=least)
    distances = differences / torch.where(largest > 0, largest, 1)
    return torch.where(different, math.inf, distances)
