"""Find the mistakes that no change of a formula explains: loops, built-in layers, overflow, gradients, dropout."""

import collections
import contextlib
import inspect
import linecache
import re
import sys
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

from check.cases import NOT_OF_THE_STUDENT, build, describe_error, run
from check.mistakes import ATTENTION
from check.search import EXACT, FLOAT32

VECTORIZERS = {"vmap", "vectorize", "apply_along_axis"}  # they loop without running a line or a function twice
BUILT_IN = re.compile(r"(native_)?(layer|group|instance|batch)_norm|(Layer|Group|Instance|Batch)Norm(\dd)?|"
                      r"scaled_dot_product_attention|.*multi_head_attention.*|MultiheadAttention")
LOW = {"float16", "bfloat16", "float32"}


class Watch(TorchFunctionMode):
    """Watch the functions of torch that a layer calls.

    Args:
        no_dropout: whether functional dropout returns its input.
    """

    def __init__(self, no_dropout=False):
        super().__init__()
        self.counts = collections.Counter()  # calls of each function, by its name
        self.is_low = False  # whether numbers have less precision than float64
        self.no_dropout = no_dropout

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Serve as the function that torch calls instead of `function`."""
        kwargs = kwargs or {}
        name = function.__name__
        self.counts[name] += 1
        if self.no_dropout and "dropout" in name:
            return args[0] if args else kwargs["input"]
        y = function(*args, **kwargs)
        for value in (y, *args, *kwargs.values()):
            dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")  # of a tensor, or of a number of numpy
            self.is_low = self.is_low or dtype in LOW
        return y


def computes_in_float32(case, dtype):
    """Return whether a layer uses numbers with less precision than float64."""
    numbers = [*case.layer.parameters(), *case.layer.buffers()]
    if dtype == torch.float32 or any(number.numel() == 1 and number.is_floating_point() for number in numbers):
        return True  # a single number, a scale or ε, was rounded when the layer was built
    watch = Watch()
    with watch, torch.no_grad():
        case.layer(case.x.to(dtype))
    return watch.is_low


# Loops and built-in layers


class LineCounter:
    """Count how often each line (file, line number) in a folder runs, and collect the names that the code uses."""

    def __init__(self, folder):
        self.folder = folder
        self.counts, self.names = collections.Counter(), set()

    def trace(self, frame, event, _):
        """Serve as the function of `sys.settrace`."""
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(self.folder) or any(map(path.is_relative_to, NOT_OF_THE_STUDENT)):
            return None
        if event == "line":
            self.counts[str(path), frame.f_lineno] += 1
        self.names.update(frame.f_code.co_names)
        return self.trace


def count_runs(name, cls, shape):
    """Run forward on an x of a shape (B, T, d). Return a LineCounter and a Watch."""
    layer = build(name, cls, *shape[1:]).eval()
    lines = LineCounter(Path(inspect.unwrap(cls.forward).__code__.co_filename).parent)
    watch = Watch()
    before = sys.gettrace()
    with watch, contextlib.suppress(Exception, SystemExit):
        sys.settrace(lines.trace)
        try:
            layer(torch.ones(shape))
        finally:
            sys.settrace(before)
    return lines, watch


def find_shortcuts(name, cls, unit):
    """Yield a code and a detail for a loop and for a built-in layer.

    A line or function that runs more often for a larger x is in a loop. A loop over the three projections is allowed.
    """
    lines, watch = count_runs(name, cls, (2, 3, 4 * unit))
    more_lines, more_watch = count_runs(name, cls, (4, 6, 8 * unit))
    grown_lines = [place for place, count in lines.counts.items() if count < more_lines.counts[place]]
    grown_calls = [called for called, count in watch.counts.items() if count < more_watch.counts[called]]
    if grown_lines:
        yield "loop", show_loop(grown_lines)
    elif grown_calls:
        yield "loop", f"{min(grown_calls)}()"
    elif lines.names & VECTORIZERS:
        yield "loop", min(lines.names & VECTORIZERS)
    names = set(watch.counts)  # not lines.names: a solution may use these names for its own functions
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


def find_training_problems(name, found, cases, dtype, tolerance, random):
    """Yield the code and a detail (or "") of each problem that only training shows, given what explains the results.

    Of a layer whose results are `random` anyway, it is not asked whether they differ in training mode.
    """
    main = cases[0]
    for case in cases:
        if case.y is None or case.y.isfinite().all():
            continue
        is_score_too_large = name == ATTENTION and case.kind == "large"
        if is_score_too_large or (found.expected(case).isfinite() & ~case.y.isfinite()).any():
            yield "overflow", f"seen with numbers up to {case.x.abs().max():.0f}"
    x = main.x.to(dtype)
    problem = None if found.changes else find_gradient_problem(main.layer, x, tolerance == EXACT)
    if problem:
        yield "gradient", problem
    if not random and differs_in_training(main.layer, x, main.y):
        yield "dropout-inside", ""


def find_gradient_problem(layer, x, exact):
    """Return a sentence if the gradients of x or of the parameters differ from finite differences, else None.

    Without `exact`, the layer computes in float32, which needs larger steps and tolerances.
    """
    frozen = [name for name, p in layer.named_parameters() if p.numel() > 1 and not p.requires_grad and p.any()]
    if frozen:
        return f"{', '.join(frozen)}: nothing is learned, because requires_grad=False"
    names = [name for name, _ in layer.named_parameters()]
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (x, *layer.parameters())]

    def forward(x, *parameters):
        copy = x * 1  # forward may change it
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (copy,))

    step, tolerance = (1e-6, 1e-5) if exact else (1e-2, 5e-2)
    options = {"eps": step, "atol": tolerance, "rtol": tolerance, "check_undefined_grad": False}
    try:
        try:
            torch.autograd.gradcheck(forward, inputs, **options)
        except RuntimeError as error:
            if "fork" not in str(error):
                raise
            # In a forked process of one that used a GPU, backward() is impossible; forward mode does as well.
            torch.autograd.gradcheck(forward, inputs, check_backward_ad=False, check_forward_ad=True, **options)
    except Exception as error:
        return "they differ from finite differences" if "Jacobian" in str(error) else describe_error(error)
    return None


def differs_in_training(layer, x, y):
    """Put a layer into training mode. Return whether its results for x then differ from y."""
    layer.train()
    for _ in range(8):
        trained, _ = run(layer, x)
        if trained is None or (trained - y).abs().max() > FLOAT32:
            return True
    return False
