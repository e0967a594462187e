"""Cases: inputs of several shapes and magnitudes, what a layer returns for each, and the parts of the layer."""

import contextlib
import inspect
import math
import sysconfig
import textwrap
import traceback
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from check.mistakes import ATTENTION
from helpers import UserError

SHAPES = [(2, 3, 4), (1, 1, 2), (1, 2, 3), (1, 2, 5), (4, 3, 5)]  # (B, T, d); the first one is the main case
KINDS = {"ordinary": lambda z: z, "large": lambda z: 100 * z, "constant": lambda z: torch.full_like(z, 2.5),
         "tiny": lambda z: 1e-4 * z, "very tiny": lambda z: 1e-6 * z}
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
    layer: nn.Module
    parts: list  # of Part
    kind: str  # a key of KINDS
    x: torch.Tensor  # (B, T, d), float64
    y: torch.Tensor | None  # (B, T, d), float64; None if the layer returns nothing of this shape
    problem: tuple | None  # code of a mistake, and a detail or ""


def make_best_cases(name, cls, unit):
    """Return the cases of a class and their dtype: float64, or float32 if the layer has fewer problems with it."""
    cases = make_cases(name, cls, unit, torch.float64)
    if any(case.problem for case in cases):
        again = make_cases(name, cls, unit, torch.float32)
        if [case.problem for case in again].count(None) > [case.problem for case in cases].count(None):
            return again, torch.float32
    return cases, torch.float64


def make_cases(name, cls, unit, dtype):
    """Return a case for every shape and every kind of numbers. Each d is multiplied by `unit`."""
    generator, cases = torch.Generator().manual_seed(1), []
    for B, T, d in SHAPES:
        d = d * unit
        layer = build(name, cls, T, d).to(dtype).eval()
        parts = find_matrices(layer, d) if name == ATTENTION else find_affine(layer, T, d)
        z = torch.randn(B, T, d, generator=generator).mul(8).round().div(8)  # exact in float32 too
        for kind, make in KINDS.items():
            x = make(z)
            cases.append(Case(layer, parts, kind, x.double(), *run(layer, x.to(dtype))))
    return cases


def build(name, cls, T, d):
    """Return the layer for reviews of size (T, d). Raises UserError if it cannot be built or needs more than x."""
    first = None
    for arguments in [(d,)] if name == ATTENTION else [((T, d),), ([T, d],), (T, d), (d,)]:
        try:
            layer = cls(*arguments)
            break
        except (Exception, SystemExit) as error:
            if isinstance(error, NotImplementedError):
                raise
            first = first or f"{name}({arguments[0]}) raises {describe_error(error)}."
    else:
        raise UserError(first)
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
        return None, ("raises", f"with x of shape {tuple(x.shape)}, {describe_error(error)}")
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        kind = f"of shape {tuple(y.shape)}" if hasattr(y, "shape") else textwrap.shorten(str(y), 50, placeholder=" …")
        return None, ("wrong-shape", f"for x of shape {tuple(x.shape)}, it is {kind}")
    return y.detach().double().clone(), None if x.equal(given) else ("changes-input", "")


def describe_error(error):
    """Return the type of an error, its message, shortened, and the line of the student's code that caused it."""
    message, line = textwrap.shorten(str(error), 200, placeholder=" …"), ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not any(Path(frame.filename).is_relative_to(folder) for folder in NOT_OF_THE_STUDENT):
            line = f" (line {frame.lineno}: {frame.line})"
    return f"{type(error).__name__}{': ' if message else ''}{message}{line}"


def is_unfilled(name, cls):
    """Return whether the student's code raises NotImplementedError. torch raises it for other reasons."""
    try:
        build(name, cls, 3, 4)(torch.zeros(2, 3, 4))
    except NotImplementedError as error:
        last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        return not any(map(last.is_relative_to, NOT_OF_THE_STUDENT))
    except (Exception, SystemExit):  # it is named later
        return False


def find_unit(name, cls):
    """Return the smallest number of which d must be a multiple, and what happens otherwise."""
    first = ""
    for unit in range(1, 13):
        try:
            for d in (2 * unit, 3 * unit, 4 * unit):
                build(name, cls, 3, d).eval()(torch.zeros(2, 3, d))
            return unit, first
        except (Exception, SystemExit) as error:
            first = first or f"with d = {d}, {describe_error(error)}"
    return 1, ""  # it works for no d


def is_random(name, cls, unit):
    """Return whether calls with the same x give different results, although eval() was called."""
    with contextlib.suppress(UserError):
        layer, x = build(name, cls, 3, 4 * unit).eval(), torch.linspace(-1, 1, 24 * unit).reshape(2, 3, 4 * unit)
        results = [run(layer, x)[0] for _ in range(4)]
        return any(y is not None and not y.equal(results[0]) for y in results) if results[0] is not None else False
    return False


def find_matrices(layer, d):
    """Fill the parameters with random numbers. Return x itself and the matrices. Raises UserError without a matrix."""
    generator, parameters, biases = torch.Generator().manual_seed(d), {}, {}
    for name, p in layer.named_parameters():
        if p.numel() > 1 and (p.requires_grad or p.any()):  # a single number is a scale; a frozen 0 is not used
            p.data.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(d))
            parameters[name] = p.data.double().squeeze()
            if parameters[name].dim() == 1:
                biases[name.rpartition(".")[0], p.numel() // d] = parameters[name]  # of a module
    parts = [Part("", (), torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64))]
    for name, data in parameters.items():
        n = data.numel() // (d * d)
        if data.dim() > 1 and data.numel() == n * d * d:
            bias = biases.get((name.rpartition(".")[0], n), torch.zeros(n * d, dtype=torch.float64))
            parts += split_parameter(name, data.reshape(n, d, d), bias.reshape(n, d), "rows")
            if n > 1:
                columns = data.reshape(d, n, d).transpose(0, 1)
                parts += split_parameter(name, columns, bias.reshape(d, n).T, "columns")
    if not 1 <= len({part.name for part in parts[1:]}) <= 4 and any(True for _ in layer.parameters()):
        shapes = ", ".join(f"{name} {tuple(p.shape)}" for name, p in layer.named_parameters())
        raise UserError(f"{ATTENTION}({d}) must have W_q, W_k and W_v of size {d} × {d}; its parameters are {shapes}.")
    return parts


def split_parameter(name, matrices, biases, stored):
    """Yield the parts of a parameter: each of its matrices (n, d, d), as it is and transposed, with its bias (n, d)."""
    for i, matrix in enumerate(matrices):
        yield Part(f"{name}[{i}]", (stored, False), matrix.T, biases[i])  # nn.Linear computes x Wᵀ
        yield Part(f"{name}[{i}]", (stored, True), matrix, biases[i])


def find_affine(layer, T, d):
    """Fill the parameters with random numbers. Return the parts: 1 and 0, for a missing γ and β, and the parameters."""
    generator = torch.Generator().manual_seed(0)
    parts = [Part("", (T, d), torch.full((T, d), number, dtype=torch.float64)) for number in (1, 0)]
    for name, p in layer.named_parameters():
        for tensor in split_pair(p.data) if p.numel() else []:
            first = tensor.flatten()[0].item()
            start = int(first) if first in (0, 1) and (tensor == first).all() else None
            if start is None and tensor.numel() == 1:  # an ε
                continue
            tensor.copy_(1 + torch.randn(tensor.shape, generator=generator))
            full = tensor.double()
            full = full[:, None] if full.shape == (T,) else full
            with contextlib.suppress(RuntimeError):  # its size fits neither T nor d
                full = full.reshape((T, d) if full.numel() == T * d else full.shape[-2:]).expand(T, d)
                parts.append(Part(name, tensor.shape, full, None, start))
    return parts


def split_pair(data):
    """Return γ and β if a parameter holds both, else the parameter itself."""
    if data.dim() > 1 and len(data) == 2:
        starts = [set(half.unique().tolist()) for half in data]
        if starts in ([{0}, {1}], [{1}, {0}]):
            return list(data)
    return [data]
