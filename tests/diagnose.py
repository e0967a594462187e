"""Tell whether anybody's MySelfAttention and MyLayerNorm are right, and if not, what the mistake is.

    python -m tests.diagnose path/to/models.py        about 5 seconds; --json for programs

The exit code is 0 if both are right, 1 if not, and 2 if they cannot be judged. The solution runs in a process of its
own, in a temporary folder, with limited time and memory, and what it prints is dropped. tests/judge.py judges.
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
import textwrap
import traceback
from pathlib import Path

from helpers.cli import Parser, UserError, number, run_command

ROOT = Path(__file__).resolve().parents[1]
CLASSES = "MySelfAttention", "MyLayerNorm"
MEMORY = 6 << 30  # bytes
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1",
         "PYTORCH_JIT": "0", "TORCHDYNAMO_DISABLE": "1"}  # what is compiled cannot be looked into


def load(path):
    """Return the module of a solution, named `models`. Raises UserError if it is none or its import fails."""
    path = Path(path).resolve()
    if not path.is_file():
        raise UserError(f"{path} is a folder; name the .py file in it." if path.is_dir() else f"{path} is not there.")
    if path.suffix != ".py":
        kind = "a notebook" if path.suffix == ".ipynb" else "no .py file"
        raise UserError(f"{path} is {kind}; save the two classes as a .py file.")
    try:
        ast.parse(path.read_bytes(), path.name)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not Python: {error}.") from None
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("models", path)
    module = importlib.util.module_from_spec(spec)
    ours = {name: sys.modules.pop(name) for name in list(sys.modules)  # lest they pass for the solution's neighbours
            if (ROOT / name.partition(".")[0]).exists() or (ROOT / f"{name.partition('.')[0]}.py").exists()}
    sys.modules["models"] = module
    options, sys.argv = sys.argv, [str(path)]  # a solution may read options when it is imported
    try:
        spec.loader.exec_module(module)
        ours.pop("models", None)
    except ModuleNotFoundError as error:
        raise UserError(f"{path} needs {error.name}, which is neither beside it nor installed here.") from None
    except BaseException as error:
        places = [place.lineno for place in traceback.extract_tb(error.__traceback__) if place.filename == str(path)]
        raise UserError(f"{path} cannot be imported: line {places[-1] if places else 1} raises {type(error).__name__} "
                        f"({' '.join(str(error).split())[:200]}).") from None
    finally:
        sys.argv = options
        sys.modules.update(ours)
    for name in CLASSES:
        if not isinstance(getattr(module, name, None), type):
            raise UserError(f"{path} has no class {name}.")
    return module


def work(path, answer):
    """Judge a solution, in a process of its own; leave in the file `answer` how far that came, and what came of it."""
    from tests.judge import judge  # torch is for this process alone

    def tell(**news):
        Path(f"{answer}.new").write_text(json.dumps(news), encoding="utf-8")
        os.replace(f"{answer}.new", answer)

    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows; a lower limit
        import resource
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    tell(stage=f"the import of {path}")
    try:
        module, verdicts = load(path), {}
        for name in CLASSES:
            tell(stage=f"{name} of {path}")
            verdicts[name] = judge(name, getattr(module, name))
        tell(verdicts=verdicts)
    except UserError as error:
        tell(refused=str(error) if str(path) in str(error) else f"{path}: {error}")
    except Exception as error:
        tell(refused=f"{path}: {name} cannot be judged: {type(error).__name__}: {' '.join(str(error).split())[:200]}.")
    os._exit(0)  # whatever threads the solution has started


def ask(path, timeout):
    """Return the verdicts on a solution. Raises UserError if it cannot be judged."""
    code = "import sys; from tests.diagnose import work; work(*sys.argv[1:])"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        answer = Path(folder, "answer.json")
        places = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(Path(path).resolve()), str(answer)], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | QUIET | {"PYTHONPATH": places},
            start_new_session=True)
        try:
            ended = f"ended Python (exit code {process.wait(timeout)})"
        except subprocess.TimeoutExpired:
            ended = f"took more than {timeout:g} seconds (training belongs under if __name__ == \"__main__\")"
        finally:
            with contextlib.suppress(ProcessLookupError, AttributeError):  # it has ended; Windows
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            process.kill()
            process.wait()
        told = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {"stage": f"judging {path}"}
    if "verdicts" not in told:
        raise UserError(told.get("refused") or f"{told['stage']} {ended}.")
    return told["verdicts"]


def describe(name, verdict):
    """Return the lines that a student reads about a class."""
    codes = (verdict["mistake"] or "").replace("+", ", ")
    headline = "right but for its biases" if codes == "biases" else f"wrong: {codes or 'no known mistake'}"
    if verdict["right"]:
        headline = f"right: equal to the loops within {verdict['difference']:.0e}, and so are the gradients"
    lines = [f"{name:<18}{headline}"]
    for note in verdict["notes"]:
        label, text = note.split(": ", 1)
        lines += textwrap.wrap(text, 110, initial_indent=f"  {label:<24}", subsequent_indent=" " * 26,
                               break_on_hyphens=False)
    return lines


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", help="the .py file with the two classes")
    parser.add_argument("--timeout", type=number(float, 0.1), default=60, help="seconds that the solution may take "
                        "(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    verdicts = ask(args.path, args.timeout)
    print(json.dumps(verdicts, ensure_ascii=False) if args.json else
          "\n".join(line for item in verdicts.items() for line in describe(*item)))
    sys.stdout.flush()
    sys.exit(0 if all(verdict["right"] for verdict in verdicts.values()) else 1)


if __name__ == "__main__":
    run_command(main)
