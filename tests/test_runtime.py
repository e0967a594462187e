"""How torch's threads wait is settled before any command imports torch; what the user says of it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH = 'import os; print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY")); raise SystemExit'


@pytest.mark.parametrize(("module", "said", "expected"), [
    ("sentiment_analysis", {}, "1000 None"),
    ("generate_gpt2", {}, "1000 None"),
    ("benchmarks.generation", {}, "1000 None"),
    ("sentiment_analysis", {"GOMP_SPINCOUNT": "7"}, "7 None"),
    ("sentiment_analysis", {"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE")])
def test_how_threads_wait_is_told_to_torch_when_it_is_imported(module, said, expected, tmp_path):
    """By a module in its place that prints the environment."""
    (tmp_path / "torch.py").write_text(TORCH, encoding="utf-8")
    untold = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    answer = subprocess.run([sys.executable, "-c", f"import {module}, torch"], cwd=ROOT, capture_output=True, text=True,
                            env=untold | said | {"PYTHONPATH": str(tmp_path)})
    assert answer.stdout.splitlines() == [expected]
