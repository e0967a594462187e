"""The roles of the matrices in an attention layer: which one computes Q, K and V, and whether one is transposed."""

import itertools
import re
from typing import NamedTuple

import torch

from check.formulas import attention
from check.loops import attention_in_loops
from check.mistakes import BY_CODE


class AttentionRoles(NamedTuple):
    """An assignment of roles to the matrices of an attention layer."""

    layout: int  # index in `Case.tensors`
    order: tuple  # indices in the layout: the matrices of Q, K, V and, if there is one, the output; None: x itself
    transposed: tuple  # for each matrix in `order`, whether the layer multiplies by its transpose
    biased: bool  # whether the layer adds its biases
    names: tuple  # the names of all matrices

    def select(self, combinations):
        """Return the combinations of mistakes that make sense with these roles: all."""
        return combinations

    def group(self, changes):
        """Return a key. `expected_of_group` computes the roles and changes with one key together."""
        return self.layout, len(self.order), tuple(changes.items())

    def expected(self, changes, case):
        """Return the result (B, T, d) of the formula with some changes."""
        return self.expected_of_group([self], [changes], case, {})[0]

    @staticmethod
    def expected_of_group(group, changes, case, cache):
        """Return the results (n, B, T, d) of n roles with the same changes. `cache` is a dict that it fills."""
        projected = []
        for number in range(3):
            projected.append(torch.stack([roles.project(number, case, cache) for roles in group]))
        y = attention(case.x, *projected, **changes[0])
        if len(group[0].order) == 4:
            matrices = [roles.matrix(3, case) for roles in group]
            weight = torch.stack([weight for weight, _ in matrices])
            bias = torch.stack([bias for _, bias in matrices])
            y = y @ weight[:, None] + bias[:, None, None]
        return y

    def project(self, number, case, cache):
        """Return Q, K or V (B, T, d), by its number."""
        index = self.order[number]
        if index is None:
            return case.x
        key = self.layout, index, self.transposed[number], self.biased
        if key not in cache:
            weight, bias = self.matrix(number, case)
            cache[key] = case.x @ weight + bias
        return cache[key]

    def matrix(self, number, case):
        """Return the matrix (d, d) with a role, by its number, and its bias (d). Without biases, it is 0."""
        _, weight, bias = case.tensors[self.layout][self.order[number]]
        if bias is None or not self.biased:
            bias = torch.zeros(len(weight), dtype=torch.float64)
        return weight.T if self.transposed[number] else weight, bias

    def loops(self, case):
        """Return the right result by plain loops.

        The names say which matrix has which role. If they do not tell, `order` says it. A role without a matrix gets
        the identity. Biases are added if the layer adds them.
        """
        order = [*self.order[:3]]
        if named := order_by_name(self.names):
            order[:len(named)] = named
        matrices, biases = [], []
        for index, transposed in zip(order, self.transposed, strict=False):
            weight, bias = torch.eye(case.x.shape[2]), None
            if index is not None:
                _, weight, bias = case.tensors[self.layout][index]
            matrices.append((weight if transposed else weight.T).tolist())
            biases.append(bias.tolist() if self.biased and bias is not None else None)
        return [attention_in_loops(x, *matrices, [True] * len(x), biases) for x in case.x.tolist()]

    def mistakes(self):
        """Return the mistakes in the roles."""
        order, found = self.order[:3], []
        if self.biased:
            found.append(BY_CODE["biases"])
        if len(self.order) == 4:
            found.append(BY_CODE["output-projected"])
        if order[2] is None:
            found.append(BY_CODE["values-not-projected"])
        if None in order[:2]:
            found.append(BY_CODE["scores-not-projected"])
        used = [index for index in order if index is not None]
        named = order_by_name(self.names)
        if len(used) > len(set(used)):
            found.append(self.describe_reuse())
        elif named and None not in order[:2] and used != named[:len(used)]:
            swapped = [named[1], named[0], *named[2:]][:len(used)]
            found.append(BY_CODE["keys-as-queries" if used == swapped else "matrices-exchanged"])
        return found

    def describe_reuse(self):
        """Return the mistake that one matrix has two roles, with the letters of the roles and the matrix's name."""
        index = next(index for index in self.order[:3] if index is not None and self.order[:3].count(index) > 1)
        letters = [letter for letter, other in zip("QKV", self.order, strict=False) if other == index]
        text = " and ".join([", ".join(letters[:-1]), letters[-1]])
        name = self.names[index].removesuffix("[0]").removesuffix(".weight")
        return BY_CODE["matrix-reused"]._replace(what=f"{text} are computed with one matrix, {name}")


def list_attention_roles(main):
    """Yield each assignment of roles for the main case of a layer, and the most formula changes to combine it with."""
    for layout, projections in enumerate(main.tensors):
        n = len(projections)
        names = tuple(projection.name for projection in projections)
        has_biases = any(projection.bias is not None for projection in projections)
        for biased in [False, True] if has_biases else [False]:
            for order in list_orders(n):
                for flips in list_flips(n, order):
                    uniform = len(set(flips)) == 1  # all or none; other combinations are rare
                    simple = uniform and is_simple(order)
                    yield AttentionRoles(layout, order, flips, biased, names), 2 if simple else 1


def list_orders(n):
    """Return every `AttentionRoles.order` of n matrices. With four matrices, one may be that of the output."""
    orders = [order for order in itertools.product([*range(n), None], repeat=3) if n == 0 or set(order) != {None}]
    if n == 4:
        orders += itertools.permutations(range(n))
        orders += [(*order, 3) for order in itertools.product(range(3), repeat=3) if len(set(order)) < 3]
    return orders


def list_flips(n, order):
    """Return every `AttentionRoles.transposed`: all or none; any of up to three matrices if each has one role."""
    size = len(order)
    if n < 4 and is_simple(order):
        return list(itertools.product([True, False], repeat=size))
    return [(True,) * size, (False,) * size]


def is_simple(order):
    """Return whether each role has a matrix of its own; V may be x."""
    used = [index for index in order if index is not None]
    return len(set(used)) == len(used) and None not in order[:2]


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
