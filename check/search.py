"""Find what explains the results of a layer: the formula or known mistakes, and the role of each part.

Every assignment of roles to the parts of a layer is computed, all at once, for every combination of mistakes.
"""

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
    """An explanation of a layer's results."""

    mistakes: list  # of Mistake
    changes: dict  # arguments of the formula
    roles: list  # the places in Case.parts of Q, K, V and the output, or of γ and β
    biased: bool  # whether biases are added

    def expected(self, case):
        """Return the result that this explanation predicts: (1, B, T, d)."""
        return compute(case, self.changes, torch.tensor([self.roles]), self.biased)

    def codes(self):
        """Return the codes of the mistakes, without biases."""
        return tuple(mistake.code for mistake in self.mistakes if mistake.code != "biases")


def search(name, cases, tolerances):
    """Find the explanation with the fewest mistakes.

    Args:
        name: ATTENTION or NORM.
        cases: those with a result, the main case first.
        tolerances: the ones to try, in increasing order.
    Returns:
        The Found that explains all cases, or None; its tolerance; and, if there is none, the nearest explanations.
    """
    nearest = None
    for fewest, most in [(0, 1), (2, 2)] if name == ATTENTION else [(0, 1), (2, 2), (3, 4)]:
        candidates = list_candidates(name, cases[0], fewest, most, tolerances[-1])
        nearest = nearest or candidates
        for tolerance in tolerances:
            for distance, found in candidates:
                if distance <= tolerance and explains(found, cases, tolerance):
                    return found, tolerance, []
    if name == ATTENTION:
        for found in find_scales(cases):
            if explains(found, cases, max(10 * EXACT, tolerances[-1])):
                return found, tolerances[-1], []
    return None, tolerances[-1], find_nearest(nearest, cases)


def list_candidates(name, main, fewest, most, tolerance):
    """Return explanations with `fewest` to `most` changes of the formula, as pairs (distance from the main case, Found).

    They are those within the tolerance, and for single changes also the three nearest, the fewest mistakes first.
    """
    roles = list_roles(main.parts, name, simple=most > 1)
    candidates = []
    for mistakes, changes in combinations(name, fewest, most, main.x.shape[2]):
        for biased in list_biased(main.parts):
            try:
                distances = measure(main, compute(main, changes, roles, biased))
            except (RuntimeError, IndexError):  # sizes that do not fit
                continue
            chosen = (distances <= tolerance).nonzero().flatten().tolist()
            if most == 1:
                chosen += distances.topk(min(3, len(distances)), largest=False).indices.tolist()
            for i in dict.fromkeys(chosen):
                own = roles[i].tolist()
                found = Found([*mistakes, *name_roles(main, own, biased)], changes, own, biased)
                candidates.append((distances[i].item(), found))
    return sorted(candidates, key=lambda pair: len(pair[1].mistakes))


def explains(found, cases, tolerance):
    """Return whether an explanation predicts the results of all cases."""
    return all(distance_of(found, case) <= tolerance for case in cases)


def distance_of(found, case, least=0.0):
    """Return the distance of a case from what an explanation predicts."""
    try:
        return measure(case, found.expected(case), least).item()
    except RuntimeError:  # sizes that do not fit
        return math.inf


def measure(case, expected, least=0.0):
    """Return the largest difference of a case from each expected result: (n, B, T, d) -> (n).

    The differences are relative to the largest number in a result, or to `least`. NaN equals NaN. For large inputs,
    numbers that overflow are ignored.
    """
    known, finite = expected.isfinite(), case.y.isfinite()
    if case.kind == "large":
        known = known & finite
        is_different = torch.zeros(len(expected), dtype=torch.bool)
    else:
        is_different = (known != finite).flatten(1).any(1)
    worst = torch.where(known, expected - case.y, 0).abs().flatten(1).amax(1)
    largest = torch.where(known, expected, 0).abs().flatten(1).amax(1).clamp(min=least)
    relative = worst / torch.where(largest > 0, largest, 1)
    return torch.where(is_different, math.inf, relative)


# Roles


def list_roles(parts, name, simple):
    """Return every assignment of roles: places in `parts`, (n, 4) for Q, K, V and the output, or (n, 2) for γ and β.

    `simple` leaves out matrices with two roles, and x in the role of Q or K.
    """
    if name != ATTENTION:
        own = range(2, len(parts))
        pairs = itertools.product([*own, 0], [*own, 1])
        return torch.tensor([pair for pair in pairs if pair[0] != pair[1]])
    names = list(dict.fromkeys(part.name for part in parts))
    has_output = len(names) - 1 == 4
    groups = {(): [0]}  # parts that are stored alike, and x itself
    for place, part in enumerate(parts[1:], 1):
        groups.setdefault(part.form if has_output else part.form[0], [0]).append(place)
    assignments = []
    for places in groups.values():
        places = torch.tensor(places)
        output = places if has_output else torch.tensor([0])
        assignments.append(torch.cartesian_prod(places, places, places, output))
    roles = torch.cat(assignments).unique(dim=0)
    matrices = torch.tensor([names.index(part.name) for part in parts])[roles]  # (n, 4), 0 for x itself
    keep = matrices[:, :2].all(1) if simple else torch.ones(len(roles), dtype=torch.bool)
    if len(names) > 1:
        keep &= matrices[:, :3].any(1)
    for i, j in itertools.combinations(range(4), 2):
        if simple or j == 3:
            keep &= (matrices[:, i] != matrices[:, j]) | (matrices[:, i] == 0)
    return roles[keep]


def list_biased(parts):
    """Return [False], and True if there are biases."""
    has_biases = any(part.bias is not None and part.bias.any() for part in parts)
    return [False, True] if has_biases else [False]


def compute(case, changes, roles, biased=False):
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
    if len(roles) == 2:
        made = name_affine_roles(*parts, case.x.shape[1:])
    else:
        made = name_matrix_roles(case, parts, biased)
    mistakes = [BY_CODE[code] for code, is_made in made.items() if is_made]
    if made.get("affine-missing"):
        missing = " and ".join(letter for letter, part in zip("γβ", parts, strict=True) if not part.name)
        verb = "are" if " " in missing else "is"
        mistakes[0] = mistakes[0]._replace(what=f"{missing} {verb} missing, not used or not learnable")
    return mistakes


def name_affine_roles(gamma, beta, size):
    """Return which mistakes are made in the roles of γ and β, {code: bool}."""
    T, d = size
    right_forms = (T, d), (1, T, d), (T * d,)
    return {"affine-missing": not (gamma.name and beta.name),
            "affine-shape": gamma.form not in right_forms or beta.form not in right_forms,
            "affine-swapped": (gamma.start, beta.start) == (0, 1),
            "affine-start": (gamma.start == 0) != (beta.start == 1)}


def name_matrix_roles(case, parts, biased):
    """Return which mistakes are made in the roles of matrices, {code: bool}."""
    q, k, v, output = parts
    used = [part.name for part in (q, k, v) if part.name]
    named = order_by_name(case.parts)
    is_reused = len(used) > len(set(used))
    is_other = bool(named and q.name and k.name and not is_reused and used != named[:len(used)])
    is_swapped = is_other and used == [named[1], named[0], *named[2:]][:len(used)]
    return {"biases": biased, "output-projected": output.name, "values-not-projected": not v.name,
            "scores-not-projected": not (q.name and k.name), "matrix-reused": is_reused,
            "keys-as-queries": is_swapped, "matrices-exchanged": is_other and not is_swapped}


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
    hits = []
    for letter, word in (("q", "quer"), ("k", "key"), ("v", "val")):
        if word in path or re.search(rf"(^|[^a-z]){letter}|{letter}($|[^a-z])", path):
            hits.append(letter)
    return hits[0] if len(hits) == 1 else None


# If no known mistake explains the results


def find_scales(cases):
    """Yield explanations whose scores are divided by another number, which may be a power of d."""
    main = cases[0]
    two_tokens = [case for case in cases if case.kind == "ordinary" and case.x.shape[1] == 2]
    if len(two_tokens) < 2:
        return
    roles = list_roles(main.parts, ATTENTION, simple=False).tolist()
    for biased in list_biased(main.parts):
        explanations = [(name_roles(main, one, biased), one) for one in roles]
        for own, one in sorted(explanations, key=lambda pair: len(pair[0])):
            divisors = [divisor_of(one, biased, case) for case in two_tokens]
            scale, what = find_law(divisors, [case.x.shape[2] for case in two_tokens])
            if scale:
                mistake = BY_CODE["scaled-otherwise"]._replace(what=f"the scores are divided by {what}")
                yield Found([mistake, *own], {"scale": scale}, one, biased)


def find_law(divisors, sizes):
    """Return a function for `formulas.attention` that gives the two divisors for two d, and its name, or (None, "")."""
    if not all(divisors):
        return None, ""
    number = divisors[0]
    if math.isclose(*divisors, rel_tol=1e-6):
        return lambda d, T, width: number, f"{number:.5g}, a number that does not depend on d"
    powers = [math.log(divisor) / math.log(d) for divisor, d in zip(divisors, sizes, strict=True)]
    if math.isclose(*powers, rel_tol=1e-6):
        return lambda d, T, width: d ** powers[0], f"d to the power of {powers[0]:.3g}"
    return None, ""


def divisor_of(roles, biased, case):
    """Return the number that divides the scores of two tokens, or None if the roles do not fit.

    With two tokens, y = w v₁ + (1 - w) v₂ gives w, and log(w / (1 - w)) is the difference of two scores.
    """
    q, k, v, output = (case.parts[place] for place in roles)
    q, k, v = (case.x @ part.tensor + biased * part.bias for part in (q, k, v))
    v, y = v @ output.tensor, case.y - biased * output.bias
    gap = v[:, :1] - v[:, 1:]
    w = ((y - v[:, 1:]) * gap).sum(2) / gap.square().sum(2)
    product_gap = (q @ (k[:, :1] - k[:, 1:]).mT).squeeze(2)
    divisors = (product_gap / torch.logit(w)).flatten()
    is_one_number = divisors[0] > 0 and torch.allclose(divisors, divisors[0], rtol=1e-6, atol=0)
    return divisors[0].item() if is_one_number else None


def find_nearest(candidates, cases):
    """Return up to three pairs (largest distance, Found) with at most one mistake besides biases, the nearest first."""
    simple = [pair for pair in candidates if len(set(pair[1].codes())) <= 1]
    simple.sort(key=lambda pair: pair[0])
    measured = []
    for _, found in simple[:50]:
        distances = [distance_of(found, case, 1) for case in cases]
        total = sum(min(one, 1) for one in distances)  # no case counts for more than 1
        measured.append((total, max(distances), found))
    nearest = {}
    for _, worst, found in sorted(measured, key=lambda one: one[0]):
        nearest.setdefault(found.codes(), (worst, found))
    return list(nearest.values())[:3]


# The right result


def by_loops(found, case):
    """Return the right result by plain loops: (B, T, d).

    Names, or the numbers at which γ and β start, say which parameter has which role; else the roles that were found.
    """
    parts = [case.parts[place] for place in found.roles]
    if len(parts) == 2:
        gamma, beta = (part.tensor.tolist() for part in choose_affine(case.parts, *parts))
        y = [norm_in_loops(x, gamma, beta, [True] * len(x)) for x in case.x.tolist()]
    else:
        own = choose_matrices(case.parts, parts[:3])
        matrices = [part.tensor.T.tolist() for part in own]
        biases = [(found.biased * part.bias).tolist() for part in own]
        y = [attention_in_loops(x, *matrices, [True] * len(x), biases) for x in case.x.tolist()]
    return torch.tensor(y, dtype=torch.float64)


def choose_affine(parts, gamma, beta):
    """Return the parts that should be γ and β."""
    unused = [part for part in parts[2:] if part is not gamma and part is not beta]
    if not gamma.name and unused:
        gamma = unused.pop(0)
    if not beta.name and unused:
        beta = unused.pop(0)
    starts = [part.start for part in parts[2:]]
    is_one_added = beta.name and beta.start == 1 and starts.count(1) == 1
    is_zero_factor = gamma.name and gamma.start == 0 and starts.count(0) == 1
    return (beta, gamma) if is_one_added or is_zero_factor else (gamma, beta)


def choose_matrices(parts, found):
    """Return the parts that should be Q, K and V."""
    chosen = list(found)
    for i, name in enumerate(order_by_name(parts) or []):
        chosen[i] = next(part for part in parts if part.name == name and part.form == (found[i].form or part.form))
    return chosen
