"""Let code for a GPU run on the CPU: .cuda(), .to("cuda") and device="cuda" stay on the CPU."""

import re
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode

GPU = re.compile(r"(cuda|mps|xpu)(:\d+)?")
STAY = {"cuda", "pin_memory", "xpu"}  # methods that return the tensor itself
NOTHING = ("synchronize", "empty_cache", "set_device", "manual_seed", "manual_seed_all", "init", "ipc_collect",
           "reset_peak_memory_stats")
ANSWERS = {"is_available": True, "device_count": 1, "current_device": 0, "get_device_name": "GPU",
           "is_bf16_supported": True, "get_device_capability": (7, 5), "memory_allocated": 0, "memory_reserved": 0,
           "max_memory_allocated": 0, "mem_get_info": (1 << 34, 1 << 34)}
TYPES = ("FloatTensor", "DoubleTensor", "HalfTensor", "LongTensor", "IntTensor", "BoolTensor")


class CpuAsGpu(TorchFunctionMode):
    """Replace a GPU by the CPU in the arguments of each function of torch."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = function.__name__
        if name in STAY and args and isinstance(args[0], torch.Tensor):
            return args[0]
        args = [replace(argument) for argument in args]
        if name == "to" and len(args) > 1 and isinstance(args[1], int):  # the number of a GPU
            args[1] = "cpu"
        kwargs = {key: replace(value) for key, value in (kwargs or {}).items()}
        return function(*args, **kwargs)


def replace(value):
    """Return the CPU in place of a GPU, and other values as they are.

    In a text, a type such as "torch.cuda.FloatTensor" becomes a type of the CPU.
    """
    if isinstance(value, torch.device) and value.type not in ("cpu", "meta"):
        return torch.device("cpu")
    if isinstance(value, str):
        return "cpu" if GPU.fullmatch(value) else value.replace("torch.cuda.", "torch.")
    return value


def pretend_gpu():
    """From here on, the CPU stands in for a GPU."""
    CpuAsGpu().__enter__()
    for name in NOTHING:
        setattr(torch.cuda, name, lambda *args, **kwargs: None)
    for name, answer in ANSWERS.items():
        setattr(torch.cuda, name, lambda *args, answer=answer, **kwargs: answer)
    for name in TYPES:
        setattr(torch.cuda, name, getattr(torch, name))
    torch.cuda.get_device_properties = lambda *args: SimpleNamespace(name="GPU", total_memory=1 << 34, major=7, minor=5)
    for name in ("set_default_device", "set_default_tensor_type"):
        setattr(torch, name, allow_gpu(getattr(torch, name)))


def allow_gpu(function):
    """Return a function of torch that gets the CPU in place of a GPU."""
    return lambda value: function(replace(value))
