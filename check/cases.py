"""Cases: inputs of several shapes and magnitudes, what a layer returns for each, and the parts of the layer.

The layer is filled with random numbers. Its parts are what may have a role in the formula: each of its matrices, as it
is and transposed, and x itself may be Q, K or V; each parameter of a norm may be γ or β.
"""

import contextlib
import inspect
import math
import sysconfig
import traceback
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from check.mistakes import ATTENTION
from helpers import UserError

SHAPES = [(2, 3, 4), (1, 1, 2), (1, 2, 3), (1, 2, 5), (4, 3, 5)]  # (B, T, d); the first one is the main case
KINDS = {
    "ordinary": lambda z: z,
    "large": lambda z: 100 * z,
    "constant": lambda z: torch.full_like(z, 2.5),
    "tiny": lambda z: 1e-4 * z,
    "very tiny": lambda z: 1e-6 * z,
}
INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
NOT_OF_THE_STUDENT = [*INSTALLED, Path(__file__).parent]  # folders


class Part(NamedTuple):
    """What may be Q, K, V or the output (a matrix that x is multiplied by), or γ or β (T, d)."""

    name: str  # of the parameter, and the number of the matrix in it; "" for x itself, and for a missing γ or β
    form: tuple  # of a matrix: how it is stored, and whether it is transposed; else the shape of the parameter
    tensor: torch.Tensor
    bias: torch.Tensor | None = None  # (d)
    start: int | None = None  # the number that filled γ or β at first, if it was 0 or 1


class Case(NamedTuple):
    """An input, and what a layer returns for it."""

    layer: nn.Module
    parts: list  # of Part
    kind: str  # a key of KINDS
    x: torch.Tensor  # (B, T, d), float64
    y: torch.Tensor | None  # (B, T, d), float64; None if the layer returns nothing of this shape
    problem: tuple | None  # code of a mistake, and a detail or ""


def make_cases(name, cls, unit=1):
    """Return the cases of a class and their dtype: float64, or float32 if the layer has fewer problems with it."""
    cases = make_cases_of(torch.float64, name, cls, unit)
    problems = [case for case in cases if case.problem]
    if problems:
        again = make_cases_of(torch.float32, name, cls, unit)
        if len([case for case in again if case.problem]) < len(problems):
            return again, torch.float32
    return cases, torch.float64


def make_cases_of(dtype, name, cls, unit):
    """Return a case for every shape and every kind of numbers. Each d is multiplied by `unit`."""
    generator = torch.Generator().manual_seed(1)
    cases = []
    for B, T, d in SHAPES:
        layer = build(name, cls, T, d * unit).to(dtype).eval()
        parts = find_matrices(layer, d * unit) if name == ATTENTION else find_affine(layer, T, d * unit)
        z = torch.randn(B, T, d * unit, generator=generator)
        z = z.mul(8).round().div(8)  # few digits, which are exact in float32 too
        for kind, make in KINDS.items():
            x = make(z)
            y, problem = run(layer, x.to(dtype))
            cases.append(Case(layer, parts, kind, x.double(), y, problem))
    return cases


def build(name, cls, T, d):
    """Return the layer for sentences of size (T, d). Raises UserError if it cannot be built or needs more than x."""
    first = None
    for arguments in [(d,)] if name == ATTENTION else [((T, d),), ([T, d],), (T, d), (d,)]:
        try:
            layer = cls(*arguments)
            break
        except (Exception, SystemExit) as error:
            if is_unfilled(error):
                raise
            first = first or UserError(f"{name}({arguments[0]}) raises {describe_error(error)}.")
    else:
        raise first
    if not isinstance(layer, nn.Module):
        raise UserError(f"{name} is not an nn.Module.")
    try:
        inspect.signature(layer.forward).bind(None)
    except TypeError as error:
        raise UserError(f"{name}.forward must work with x as its only argument: {error}.") from None
    return layer


def run(layer, x):
    """Return the result for x and the problem, as in a Case."""
    given = x.clone()
    try:
        y = layer(given)
    except (Exception, SystemExit) as error:
        return None, ("raises", describe_error(error))
    if y is None:
        return None, ("wrong-shape", "forward returns None; does it end with return?")
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        kind = f"{tuple(y.shape)} for x of shape {tuple(x.shape)}" if hasattr(y, "shape") else f"a {type(y).__name__}"
        return None, ("wrong-shape", kind)
    return y.detach().double().clone(), None if x.equal(given) else ("changes-input", "")


# Errors of the layer


def find_line(error):
    """Return the last line in the student's code (a frame summary) of an error's traceback, or None."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(Path(frame.filename).is_relative_to(folder) for folder in NOT_OF_THE_STUDENT):
            return frame
    return None


def describe_error(error):
    """Return the type of an error, its message, shortened, and the line of the student's code that caused it."""
    message = " ".join(str(error).split())[:200]
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frame = find_line(error)
    return f"{text} (line {frame.lineno}: {frame.line})" if frame and frame.line else text


def is_unfilled(error):
    """Return whether an error says that the student has not written the code yet. torch raises the same type."""
    if not isinstance(error, NotImplementedError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last == find_line(error)


# Sizes and chance


def is_filled_in(name, cls):
    """Return False if building or running the layer raises NotImplementedError in the student's code."""
    try:
        build(name, cls, 3, 4)(torch.zeros(2, 3, 4))
    except (Exception, SystemExit) as error:
        return not is_unfilled(error)
    return True


def find_unit(name, cls):
    """Return the smallest number of which d must be a multiple, and what happens otherwise."""
    first = ""
    for unit in range(1, 13):
        errors = [try_size(name, cls, unit * d) for d in (2, 3, 4)]
        if not any(errors):
            return unit, first
        first = first or next(filter(None, errors))
    return 1, ""  # it works for no d


def try_size(name, cls, d):
    """Return a sentence if a layer cannot be built or run with d features, else an empty text."""
    try:
        build(name, cls, 3, d).eval()(torch.zeros(2, 3, d))
    except UserError as error:
        return str(error).removesuffix(".")
    except (Exception, SystemExit) as error:
        return f"{name}({d}) raises {describe_error(error)}"
    return ""


def can_build(name, cls, unit):
    """Return whether the layer can be built."""
    try:
        build(name, cls, 3, 4 * unit)
    except UserError:
        return False
    return True


def is_random(name, cls, unit):
    """Return whether calls with the same x give different results, although eval() was called."""
    if not can_build(name, cls, unit):
        return False
    layer = build(name, cls, 3, 4 * unit).eval()
    x = torch.linspace(-1, 1, 24 * unit).reshape(2, 3, 4 * unit)
    results = [run(layer, x)[0] for _ in range(4)]
    results = [y for y in results if y is not None]
    return any(not y.equal(results[0]) for y in results)


# Parts of an attention layer


def find_matrices(layer, d):
    """Fill the parameters with random numbers. Return the parts: x itself, and each matrix (d, d).

    Raises UserError if the layer has parameters, but not one to four matrices.
    """
    generator = torch.Generator().manual_seed(d)
    parameters, biases = {}, {}
    for name, p in layer.named_parameters():
        is_unused = not p.requires_grad and not p.any()
        if p.numel() < 2 or is_unused:  # a single number is a scale
            continue
        p.data.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(d))
        parameters[name] = p.data.double().squeeze()
        if parameters[name].dim() == 1:
            biases[module_of(name), p.numel() // d] = parameters[name]
    no_change = torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    parts = [Part("", (), *no_change)]
    for name, data in parameters.items():
        number = data.numel() // (d * d)
        if data.dim() < 2 or data.numel() != number * d * d:
            continue
        bias = biases.get((module_of(name), number), torch.zeros(number * d, dtype=torch.float64))
        parts += split_parameter(name, data, bias, d, "rows")
        if number > 1:
            parts += split_parameter(name, data, bias, d, "columns")
    matrices = {part.name for part in parts[1:]}
    if not 1 <= len(matrices) <= 4 and any(True for _ in layer.parameters()):
        shapes = ", ".join(f"{name} {tuple(p.shape)}" for name, p in layer.named_parameters())
        raise UserError(f"{ATTENTION}({d}) must have W_q, W_k and W_v of size {d} × {d}; its parameters are {shapes}.")
    return parts


def module_of(name):
    """Return the name of the module that has a parameter: "W_q" for "W_q.weight"."""
    return name.rpartition(".")[0]


def split_parameter(name, data, bias, d, stored):
    """Yield the matrices (d, d) of a parameter, each as it is and transposed.

    Several matrices in one parameter are stored one after the other ("rows"), or side by side ("columns").
    """
    if stored == "rows":
        matrices, biases = data.reshape(-1, d, d), bias.reshape(-1, d)
    else:
        matrices, biases = data.reshape(d, -1, d).transpose(0, 1), bias.reshape(d, -1).T
    for i, matrix in enumerate(matrices):
        yield Part(f"{name}[{i}]", (stored, False), matrix.T, biases[i])  # nn.Linear computes x Wᵀ
        yield Part(f"{name}[{i}]", (stored, True), matrix, biases[i])


# Parts of a layer norm


def find_affine(layer, T, d):
    """Fill the parameters with random numbers. Return the parts: 1 and 0, for a missing γ and β, and the parameters."""
    generator = torch.Generator().manual_seed(0)
    parts = [Part("", (T, d), torch.full((T, d), float(number), dtype=torch.float64)) for number in (1, 0)]
    for name, p in layer.named_parameters():
        for tensor in unstack(p):
            first = tensor.flatten()[0].item()
            start = int(first) if first in (0, 1) and (tensor == first).all() else None
            if start is None and tensor.numel() == 1:  # an ε
                continue
            tensor.copy_(1 + torch.randn(tensor.shape, generator=generator))
            with contextlib.suppress(RuntimeError):  # its size fits neither T nor d
                parts.append(Part(name, tensor.shape, expand(tensor.double(), T, d), None, start))
    return parts


def unstack(parameter):
    """Return γ and β if a parameter holds both, else the parameter itself. An empty parameter gives nothing."""
    if parameter.numel() == 0:
        return []
    if parameter.dim() > 1 and len(parameter) == 2:
        starts = [set(half.unique().tolist()) for half in parameter.data]
        if starts in ([{0}, {1}], [{1}, {0}]):
            return list(parameter.data)
    return [parameter.data]


def expand(tensor, T, d):
    """Return γ or β as (T, d), however it is stored. Raises RuntimeError if its size does not fit."""
    if tensor.shape == (T,):
        tensor = tensor[:, None]
    elif tensor.numel() == T * d:
        tensor = tensor.reshape(T, d)
    return tensor.reshape(tensor.shape[-2:]).expand(T, d)
