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
from check.source import read_source, select_needed
from helpers import UserError

ROOT = Path(__file__).resolve().parents[1]
MAX_FILE = 1 << 30  # bytes of a file that the solution may write
GPU = re.compile(r"(cuda|mps|xpu)(:\d+)?")
MAIN_GUARD = "what loads data, asks or exits belongs under if __name__ == \"__main__\""


def work(order):
    """Do the work that a JSON text describes, and end the process.

    The answer is a file of JSON lines: the "stage" of the work and its "layer", "started" before the solution is
    imported, then "rules" and "id", and at the end "layers" or "refused".
    """
    order = json.loads(order)
    process = os.getpid()
    stage = ""

    def tell(**news):
        nonlocal stage
        if os.getpid() != process:  # a process that the solution forked ends here
            os._exit(0)
        stage = news.get("stage", stage)
        with open(order["answer"], "a", encoding="utf-8") as file:
            file.write(json.dumps(news) + "\n")

    try:
        do_work(order, tell)
    except UserError as error:
        tell(refused=str(error))
    except BaseException as error:
        tell(refused=f"{stage} cannot be judged: {type(error).__name__}: {error}.")
    os._exit(0)  # does not wait for threads that the solution started


def do_work(order, tell):
    """Check the rules of a folder or zip, and judge the layers, except those that failed in another process."""
    shown, base = order["shown"], Path(order["path"])
    tell(stage=f"the rules of {shown}")
    sys.dont_write_bytecode = True
    folder = find_base(Path(order["folder"]))
    files, problem = {}, None
    try:
        files = find_layers(base, shown)
    except UserError as error:
        problem = error  # the rules are checked all the same
    if base.is_dir():
        tell(rules=check_rules(base, order["name"], files), id=find_id(base, order["name"]))
    if problem:
        raise problem
    unread = f"; {', '.join(order['unread'])} cannot be read" if order["unread"] else ""
    if not files:
        raise UserError(f"{shown} has no class {' and no class '.join(CLASSES)}{unread}.")
    judge = prepare(order["memory"], folder, files)
    tell(stage=f"the import of {shown}", started=True)
    modules = {}
    for path, place in {*files.values()}:
        own = [name for name in files if files[name][0] == path]
        modules[path] = load_module(path, place, folder, own)
    layers = {}
    for name in CLASSES:
        path, place = files.get(name, (None, shown))
        if name in order["failed"]:
            layers[name] = refuse(order["failed"][name])
        elif name not in files:
            layers[name] = report_missing(f"{shown} has no class {name}; the exercise asks for this name{unread}")
        elif not isinstance(getattr(modules[path], name, None), type):
            layers[name] = report_missing(f"{name} is not a class")
        else:
            tell(stage=f"{name} of {place}", layer=name)
            try:
                layers[name] = judge(name, getattr(modules[path], name), order["strict"])
            except UserError as error:
                layers[name] = refuse(str(error))
    tell(layers=layers)


def report_missing(text):
    """Return the verdict on a class that does not exist."""
    return {"right": False, "mistake": "missing", "difference": None, "notes": [f"missing: {text}"]}


def refuse(text):
    """Return the verdict on a class that cannot be judged."""
    return {"right": False, "mistake": None, "difference": None, "notes": [f"reason: {text}"], "error": text}


# Before the solution starts


def prepare(memory, folder, files):
    """Limit the process, let the CPU stand in for a GPU, and hide this project. Return the function `judge`."""
    from check.judge import judge  # imports torch, which only this process needs

    limit(memory)
    pretend_gpu()
    for name in list(sys.modules):  # `import helpers` must find the solution's file
        top = ROOT / name.partition(".")[0]
        if top.exists() or top.with_suffix(".py").exists():
            del sys.modules[name]
    os.environ.pop("PYTHONPATH", None)
    folders = {str(folder), *(str(path.parent) for path, _ in files.values())}
    others = [place for place in sys.path if Path(place or ".").resolve() != ROOT]
    sys.path[:] = [*sorted(folders, key=len, reverse=True), *others]
    return judge


def limit(memory):
    """Limit the memory of this process, in bytes, and the size of its files."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows; a lower limit is already set
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def pretend_gpu():
    """From here on, .cuda(), .to("cuda") and device="cuda" stay on the CPU."""
    import torch
    from torch.overrides import TorchFunctionMode

    def replace(value):
        if isinstance(value, str | torch.device) and GPU.fullmatch(str(value)):
            return torch.device("cpu")
        return value

    class CpuAsGpu(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function.__name__ in ("cuda", "pin_memory") and args and isinstance(args[0], torch.Tensor):
                return args[0]
            kwargs = {key: replace(value) for key, value in (kwargs or {}).items()}
            return function(*map(replace, args), **kwargs)

    CpuAsGpu().__enter__()
    set_default_device = torch.set_default_device
    torch.set_default_device = lambda device: set_default_device(replace(device))


# The solution


def load_module(path, shown, folder, names):
    """Run the code that some classes need, or all the code of the file if that fails. Return its module.

    Raises UserError if both fail.
    """
    source = read_source(path, shown)
    lines = source.text.splitlines(keepends=True)
    linecache.cache[str(path)] = len(source.text), None, lines, str(path)  # a notebook's lines are not the file's
    package = ".".join(path.parent.relative_to(folder).parts)
    sys.argv = [str(path)]
    with contextlib.suppress(BaseException):
        module = run_code(select_needed(source.tree, names), path, package)
        if all(hasattr(module, name) for name in names):
            return module
    try:
        return run_code(source.tree, path, package)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        numbers = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = f"line {numbers[-1]} raises " if numbers else ""
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{shown} cannot be imported: {line}{type(error).__name__}: {message} ({MAIN_GUARD}).") from None


def run_code(tree, path, package):
    """Run a syntax tree as the module of a file, and return the module."""
    name = path.stem if path.stem not in sys.modules else "solution"
    module = types.ModuleType(f"{package}.{name}" if package else name)
    module.__file__, module.__package__ = str(path), package
    sys.modules[module.__name__] = module
    try:
        exec(compile(tree, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module
