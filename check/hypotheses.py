"""Hypotheses on what a layer computes: the formula or a known mistake, and the role of each parameter.

Solutions name and store their parameters in many ways, so every assignment of roles is tried.
"""

import itertools
import math
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from check.cases import Case
from check.formulas import attention, norm
from check.loops import attention_in_loops, norm_in_loops
from check.mistakes import ATTENTION, BY_CODE, NORM, combinations


class Hypothesis(NamedTuple):
    """One explanation of a layer's results."""

    mistakes: list  # of Mistake; empty for the right layer
    expected: Callable  # Case -> the result (B, T, d) that the hypothesis predicts
    loops: Callable  # Case -> the right result by plain loops, as nested lists


class AttentionRoles(NamedTuple):
    """An assignment of roles to the matrices of an attention layer."""

    layout: int  # index in `Case.tensors`
    order: tuple  # indices of W_q, W_k, W_v and the output's matrix in the layout, as many as there are
    transposed: tuple  # for each of them, whether the layer multiplies by its transpose
    biased: bool  # whether the layer adds its biases

    def matrices(self, case):
        """Return the matrices (d, d) with their biases (d), or 0, in the order of their roles."""
        found = []
        for index, transposed in zip(self.order, self.transposed, strict=False):
            _, weight, bias = case.tensors[self.layout][index]
            found.append((weight.T if transposed else weight, bias if self.biased and bias is not None else 0))
        return found

    def expected(self, changes, case):
        """Return the result (B, T, d) of the formula with some changes."""
        matrices = self.matrices(case)
        projected = [case.x @ weight + bias for weight, bias in matrices[:3]]
        y = attention(case.x, *projected, **changes)
        for weight, bias in matrices[3:]:
            y = y @ weight + bias
        return y

    def loops(self, case):
        """Return the right result. Without W_v, V is x."""
        matrices = [weight.T.tolist() for weight, _ in self.matrices(case)[:3]]
        if len(matrices) == 2:
            matrices.append(torch.eye(case.x.shape[2]).tolist())
        return [attention_in_loops(x, *matrices, [True] * len(x)) for x in case.x.tolist()]

    def mistakes(self, named):
        """Return the mistakes in the roles; `named` is the order by the names of the matrices, or None."""
        codes = []
        if self.biased:
            codes.append("biases")
        if len(self.order) == 4:
            codes.append("output-projected")
        order = list(self.order[:3])
        if named and order != named:
            swapped = [named[1], named[0], *named[2:]]
            codes.append("keys-as-queries" if order == swapped else "matrices-exchanged")
        return [BY_CODE[code] for code in codes]


def attention_hypotheses(main):
    """Yield the hypotheses on an attention layer, given its main case."""
    for layout, projections in enumerate(main.tensors):
        named = order_by_name([projection.name for projection in projections])
        for roles in attention_roles(layout, projections):
            own = roles.mistakes(named)
            uniform = len(set(roles.transposed)) == 1  # all or none; other combinations are rare
            for mistakes, changes in combinations(ATTENTION, 2 if uniform else 1):
                if len(projections) > 2 or changes.get("values") == "x":
                    yield Hypothesis(mistakes + own, partial(roles.expected, changes), roles.loops)


def attention_roles(layout, projections):
    """Yield every assignment of roles. Of four matrices, all or none are transposed, and the fourth may be unused."""
    n = len(projections)
    transposed = itertools.product([True, False], repeat=n) if n < 4 else [(True,) * n, (False,) * n]
    orders = list(itertools.permutations(range(n), min(n, 3)))
    if n == 4:
        orders += itertools.permutations(range(n))
    has_biases = any(projection.bias is not None for projection in projections)
    for flips, order, biased in itertools.product(transposed, orders, [False, True] if has_biases else [False]):
        yield AttentionRoles(layout, order, flips, biased)


def order_by_name(names):
    """Return the indices of W_q, W_k and W_v, or of two of them, or None if the names do not tell."""
    letters = [letter_of(name) for name in names]
    order = [letters.index(letter) for letter in "qkv" if letters.count(letter) == 1]
    return order if len(order) == min(3, len(names)) else None


def letter_of(name):
    """Return "q", "k" or "v" for the name of a matrix such as "to_q.weight[0]", or None."""
    path, number = re.fullmatch(r"(.*?)[._]?(?:weight)?\[(\d)\]", name.lower()).groups()
    if "qkv" in path:
        return "qkv"[int(number)]
    hits = []
    for letter, word in (("q", "quer"), ("k", "key"), ("v", "val")):
        if word in path or re.search(rf"(^|[^a-z]){letter}|{letter}($|[^a-z])", path):
            hits.append(letter)
    return hits[0] if len(hits) == 1 else None


class NormRoles(NamedTuple):
    """The main case of a layer norm, and the indices of γ and β in its tensors. None means 1 or 0 instead."""

    main: Case
    gamma: int | None
    beta: int | None

    def expected(self, changes, case):
        """Return the result (B, T, d) of the formula with some changes."""
        return norm(case.x, self.fit(case, self.gamma, 1), self.fit(case, self.beta, 0), **changes)

    def fit(self, case, index, default):
        """Return a parameter in a shape that broadcasts over x; a default number if the index is None."""
        if index is None:
            return torch.tensor(default, dtype=torch.float64)
        T, d = case.x.shape[1:]
        tensor = case.tensors[index].tensor.data.double()
        if self.main.tensors[index].tensor.shape == self.main.x.shape[1:2]:  # (T), by the case where T and d differ
            return tensor[:, None]
        if tensor.dim() != 2 and tensor.numel() == T * d:  # (T d) or (1, T, d)
            return tensor.reshape(T, d)
        if tensor.numel() == math.prod(tensor.shape[-2:]):  # (1, 1, d)
            return tensor.reshape(tensor.shape[-2:])
        return tensor

    def loops(self, case):
        """Return the right result: γ starts at 1 and β at 0."""
        starts = [start for _, start in self.main.tensors]
        affine = []
        for index, default in ((self.gamma, 1), (self.beta, 0)):
            index = starts.index(default) if default in starts else index
            try:
                affine.append(self.fit(case, index, default).expand(case.x.shape[1:]).tolist())
            except RuntimeError:  # a shape that does not fit
                affine.append(torch.full(case.x.shape[1:], default).tolist())
        return [norm_in_loops(x, *affine, [True] * len(x)) for x in case.x.tolist()]

    def mistakes(self):
        """Return the mistakes in the roles: a shape other than (T, d), or γ and β that are swapped."""
        T, d = self.main.x.shape[1:]
        used = [self.main.tensors[index] for index in (self.gamma, self.beta) if index is not None]
        codes = []
        if any(tensor.shape not in ((T, d), (1, T, d), (T * d,)) for tensor, _ in used):
            codes.append("affine-shape")
        if [start for _, start in used] == [0, 1]:
            codes.append("affine-swapped")
        return [BY_CODE[code] for code in codes]


def norm_hypotheses(main):
    """Yield the hypotheses on a layer norm, given its main case."""
    indices = list(range(len(main.tensors)))
    indices += [None] * (2 - len(indices))
    for gamma, beta in itertools.permutations(indices, 2):
        roles = NormRoles(main, gamma, beta)
        own = roles.mistakes()
        for mistakes, changes in combinations(NORM, 4):
            affine = changes.get("affine", "γβ")
            missing = ("γ" in affine and gamma is None) or ("β" in affine and beta is None)
            if not missing:
                yield Hypothesis(mistakes + own, partial(roles.expected, changes), roles.loops)


HYPOTHESES = {ATTENTION: attention_hypotheses, NORM: norm_hypotheses}
