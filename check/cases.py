"""Cases: inputs of several shapes and magnitudes, and what a layer returns for each."""

import contextlib
import inspect
from typing import NamedTuple

import torch
from torch import nn

from check.mistakes import ATTENTION
from check.parameters import find_affine, find_projections
from check.solution import one_line
from check.watch import NoDropout
from helpers.cli import UserError

INPUT_SHAPES = [(1, 1, 2), (1, 2, 2), (1, 2, 3), (2, 3, 4), (4, 3, 3)]  # (B, T, d), the smallest first
INPUT_KINDS = {
    "ordinary": lambda z: z,
    "large": lambda z: 100 * z,
    "constant": lambda z: torch.full_like(z, 2.5),
    "tiny": lambda z: 1e-4 * z,
    "very tiny": lambda z: 1e-6 * z,
}
MAIN = INPUT_SHAPES.index((2, 3, 4)) * len(INPUT_KINDS)  # this case separates most mistakes: B, T and d differ


class Case(NamedTuple):
    """An input, and what a layer returns for it."""

    layer: nn.Module  # filled with random numbers
    tensors: list  # its parameters: what `find_projections` or `find_affine` returns
    kind: str  # a key of INPUT_KINDS
    x: torch.Tensor  # (B, T, d), float64
    y: torch.Tensor | None  # (B, T, d), float64; None if the layer returns nothing of this shape
    problem: tuple | None  # code of a mistake, and a detail or ""


class Sizes(NamedTuple):
    """The d that a layer works for."""

    unit: int  # d must be a multiple of it
    error: str  # what happens otherwise; empty if every d works


def make_cases(name, cls, dtype, unit=1, dropout=True):
    """Return the cases of a class: every shape with every kind of numbers. Each d is multiplied by `unit`."""
    generator = torch.Generator().manual_seed(1)
    cases = []
    for B, T, d in INPUT_SHAPES:
        shape = B, T, d * unit
        layer = build(name, cls, *shape[1:]).to(dtype).eval()
        tensors = find_projections(layer, shape[2]) if name == ATTENTION else find_affine(layer)
        z = torch.randn(shape, generator=generator)
        z = z.mul(8).round().div(8)  # few digits, which are exact in float32 too
        for kind, make in INPUT_KINDS.items():
            x = make(z)
            with contextlib.nullcontext() if dropout else NoDropout():
                y, problem = run(layer, x.to(dtype))
            cases.append(Case(layer, tensors, kind, x.double(), y, problem))
    return cases


def build(name, cls, T, d):
    """Return the layer for sentences of size (T, d). Raises UserError if it cannot be built or needs more than x."""
    candidates = [(d,)] if name == ATTENTION else [((T, d),), ([T, d],), (T, d), (d,)]
    problem = None
    for arguments in candidates:
        try:
            layer = cls(*arguments)
        except (Exception, SystemExit) as error:
            problem = problem or f"{name}({arguments[0]}) raises {one_line(error)}."
        else:
            check_interface(name, layer)
            return layer
    raise UserError(problem)


def check_interface(name, layer):
    """Raise UserError if an object is not a module whose forward takes x only."""
    if not isinstance(layer, nn.Module):
        raise UserError(f"{name} is not an nn.Module.")
    try:
        inspect.signature(layer.forward).bind(None)
    except TypeError as error:
        raise UserError(f"{name}.forward must work with x as its only argument: {error}.") from None


def run(layer, x):
    """Return the result for x and the problem, as in a Case."""
    given = x.clone()
    try:
        y = layer(given)
    except (Exception, SystemExit) as error:
        return None, ("raises", one_line(error))
    if not isinstance(y, torch.Tensor):
        return None, ("wrong-shape", f"a {type(y).__name__}")
    if y.shape != x.shape:
        return None, ("wrong-shape", f"{tuple(y.shape)} for x of shape {tuple(x.shape)}")
    return y.detach().double().clone(), None if x.equal(given) else ("changes-input", "")


def find_sizes(name, cls):
    """Return the Sizes of a class. A layer that works for no d has the unit 1."""
    first = ""
    for unit in range(1, 13):
        errors = [try_size(name, cls, unit * d) for d in (2, 3, 4)]
        if not any(errors):
            return Sizes(unit, first)
        first = first or next(filter(None, errors))
    return Sizes(1, "")


def try_size(name, cls, d):
    """Return a sentence if a layer cannot be built or run with d features, else an empty text."""
    try:
        build(name, cls, 3, d).eval()(torch.zeros(2, 3, d))
    except UserError as error:
        return str(error).removesuffix(".")
    except (Exception, SystemExit) as error:
        return f"{name}({d}) raises {one_line(error)}"
    return ""


def is_random(name, cls, unit):
    """Return whether calls with the same x give different results, although eval() was called."""
    try:
        layer = build(name, cls, 3, 4 * unit).eval()
    except UserError:
        return False
    x = torch.linspace(-1, 1, 24 * unit).reshape(2, 3, 4 * unit)
    results = [run(layer, x)[0] for _ in range(4)]
    results = [y for y in results if y is not None]
    return any(not y.equal(results[0]) for y in results)
