"""Load a solution, and judge it in a process of its own.

The process runs in a temporary folder with limited time and memory. What the solution prints is dropped.
"""

import ast
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from check.mistakes import ATTENTION, NORM
from helpers.cli import UserError

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ATTENTION, NORM
MEMORY = 6 << 30  # bytes
COMPILE = {"PYTORCH_JIT": "0", "TORCHDYNAMO_DISABLE": "1"}  # compiled code cannot be traced
ENVIRONMENT = COMPILE | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg",
                         "PYTHONDONTWRITEBYTECODE": "1"}


def one_line(error):
    """Return the type of an error and its message, shortened, in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:200]}"


# In the process of the solution


def load(path):
    """Return the module of a solution; from here on, `import models` gives it.

    Raises UserError if the path is not a Python file, its import fails, or a class is missing.
    """
    path = Path(path).resolve()
    check_file(path)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("models", path)
    module = importlib.util.module_from_spec(spec)
    with hide_project(path):
        sys.modules["models"] = module
        execute(spec, module, path)
    sys.modules["models"] = module
    for name in CLASSES:
        if not isinstance(getattr(module, name, None), type):
            raise UserError(f"{path} has no class {name}.")
    return module


def check_file(path):
    """Raise UserError if a path is not a file with Python code."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of the .py file in it.")
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    if path.suffix != ".py":
        kind = "a notebook" if path.suffix == ".ipynb" else "not a .py file"
        raise UserError(f"{path} is {kind}; save the two classes as a .py file.")
    try:
        ast.parse(path.read_bytes(), path.name)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not valid Python: {error}.") from None


@contextlib.contextmanager
def hide_project(path):
    """Hide this project's modules, so that `import helpers` finds the solution's, and the command line."""
    hidden = {}
    for name in list(sys.modules):
        top = ROOT / name.partition(".")[0]
        if top.exists() or top.with_suffix(".py").exists():
            hidden[name] = sys.modules.pop(name)
    arguments, sys.argv = sys.argv, [str(path)]
    try:
        yield
    finally:
        sys.argv = arguments
        sys.modules.update(hidden)


def execute(spec, module, path):
    """Run the code of a module. Raises UserError if it fails."""
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"{path} imports {error.name}, which is neither installed nor in the same folder.") from None
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = lines[-1] if lines else 1
        raise UserError(f"{path} cannot be imported: line {line} raises {one_line(error)}.") from None


def work(path, answer):
    """Judge a solution and end the process.

    The file `answer` receives a JSON object: first the "stage" of the work, at the end "verdicts" or "refused".
    """
    from check.judge import judge  # only this process needs torch

    limit_memory()
    stage = f"the import of {path}"
    tell(answer, stage=stage)
    try:
        module = load(path)
        verdicts = {}
        for name in CLASSES:
            stage = f"{name} of {path}"
            tell(answer, stage=stage)
            verdicts[name] = judge(name, getattr(module, name))
        tell(answer, verdicts=verdicts)
    except UserError as error:
        message = str(error)
        tell(answer, refused=message if str(path) in message else f"{path}: {message}")
    except Exception as error:
        tell(answer, refused=f"{stage} cannot be judged: {one_line(error)}.")
    os._exit(0)  # does not wait for threads that the solution started


def limit_memory():
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows; a lower limit is already set
        import resource
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def tell(answer, **news):
    """Replace the content of the file `answer`."""
    Path(f"{answer}.new").write_text(json.dumps(news), encoding="utf-8")
    os.replace(f"{answer}.new", answer)


# In the process of the command


def judge_solution(path, timeout):
    """Return the verdicts on a solution, a dict with one for each class. Raises UserError if it cannot be judged."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        answer = Path(folder, "answer.json")
        ended = run_worker(path, answer, timeout)
        news = {"stage": f"judging {path}"}
        if answer.exists():
            news = json.loads(answer.read_text(encoding="utf-8"))
    if "verdicts" in news:
        return news["verdicts"]
    raise UserError(news.get("refused") or f"{news['stage']} {ended}.")


def run_worker(path, answer, timeout):
    """Run `work` in a process of its own, in the folder of `answer`. Return how the process ended."""
    code = "import sys; from check.solution import work; work(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(Path(path).resolve()), str(answer)]
    imports = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=answer.parent, env=os.environ | ENVIRONMENT | {"PYTHONPATH": imports},
                               stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    try:
        return f"ended the process (exit code {process.wait(timeout)})"
    except subprocess.TimeoutExpired:
        return f"took more than {timeout:g} seconds (training belongs under if __name__ == \"__main__\")"
    finally:
        with contextlib.suppress(ProcessLookupError, AttributeError):  # it has ended; Windows has no killpg
            os.killpg(process.pid, signal.SIGKILL)  # with all processes that the solution started
        process.kill()
        process.wait()
