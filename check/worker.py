"""The process of one submission: check the rules, load the solution, and judge its layers.

What the solution prints is dropped. Time and memory are limited, and the CPU stands in for a GPU.
"""

import contextlib
import json
import linecache
import os
import re
import sys
import traceback
import types
from pathlib import Path

from check.locate import CLASSES, find_base, find_layers
from check.rules import check_rules, find_id
from check.source import list_defined, read_source, select_needed
from helpers import UserError

ROOT = Path(__file__).resolve().parents[1]
MEMORY, MAX_FILE = 4 << 30, 1 << 30  # bytes that the solution may use, and of a file that it may write
GPU = re.compile(r"(cuda|mps|xpu)(:\d+)?")
MAIN_GUARD = "what loads data, asks or exits belongs under if __name__ == \"__main__\""


def work(order):
    """Do the work that a JSON text describes, write the answer, a file of JSON lines, and end the process."""
    order, process = json.loads(order), os.getpid()
    def tell(**news):
        if os.getpid() != process:  # a process that the solution forked ends here
            os._exit(0)
        with open(order["answer"], "a", encoding="utf-8") as file:
            file.write(json.dumps(news) + "\n")

    try:
        do_work(order, tell)
    except UserError as error:
        tell(error=str(error))
    except BaseException as error:
        tell(error=f"{order['shown']} cannot be judged: {type(error).__name__}: {error}.")
    os._exit(0)  # does not wait for threads that the solution started


def do_work(order, tell):
    """Check the rules of a folder or zip, and judge the layers, except those that failed in another process."""
    shown, path = order["shown"], Path(order["path"])
    tell(stage=f"the rules of {shown}")
    files, rules = {}, {}
    problem = f"{shown} has no class {' and no class '.join(CLASSES)}."
    try:
        files = find_layers(path, shown)
    except UserError as error:
        problem = str(error)  # the rules are checked all the same
    if path.is_dir():
        rules = check_rules(path, order["name"], files)
        tell(rules=rules, id=find_id(path, order["name"]))
    if not files:
        raise UserError(problem)
    base = find_base(Path(order["folder"]))
    judge = prepare(base, files)
    tell(stage=f"the import of {shown}", started=True)
    modules = {place: load_module(*place, base) for place in {*files.values()}}
    layers = {}
    for name in CLASSES:
        cls = getattr(modules.get(files.get(name)), name, None)
        if name in order["failed"]:
            layers[name] = refuse(order["failed"][name])
        elif isinstance(cls, type):
            tell(stage=f"{name} of {files[name][1]}", layer=name)
            try:
                layers[name] = judge(name, cls, order["strict"])
            except UserError as error:
                layers[name] = refuse(str(error))
        else:
            note = f"missing: {shown} has no class {name}; the exercise asks for this name"
            layers[name] = {"right": False, "mistake": "missing", "difference": None, "notes": [note]}
    looping = [name for name, layer in layers.items() if "loop" in (layer["mistake"] or "").split("+")]
    detail = f"{' and '.join(looping)}: a loop; use matrix products" if looping else "none"
    tell(layers=layers, rules=rules and rules | {"loops": {"ok": not looping, "detail": detail}})


def refuse(text):
    """Return the verdict on a class that cannot be judged."""
    return {"right": False, "mistake": None, "difference": None, "notes": [f"reason: {text}"], "error": text}


def prepare(base, files):
    """Limit the process, let the CPU stand in for a GPU, and hide this project. Return the function `judge`."""
    from check.judge import judge  # imports torch, which only this process needs
    limit(MEMORY)
    pretend_gpu()
    own = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]  # `import helpers` must find the solution's file
    os.environ.pop("PYTHONPATH", None)
    folders = sorted({str(base), *(str(file.parent) for file, _ in files.values())}, key=len, reverse=True)
    sys.path[:] = [*folders, *(place for place in sys.path if Path(place or ".").resolve() != ROOT)]
    return judge


def limit(memory, seconds=None):
    """Limit the memory of this process, in bytes, the size of its files, and its CPU time."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows; a lower limit is already set
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def pretend_gpu():
    """From here on, .cuda(), .to("cuda") and device="cuda" stay on the CPU."""
    import torch
    from torch.overrides import TorchFunctionMode

    def replace(value):
        is_gpu = isinstance(value, str | torch.device) and GPU.fullmatch(str(value))
        return torch.device("cpu") if is_gpu else value

    class CpuAsGpu(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function.__name__ in ("cuda", "pin_memory") and args and isinstance(args[0], torch.Tensor):
                return args[0]
            kwargs = {key: replace(value) for key, value in (kwargs or {}).items()}
            return function(*map(replace, args), **kwargs)

    CpuAsGpu().__enter__()
    set_default_device = torch.set_default_device
    torch.set_default_device = lambda device: set_default_device(replace(device))


def load_module(path, shown, base):
    """Return the module of a file after running what its classes need, or if that fails, all. Raises UserError."""
    source = read_source(path, shown)
    lines = source.text.splitlines(keepends=True)
    linecache.cache[str(path)] = len(source.text), None, lines, str(path)  # a notebook's lines are not the file's
    module = types.ModuleType(path.stem if path.stem not in sys.modules else "solution")
    module.__file__, module.__package__ = str(path), ".".join(path.parent.relative_to(base).parts)
    sys.modules[module.__name__], sys.argv = module, [str(path)]
    names = list_defined(source.tree) & {*CLASSES}
    with contextlib.suppress(BaseException):
        exec(compile(select_needed(source.tree, names), str(path), "exec", dont_inherit=True), module.__dict__)
        if names <= module.__dict__.keys():
            return module
    try:
        exec(compile(source.tree, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        numbers = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = f"line {numbers[-1]} raises " if numbers else ""
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{shown} cannot be imported: {line}{text} ({MAIN_GUARD}).") from None
    return module
