"""Cases: inputs of several shapes and magnitudes, and what a layer returns for each."""

import inspect
from typing import NamedTuple

import torch
from torch import nn

from check.mistakes import ATTENTION
from check.parameters import find_affine, find_projections
from check.solution import one_line
from helpers.cli import UserError

INPUT_SHAPES = [(1, 1, 2), (1, 2, 2), (1, 2, 3), (2, 3, 4), (4, 3, 3)]  # (B, T, d), the smallest first
INPUT_KINDS = {
    "ordinary": lambda z: z,
    "large": lambda z: 100 * z,
    "constant": lambda z: torch.full_like(z, 2.5),
    "tiny": lambda z: 1e-4 * z,
    "very tiny": lambda z: 1e-6 * z,
}
EXACT, FLOAT32 = 1e-9, 1e-4  # tolerances for rounding errors, relative to the largest number in a result
MAIN = INPUT_SHAPES.index((2, 3, 4)) * len(INPUT_KINDS)  # this case separates most mistakes: B, T and d differ


class Case(NamedTuple):
    """An input, and what a layer returns for it."""

    layer: nn.Module  # filled with random numbers
    tensors: list  # its parameters: what `find_projections` or `find_affine` returns
    kind: str  # a key of INPUT_KINDS
    x: torch.Tensor  # (B, T, d), float64
    y: torch.Tensor | None  # (B, T, d), float64; None if the layer returns nothing of this shape
    problem: tuple | None  # code of a mistake, and a detail or ""


def make_cases(name, cls, dtype):
    """Return the cases of a class: every shape with every kind of numbers."""
    generator = torch.Generator().manual_seed(1)
    cases = []
    for shape in INPUT_SHAPES:
        layer = build(name, cls, *shape[1:]).to(dtype).eval()
        tensors = find_projections(layer, shape[2]) if name == ATTENTION else find_affine(layer)
        z = torch.randn(shape, generator=generator)
        z = z.mul(8).round().div(8)  # few digits, which are exact in float32 too
        for kind, make in INPUT_KINDS.items():
            x = make(z)
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
