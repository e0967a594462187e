"""Find the mistakes that no change of a formula explains: loops, built-in layers, overflow, gradients, dropout."""

import collections
import contextlib
import inspect
import linecache
import math
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
    """Watch which functions of torch a layer calls. With `no_dropout`, functional dropout returns its input."""

    def __init__(self, no_dropout=False):
        super().__init__()
        self.counts = collections.Counter()  # calls of each function, by its name
        self.is_low = False  # whether numbers have less precision than float64
        self.no_dropout = no_dropout

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.counts[function.__name__] += 1
        if self.no_dropout and "dropout" in function.__name__:
            return args[0] if args else kwargs["input"]
        y = function(*args, **kwargs)
        types = {str(getattr(value, "dtype", "")).removeprefix("torch.") for value in (y, *args, *kwargs.values())}
        self.is_low = self.is_low or not types.isdisjoint(LOW)
        return y


def computes_in_float32(case, dtype):
    """Return whether a layer uses numbers with less precision than float64."""
    numbers = [*case.layer.parameters(), *case.layer.buffers()]
    if dtype == torch.float32 or any(number.numel() == 1 and number.is_floating_point() for number in numbers):
        return True  # a single number, a scale or ε, was rounded when the layer was built
    with Watch() as watch, torch.no_grad():
        case.layer(case.x.to(dtype))
    return watch.is_low


def count_runs(name, cls, shape):
    """Run forward on an x (B, T, d). Return counts of the student's lines, their names, and counts of torch's calls."""
    layer = build(name, cls, *shape[1:]).eval()
    folder = Path(inspect.unwrap(cls.forward).__code__.co_filename).parent
    lines, names = collections.Counter(), set()

    def trace(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(folder) or any(map(path.is_relative_to, NOT_OF_THE_STUDENT)):
            return None
        lines[str(path), frame.f_lineno] += event == "line"
        names.update(frame.f_code.co_names)
        return trace

    before = sys.gettrace()
    with Watch() as watch, contextlib.suppress(Exception, SystemExit):
        sys.settrace(trace)
        try:
            layer(torch.ones(shape))
        finally:
            sys.settrace(before)
    return lines, names, watch.counts


def find_shortcuts(name, cls, unit):
    """Yield a code and a detail for a loop (what runs more often for a larger x is in one) and for a built-in layer."""
    lines, names, calls = count_runs(name, cls, (2, 3, 4 * unit))
    more_lines, _, more_calls = count_runs(name, cls, (4, 6, 8 * unit))
    grown_lines = [place for place, count in lines.items() if count < more_lines[place]]
    grown_calls = [called for called, count in calls.items() if count < more_calls[called]]
    if grown_lines:
        texts = sorted((number, linecache.getline(path, number).strip()) for path, number in grown_lines)
        loops = [(number, text) for number, text in texts if re.search("for |while ", text)]
        number, text = (loops or texts)[0]
        yield "loop", f"line {number}, {text}"
    elif grown_calls:
        yield "loop", f"{min(grown_calls)}()"
    elif names & VECTORIZERS:
        yield "loop", min(names & VECTORIZERS)
    of_torch = set(calls)  # not `names`: a solution may give such a name to its own function
    for module in build(name, cls, 3, 4 * unit).modules():
        of_torch |= {base.__name__ for base in type(module).__mro__ if base.__module__.startswith("torch.")}
    built_in = sorted(filter(BUILT_IN.fullmatch, of_torch))
    if built_in:
        yield "built-in", built_in[0]


def find_training_problems(name, found, cases, dtype, tolerance, random):
    """Yield the code and a detail (or "") of each problem that only training shows, given what explains the results."""
    main = cases[0]
    for case in cases:
        if name == ATTENTION and case.kind == "large" and case.y is not None and not case.y.isfinite().all():
            q, k = (case.x @ case.parts[place].tensor for place in found.roles[:2])
            largest = (q @ k.mT).abs().max() / math.sqrt(case.x.shape[2])
            yield "overflow", f"seen with scores up to {largest:,.0f}"
    x = main.x.to(dtype)
    problem = None if found.changes else find_gradient_problem(main.layer, x, tolerance == EXACT)
    if problem:
        yield "gradient", problem
    main.layer.train()
    trained = [] if random else [run(main.layer, x)[0] for _ in range(8)]
    if any(y is None or (y - main.y).abs().max() > FLOAT32 for y in trained):
        yield "dropout-inside", ""


def find_gradient_problem(layer, x, exact):
    """Return a sentence if the gradients of x or of the parameters differ from finite differences, else None."""
    frozen = [name for name, p in layer.named_parameters() if p.numel() > 1 and not p.requires_grad and p.any()]
    if frozen:
        return f"{', '.join(frozen)}: nothing is learned, because requires_grad=False"
    names = [name for name, _ in layer.named_parameters()]
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (x, *layer.parameters())]

    def forward(x, *parameters):
        copy = x * 1  # forward may change it
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (copy,))

    step, tolerance = (1e-6, 1e-5) if exact else (1e-2, 5e-2)  # the larger ones for float32
    options = {"eps": step, "atol": tolerance, "rtol": tolerance, "check_undefined_grad": False}
    try:
        try:
            torch.autograd.gradcheck(forward, inputs, **options)
        except RuntimeError as error:
            if "fork" not in str(error):  # a forked process cannot call backward() if a GPU was used before
                raise
            torch.autograd.gradcheck(forward, inputs, check_backward_ad=False, check_forward_ad=True, **options)
    except Exception as error:
        return "they differ from finite differences" if "Jacobian" in str(error) else describe_error(error)
    return None
