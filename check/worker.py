"""The process of one submission: check the rules, load the solution, judge its layers, and write the answer.

What the solution prints is dropped. Time and memory are limited.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

from check.locate import find_base, find_layers
from check.rules import check_rules
from check.solution import CLASSES, forget_project, load_module, one_line
from helpers.cli import UserError

MAX_FILE = 1 << 30  # bytes of a file that the solution may write


def work(order):
    """Do the work that a JSON file describes, and end the process.

    The answer is a JSON file with the "stage" of the work, then "rules", and at the end "layers" or "refused".
    """
    order = json.loads(Path(order).read_text(encoding="utf-8"))
    answer = Answer(order["answer"])
    try:
        do_work(order, answer)
    except UserError as error:
        answer.tell(refused=str(error))
    except BaseException as error:
        answer.tell(refused=f"{answer.news['stage']} cannot be judged: {one_line(error)}.")
    os._exit(0)  # does not wait for threads that the solution started


class Answer:
    """The file that receives the answer."""

    def __init__(self, path):
        self.path, self.news, self.process = path, {}, os.getpid()

    def tell(self, **news):
        """Add news to the answer. A process that the solution forked ends here."""
        if os.getpid() != self.process:
            os._exit(0)
        self.news |= news
        Path(f"{self.path}.new").write_text(json.dumps(self.news), encoding="utf-8")
        os.replace(f"{self.path}.new", self.path)


def do_work(order, answer):
    """Check the rules of a folder or zip, and judge the layers, except those that failed in another process."""
    shown, base = order["shown"], Path(order["path"])
    answer.tell(stage=f"the rules of {shown}")
    sys.dont_write_bytecode = True
    files = find_layers(base, shown)
    if base.is_dir():
        answer.tell(rules=check_rules(base, order["name"], files))
    if not files:
        raise UserError(f"{shown} has no class {' and no class '.join(CLASSES)}.")
    answer.tell(stage=f"the start of {shown}")
    judge = prepare(order, files)
    Path(order["started"]).touch()
    modules, root = {}, find_base(Path(order["folder"]))
    for path, place in set(files.values()):
        answer.tell(stage=f"the import of {place}")
        package = ".".join(Path(path).parent.relative_to(root).parts)
        modules[path] = load_module(Path(path), place, package)
    layers = {}
    for name in CLASSES:
        if name in order["failed"]:
            layers[name] = refuse(order["failed"][name])
        elif name in files:
            path, place = files[name]
            answer.tell(stage=f"{name} of {place}", layer=name)
            layers[name] = judge_class(judge, name, modules[path], order["strict"])
        else:
            layers[name] = report_missing(name)
    if all(layer["mistake"] == "missing" for layer in layers.values()):
        raise UserError(f"{shown} has no class {' and no class '.join(CLASSES)}.")
    answer.tell(layers=layers)


def prepare(order, files):
    """Limit the process, let the CPU stand in for a GPU, and hide this project. Return the function `judge`."""
    from check.device import pretend_gpu  # torch is imported only where it is needed
    from check.judge import judge

    limit(order["memory"])
    pretend_gpu()
    forget_project()
    folders = {str(Path(path).parent) for path, _ in files.values()} | {str(find_base(Path(order["folder"])))}
    sys.path[:0] = sorted(folders, key=len, reverse=True)
    return judge


def limit(memory):
    """Limit the memory of this process and the size of its files."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows; a lower limit is already set
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def judge_class(judge, name, module, strict):
    """Return the verdict on a class of a module."""
    cls = getattr(module, name, None)
    if cls is None:
        return report_missing(name)
    if not isinstance(cls, type):
        return make_verdict("missing", f"{name} is not a class")
    try:
        return judge(name, cls, strict)
    except UserError as error:
        return refuse(str(error))


def report_missing(name):
    """Return the verdict on a class that the solution does not define."""
    return make_verdict("missing", f"the class {name} does not exist; the exercise asks for this name")


def refuse(text):
    """Return the verdict on a class that cannot be judged."""
    return make_verdict(None, text) | {"error": text}


def make_verdict(mistake, text):
    """Return the verdict on a class that was not compared with the loops."""
    return {"right": False, "mistake": mistake, "difference": None, "notes": [f"{mistake or 'reason'}: {text}"]}
