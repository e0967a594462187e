"""What torch and the C library are told before work begins, and what a result says of the machine it was made on.

To be imported before torch, which reads the environment when it is imported.
"""

import contextlib
import ctypes
import os
import platform
from importlib.metadata import version

from helpers.cli import UserError

# torch's threads wait for each other by spinning. Where other work wants the cores, they keep it, and each other, from
# running: after so many turns they sleep. A quiet machine loses nothing by 5,000; by 1,000 it lost a tenth.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "5000"


def keep_freed_memory():
    """Let glibc keep freed memory: each training step needs the same blocks, and fresh ones from the system cost time.

    A quarter of a step's time on one core. Elsewhere than on Linux nothing is changed.
    """
    with contextlib.suppress(AttributeError, OSError):
        set_option = ctypes.CDLL("libc.so.6").mallopt
        set_option(-3, 1 << 30)  # M_MMAP_THRESHOLD, bytes: smaller blocks come from the heap ...
        set_option(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD, bytes: ... which is not given back


def choose_device(name):
    """Return the torch device of that name; "auto" takes CUDA if there is any. Raises UserError without it."""
    import torch  # here and below, because this module comes first

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; leave --device out, or choose a machine with a GPU.")
    return torch.device(name)


def describe_machine(device):
    """Return the device, the threads and the versions with which a result is made."""
    import torch

    return {"device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU",
            "threads": torch.get_num_threads(),
            "versions": versions_of("torch", "torchtext", "spacy", "numpy")}


def versions_of(*packages):
    """Return the versions of Python and of packages: dict from name to string."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
