"""Find the mistakes that no change of a formula explains: loops, built-in layers, overflow, gradients, dropout."""

import collections
import contextlib
import inspect
import linecache
import re
import sys
import sysconfig
from pathlib import Path

import torch

from check.cases import MAIN, build, run
from check.distance import EXACT, FLOAT32
from check.mistakes import ATTENTION
from check.solution import one_line
from check.watch import FunctionCounter

VECTORIZERS = {"vmap", "vectorize", "apply_along_axis"}  # they loop without running a line or a function twice
BUILT_IN = re.compile(r"(native_)?(layer|group|instance|batch)_norm|(Layer|Group|Instance|Batch)Norm(\dd)?|"
                      r"scaled_dot_product_attention|.*multi_head_attention.*|MultiheadAttention")
INSTALLED = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]


def find_problems(name, cls, unit, cases, dtype, found, tolerance):
    """Yield the code and a detail (or "") of each mistake.

    Args:
        name: ATTENTION or NORM.
        cls: the class.
        unit: d must be a multiple of it.
        cases: the cases of the class.
        dtype: the type of the numbers that the layer gets.
        found: the Hypothesis that explains the results, or None.
        tolerance: the tolerance within which `found` explains them.
    """
    yield from (case.problem for case in cases if case.problem)
    yield from find_shortcuts(name, cls, unit)
    main = cases[MAIN]
    if found is None or main.y is None:
        return
    for case in cases:
        if case.y is None or case.y.isfinite().all():
            continue
        too_large = name == ATTENTION and case.kind == "large"
        if too_large or (found.expected(case).isfinite() & ~case.y.isfinite()).any():
            yield "overflow", f"seen with numbers up to {case.x.abs().max():.0f}"
    x = main.x.to(dtype)
    is_formula = not any(mistake.changes for mistake in found.mistakes)
    problem = is_formula and find_gradient_problem(main.layer, x, exact=tolerance == EXACT)
    if problem:
        yield "gradient", problem
    if differs_in_training(main.layer, x, main.y):
        yield "dropout-inside", ""


# Loops and built-in layers


class LineCounter:
    """Count how often each line (file, line number) in a folder runs, and collect the names that the code uses."""

    def __init__(self, folder):
        self.folder = folder
        self.counts, self.names = collections.Counter(), set()

    def trace(self, frame, event, _):
        """Serve as the function of `sys.settrace`."""
        path = Path(frame.f_code.co_filename)
        installed = any(path.is_relative_to(folder) for folder in INSTALLED)
        if installed or not path.is_relative_to(self.folder) or str(path) == __file__:
            return None
        if event == "line":
            self.counts[str(path), frame.f_lineno] += 1
        self.names.update(frame.f_code.co_names)
        return self.trace


def count_runs(name, cls, shape):
    """Run forward on an x of a shape (B, T, d). Return a LineCounter and a FunctionCounter."""
    layer = build(name, cls, *shape[1:]).eval()
    lines = LineCounter(Path(inspect.unwrap(cls.forward).__code__.co_filename).parent)
    functions = FunctionCounter()
    before = sys.gettrace()
    with functions, contextlib.suppress(Exception, SystemExit):
        sys.settrace(lines.trace)
        try:
            layer(torch.ones(shape))
        finally:
            sys.settrace(before)
    return lines, functions


def find_shortcuts(name, cls, unit):
    """Yield a code and a detail for a loop and for a built-in layer.

    A line or function that runs more often for a larger x is in a loop. A loop over the three projections is allowed.
    """
    lines, functions = count_runs(name, cls, (2, 3, 4 * unit))
    more_lines, more_functions = count_runs(name, cls, (4, 6, 8 * unit))
    grown_lines = [place for place, count in lines.counts.items() if count < more_lines.counts[place]]
    grown_functions = [called for called, count in functions.counts.items() if count < more_functions.counts[called]]
    if grown_lines:
        yield "loop", show_loop(grown_lines)
    elif grown_functions:
        yield "loop", f"{min(grown_functions)}()"
    elif lines.names & VECTORIZERS:
        yield "loop", min(lines.names & VECTORIZERS)
    names = set(functions.counts)  # not lines.names: a solution may use these names for its own functions
    for module in build(name, cls, 3, 4 * unit).modules():
        names |= {base.__name__ for base in type(module).__mro__ if base.__module__.startswith("torch.")}
    built_in = sorted(filter(BUILT_IN.fullmatch, names))
    if built_in:
        yield "built-in", built_in[0]


def show_loop(places):
    """Return the first line with a loop statement among places (file, line number), or else the first line."""
    lines = sorted((number, linecache.getline(path, number).strip()) for path, number in places)
    loops = [(number, text) for number, text in lines if re.search("for |while ", text)]
    number, text = (loops or lines)[0]
    return f"line {number}, {text}"


# Training


def find_gradient_problem(layer, x, exact):
    """Return a sentence if the gradients of x or of the parameters are wrong, else None.

    Without `exact`, the layer computes in float32, which needs larger steps and tolerances.
    """
    names = [name for name, _ in layer.named_parameters()]
    frozen = [name for name, p in layer.named_parameters() if p.numel() > 1 and not p.requires_grad and p.any()]
    if frozen:
        return f"{', '.join(frozen)}: nothing is learned, because requires_grad=False"
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (x, *layer.parameters())]
    step, tolerance = (1e-6, 1e-5) if exact else (1e-2, 5e-2)
    weights = torch.randn(3, *x.shape, generator=torch.Generator().manual_seed(0)).to(x.dtype)

    def losses():
        """Return three weighted sums of the result."""
        given = inputs[0] * 1  # a copy, because forward may change it
        y = torch.func.functional_call(layer, dict(zip(names, inputs[1:], strict=True)), (given,))
        return (weights * y).flatten(1).sum(1)

    try:
        gradients = [torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True) for loss in losses()]
        for tensor, of_losses in zip(inputs, zip(*gradients, strict=True), strict=True):
            found = [torch.zeros_like(tensor) if gradient is None else gradient for gradient in of_losses]
            expected = differentiate(losses, tensor, step)
            if not torch.allclose(torch.stack(found), expected, atol=tolerance, rtol=tolerance):
                return "they differ from finite differences"
    except Exception as error:
        return one_line(error)
    return None


@torch.no_grad()
def differentiate(losses, tensor, step):
    """Return finite differences of each loss for a tensor: a tensor (number of losses, *shape)."""
    numbers = tensor.view(-1)
    columns = []
    for i in range(len(numbers)):
        middle = numbers[i].item()
        numbers[i] = middle + step
        high = losses()
        numbers[i] = middle - step
        columns.append((high - losses()) / (2 * step))
        numbers[i] = middle
    return torch.stack(columns, 1).view(-1, *tensor.shape)


def differs_in_training(layer, x, y):
    """Put a layer into training mode. Return whether its results for x then differ from y."""
    layer.train()
    for _ in range(8):
        trained, _ = run(layer, x)
        if trained is None or (trained - y).abs().max() > FLOAT32:
            return True
    return False
