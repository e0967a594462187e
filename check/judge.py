"""Judge a layer of any solution: right, or with which mistakes.

Its results are compared with plain loops, and with those of the known mistakes, for the same parameters and inputs.
"""

import math

from check.cases import describe_error, find_unit, is_random, is_unfilled, make_best_cases
from check.mistakes import BY_CODE, NORM
from check.properties import Watch, computes_in_float32, find_shortcuts, find_training_problems
from check.search import EXACT, FLOAT32, by_loops, measure, search
from helpers import UserError


def judge(name, cls, strict=False):
    """Return the verdict on a class, whose name is ATTENTION or NORM. Raises UserError if it cannot be judged.

    The verdict is a dict: "right", a bool; "mistake", codes joined by "+", or None; "difference", the largest one from
    the loops, or None; "notes", sentences that start with a label and a colon. With `strict`, biases are a mistake.
    """
    if is_unfilled(name, cls):
        return report({"not-filled-in": BY_CODE["not-filled-in"].what})
    unit, size_error = find_unit(name, cls)
    random = is_random(name, cls, unit)
    with Watch(no_dropout=random):
        try:
            cases, dtype = make_best_cases(name, cls, unit)
        except UserError:  # no matrices of its own, perhaps because PyTorch does the work
            built_in = [problem for problem in find_shortcuts(name, cls, unit) if problem[0] == "built-in"]
            if not built_in:
                raise
            return report(describe_mistakes(None, built_in))
        problems = [("dropout-always", "")] if random else []
        problems += [case.problem for case in cases if case.problem]
        problems += find_shortcuts(name, cls, unit)
    good = [case for case in cases if case.y is not None]
    tolerances = [EXACT, FLOAT32] if good and computes_in_float32(good[0], dtype) else [EXACT]
    found, tolerance, nearest = search(name, good, tolerances) if good else (None, EXACT, (None, None))
    if found and cases[0].y is not None:
        with Watch(no_dropout=random):
            problems += find_training_problems(name, found, cases, dtype, tolerance, random)
    if size_error:
        problems.append(("wrong-size", f"{size_error}; d has to be a multiple of {unit}"))
    try:
        cls((3, 4)) if name == NORM else None
    except (Exception, SystemExit) as error:
        problems.append(("interface", f"{NORM}((3, 4)) raises {describe_error(error)}"))
    mistakes = describe_mistakes(found, problems)
    biases = None if strict else mistakes.pop("biases", None)
    difference, remarks = compare(found, nearest, good, tolerance)
    if biases:
        remarks.append(f"biases: {biases}; this is a note, not a mistake")
    return report(mistakes, found is not None and not mistakes, difference, remarks)


def report(mistakes, right=False, difference=None, remarks=()):
    """Return a verdict, as `judge` does. `mistakes` is {code: sentence}."""
    notes = []
    for code, what in mistakes.items():
        notes += [f"{code}: {what}", f"exercise: {BY_CODE[code].exercise}"]
    notes = [note for note in dict.fromkeys([*notes, *remarks]) if note != "exercise: "]
    return {"right": right, "mistake": "+".join(mistakes) or None, "difference": difference, "notes": notes}


def describe_mistakes(found, problems):
    """Return {code: sentence}: the mistakes of an explanation, if there is one, then the problems (code, detail)."""
    mistakes = {mistake.code: mistake.what for mistake in found.mistakes} if found else {}
    for code, detail in problems:
        what = BY_CODE[code].what
        mistakes.setdefault(code, f"{what}: {detail}" if detail else what)
    return mistakes


def compare(found, nearest, cases, tolerance):
    """Return the largest relative difference from the loops, and notes: the smallest wrong result, what is near."""
    largest, remarks = None, []
    closest = found or nearest[0]
    for case in sorted(cases, key=lambda case: case.x.numel()) if closest else []:
        right = by_loops(closest, case)
        distance = measure(case, right[None], 1).item()
        if case.y.isfinite().any() and distance < math.inf:
            largest = max(distance, largest or 0.0)
        if not remarks and measure(case, right[None]).item() > tolerance:
            remarks.append(show_example(case, right))
    if found and tolerance > EXACT:
        remarks.append("float32: part of the layer computes in float32, so the comparison allows for its rounding")
    if cases and not found:
        remarks.insert(0, "unknown: the results differ from the formula, and no known mistake fits")
        closest, distance = nearest
        if distance:
            mistake = next(one for one in closest.mistakes if one.code != "biases")
            remarks.append(f"nearest: {mistake.code}, {mistake.what}; but the results are off by {distance:.2g}")
    return largest, remarks


def show_example(case, right):
    """Return a note on the number in a result that differs most from the right one, with digits that show it."""
    gap = (case.y - right).abs().nan_to_num(nan=math.inf)
    b, t, i = (gap == gap.max()).nonzero()[0].tolist()
    one, other = right[b, t, i].item(), case.y[b, t, i].item()
    digits = next((n for n in range(4, 17) if f"{one:.{n - 2}e}" != f"{other:.{n - 2}e}"), 17)
    x = f"x of shape {tuple(case.x.shape)} with {case.kind} numbers"
    return f"example: {x}: y[{b}, {t}, {i}] should be {one:#.{digits}g} but is {other:#.{digits}g}"
