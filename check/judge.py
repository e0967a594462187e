"""Judge a layer of any solution: right, or with which mistakes.

The parameters are filled with random numbers. The results are compared with plain loops (check/loops.py), and with the
results of the known mistakes, alone and combined, for the same parameters and inputs (check/hypotheses.py).
"""

import contextlib
import math
from typing import NamedTuple

import torch

from check.cases import MAIN, find_sizes, is_random, make_cases
from check.distance import EXACT, FLOAT32, distance
from check.example import show_example
from check.fit import fit_scale
from check.hypotheses import Hypothesis, list_hypotheses, measure_all
from check.mistakes import ATTENTION, BY_CODE, NORM
from check.properties import find_problems, find_shortcuts
from check.solution import one_line
from check.watch import NoDropout, computes_in_float32
from helpers.cli import UserError

STAGES = [(0, 1), (2, 2), (3, 4)]  # fewest and most changes of the formula; the simple ones are tried first


class Search(NamedTuple):
    """What explains the results of a layer."""

    cases: list  # of Case, those with a result, the main case first
    found: Hypothesis | None
    nearest: list  # if none was found, up to three pairs (distance, hypothesis), the nearest first
    tolerance: float  # within which `found` explains the results

    @property
    def closest(self):
        """Return the hypothesis found, or else the nearest."""
        return self.found or (self.nearest[0][1] if self.nearest else None)


def judge(name, cls, strict=False):
    """Return the verdict on a class, whose name is ATTENTION or NORM. Raises UserError if it cannot be judged.

    Args:
        strict: whether biases are a mistake. They are a note otherwise.
    Returns:
        A dict: "right", a bool; "mistake", codes joined by "+", or None; "difference", the largest difference from the
        loops, or None; "notes", sentences that each start with a label and a colon.
    """
    unit, size_error = find_sizes(name, cls)
    random = is_random(name, cls, unit)
    try:
        cases, dtype = make_cases_of_best_dtype(name, cls, unit, dropout=not random)
    except UserError:
        if verdict := judge_built_in(name, cls, unit):
            return verdict
        raise
    search = search_hypotheses(name, cases, dtype)
    with NoDropout() if random else contextlib.nullcontext():
        problems = list(find_problems(name, cls, unit, cases, dtype, search.found, search.tolerance))
    if size_error:
        problems.append(("wrong-size", f"{size_error}; d has to be a multiple of {unit}"))
    if random:
        problems = [("dropout-always", ""), *(problem for problem in problems if problem[0] != "dropout-inside")]
    if name == NORM:
        problems += try_interface(cls)
    mistakes = describe_mistakes(search.found, problems)
    biases = None if strict else mistakes.pop("biases", None)
    return {"right": search.found is not None and not mistakes,
            "mistake": "+".join(mistakes) or None,
            "difference": largest_difference(search.closest, search.cases),
            "notes": list_notes(mistakes, biases, search)}


def judge_built_in(name, cls, unit):
    """Return the verdict on a layer without matrices of its own if PyTorch does its work, else None."""
    with contextlib.suppress(UserError):
        problems = [problem for problem in find_shortcuts(name, cls, unit) if problem[0] == "built-in"]
        if problems:
            mistakes = describe_mistakes(None, problems)
            notes = [f"built-in: {mistakes['built-in']}", f"exercise: {BY_CODE['built-in'].exercise}"]
            return {"right": False, "mistake": "built-in", "difference": None, "notes": notes}
    return None


def list_notes(mistakes, biases, search):
    """Return the notes of a verdict: what is wrong, what the exercise says, an example, and remarks."""
    notes = []
    for code, what in mistakes.items():
        notes += [f"{code}: {what}", f"exercise: {BY_CODE[code].exercise}"]
    if search.cases and not search.found:
        notes.append("unknown: the results match neither the formula nor a known mistake")
    notes += show_example(search.closest, search.cases, search.tolerance)
    if search.nearest:
        notes.append(f"nearest: {describe_nearest(search.nearest)}")
    if biases:
        notes.append(f"biases: {biases}; this is a note, not a mistake")
    if search.found and search.tolerance > EXACT:
        notes.append("float32: part of the layer computes in float32, so the comparison allows for its rounding errors")
    return list(dict.fromkeys(notes))


def describe_mistakes(found, problems):
    """Return {code: sentence}: the mistakes of a hypothesis, if there is one, then the problems (code, detail)."""
    mistakes = {}
    if found:
        mistakes = {mistake.code: mistake.what for mistake in found.mistakes}
    for code, detail in problems:
        what = BY_CODE[code].what
        mistakes.setdefault(code, f"{what}: {detail}" if detail else what)
    return mistakes


def make_cases_of_best_dtype(name, cls, unit, dropout):
    """Return the cases and their dtype: float64, or float32 if the layer has fewer problems with it."""
    cases = make_cases(name, cls, torch.float64, unit, dropout)
    problems = [case for case in cases if case.problem]
    if problems:
        again = make_cases(name, cls, torch.float32, unit, dropout)
        if len([case for case in again if case.problem]) < len(problems):
            return again, torch.float32
    return cases, torch.float64


def search_hypotheses(name, cases, dtype):
    """Return the Search for what explains the results."""
    main = cases[MAIN]
    good = [case for case in cases if case.y is not None]
    good.sort(key=lambda case: case is not main)
    if not good:
        return Search([], None, [], EXACT)
    low = dtype == torch.float32 or (main.y is not None and computes_in_float32(main.layer, main.x))
    tolerances = [EXACT, FLOAT32] if low else [EXACT]
    simple = []
    for fewest, most in STAGES:
        hypotheses = list_hypotheses(name, main, fewest, most)
        distances = measure_all(hypotheses, good[0])
        simple = simple or list(zip(distances, hypotheses, strict=True))
        found = identify(hypotheses, distances, good, tolerances)
        if found:
            return Search(good, *found)
    fitted = fit_scale([hypothesis for _, hypothesis in simple], good) if name == ATTENTION else None
    if fitted and explains(fitted, good, max(10 * EXACT, tolerances[-1])):
        return Search(good, fitted, [], tolerances[-1])
    return Search(good, None, find_nearest(simple, good), tolerances[-1])


def identify(hypotheses, distances, cases, tolerances):
    """Find the first hypothesis that explains all cases.

    Return `found`, `nearest` (empty) and `tolerance` for a Search, or None if no hypothesis explains them.
    """
    for tolerance in tolerances:
        for hypothesis, first in zip(hypotheses, distances, strict=True):
            if first <= tolerance and explains(hypothesis, cases, tolerance):
                return hypothesis, [], tolerance
    return None


def explains(hypothesis, cases, tolerance):
    return all(distance(case, hypothesis.expected) <= tolerance for case in cases)


def find_nearest(pairs, cases):
    """Return up to three pairs (largest distance, hypothesis), those with the smallest sum of distances first.

    The hypotheses have at most one mistake besides biases. `pairs` are (distance to the first case, hypothesis).
    """
    simple = []
    for first, hypothesis in pairs:
        if len({mistake.code for mistake in hypothesis.mistakes} - {"biases"}) <= 1:
            simple.append((first, hypothesis))
    simple.sort(key=lambda pair: pair[0])
    measured = []
    for _, hypothesis in simple[:50]:
        each = [distance(case, hypothesis.expected, 1) for case in cases]
        total = sum(min(one, 1) for one in each)  # no case counts for more than 1
        measured.append((total, max(each), hypothesis))
    measured.sort(key=lambda one: one[0])
    nearest = {}
    for _, worst, hypothesis in measured:
        nearest.setdefault(name_mistakes(hypothesis), (worst, hypothesis))
    return list(nearest.values())[:3]


def name_mistakes(hypothesis):
    """Return the codes of a hypothesis, without biases."""
    return ", ".join(mistake.code for mistake in hypothesis.mistakes if mistake.code != "biases") or "the formula"


def describe_nearest(nearest):
    """Return a sentence on the nearest hypotheses, which do not explain the results."""
    parts = [f"{name_mistakes(hypothesis)} (off by {worst:.2g})" for worst, hypothesis in nearest]
    return f"{'; '.join(parts)}; none of them is what the layer computes"


def largest_difference(hypothesis, cases):
    """Return the largest relative difference between the results and the loops, or None."""
    if hypothesis is None:
        return None
    distances = [distance(case, hypothesis.loops, 1) for case in cases if case.y.isfinite().any()]
    return max((one for one in distances if one < math.inf), default=None)


def try_interface(cls):
    """Return a list with the problem that the exercise's block cannot build a layer norm; empty if it can."""
    try:
        cls((3, 4))
    except (Exception, SystemExit) as error:
        return [("interface", f"{NORM}((3, 4)) raises {one_line(error)}")]
    return []
