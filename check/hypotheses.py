"""Hypotheses on what a layer computes: the formula or known mistakes, and the role of each parameter.

Solutions name and store their parameters in many ways, so every assignment of roles is tried.
"""

import collections
import functools
from typing import NamedTuple

import torch

from check.attention_roles import list_attention_roles
from check.distance import measure
from check.mistakes import ATTENTION, combinations
from check.norm_roles import list_norm_roles


class Hypothesis(NamedTuple):
    """One explanation of a layer's results."""

    mistakes: list  # of Mistake; empty for the right layer
    roles: object  # AttentionRoles or NormRoles
    changes: dict  # arguments of the formula

    def expected(self, case):
        """Return the result (B, T, d) that the hypothesis predicts."""
        return self.roles.expected(self.changes, case)

    def loops(self, case):
        """Return the right result by plain loops, as nested lists."""
        return self.roles.loops(case)


def list_hypotheses(name, main, fewest, most):
    """Return the hypotheses on a class with `fewest` to `most` changes of the formula, given its main case.

    The hypotheses with the fewest mistakes come first.
    """
    list_roles = list_attention_roles if name == ATTENTION else list_norm_roles
    hypotheses = []
    for roles, limit in list_roles(main):
        own = roles.mistakes()
        possible = select_combinations(name, fewest, min(most, limit), main.x.shape[2])
        for mistakes, changes in roles.select(possible):
            hypotheses.append(Hypothesis(mistakes + own, roles, changes))
    return sorted(hypotheses, key=lambda hypothesis: len(hypothesis.mistakes))


@functools.cache
def select_combinations(name, fewest, most, d):
    """Return the combinations of `fewest` to `most` mistakes in which the number of heads, if any, divides d."""
    return [(mistakes, changes) for mistakes, changes in combinations(name, most)
            if len(mistakes) >= fewest and d % changes.get("heads", 1) == 0]


def measure_all(hypotheses, case):
    """Return the distance of each hypothesis to the results of a case. Those of a `group` are computed together."""
    groups = collections.defaultdict(list)
    for number, hypothesis in enumerate(hypotheses):
        groups[hypothesis.roles.group(hypothesis.changes)].append(number)
    distances = [0.0] * len(hypotheses)
    cache = {}
    for numbers in groups.values():
        group = [hypotheses[number] for number in numbers]
        roles, changes = [one.roles for one in group], [one.changes for one in group]
        try:
            expected = roles[0].expected_of_group(roles, changes, case, cache)
        except RuntimeError:  # parameters of this shape do not fit
            expected = torch.full((len(group), *case.y.shape), torch.nan, dtype=torch.float64)
        for number, distance in zip(numbers, measure(case, expected).tolist(), strict=True):
            distances[number] = distance
    return distances
