"""Judge the layers of any solution: right, or with which mistakes of tests/mistakes.py.

A layer's parameters, whatever they are called, are filled with random numbers. Its results are compared with those of
the formula, and of the formula with known mistakes, for each way to read the parameters as W_q, W_k, W_v or as γ, β.
"""

import contextlib
import inspect
import itertools
import math
import warnings
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from helpers.cli import UserError
from tests.diagnose import one_line
from tests.loops import attention_in_loops, norm_in_loops
from tests.mistakes import ATTENTION, BY_CODE, NORM, attention, combinations, norm

SHAPES = [(2, 3, 4), (3, 5, 2), (1, 2, 2), (1, 1, 2)]  # (B, T, d); d = 3 would make 3 biases of length d a d × d matrix
KINDS = {"ordinary": lambda z: z, "large": lambda z: 100 * z, "constant": lambda z: torch.full_like(z, 2.5),
         "tiny": lambda z: 1e-5 * z}
EXACT, FLOAT32 = 1e-9, 1e-4  # what rounding may come to, relative to the largest number of a result, or to 1


class Reading(NamedTuple):
    """A way to read a layer's parameters: codes of its mistakes, the loops' weights, the formula's other arguments."""

    codes: list
    weights: list
    others: dict
    usual: bool = True  # not some matrices transposed and others not


class Case(NamedTuple):
    """An input x (B, T, d) and what a layer made of it: y, or None, and a code and a sentence on a problem, or None."""

    readings: list
    kind: str
    x: torch.Tensor
    y: torch.Tensor | None
    problem: tuple | None


class Candidate(NamedTuple):
    """What a layer may compute: its mistakes, the number of the reading, and the changes of the formula."""

    mistakes: list
    number: int
    changes: dict


def build(name, cls, T, d):
    """Return the layer for sentences of size (T, d). Raises UserError if it cannot be built or needs more than x."""
    size = d if name == ATTENTION else (T, d)
    try:
        layer = cls(size)
        inspect.signature(layer.forward).bind(None)
    except (Exception, SystemExit) as error:
        raise UserError(f"{name}({size}) or its forward(x) cannot be called: {one_line(error)}.") from None
    return layer


def fill(layer):
    """Set the parameters to random numbers, but for single ones, which may be a scale or an epsilon."""
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        if parameter.numel() > 1:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))


def letter(name):
    """Return "q", "k" or "v", whichever is the only one in a parameter's name, or else "?"."""
    found = set("qkv") & set(name.lower())
    return found.pop() if len(found) == 1 else "?"


def read_attention(layer, T, d):
    """Yield the readings: three matrices in every order, each transposed or not; a fourth, if any, as the third is.

    The matrices, and the biases of a module, are found by their sizes; one tensor may hold three.
    """
    owners, found = {}, []
    fill(layer)
    for name, parameter in layer.named_parameters():
        data = parameter.data.double()
        matrices, biases = owners.setdefault(name.rpartition(".")[0], ([], []))
        if data.numel() in (d * d, 3 * d * d):
            data = data.T if data.shape == (d, 3 * d) else data
            matrices += [(letter(name), w) for w in data.reshape(-1, d, d)]
        elif data.numel() in (d, 3 * d):
            biases += data.reshape(-1, d)
    for matrices, biases in owners.values():
        biases = biases if len(biases) == len(matrices) else [torch.zeros(d, dtype=torch.float64)] * len(matrices)
        found += [(*matrix, b) for matrix, b in zip(matrices, biases, strict=True)]
    if not 2 <= len(found) <= 4:
        shapes = ", ".join(f"{name} {tuple(p.shape)}" for name, p in layer.named_parameters()) or "none"
        raise UserError(f"{ATTENTION}({d}) must have W_q, W_k and W_v of size {d} × {d}; its parameters are {shapes}.")
    codes = ["values-not-projected"] * (len(found) == 2) + ["biases"] * any(b.any() for *_, b in found)
    codes += ["output-projected"] * (len(found) == 4)
    found += [("v", torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64))] * (4 - len(found))
    orders, all_flips = itertools.permutations(found[:3]), itertools.product((False, True), repeat=3)
    for flips, order in itertools.product(all_flips, orders):
        names, weights, biases = zip(*order, found[3], strict=True)
        weights = [w.T if flip else w for w, flip in zip(weights, [*flips, flips[2]], strict=True)]
        order, exchanged = "".join(names[:3]), []
        if sorted(order) == ["k", "q", "v"] and order != "qkv":
            exchanged = ["keys-as-queries" if order == "kqv" else "matrices-exchanged"]
        others = {"biases": biases[:3], "output": (weights[3], biases[3])}
        yield Reading(codes + exchanged, weights[:3], others, usual=len(set(flips)) == 1)


def spread(data, T, d):
    """Return a γ or β as (T, d), as adding it to x would; NaN, which no result equals, if it does not fit."""
    try:
        return data.reshape(T, d) if data.numel() == T * d else data.expand(1, T, d)[0]
    except RuntimeError:
        return torch.full((T, d), math.nan)


def read_norm(layer, T, d):
    """Yield the readings: each two parameters as γ and β; ones and zeros stand for what there is not."""
    found = [(parameter, parameter.mean().item()) for parameter in layer.parameters()]
    fill(layer)
    for pair in itertools.permutations(found + [None] * (2 - len(found)), 2):
        present = [one for one in pair if one]
        codes = ["affine-missing"] * (len(present) < 2)
        codes += ["affine-shape"] * any(p.shape not in ((T, d), (1, T, d), (T * d,)) for p, _ in present)
        codes += ["affine-swapped"] * ([start for _, start in present] == [0, 1])
        yield Reading(codes, [spread(one[0].data.double(), T, d) if one else torch.full((T, d), default).double()
                              for one, default in zip(pair, (1.0, 0.0), strict=True)], {})


READERS = {ATTENTION: read_attention, NORM: read_norm}
FORMULAS = {ATTENTION: attention, NORM: norm}
LOOPS = {ATTENTION: attention_in_loops, NORM: norm_in_loops}


def run(layer, x):
    """Return y or None, and a code and a sentence on a problem or None."""
    given = x.clone()
    try:
        y, trained = layer.eval()(given), layer.train()(x.clone())
    except (Exception, SystemExit) as error:
        return None, ("raises", one_line(error))
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        return None, ("wrong-shape", f"{type(y).__name__} {tuple(getattr(y, 'shape', ()))} for x {tuple(x.shape)}")
    if not x.equal(given):
        return y.detach().double(), ("changes-input", "afterwards it is another one")
    changed = not torch.allclose(y, trained, equal_nan=True)
    return y.detach().double(), ("dropout-inside", "train() and eval() make a difference") if changed else None


def make_cases(name, cls, dtype):
    """Return the cases: every shape with every kind of numbers, large shapes and ordinary numbers first."""
    generator, cases = torch.Generator().manual_seed(1), []
    for shape in SHAPES:
        layer = build(name, cls, *shape[1:]).to(dtype)
        readings, z = list(READERS[name](layer, *shape[1:])), torch.randn(shape, generator=generator)
        for kind, make in KINDS.items():
            cases.append(Case(readings, kind, make(z).double(), *run(layer, make(z).to(dtype))))
    return cases


def compute(name, case, candidate):
    """Return what a candidate gives for a case."""
    reading = case.readings[candidate.number]
    return FORMULAS[name](case.x, *reading.weights, **reading.others, **candidate.changes)


def distances(y, expected):
    """Return how far each number is from what is expected, relative to the largest of these, or to 1."""
    same = (y == expected) | (y.isnan() & expected.isnan())
    away = torch.where(same, 0, (y - expected).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
    return away / expected.nan_to_num(0, 0, 0).abs().max().clamp(min=1)


def identify(name, cases):
    """Return the candidate with the fewest mistakes that gives all results, and the bound within which it does.

    If there is none, return the nearest with one change of the formula at most, and None.
    """
    def away(case, candidate):
        return distances(case.y, compute(name, case, candidate)).max().item()

    candidates = [Candidate([*map(BY_CODE.get, reading.codes), *mistakes], number, changes)
                  for number, reading in enumerate(cases[0].readings) for mistakes, changes in combinations(name)]
    candidates.sort(key=lambda candidate: len(candidate.mistakes))
    for bound in EXACT, FLOAT32:
        for candidate in candidates:
            if all(away(case, candidate) <= bound for case in cases):
                return candidate, bound
    simple = [candidate for candidate in candidates
              if len(candidate.changes) <= 1 and cases[0].readings[candidate.number].usual]
    return min(simple, key=lambda candidate: sum(min(away(case, candidate), 1) for case in cases)), None


class CountCalls(TorchFunctionMode):
    calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def find_loop(name, cls):
    """Return a sentence if torch is called more often for a larger x, as in loops of any kind; vmap hides its loop."""
    modes = CountCalls(), CountCalls()
    for mode, shape in zip(modes, [(2, 3, 4), (4, 6, 8)], strict=True):
        with mode, contextlib.suppress(Exception, SystemExit):
            build(name, cls, *shape[1:])(torch.ones(shape))
    few, many = (mode.calls for mode in modes)
    if many > few:
        return f"it calls torch {few} times for x of shape (2, 3, 4) and {many} times for one of shape (4, 6, 8)"
    code = getattr(inspect.unwrap(cls.forward), "__code__", None)
    return "torch.vmap" if code and "vmap" in code.co_names else None


def gradient_problem(name, cls, dtype, exact):
    """Return a sentence if the gradients of x and of the parameters are not those that finite differences give."""
    layer, x = build(name, cls, 3, 4).to(dtype).eval(), torch.linspace(-1, 2, 24, dtype=dtype).reshape(2, 3, 4).sin()
    fill(layer)
    names, parameters = [name for name, _ in layer.named_parameters()], [p.detach() for p in layer.parameters()]
    inputs = [tensor.clone().requires_grad_() for tensor in (x, *parameters)]
    step, bound = (1e-6, 1e-5) if exact else (1e-2, 2e-2)

    def forward(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x * 1,))

    try:
        with warnings.catch_warnings(action="ignore"):  # float32 is allowed for by the larger step and bound
            same = torch.autograd.gradcheck(forward, inputs, eps=step, atol=bound, rtol=bound, raise_exception=False)
    except Exception as error:
        return one_line(error)
    return None if same else "they are not those that finite differences give"


def compare_with_loops(name, cases, number, bound):
    """Return the largest difference from the loops, and a sentence on the smallest input on which the bound is passed.

    The sentence is None if there is no such input.
    """
    differences, shown = [], None
    for case in sorted(cases, key=lambda case: case.x.numel()):
        weights = [w.tolist() for w in case.readings[number].weights]
        expected = [LOOPS[name](x, *weights, [True] * len(x)) for x in case.x.tolist()]
        expected = torch.tensor(expected, dtype=torch.float64)
        away = distances(case.y, expected)
        differences += away[away.isfinite()].tolist()
        if not shown and (away > bound).any():
            b, t, i = (away > bound).nonzero()[0].tolist()
            shown = (f"shows on: x of shape {tuple(case.x.shape)}, {case.kind} numbers: y[{b}, {t}, {i}] should be "
                     f"{expected[b, t, i]:.4g} and is {case.y[b, t, i]:.4g}")
    return max(differences, default=None), shown


def judge(name, cls):
    """Return what is to be said of a class: whether it is right, codes of mistakes, largest difference, sentences."""
    cases, dtype = make_cases(name, cls, torch.float64), torch.float64
    if any(case.y is None for case in cases):  # perhaps it is written for float32 alone
        cases, dtype = make_cases(name, cls, torch.float32), torch.float32
    good = [case for case in cases if case.y is not None]
    found, bound = identify(name, good) if good else (None, None)
    known = {mistake.code: mistake.what for mistake in found.mistakes} if bound else {}
    noticed = [*(case.problem for case in cases if case.problem), ("loop", find_loop(name, cls))]
    if bound and not found.changes:
        noticed.append(("gradient", gradient_problem(name, cls, dtype, bound == EXACT)))
    for code, sentence in noticed:
        if sentence:
            known.setdefault(code, f"{BY_CODE[code].what}: {sentence}")
    notes = [note for code in known for note in (f"{code}: {known[code]}", f"exercise: {BY_CODE[code].exercise}")]
    mistake, difference = "+".join(known) or None, None
    if good and not bound:
        mistake, away = None, max(distances(case.y, compute(name, case, found)).max().item() for case in good)
        nearest = ", ".join(mistake.code for mistake in found.mistakes) or "the formula"
        notes.append("unknown: it differs from the formula and from every known mistake; the nearest is "
                     f"{nearest}, up to {away:.2g} times the largest number away")
    if good:
        difference, shown = compare_with_loops(name, good, found.number, bound or EXACT)
        notes += [shown] if shown else []
    if bound == FLOAT32:
        notes.append("float32: part of it is computed in float32, and is judged as exactly as that allows")
    return {"right": bool(bound) and not known, "mistake": mistake, "difference": difference,
            "notes": list(dict.fromkeys(notes))}
