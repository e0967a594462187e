"""Watch or change what a layer calls while it runs: precision, dropout, and the number of calls."""

import collections

import torch
from torch.overrides import TorchFunctionMode

LOW = {"float16", "bfloat16", "float32"}
DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d", "dropout_", "alpha_dropout", "feature_dropout",
            "feature_alpha_dropout"}


class FunctionCounter(TorchFunctionMode):
    """Count the calls of each function of torch, by its name."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.counts[function.__name__] += 1
        return function(*args, **(kwargs or {}))


class PrecisionWatcher(TorchFunctionMode):
    """Note whether a function of torch gets or returns numbers with less precision than float64."""

    def __init__(self):
        super().__init__()
        self.found = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        y = function(*args, **kwargs)
        self.found = self.found or any(map(is_low, (y, *args, *kwargs.values())))
        return y


def is_low(value):
    """Return whether a tensor or a number of numpy has less precision than float64."""
    return str(getattr(value, "dtype", "")).removeprefix("torch.") in LOW


class NoDropout(TorchFunctionMode):
    """Make functional dropout return its input."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.__name__ in DROPOUTS:
            return args[0] if args else kwargs["input"]
        return function(*args, **kwargs)


def computes_in_float32(layer, x):
    """Return whether a layer in float64 uses numbers with less precision, in its parameters or while it runs."""
    numbers = [*layer.parameters(), *layer.buffers()]
    if any(number.numel() == 1 and number.is_floating_point() for number in numbers):
        return True  # such a number, a scale or ε, was rounded when the layer was built
    watcher = PrecisionWatcher()
    with watcher, torch.no_grad():
        layer(x.clone())
    return watcher.found
