"""Tell whether anybody's MySelfAttention and MyLayerNorm are right, and if not, what the mistake is.

    python -m tests.diagnose path/to/models.py        about 3 seconds; --json for programs

The exit code is 0 if both are right, 1 if not, and 2 if they cannot be judged. The solution runs in a process of its
own, in a temporary folder, with limited time, and what it prints is dropped. tests/judge.py judges.
"""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import types
from pathlib import Path

from helpers.cli import Parser, UserError, number, run_command

ROOT = Path(__file__).resolve().parents[1]
CLASSES = "MySelfAttention", "MyLayerNorm"
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}


def one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def load(path):
    """Return the module of a solution, named `models`. Raises UserError if it cannot be imported or lacks a class."""
    path, module = Path(path).resolve(), types.ModuleType("models")
    module.__file__ = str(path)
    sys.path.insert(0, str(path.parent))
    ours = {name: sys.modules.pop(name) for name in [*sys.modules]  # lest they pass for the solution's neighbours
            if name.partition(".")[0] in ("helpers", "models", "tests")}
    sys.modules["models"] = module
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    except BaseException as error:
        raise UserError(f"it cannot be imported: {one_line(error)}.") from None
    finally:
        sys.modules.update(ours | {"models": module})
    for name in CLASSES:
        if not isinstance(getattr(module, name, None), type):
            raise UserError(f"there is no class {name} in it.")
    return module


def work(path, answer):
    """Judge a solution, in a process of its own, and write the verdicts, or why there are none, to a file."""
    from tests.judge import judge  # torch is for this process alone

    try:
        module = load(path)
        told = {name: judge(name, getattr(module, name)) for name in CLASSES}
    except UserError as error:
        told = str(error)
    except Exception as error:
        told = f"its classes cannot be judged: {one_line(error)}."
    Path(answer).write_text(json.dumps(told), encoding="utf-8")
    os._exit(0)  # whatever threads the solution has started


def ask(path, timeout):
    """Return the verdicts on a solution. Raises UserError if it cannot be judged."""
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.diagnose import work; "
            "work(sys.argv.pop(1), sys.argv.pop(1))")  # no options are left for the solution
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        answer = Path(folder, "answer.json")
        try:
            done = subprocess.run([sys.executable, "-c", code, str(Path(path).resolve()), str(answer)], cwd=folder,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  env=os.environ | QUIET, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise UserError(f"{path}: it takes more than {timeout:g} seconds (training belongs under "
                            "if __name__ == \"__main__\").") from None
        if not answer.exists():
            raise UserError(f"{path}: it ended Python (exit code {done.returncode}).")
        told = json.loads(answer.read_text(encoding="utf-8"))
    if isinstance(told, str):
        raise UserError(f"{path}: {told}")
    return told


def describe(name, verdict):
    """Return the lines that a student reads about a class."""
    headline = f"wrong: {(verdict['mistake'] or 'no known mistake').replace('+', ', ')}"
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
