"""The smallest input for which a layer is wrong."""

import math

import torch

from check.distance import distance


def show_example(hypothesis, cases, tolerance):
    """Return a list with a note on the smallest input whose result differs from the loops; empty if none differs."""
    for case in sorted(cases, key=lambda case: case.x.numel()):
        if distance(case, hypothesis.loops) > tolerance:
            expected = torch.tensor(hypothesis.loops(case), dtype=torch.float64)
            differences = (case.y - expected).abs().nan_to_num(nan=math.inf)
            b, t, i = (differences == differences.max()).nonzero()[0].tolist()
            right, wrong = show_numbers(expected[b, t, i].item(), case.y[b, t, i].item())
            x = f"x of shape {tuple(case.x.shape)} with {case.kind} numbers"
            return [f"example: {x}: y[{b}, {t}, {i}] should be {right} but is {wrong}"]
    return []


def show_numbers(one, other):
    """Return two different numbers as texts, with four digits, or with more if four do not show the difference."""
    for digits in range(4, 18):
        texts = f"{one:#.{digits}g}", f"{other:#.{digits}g}"
        if texts[0][:-1] != texts[1][:-1] and texts[0] != texts[1]:
            break
    return texts
