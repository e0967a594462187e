"""How the threads of torch wait is set before torch is imported, unless the user has set it."""

import os

import pytest

from tests.toy import run_python

TORCH = 'import os; print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY")); raise SystemExit'


@pytest.mark.parametrize(("module", "user_settings", "expected"), [
    ("sentiment_analysis", {}, "5000 None"),
    ("generate_gpt2", {}, "5000 None"),
    ("benchmarks.generation", {}, "5000 None"),
    ("sentiment_analysis", {"GOMP_SPINCOUNT": "7"}, "7 None"),
    ("sentiment_analysis", {"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE")])
def test_environment_is_set_when_torch_is_imported(monkeypatch, module, user_settings, expected, tmp_path):
    """A module that replaces torch prints the environment."""
    (tmp_path / "torch.py").write_text(TORCH, encoding="utf-8")
    for name in [name for name in os.environ if name.startswith(("OMP_", "GOMP_"))]:
        monkeypatch.delenv(name)
    _, out, _ = run_python("-c", f"import {module}, torch", PYTHONPATH=str(tmp_path), **user_settings)
    assert out.splitlines() == [expected]
