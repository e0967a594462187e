"""Judge a layer of any solution: right, or with which mistakes.

The parameters are filled with random numbers. The results are compared with plain loops (check/loops.py), and with the
results of the known mistakes, alone and combined, for the same parameters and inputs (check/search.py).
"""

import math

from check.cases import can_build, describe_error, find_unit, is_filled_in, is_random, make_cases
from check.mistakes import BY_CODE, NORM
from check.properties import Watch, computes_in_float32, find_shortcuts, find_training_problems
from check.search import EXACT, FLOAT32, by_loops, measure, search
from helpers import UserError


def judge(name, cls, strict=False):
    """Return the verdict on a class. Raises UserError if it cannot be judged.

    Args:
        name: ATTENTION or NORM: which layer the class should be.
        cls: the class.
        strict: whether biases are a mistake. They are a note otherwise.
    Returns:
        A dict: "right", a bool; "mistake", codes joined by "+", or None; "difference", the largest difference from the
        loops, or None; "notes", sentences that each start with a label and a colon.
    """
    if not is_filled_in(name, cls):
        return report({"not-filled-in": BY_CODE["not-filled-in"].what})
    unit, size_error = find_unit(name, cls)
    random = is_random(name, cls, unit)
    problems = [("dropout-always", "")] if random else []
    with Watch(no_dropout=random):
        shortcuts = list(find_shortcuts(name, cls, unit)) if can_build(name, cls, unit) else []
        try:
            cases, dtype = make_cases(name, cls, unit)
        except UserError:  # no matrices of its own, perhaps because PyTorch does the work
            built_in = [problem for problem in shortcuts if problem[0] == "built-in"]
            if not built_in:
                raise
            return report(describe_mistakes(None, built_in))
    good = [case for case in cases if case.y is not None]
    tolerances = [EXACT, FLOAT32] if good and computes_in_float32(good[0], dtype) else [EXACT]
    found, tolerance, nearest = search(name, good, tolerances) if good else (None, EXACT, [])
    problems += [case.problem for case in cases if case.problem]
    problems += shortcuts
    if found and cases[0].y is not None:
        with Watch(no_dropout=random):
            problems += find_training_problems(name, found, cases, dtype, tolerance, random)
    if size_error:
        problems.append(("wrong-size", f"{size_error}; d has to be a multiple of {unit}"))
    if name == NORM:
        problems += try_interface(cls)
    mistakes = describe_mistakes(found, problems)
    biases = None if strict else mistakes.pop("biases", None)
    closest = found or (nearest[0][1] if nearest else None)
    difference, remarks = compare(closest, good, tolerance) if closest else (None, [])
    if good and not found:
        remarks.insert(0, "unknown: the results match neither the formula nor a known mistake")
    if nearest:
        remarks.append(f"nearest: {describe_nearest(nearest)}")
    if biases:
        remarks.append(f"biases: {biases}; this is a note, not a mistake")
    if found and tolerance > EXACT:
        remarks.append("float32: part of the layer computes in float32, so the comparison allows for its rounding")
    return report(mistakes, found is not None and not mistakes, difference, remarks)


def report(mistakes, right=False, difference=None, remarks=()):
    """Return a verdict, as `judge` does. `mistakes` is {code: sentence}."""
    notes = []
    for code, what in mistakes.items():
        notes += [f"{code}: {what}", f"exercise: {BY_CODE[code].exercise}"]
    notes = list(dict.fromkeys([*notes, *remarks]))
    return {"right": right, "mistake": "+".join(mistakes) or None, "difference": difference, "notes": notes}


def describe_mistakes(found, problems):
    """Return {code: sentence}: the mistakes of an explanation, if there is one, then the problems (code, detail)."""
    mistakes = {mistake.code: mistake.what for mistake in found.mistakes} if found else {}
    for code, detail in problems:
        what = BY_CODE[code].what
        mistakes.setdefault(code, f"{what}: {detail}" if detail else what)
    return mistakes


def describe_nearest(nearest):
    """Return a sentence on the nearest explanations, which do not fit."""
    parts = [f"{', '.join(found.codes()) or 'the formula'} (off by {worst:.2g})" for worst, found in nearest]
    return f"{'; '.join(parts)}; none of them is what the layer computes"


def try_interface(cls):
    """Return a list with the problem that the exercise's block cannot build a layer norm; empty if it can."""
    try:
        cls((3, 4))
    except (Exception, SystemExit) as error:
        return [("interface", f"{NORM}((3, 4)) raises {describe_error(error)}")]
    return []


def compare(found, cases, tolerance):
    """Return the largest relative difference from the loops, and a list with a note on the smallest wrong result."""
    largest, example = None, []
    for case in sorted(cases, key=lambda case: case.x.numel()):
        right = by_loops(found, case)
        distance = measure(case, right[None], 1).item()
        if case.y.isfinite().any() and distance < math.inf:
            largest = max(distance, largest or 0.0)
        if not example and measure(case, right[None]).item() > tolerance:
            example = [show_example(case, right)]
    return largest, example


def show_example(case, right):
    """Return a note on the number in a result that differs most from the right one."""
    gap = (case.y - right).abs().nan_to_num(nan=math.inf)
    b, t, i = (gap == gap.max()).nonzero()[0].tolist()
    one, other = show_numbers(right[b, t, i].item(), case.y[b, t, i].item())
    x = f"x of shape {tuple(case.x.shape)} with {case.kind} numbers"
    return f"example: {x}: y[{b}, {t}, {i}] should be {one} but is {other}"


def show_numbers(one, other):
    """Return two different numbers as texts, with four digits, or with more if four do not show the difference."""
    for digits in range(4, 18):
        texts = f"{one:#.{digits}g}", f"{other:#.{digits}g}"
        if texts[0][:-1] != texts[1][:-1]:
            break
    return texts
