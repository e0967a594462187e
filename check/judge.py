"""Judge a layer of any solution: right, or with which mistakes.

The parameters are filled with random numbers. The results are compared with plain loops (check/loops.py), and with what
the known mistakes, alone and together, make of the same parameters and inputs (check/hypotheses.py).
"""

import math

import torch

from check.cases import EXACT, FLOAT32, MAIN, make_cases
from check.hypotheses import HYPOTHESES
from check.mistakes import BY_CODE, NORM
from check.properties import find_problems
from check.solution import one_line


def judge(name, cls):
    """Return the verdict on a class, whose name is ATTENTION or NORM. Raises UserError if it cannot be judged.

    Returns:
        A dict: "right", a bool; "mistake", codes joined by "+", or None; "difference", the largest difference from the
        loops, or None; "notes", sentences that each start with a label and a colon.
    """
    cases, dtype = make_cases_of_best_dtype(name, cls)
    good = [case for case in cases if case.y is not None]
    good.sort(key=lambda case: case is not cases[MAIN])  # the main case comes first
    hypotheses = list(HYPOTHESES[name](cases[MAIN])) if good else []
    found, tolerance = identify(hypotheses, good)
    unknown = bool(good) and found is None
    closest = find_closest(hypotheses, good) if unknown else found

    mistakes = describe_mistakes(found, find_problems(name, cls, cases, dtype, found, tolerance))
    notes = []
    for code, what in mistakes.items():
        notes += [f"{code}: {what}", f"exercise: {BY_CODE[code].exercise}"]
    if unknown:
        notes.append(f"unknown: {compare_with_closest(closest, good)}")
    notes += show_example(cases, closest, tolerance)
    if name == NORM:
        notes += try_interface(cls)
    if found and tolerance > EXACT:
        notes.append("float32: part of the layer computes in float32, so the comparison allows for its rounding errors")
    return {"right": found is not None and not mistakes,
            "mistake": None if unknown or not mistakes else "+".join(mistakes),
            "difference": largest_difference(closest, good),
            "notes": list(dict.fromkeys(notes))}


def describe_mistakes(found, problems):
    """Return {code: sentence}: the mistakes of a hypothesis, if there is one, then the problems (code, detail)."""
    mistakes = {}
    if found:
        mistakes = {mistake.code: mistake.what for mistake in found.mistakes}
    for code, detail in problems:
        what = BY_CODE[code].what
        mistakes.setdefault(code, f"{what}: {detail}" if detail else what)
    return mistakes


def make_cases_of_best_dtype(name, cls):
    """Return the cases and their dtype: float64, or float32 if the layer has fewer problems with it."""
    cases = make_cases(name, cls, torch.float64)
    problems = [case for case in cases if case.problem]
    if problems:
        again = make_cases(name, cls, torch.float32)
        if len([case for case in again if case.problem]) < len(problems):
            return again, torch.float32
    return cases, torch.float64


def distance(case, function, least=0.0):
    """Return the largest difference between y and a function's result, relative to the largest number or to `least`.

    NaN equals NaN. For large inputs, numbers that overflow are ignored. Results of another size are infinitely far.
    """
    try:
        expected = torch.as_tensor(function(case), dtype=torch.float64).expand_as(case.y)
    except (RuntimeError, TypeError):
        return math.inf
    compared = expected.isfinite()
    if case.kind == "large":
        compared = compared & case.y.isfinite()
    elif not compared.equal(case.y.isfinite()):
        return math.inf
    if not compared.any():
        return 0.0
    y, expected = case.y[compared], expected[compared]
    largest = max(least, expected.abs().max().item())
    return (y - expected).abs().max().item() / (largest or 1)


def identify(hypotheses, cases):
    """Return the hypothesis with the fewest mistakes that explains all cases, or None, and the tolerance it needs."""
    candidates = []
    for hypothesis in sorted(hypotheses, key=lambda hypothesis: len(hypothesis.mistakes)):
        if explains(hypothesis, cases[:1], FLOAT32):
            if explains(hypothesis, cases, EXACT):
                return hypothesis, EXACT
            candidates.append(hypothesis)
    for hypothesis in candidates:
        if explains(hypothesis, cases, FLOAT32):
            return hypothesis, FLOAT32
    return None, FLOAT32


def explains(hypothesis, cases, tolerance):
    return all(distance(case, hypothesis.expected) <= tolerance for case in cases)


def find_closest(hypotheses, cases):
    """Return the hypothesis with at most one mistake that comes closest to the results."""
    simple = [hypothesis for hypothesis in hypotheses if len(hypothesis.mistakes) <= 1]
    simple.sort(key=lambda hypothesis: distance(cases[0], hypothesis.expected, 1))

    def total(hypothesis):
        return sum(min(distance(case, hypothesis.expected, 1), 1) for case in cases)
    return min(simple[:50], key=total)


def compare_with_closest(closest, cases):
    """Return a sentence on the closest hypothesis."""
    distances = [distance(case, closest.expected, 1) for case in cases]
    error = max((one for one in distances if one < math.inf), default=math.inf)
    name = closest.mistakes[0].code if closest.mistakes else "the formula"
    return ("the results match neither the formula nor a known mistake; the closest is "
            f"{name}, with a relative error of up to {error:.2g}")


def largest_difference(hypothesis, cases):
    """Return the largest relative difference between the results and the loops, or None."""
    if hypothesis is None:
        return None
    distances = [distance(case, hypothesis.loops, 1) for case in cases if case.y.isfinite().any()]
    return max((one for one in distances if one < math.inf), default=None)


def show_example(cases, hypothesis, tolerance):
    """Return a note on the first number that differs from the loops, in a list, or an empty list."""
    for case in cases:
        if hypothesis and case.y is not None and distance(case, hypothesis.loops) > tolerance:
            expected = torch.tensor(hypothesis.loops(case), dtype=torch.float64)
            bound = tolerance * expected.abs().max().item()
            wrong = ~torch.isclose(case.y, expected, rtol=0, atol=bound, equal_nan=True)
            b, t, i = wrong.nonzero()[0].tolist()
            x = f"x of shape {tuple(case.x.shape)} with {case.kind} numbers"
            numbers = f"should be {expected[b, t, i]:.4g} but is {case.y[b, t, i]:.4g}"
            return [f"example: {x}: y[{b}, {t}, {i}] {numbers}"]
    return []


def try_interface(cls):
    """Return a note if a layer norm cannot be built as in the exercise's block, in a list, or an empty list."""
    try:
        cls((3, 4))
    except Exception as error:
        return [f"interface: the block of the exercise calls {NORM}((T, d)), which raises {one_line(error)}"]
    return []
