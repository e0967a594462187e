"""Runtime settings for torch and the C library, and a description of the machine for the results.

Import this module before torch, which reads the environment when it is imported.
"""

import contextlib
import ctypes
import os
import platform
from importlib.metadata import version

from helpers.cli import UserError

# A thread of torch that waits for another one runs an empty loop, which slows down other processes on the same core.
# With this limit, it sleeps after 5,000 turns. Training on an idle machine is as fast as without a limit; a limit of
# 1,000 turns makes it a tenth slower.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "5000"

# How torch and its libraries say in a RuntimeError that the memory is full, in lower case.
FULL_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
               "alloc_failed", "bad_alloc")


def keep_freed_memory():
    """Tell glibc to keep freed memory, because each training step needs blocks of the same size again.

    On one core, this saves a quarter of the time of a step. Without glibc, nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):
        set_option = ctypes.CDLL("libc.so.6").mallopt
        set_option(-3, 1 << 30)  # M_MMAP_THRESHOLD in bytes: smaller blocks come from the heap
        set_option(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD in bytes: the heap is not returned to the system


def choose_device(name):
    """Return the torch device "cpu" or "cuda"; "auto" prefers CUDA. Raises UserError if CUDA is not available."""
    import torch  # here and below, because this module must be imported before torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine has no CUDA device; leave out --device, or use a machine with a GPU.")
    return torch.device(name)


@contextlib.contextmanager
def refuse_memory_errors(remedy="use a smaller --batch-size or --max-len"):
    """Raise UserError in place of any error which says that the memory of the CPU or GPU is full.

    Args:
        remedy: what the user can do, the end of the sentence.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # all errors of torch are RuntimeErrors
        if not is_memory_error(error):
            raise
        raise UserError(f"there is not enough memory; {remedy}.") from error


def is_memory_error(error):
    """Return whether an error says that the memory of the CPU or GPU is full."""
    if isinstance(error, MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in message for words in FULL_MEMORY)


def describe_machine(device):
    """Return the device, the number of threads and the versions, as metadata for the results: a dict."""
    import torch

    return {"device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU",
            "threads": torch.get_num_threads(),
            "versions": versions_of("torch", "torchtext", "spacy", "numpy")}


def versions_of(*packages):
    """Return the versions of Python and of packages: a dict from name to version."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
