"""Find the number that an attention layer divides its scores by, if no formula of check/formulas.py fits."""

import math

import torch

from check.distance import measure
from check.hypotheses import Hypothesis
from check.mistakes import BY_CODE

GRID = torch.linspace(-1.5, 3, 91, dtype=torch.float64)  # logarithms to base 10 of the divisors to try
CLOSE = 1e-7  # relative difference of two numbers that count as equal


def fit_scale(hypotheses, cases):
    """Return a Hypothesis with the number, or None. The number may be a power of d.

    Args:
        hypotheses: those of an attention layer.
        cases: its cases, the main case first.
    """
    formulas = [one for one in hypotheses if not one.changes]
    cases = [case for case in cases if case.kind == "ordinary" and case.x.shape[1] > 1]
    if not cases or not formulas:
        return None
    _, best = fit([one.roles for one in formulas], cases[0], GRID)
    for number in best.topk(min(3, len(best)), largest=False).indices.tolist():
        roles = formulas[number].roles
        divisors = [refine(roles, case) for case in cases]
        scale, what = describe_divisors(divisors, [case.x.shape[2] for case in cases])
        if scale:
            mistake = BY_CODE["scaled-otherwise"]._replace(what=what)
            return Hypothesis([mistake, *roles.mistakes()], roles, {"scale": scale})
    return None


def fit(roles, case, logarithms):
    """Return, for each of n roles, the index of the logarithm that fits best, and its distance: both are (n,)."""
    group = {}
    for number, one in enumerate(roles):
        group.setdefault((one.layout, len(one.order)), []).append(number)
    index, best = torch.zeros(len(roles), dtype=torch.long), torch.full((len(roles),), math.inf, dtype=torch.float64)
    scale = (10 ** logarithms)[:, None, None, None, None]
    for numbers in group.values():
        some = [roles[number] for number in numbers]
        y = some[0].expected_of_group(some, [{"scale": scale}], case, {})  # (grid, n, B, T, d)
        distances = measure(case, y.flatten(0, 1)).reshape(len(logarithms), -1)
        found = distances.min(0)
        index[numbers], best[numbers] = found.indices, found.values
    return index, best


def refine(roles, case):
    """Return the divisor that fits best. It is searched on finer and finer grids."""
    low, high = GRID[0].item(), GRID[-1].item()
    for _ in range(11):
        grid = torch.linspace(low, high, 91, dtype=torch.float64)
        index, _ = fit([roles], case, grid)
        step = (grid[1] - grid[0]).item()
        centre = grid[index[0]].item()
        low, high = centre - 2 * step, centre + 2 * step
    return 10 ** centre


def describe_divisors(divisors, widths):
    """Return a function that maps d to the divisor, and a sentence on it, or (None, "").

    `divisors` are the divisors that fit for each d in `widths`.
    """
    if max(divisors) - min(divisors) < CLOSE * max(divisors):
        number = divisors[0]
        return (lambda d: number), f"the scores are divided by {number:.5g}, a number that does not depend on d"
    powers = [math.log(divisor) / math.log(d) for divisor, d in zip(divisors, widths, strict=True)]
    if max(powers) - min(powers) < CLOSE:
        power = powers[0]
        return (lambda d: d ** power), f"the scores are divided by d to the power of {power:.3g}"
    return None, ""
