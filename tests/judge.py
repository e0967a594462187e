"""Judge the layers of any solution: right, or with which mistakes of tests/mistakes.py.

A layer's weights, whatever it calls them, are filled with random numbers, and its results compared with the plain loops
of tests/loops.py and with what the known mistakes, alone and together, make of the same weights and input.
"""

import collections
import contextlib
import inspect
import itertools
import linecache
import math
import re
import sys
import sysconfig
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from helpers.cli import UserError
from tests.loops import attention_in_loops, norm_in_loops
from tests.mistakes import ATTENTION, BY_CODE, NORM, attention, combinations, norm

SHAPES = [(1, 1, 2), (1, 2, 2), (1, 2, 3), (2, 3, 4), (4, 3, 3)]  # (B, T, d), the smallest first
KINDS = {"ordinary": lambda z: z, "large": lambda z: 100 * z, "constant": lambda z: torch.full_like(z, 2.5),
         "tiny": lambda z: 1e-4 * z, "very tiny": lambda z: 1e-6 * z}
MAIN = 3 * len(KINDS)  # the case that tells most mistakes apart: ordinary numbers; B, T and d differ
EXACT, FLOAT32 = 1e-9, 1e-4  # what rounding may come to, relative to the largest number of a result
VECTORIZERS = {"vmap", "vectorize", "apply_along_axis"}  # loops that neither a line nor a call shows
BUILT_IN = re.compile(r"(native_)?(layer|group|instance|batch)_norm|(Layer|Group|Instance|Batch)Norm(\dd)?|"
                      r"scaled_dot_product_attention|.*multi_head_attention.*|MultiheadAttention")
INSTALLED = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}


class Case(NamedTuple):
    """An input x (B, T, d) and what a layer made of it: y, or None, and a code and a sentence on a problem, or None."""

    layer: nn.Module
    tensors: list
    kind: str
    x: torch.Tensor
    y: torch.Tensor | None
    problem: tuple | None


class Way(NamedTuple):
    """A way to compute: its mistakes, and functions of a case: what this way gives for it, and what the loops give."""

    mistakes: list
    expected: object
    loops: object


def one_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def build(name, cls, T, d):
    """Return the layer for sentences of size (T, d). Raises UserError if it cannot be built or needs more than x."""
    problem = None
    for arguments in [(d,)] if name == ATTENTION else [((T, d),), ([T, d],), (T, d), (d,)]:
        try:
            layer = cls(*arguments)
        except (Exception, SystemExit) as error:
            problem = problem or f"{name}({arguments[0]}) raises {one_line(error)}"
            continue
        if not isinstance(layer, nn.Module):
            raise UserError(f"{name} is not an nn.Module.")
        try:
            inspect.signature(layer.forward).bind(None)
        except TypeError as error:
            raise UserError(f"{name}.forward must take x and nothing else: {error}.") from None
        return layer
    raise UserError(f"{problem}.")


def split(tensor, d, blocks):
    """Return the d × d matrices, or the biases of length d, that a tensor holds: none, one or three."""
    data = tensor.data.double().squeeze()
    data = data.T if data.shape == (d, 3 * d) else data
    size = (d, d)[:data.dim()]
    if data.numel() not in (math.prod(size), 3 * math.prod(size)):
        return []
    return list(data.reshape(-1, *size) if blocks else data.reshape(d, -1, *size[1:]).transpose(0, 1))


def find_projections(layer, d):
    """Fill the parameters with random numbers; return name, matrix and bias of each projection, found by their sizes.

    There are two such lists where one matrix holds all three: they may lie in it in blocks, or in turns.
    """
    generator, found = torch.Generator().manual_seed(d), []
    for parameter in layer.parameters():
        if parameter.numel() > 1:  # a single number is a scale
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(d))
    for blocks in [True, False] if any(p.numel() == 3 * d * d for p in layer.parameters()) else [True]:
        owners = {}  # of each module, its biases and its matrices
        for name, parameter in layer.named_parameters():
            for i, piece in enumerate(split(parameter, d, blocks)):
                pieces = owners.setdefault(name.rpartition(".")[0], ([], []))
                pieces[piece.dim() - 1].append((f"{name}[{i}]", piece))
        found.append([(name, w, biases[i][1] if len(biases) == len(matrices) else None)
                      for biases, matrices in owners.values() for i, (name, w) in enumerate(matrices)])
    if not 2 <= len(found[0]) <= 4:
        shapes = ", ".join(f"{name} {tuple(p.shape)}" for name, p in layer.named_parameters()) or "none"
        raise UserError(f"{ATTENTION}({d}) must have W_q, W_k and W_v of size {d} × {d}; its parameters are {shapes}.")
    return found


def halves(parameter):
    """Return gamma and beta where a parameter holds both, or else it alone; nothing of one without numbers."""
    both = parameter.dim() > 1 and len(parameter) == 2 and [set(half.unique().tolist()) for half in parameter]
    return list(parameter.data) if both in ([{0}, {1}], [{1}, {0}]) else [parameter] * (parameter.numel() > 0)


def find_affine(layer):
    """Fill the parameters with random numbers; return each and its start value (None if that is not 0 or 1)."""
    generator, found = torch.Generator().manual_seed(0), []
    for parameter in itertools.chain(*map(halves, layer.parameters())):
        first = parameter.flatten()[0].item()
        start = first if first in (0, 1) and (parameter == first).all() else None
        if start is not None or parameter.numel() > 1:  # any other single number is an epsilon
            parameter.data.copy_(1 + torch.randn(parameter.shape, generator=generator))
            found.append((parameter, start))
    return found


def run(layer, x):
    """Return y or None, and a code and a sentence on a problem or None."""
    given = x.clone()
    try:
        y = layer(given)
    except (Exception, SystemExit) as error:
        return None, ("raises", one_line(error))
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        size = f" of shape {tuple(y.shape)} for x of shape {tuple(x.shape)}" if isinstance(y, torch.Tensor) else ""
        return None, ("wrong-shape", f"a {type(y).__name__}{size}")
    return y.detach().double().clone(), None if x.equal(given) else ("changes-input", "afterwards it is another one")


def make_cases(name, cls, dtype):
    """Return the cases: every shape with every kind of numbers."""
    generator, cases = torch.Generator().manual_seed(1), []
    for shape in SHAPES:
        layer = build(name, cls, *shape[1:]).to(dtype).eval()
        tensors = find_projections(layer, shape[2]) if name == ATTENTION else find_affine(layer)
        z = torch.randn(shape, generator=generator).mul(8).round().div(8)
        for kind, make in KINDS.items():
            cases.append(Case(layer, tensors, kind, make(z).double(), *run(layer, make(z).to(dtype))))
    return cases


def roles(names):
    """Return the numbers of q, k and v, as far as there are so many, by their names; None if those do not tell."""
    found = []
    for name in names:
        path, number = re.fullmatch(r"(.*?)[._]?(?:weight)?\[(\d)\]", name.lower()).groups()
        hits = [letter for letter, word in (("q", "quer"), ("k", "key"), ("v", "val"))
                if word in path or re.search(rf"(^|[^a-z]){letter}|{letter}($|[^a-z])", path)]
        found.append("qkv"[int(number)] if "qkv" in path else hits[0] if len(hits) == 1 else None)
    order = [found.index(letter) for letter in "qkv" if found.count(letter) == 1]
    return order if len(order) == min(3, len(names)) else None


def attention_ways(tensors):
    """Yield the ways: every order of the matrices, transposed or not, with their biases or not, and the mistakes."""
    def way(cut, order, flips, biased):
        def project(case, x, number):
            _, w, b = case.tensors[cut][order[number]]
            y = x @ (w.T if flips[number] else w)
            return y if b is None or not biased else y + b

        def expected(changes, case):
            projected = [project(case, case.x, number) for number in range(min(3, len(order)))]
            y = attention(case.x, *projected, *[None] * (3 - len(projected)), **changes)
            return project(case, y, 3) if len(order) == 4 else y

        def loops(case):
            w = [case.tensors[cut][number][1] for number in order[:3]] + [torch.eye(case.x.shape[2])]
            w = [(one if flip else one.T).tolist() for one, flip in zip(w, flips, strict=False)]
            return [attention_in_loops(x, *w[:3], [True] * len(x)) for x in case.x.tolist()]
        return expected, loops

    for cut, slots in enumerate(tensors):
        named, n = roles([name for name, *_ in slots]), len(slots)
        orders = [order for size in {min(n, 3), n} for order in itertools.permutations(range(n), size)]
        flips = list(itertools.product([True, False], repeat=3)) if n < 4 else [(True,) * 4, (False,) * 4]
        for flip, order, biased in itertools.product(flips, orders, {False, any(b is not None for *_, b in slots)}):
            codes = ["biases"] * biased + ["output-projected"] * (len(order) == 4)
            if named and [*order[:3]] != named:
                exchanged = [*order[:3]] == [named[1], named[0], *named[2:]]
                codes.append("keys-as-queries" if exchanged else "matrices-exchanged")
            expected, loops = way(cut, order, flip, biased)
            for mistakes, changes in combinations(ATTENTION, 2 if len({*flip[:n]}) == 1 else 1):
                if n > 2 or changes.get("values") == "x":
                    yield Way([*mistakes, *map(BY_CODE.get, codes)], partial(expected, changes), loops)


def norm_ways(tensors):
    """Yield the ways: each parameter as gamma or beta, and the mistakes."""
    T, d = SHAPES[MAIN // len(KINDS)][1:]
    starts = [start for _, start in tensors]

    def fit(case, number, default):
        tensor = torch.tensor(default) if number is None else case.tensors[number][0].data
        if tensor.dim() == 1 and tensors[number][0].shape == (T,):  # of the main case: a number for each token
            return tensor.double()[:, None]
        if tensor.dim() != 2:  # (T d) and (1, T, d) serve as well as (T, d), and (1, 1, d) as (1, d)
            sizes = [size for size in (case.x.shape[1:], tensor.shape[-2:]) if tensor.numel() == math.prod(size)]
            tensor = tensor.reshape([*sizes, tensor.shape][0])
        return tensor.double()

    def expected(gamma, beta, changes, case):
        return norm(case.x, fit(case, gamma, 1), fit(case, beta, 0), **changes)

    def spread(case, number, default):
        tensor = fit(case, starts.index(default) if default in starts else number, default)
        fits = tensor.dim() < 3 and all(
            one in (1, size) for one, size in zip(tensor.shape[::-1], case.x.shape[::-1], strict=False))
        return (tensor if fits else torch.tensor(default)).expand(case.x.shape[1:]).tolist()

    def loops(gamma, beta, case):
        gamma, beta = spread(case, gamma, 1), spread(case, beta, 0)
        return [norm_in_loops(x, gamma, beta, [True] * len(x)) for x in case.x.tolist()]

    for gamma, beta in itertools.permutations([*range(len(tensors)), *[None] * max(0, 2 - len(tensors))], 2):
        used = [tensors[number] for number in (gamma, beta) if number is not None]
        codes = ["affine-shape"] * any(tensor.shape not in ((T, d), (1, T, d), (T * d,)) for tensor, _ in used)
        codes += ["affine-swapped"] * ([start for _, start in used] == [0, 1])
        for mistakes, changes in combinations(NORM, 4):
            affine = changes.get("affine", "γβ")
            if ("γ" not in affine or gamma is not None) and ("β" not in affine or beta is not None):
                yield Way([*mistakes, *map(BY_CODE.get, codes)], partial(expected, gamma, beta, changes),
                          partial(loops, gamma, beta))


def distance(case, function, least=0.0):
    """Return how far y is from what a function gives, relative to the largest number, or to `least`; NaN equals NaN.

    Where large numbers overflow, only the others count.
    """
    try:
        expected = torch.as_tensor(function(case), dtype=torch.float64).expand_as(case.y)
    except (RuntimeError, TypeError):  # sizes that this way cannot have
        return math.inf
    counted = expected.isfinite() & (case.y.isfinite() if case.kind == "large" else True)
    if case.kind != "large" and not counted.equal(case.y.isfinite()):
        return math.inf
    y, expected = case.y[counted], expected[counted]
    return (y - expected).abs().max().item() / (max(least, expected.abs().max().item()) or 1) if len(y) else 0.0


def identify(ways, good):
    """Return the way with the fewest mistakes that gives all results, and the bound within which it does; or None."""
    near = []
    for way in sorted(ways, key=lambda way: len(way.mistakes)):
        first = distance(good[0], way.expected)
        if first <= EXACT and all(distance(case, way.expected) <= EXACT for case in good):
            return way, EXACT
        near += [way] * (first <= FLOAT32)
    return next((way for way in near if all(distance(case, way.expected) <= FLOAT32 for case in good)), None), FLOAT32


def count_runs(name, cls, shape):
    """Return how often each line of the solution and each function of torch runs for an x of that shape, and names."""
    layer, counts, names = build(name, cls, *shape[1:]).eval(), collections.Counter(), set()
    folder = Path(inspect.unwrap(cls.forward).__code__.co_filename).parent

    class CountFunctions(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            counts[f"{function.__name__}()"] += 1
            return function(*args, **(kwargs or {}))

    def trace(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(folder) or any(map(path.is_relative_to, INSTALLED)) or str(path) == __file__:
            return None
        counts[str(path), frame.f_lineno] += event == "line"
        names.update(frame.f_code.co_names)
        return trace

    before = sys.gettrace()
    with CountFunctions(), contextlib.suppress(Exception, SystemExit):
        sys.settrace(trace)
        try:
            layer(torch.ones(shape))
        finally:
            sys.settrace(before)
    return counts, names


def style(name, cls):
    """Yield a code and a sentence for loops and for PyTorch's own layers.

    What runs more often for a larger x is in a loop, wherever it stands; a loop over the three projections is not.
    """
    (small, names), (large, _) = (count_runs(name, cls, shape) for shape in [(2, 3, 4), (4, 6, 8)])
    grown = [key for key in small if 0 < small[key] < large[key]]
    lines = [(key[1], linecache.getline(*key).strip()) for key in grown if isinstance(key, tuple)]
    if lines:  # the line of the loop itself rather than one in it
        yield "loop", "line {}, {}".format(*min(lines, key=lambda line: (not re.search("for |while ", line[1]), line)))
    elif grown or names & VECTORIZERS:
        yield "loop", min(grown or names & VECTORIZERS)
    torchs = {key.removesuffix("()") for key in small if isinstance(key, str)}  # whatever a solution calls its own
    torchs |= {base.__name__ for module in build(name, cls, 3, 4).modules() for base in type(module).__mro__
               if base.__module__.startswith("torch.")}
    if built_in := sorted(filter(BUILT_IN.fullmatch, torchs)):
        yield "built-in", built_in[0]


def gradient_problem(layer, x, exact):
    """Return a sentence if the gradients of x and of the parameters are not those that finite differences give."""
    frozen = [name for name, p in layer.named_parameters() if p.numel() > 1 and not p.requires_grad]
    if frozen:
        return f"{', '.join(frozen)}: requires_grad=False, so it is not learned"
    names, parameters = [name for name, _ in layer.named_parameters()], [p.detach() for p in layer.parameters()]
    inputs = [tensor.clone().requires_grad_() for tensor in (x, *parameters)]
    step, bound = (1e-6, 1e-5) if exact else (1e-2, 2e-2)

    def forward(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x * 1,))

    try:
        torch.autograd.grad(forward(*inputs).sum(), inputs, allow_unused=True)
        with warnings.catch_warnings(action="ignore"):  # float32 is allowed for by the larger step and bound
            same = torch.autograd.gradcheck(forward, inputs, eps=step, atol=bound, rtol=bound, raise_exception=False)
    except Exception as error:
        return one_line(error)
    return None if same else "they are not those that finite differences give"


def noticed(name, cls, cases, dtype, found, exact):
    """Yield the code of each mistake that is not one of the formula, and a sentence on it."""
    main = cases[MAIN]
    yield from (case.problem for case in cases if case.problem)
    yield from style(name, cls)
    if not found or main.y is None:
        return
    for case in cases:
        if case.y is not None and (found.expected(case).isfinite() & ~case.y.isfinite()).any():
            yield "overflow", f"here for numbers of up to {case.x.abs().max():.0f}"
    right = not any(mistake.changes for mistake in found.mistakes)
    problem = right and gradient_problem(main.layer, main.x.to(dtype), exact)
    if problem:
        yield "gradient", problem
    main.layer.train()
    trained = [run(main.layer, main.x.to(dtype))[0] for _ in range(8)]
    if any(y is None or (y - main.y).abs().max() > FLOAT32 for y in trained):
        yield "dropout-inside", "after train(), the same x gives other results than after eval()"


def show(case, expected, bound):
    """Return a sentence on the first number of a case that is not the loops'."""
    expected = torch.tensor(expected, dtype=torch.float64)
    wrong = ~torch.isclose(case.y, expected, rtol=0, atol=bound * expected.abs().max().item(), equal_nan=True)
    b, t, i = wrong.nonzero()[0].tolist()
    return (f"shows on: x of shape {tuple(case.x.shape)}, {case.kind} numbers: y[{b}, {t}, {i}] should be "
            f"{expected[b, t, i]:.4g} and is {case.y[b, t, i]:.4g}")


def judge(name, cls):
    """Return what is to be said of a class: whether it is right, codes of mistakes, largest difference, sentences."""
    cases, dtype = make_cases(name, cls, torch.float64), torch.float64
    if any(case.problem for case in cases):  # written for float32 alone?
        again = make_cases(name, cls, torch.float32)
        if sum(case.problem is None for case in again) > sum(case.problem is None for case in cases):
            cases, dtype = again, torch.float32
    good = sorted((case for case in cases if case.y is not None), key=lambda case: case is not cases[MAIN])
    ways = (attention_ways if name == ATTENTION else norm_ways)(cases[MAIN].tensors)
    ways = list(ways) if good else []
    if good and not ways:
        shapes = ", ".join(f"{parameter} {tuple(p.shape)}" for parameter, p in cases[MAIN].layer.named_parameters())
        raise UserError(f"{name} must have γ and β; its parameters are {shapes}.")
    found, bound = identify(ways, good)
    mistakes = {mistake.code: (mistake.what, mistake.exercise) for mistake in found.mistakes} if found else {}
    for code, sentence in noticed(name, cls, cases, dtype, found, bound == EXACT):
        mistakes.setdefault(code, (f"{BY_CODE[code].what}: {sentence}", BY_CODE[code].exercise))
    notes = [note for code, (what, exercise) in mistakes.items()
             for note in (f"{code}: {what}", f"exercise: {exercise}")]
    verdict = {"right": bool(found) and not mistakes, "mistake": "+".join(mistakes) or None, "difference": None}
    nearest = found
    if good and not found:
        simple = sorted([way for way in ways if len(way.mistakes) <= 1],
                        key=lambda way: distance(good[0], way.expected, 1))
        nearest = min(simple[:50], key=lambda way: sum(min(distance(case, way.expected, 1), 1) for case in good))
        far = [d for case in good if (d := distance(case, nearest.expected, 1)) < math.inf]
        verdict["mistake"], what = None, nearest.mistakes[0].code if nearest.mistakes else "the formula"
        notes.append("unknown: it differs from the formula and from every known mistake; the nearest is "
                     f"{what}, up to {max(far, default=math.inf):.2g} times the largest number away")
    if nearest:
        away = [distance(case, nearest.loops, 1) for case in good if case.y.isfinite().any()]
        verdict["difference"] = max((number for number in away if number < math.inf), default=None)
        shown = next((case for case in cases if case.y is not None and distance(case, nearest.loops) > bound), None)
        notes += [show(shown, nearest.loops(shown), bound)] if shown else []
    if name == NORM:
        try:
            cls((3, 4))
        except Exception as error:
            notes.append(f"interface: the exercise's block calls {NORM}((T, d)), which raises {one_line(error)}")
    if found and bound > EXACT:
        notes.append("float32: part of it is computed in float32, and is judged as exactly as that allows")
    return verdict | {"notes": list(dict.fromkeys(notes))}
