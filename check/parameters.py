"""Find the matrices of an attention layer, and γ and β of a layer norm, whatever their names are."""

import collections
import itertools
import math
from typing import NamedTuple

import torch

from check.mistakes import ATTENTION
from helpers.cli import UserError


class Projection(NamedTuple):
    """A matrix (d, d) and its bias (d) or None."""

    name: str  # of the parameter, and the number of the matrix in it: "W_q.weight[0]"
    weight: torch.Tensor
    bias: torch.Tensor | None


class Affine(NamedTuple):
    """A parameter of a layer norm, and the number that filled it at the start (0, 1, or None for anything else)."""

    tensor: torch.Tensor
    start: int | None


def find_projections(layer, d):
    """Fill the parameters with random numbers, and return a list of layouts. A layout is a list of Projection.

    There are two layouts if one parameter holds all three matrices: they are stored as blocks, or interleaved.
    Raises UserError if the layer has parameters, but not one to four matrices.
    """
    generator = torch.Generator().manual_seed(d)
    for parameter in layer.parameters():
        if parameter.numel() > 1 and not is_unused(parameter):  # a single number is a scale
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(d))
    layouts = [list_projections(layer, d)]
    if any(parameter.numel() == 3 * d * d for parameter in layer.parameters()):
        layouts.append(list_projections(layer, d, interleaved=True))
    if not 1 <= len(layouts[0]) <= 4 and any(True for _ in layer.parameters()):
        shapes = ", ".join(f"{name} {tuple(p.shape)}" for name, p in layer.named_parameters()) or "none"
        raise UserError(f"{ATTENTION}({d}) must have W_q, W_k and W_v of size {d} × {d}; its parameters are {shapes}.")
    return layouts


def list_projections(layer, d, interleaved=False):
    """Return the matrices of a layer as a list of Projection. A module's biases belong to its matrices."""
    weights, biases = collections.defaultdict(list), collections.defaultdict(list)  # of each module
    for name, parameter in layer.named_parameters():
        if is_unused(parameter):
            continue
        module = name.rpartition(".")[0]
        for number, piece in enumerate(split(parameter, d, interleaved)):
            if piece.dim() == 2:
                weights[module].append((f"{name}[{number}]", piece))
            else:
                biases[module].append(piece)
    projections = []
    for module, named in weights.items():
        own = biases[module] if len(biases[module]) == len(named) else [None] * len(named)
        projections += [Projection(name, weight, bias) for (name, weight), bias in zip(named, own, strict=True)]
    return projections


def is_unused(parameter):
    """Return whether a parameter is zero and stays zero, like a bias that was switched off."""
    return parameter.dim() == 1 and not parameter.requires_grad and not parameter.any()


def split(parameter, d, interleaved):
    """Return the matrices (d, d) or the biases (d) in a parameter: none, one or three."""
    data = parameter.data.double().squeeze()
    if data.shape == (d, 3 * d):
        data = data.T
    size = (d, d)[:data.dim()]
    if data.dim() == 0 or data.numel() not in (math.prod(size), 3 * math.prod(size)):
        return []
    pieces = data.reshape(d, -1, *size[1:]).transpose(0, 1) if interleaved else data.reshape(-1, *size)
    return list(pieces)


def find_affine(layer):
    """Fill the parameters with random numbers, and return a list of Affine."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for tensor in itertools.chain.from_iterable(map(unstack, layer.parameters())):
        first = tensor.flatten()[0].item()
        start = first if first in (0, 1) and (tensor == first).all() else None
        if start is not None or tensor.numel() > 1:  # any other single number is an ε
            tensor.data.copy_(1 + torch.randn(tensor.shape, generator=generator))
            found.append(Affine(tensor, start))
    return found


def unstack(parameter):
    """Return γ and β if a parameter holds both, else the parameter itself. An empty parameter gives nothing."""
    if parameter.numel() == 0:
        return []
    if parameter.dim() > 1 and len(parameter) == 2:
        starts = [set(half.unique().tolist()) for half in parameter]
        if starts in ([{0}, {1}], [{1}, {0}]):
            return list(parameter.data)
    return [parameter]
