"""How torch's threads wait is settled before any command imports torch; what the user says of it stands."""

import os

import pytest

from tests.toy import run_python

TORCH = 'import os; print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY")); raise SystemExit'


@pytest.mark.parametrize(("module", "said", "expected"), [
    ("sentiment_analysis", {}, "5000 None"),
    ("generate_gpt2", {}, "5000 None"),
    ("benchmarks.generation", {}, "5000 None"),
    ("sentiment_analysis", {"GOMP_SPINCOUNT": "7"}, "7 None"),
    ("sentiment_analysis", {"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE")])
def test_how_threads_wait_is_told_to_torch_when_it_is_imported(monkeypatch, module, said, expected, tmp_path):
    """By a module in its place that prints the environment."""
    (tmp_path / "torch.py").write_text(TORCH, encoding="utf-8")
    for name in [name for name in os.environ if name.startswith(("OMP_", "GOMP_"))]:
        monkeypatch.delenv(name)
    _, out, _ = run_python("-c", f"import {module}, torch", PYTHONPATH=str(tmp_path), **said)
    assert out.splitlines() == [expected]
