"""The roles of the parameters in a layer norm: which one is γ and which one is β."""

import itertools
import math
from typing import NamedTuple

import torch

from check.cases import Case
from check.formulas import normalise, scale_and_shift
from check.loops import norm_in_loops
from check.mistakes import BY_CODE

DEFAULT = "γ x̂ + β"


class NormRoles(NamedTuple):
    """The main case of a layer norm, and the indices of γ and β in its tensors."""

    main: Case
    gamma: int | None  # None: the layer has no γ, and 1 takes its place
    beta: int | None  # None: the layer has no β, and 0 takes its place

    def select(self, combinations):
        """Return the combinations whose formula uses only parameters that exist."""
        missing = {letter for letter, index in (("γ", self.gamma), ("β", self.beta)) if index is None}
        return [(mistakes, changes) for mistakes, changes in combinations
                if not missing & {*changes.get("affine", DEFAULT)}]

    def group(self, changes):
        """Return a key. `expected_of_group` computes the roles and changes with one key together."""
        return self.gamma, self.beta, changes.get("affine", DEFAULT)

    def expected(self, changes, case):
        """Return the result (B, T, d) of the formula with some changes."""
        return self.expected_of_group([self], [changes], case, {})[0]

    @staticmethod
    def expected_of_group(group, changes, case, cache):
        """Return the results (n, B, T, d) of the same roles with n changes. `cache` is a dict that it fills."""
        normalised = []
        for one in changes:
            rest = {key: value for key, value in one.items() if key != "affine"}
            key = tuple(rest.items())
            if key not in cache:
                cache[key] = normalise(case.x, **rest)
            normalised.append(cache[key])
        roles = group[0]
        gamma, beta = roles.fit(case, roles.gamma, 1), roles.fit(case, roles.beta, 0)
        y = scale_and_shift(torch.stack(normalised), gamma, beta, changes[0].get("affine", DEFAULT))
        return y.expand(-1, *case.x.shape)

    def fit(self, case, index, default):
        """Return a parameter in a shape that broadcasts over x; a default number if the index is None."""
        if index is None:
            return torch.tensor(default, dtype=torch.float64)
        T, d = case.x.shape[1:]
        tensor = case.tensors[index].tensor.data.double()
        if self.main.tensors[index].tensor.shape == self.main.x.shape[1:2]:  # (T); in the main case, T and d differ
            return tensor[:, None]
        if tensor.dim() != 2 and tensor.numel() == T * d:  # (T d) or (1, T, d)
            return tensor.reshape(T, d)
        if tensor.numel() == math.prod(tensor.shape[-2:]):  # (1, 1, d)
            return tensor.reshape(tensor.shape[-2:])
        return tensor

    def loops(self, case):
        """Return the right result by plain loops.

        If only one parameter starts at 1, it is γ. If only one starts at 0, it is β.
        """
        gamma, beta = self.gamma, self.beta
        if self.is_only(beta, 1) or self.is_only(gamma, 0):
            gamma, beta = beta, gamma
        affine = []
        for index, default in ((gamma, 1), (beta, 0)):
            try:
                affine.append(self.fit(case, index, default).expand(case.x.shape[1:]).tolist())
            except RuntimeError:  # a shape that does not fit
                affine.append(torch.full(case.x.shape[1:], default).tolist())
        return [norm_in_loops(x, *affine, [True] * len(x)) for x in case.x.tolist()]

    def is_only(self, index, start):
        """Return whether only the parameter with this index starts at this number."""
        starts = [affine.start for affine in self.main.tensors]
        return index is not None and starts[index] == start and starts.count(start) == 1

    def mistakes(self):
        """Return the mistakes in the roles: another shape than (T, d), swapped γ and β, or wrong starts."""
        T, d = self.main.x.shape[1:]
        tensors = self.main.tensors
        used = [tensors[index].tensor for index in (self.gamma, self.beta) if index is not None]
        gamma_start = None if self.gamma is None else tensors[self.gamma].start
        beta_start = None if self.beta is None else tensors[self.beta].start
        found = []
        if any(tensor.shape not in ((T, d), (1, T, d), (T * d,)) for tensor in used):
            found.append(BY_CODE["affine-shape"])
        if (gamma_start, beta_start) == (0, 1):
            found.append(BY_CODE["affine-swapped"])
        elif gamma_start == 0 or beta_start == 1:
            what = describe_starts(gamma_start, beta_start)
            found.append(BY_CODE["affine-start"]._replace(what=what))
        return found


def describe_starts(gamma_start, beta_start):
    """Return a sentence on the numbers at which γ and β start."""
    parts = []
    if gamma_start == 0:
        parts.append("γ starts at 0 instead of 1")
    if beta_start == 1:
        parts.append("β starts at 1 instead of 0")
    return " and ".join(parts)


def list_norm_roles(main):
    """Yield each assignment of roles for the main case of a layer, and the most formula changes to combine it with."""
    indices = list(range(len(main.tensors)))
    indices += [None] * (2 - len(indices))
    for gamma, beta in itertools.permutations(indices, 2):
        yield NormRoles(main, gamma, beta), 4
