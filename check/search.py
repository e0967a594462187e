"""Find what explains the results of a layer: known mistakes, and the roles of its parts. All roles are tried."""

import itertools
import math
import re
from typing import NamedTuple

import torch

from check import formulas
from check.loops import attention_in_loops, norm_in_loops
from check.mistakes import ATTENTION, BY_CODE, combinations

EXACT, FLOAT32 = 1e-9, 1e-4  # tolerances for rounding errors, relative to the largest number in a result


class Found(NamedTuple):
    mistakes: list  # of Mistake
    changes: dict  # arguments of the formula
    roles: list  # the places in Case.parts of Q, K, V and the output, or of γ and β
    biased: bool  # whether biases are added

    def expected(self, case):
        """Return the result that this explanation predicts: (1, B, T, d)."""
        return compute(case, self.changes, torch.tensor([self.roles]), self.biased)

    def distance(self, case, least=0.0):
        """Return the distance of a case from what is predicted, as in `measure`."""
        try:
            return measure(case, self.expected(case), least).item()
        except RuntimeError:  # sizes that do not fit
            return math.inf

    def explains(self, cases, tolerance):
        return all(self.distance(case) <= tolerance for case in cases)

    def codes(self):
        """Return the codes of the mistakes, without biases."""
        return tuple(mistake.code for mistake in self.mistakes if mistake.code != "biases")


def search(name, cases, tolerances):
    """Return the Found with the fewest mistakes that explains all cases, or None; its tolerance; or else the nearest.

    The cases are those with a result, the main case first. The tolerances are in increasing order.
    """
    simple = None
    for fewest, most in [(0, 1), (2, 2)] if name == ATTENTION else [(0, 1), (2, 2), (3, 4)]:
        candidates = list_candidates(name, cases[0], fewest, most, tolerances[-1])
        simple = simple or candidates
        for tolerance in tolerances:
            for distance, found in candidates:
                if distance <= tolerance and found.explains(cases, tolerance):
                    return found, tolerance, (None, None)
    for found in find_scales(cases) if name == ATTENTION else []:
        if found.explains(cases, max(10 * EXACT, tolerances[-1])):
            return found, tolerances[-1], (None, None)
    return None, tolerances[-1], find_nearest(simple, cases)


def list_candidates(name, main, fewest, most, tolerance):
    """Return pairs (distance from the main case, Found) within the tolerance or, for single changes, near it."""
    roles = list_roles(main.parts, name, is_simple=most > 1)
    candidates = []
    for mistakes, changes in combinations(name, fewest, most, main.x.shape[2]):
        for biased in list_biased(main.parts):
            try:
                distances = measure(main, compute(main, changes, roles, biased))
            except (RuntimeError, IndexError):  # sizes that do not fit
                continue
            near = distances.topk(min(3, len(distances)), largest=False).indices.tolist() if most == 1 else []
            for i in dict.fromkeys([*(distances <= tolerance).nonzero().flatten().tolist(), *near]):
                own = roles[i].tolist()
                found = Found([*mistakes, *name_roles(main, own, biased)], changes, own, biased)
                candidates.append((distances[i].item(), found))
    return sorted(candidates, key=lambda pair: len(pair[1].mistakes))


def measure(case, expected, least=0.0):
    """Return the largest difference of a case from each expected result: (n, B, T, d) -> (n).

    The differences are relative to the largest number in a result, or to `least`. NaN equals NaN. For large inputs,
    numbers that overflow are ignored.
    """
    known, finite = expected.isfinite(), case.y.isfinite()
    is_different = (known != finite).flatten(1).any(1) & (case.kind != "large")
    known = known & finite if case.kind == "large" else known
    worst = torch.where(known, expected - case.y, 0).abs().flatten(1).amax(1)
    largest = torch.where(known, expected, 0).abs().flatten(1).amax(1).clamp(min=least)
    return torch.where(is_different, math.inf, worst / torch.where(largest > 0, largest, 1))


def list_roles(parts, name, is_simple):
    """Return every assignment of roles: places in `parts`, (n, 4) for Q, K, V and the output, or (n, 2) for γ and β.

    `is_simple` leaves out matrices with two roles, and x in the role of Q or K.
    """
    if name != ATTENTION:
        own = range(2, len(parts))
        pairs = itertools.product([*own, 0], [*own, 1])
        return torch.tensor([pair for pair in pairs if pair[0] != pair[1]])
    names = list(dict.fromkeys(part.name for part in parts))
    has_output = len(names) == 5  # x itself and four matrices
    groups, assignments = {(): [0]}, []  # groups of parts that are stored in the same way, and x itself
    for place, part in enumerate(parts[1:], 1):
        groups.setdefault(part.form if has_output else part.form[0], [0]).append(place)
    for places in map(torch.tensor, groups.values()):
        output = places if has_output else torch.tensor([0])
        assignments.append(torch.cartesian_prod(places, places, places, output))
    roles = torch.cat(assignments).unique(dim=0)
    matrices = torch.tensor([names.index(part.name) for part in parts])[roles]  # (n, 4), 0 for x itself
    keep = matrices[:, :2].all(1) if is_simple else matrices[:, :3].any(1) | (len(names) == 1)
    for i, j in itertools.combinations(range(4), 2):
        if is_simple or j == 3:
            keep &= (matrices[:, i] != matrices[:, j]) | (matrices[:, i] == 0)
    return roles[keep]


def list_biased(parts):
    return [False, True] if any(part.bias is not None and part.bias.any() for part in parts) else [False]


def compute(case, changes, roles, biased):
    """Return the results of n assignments of roles for the same changes of the formula: (n, B, T, d)."""
    tensors = torch.stack([part.tensor for part in case.parts])
    if roles.shape[1] == 2:
        gamma, beta = tensors[roles.T][:, :, None]  # (n, 1, T, d)
        return formulas.norm(case.x, gamma, beta, **changes).expand(-1, *case.x.shape)
    biases = torch.stack([part.bias for part in case.parts])[:, None, None] * biased  # (parts, 1, 1, d)
    projected = case.x @ tensors[:, None] + biases  # (parts, B, T, d)
    q, k, v = projected[roles.T[:3]]  # (n, B, T, d)
    y = formulas.attention(case.x, q, k, v, **changes)
    return y @ tensors[roles[:, 3], None] + biases[roles[:, 3]]


def name_roles(case, roles, biased):
    """Return the mistakes in the roles of matrices, or of γ and β."""
    parts = [case.parts[place] for place in roles]
    missing = []
    if len(parts) == 2:
        (gamma, beta), (T, d) = parts, case.x.shape[1:]
        missing = [letter for letter, part in (("γ", gamma), ("β", beta)) if not part.name]
        right_forms = (T, d), (1, T, d), (T * d,)
        made = {"affine-missing": missing, "affine-shape": not {gamma.form, beta.form} <= {*right_forms},
                "affine-swapped": (gamma.start, beta.start) == (0, 1),
                "affine-start": (gamma.start == 0) != (beta.start == 1)}
    else:
        q, k, v, output = parts
        used = [part.name for part in (q, k, v) if part.name]
        named = order_by_name(case.parts)
        is_reused = len(used) > len(set(used))
        is_other = bool(named and q.name and k.name and not is_reused and used != named[:len(used)])
        is_swapped = is_other and used == [named[1], named[0], *named[2:]][:len(used)]
        made = {"biases": biased, "output-projected": output.name, "values-not-projected": not v.name,
                "scores-not-projected": not (q.name and k.name), "matrix-reused": is_reused,
                "keys-as-queries": is_swapped, "matrices-exchanged": is_other and not is_swapped}
    mistakes = [BY_CODE[code] for code, is_made in made.items() if is_made]
    if missing:
        mistakes[0] = mistakes[0]._replace(what=f"{' and '.join(missing)}: missing, not used or not learnable")
    return mistakes


def order_by_name(parts):
    """Return the names of W_q, W_k and W_v, or of two of them, or None if the names do not tell."""
    names = list(dict.fromkeys(part.name for part in parts if part.name))
    letters = [letter_of(name) for name in names]
    order = [names[letters.index(letter)] for letter in "qkv" if letters.count(letter) == 1]
    return order if len(order) == min(3, len(names)) else None


def letter_of(name):
    """Return "q", "k" or "v" for the name of a matrix such as "to_q.weight[0]", or None."""
    path, number = re.fullmatch(r"(.*?)[._]?(?:weight)?\[(\d)\]", name.lower()).groups()
    if "qkv" in path:
        return "qkv"[int(number)]
    hits = [letter for letter, word in (("q", "quer"), ("k", "key"), ("v", "val"))
            if word in path or re.search(rf"(^|[^a-z]){letter}|{letter}($|[^a-z])", path)]
    return hits[0] if len(hits) == 1 else None


def find_scales(cases):
    """Yield explanations whose scores are divided by another number, which may be a power of d."""
    two_tokens = [case for case in cases if case.kind == "ordinary" and case.x.shape[1] == 2]
    roles = list_roles(cases[0].parts, ATTENTION, is_simple=False).tolist()
    for biased in list_biased(cases[0].parts) if len(two_tokens) == 2 else []:
        explanations = [(name_roles(cases[0], one, biased), one) for one in roles]
        for own, one in sorted(explanations, key=lambda pair: len(pair[0])):
            divisors = [divisor_of(one, biased, case) for case in two_tokens]
            if not all(divisors):
                continue
            powers = [math.log(number) / math.log(case.x.shape[2]) for number, case in zip(divisors, two_tokens,
                                                                                              strict=True)]
            if math.isclose(*divisors, rel_tol=1e-6):
                law, what = (0, divisors[0]), f"{divisors[0]:.5g}, a number that does not depend on d"
            elif math.isclose(*powers, rel_tol=1e-6):
                law, what = (powers[0], 1), f"d to the power of {powers[0]:.3g}"
            else:
                continue
            mistake = BY_CODE["scaled-otherwise"]._replace(what=f"the scores are divided by {what}")
            yield Found([mistake, *own], {"scale": law}, one, biased)


def divisor_of(roles, biased, case):
    """Return the number that divides the scores of two tokens, or None if the roles do not fit.

    With two tokens, y = w v₁ + (1 - w) v₂ gives w, and log(w / (1 - w)) is the difference of two scores.
    """
    q, k, v, output = (case.parts[place] for place in roles)
    q, k, v = (case.x @ part.tensor + biased * part.bias for part in (q, k, v))
    v, y = v @ output.tensor, case.y - biased * output.bias
    gap = v[:, :1] - v[:, 1:]
    w = ((y - v[:, 1:]) * gap).sum(2) / gap.square().sum(2)
    products = (q @ (k[:, :1] - k[:, 1:]).mT).squeeze(2)
    divisors = (products / torch.logit(w)).flatten()
    is_same = divisors[0] > 0 and torch.allclose(divisors, divisors[0], rtol=1e-6, atol=0)
    return divisors[0].item() if is_same else None


def find_nearest(candidates, cases):
    """Return the nearest Found with one mistake and its largest distance if it is clearly nearer than the formula.

    Else return the formula, if the parameters can have its roles, and None.
    """
    def worst(found):
        return max(found.distance(case, 1) for case in cases)

    ordered = [found for _, found in sorted(candidates, key=lambda pair: pair[0])]
    mistake = min([found for found in ordered if len(set(found.codes())) == 1][:50], key=worst, default=None)
    formula = min([found for found in ordered if not found.codes()], key=worst, default=None)
    if mistake and formula and worst(mistake) < min(1, worst(formula)) / 10:
        return mistake, worst(mistake)
    return formula or mistake, None


def by_loops(found, case):
    """Return the right result for the roles that were found, or that the names of matrices tell: (B, T, d)."""
    parts = [case.parts[place] for place in found.roles]
    if len(parts) == 2:
        gamma, beta = (part.tensor.tolist() for part in parts)
        y = [norm_in_loops(x, gamma, beta) for x in case.x.tolist()]
    else:
        for i, name in enumerate(order_by_name(case.parts) or []):
            named = [part for part in case.parts if part.name == name]
            parts[i] = next(part for part in named if part.form == (parts[i].form or part.form))
        matrices = [part.tensor.T.tolist() for part in parts[:3]]
        biases = [(found.biased * part.bias).tolist() for part in parts[:3]]
        y = [attention_in_loops(x, *matrices, biases) for x in case.x.tolist()]
    return torch.tensor(y, dtype=torch.float64)
