"""`make` with other versions of Python, played by scripts that answer what `make` asks."""

import os
import shutil
import subprocess

import pytest

from tests.toy import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make")

PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) echo a warning; echo {version} ;;
    "-m venv --clear .venv")
        rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python
        printf '#!/bin/sh\\necho "$@" >> installed\\n' > .venv/bin/pip && chmod +x .venv/bin/pip ;;
    sentiment_analysis.py) echo trained with {version} ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """A function that runs `make sentiment` in a folder with the Makefile; returns exit code, last line and errors."""
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for version in ("3.10", "3.11", "3.12", "3.15"):
        script = tmp_path / f"python{version}"
        script.write_text(PYTHON.format(version=version))
        script.chmod(0o755)
    (tmp_path / "python3").symlink_to("python3.11")

    of_an_outer_make = ("MAKEFLAGS", "MAKELEVEL", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in of_an_outer_make}
    environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"

    def make(*options):
        done = subprocess.run(["make", "sentiment", *options], cwd=tmp_path, capture_output=True, text=True,
                              env=environment)
        return done.returncode, (done.stdout.splitlines() or [""])[-1], done.stderr
    return make


@pytest.mark.parametrize("name", ["python3.10", "python3.15", "python3.99"])
def test_unsupported_python_is_refused_before_anything_is_installed(make, tmp_path, name):
    for before in (set(), {".venv", "installed"}):
        code, out, err = make(f"PYTHON={name}")
        sentence = err.splitlines()[0]
        assert (code, out) == (2, "")
        assert sentence.startswith(f"error: {name} is ")
        assert "3.11 to 3.14" in sentence
        assert {path.name for path in tmp_path.iterdir()} & {".venv", "installed"} == before
        assert make()[:2] == (0, "trained with 3.11"), "the refusal keeps the environment"


def test_another_python_makes_another_environment(make, tmp_path):
    for options, version, installations in (([], "3.11", 1), (["PYTHON=python3.11"], "3.11", 1),
                                            (["PYTHON=python3.12"], "3.12", 2), ([], "3.12", 2)):
        assert make(*options)[:2] == (0, f"trained with {version}")
        lines = (tmp_path / "installed").read_text().splitlines()
        assert sum("-r requirements.txt" in line for line in lines) == installations
    (tmp_path / ".venv" / "bin" / "python").unlink()
    assert make()[:2] == (0, "trained with 3.11"), "an environment without its Python is made again"
