"""The settings of torch, which are made before it is imported, and its errors about memory."""

import os

import numpy as np
import pytest
import torch

from helpers.cli import UserError
from helpers.runtime import refuse_memory_errors
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


def fail(error):
    raise error


FULL = {
    "torch": lambda: torch.empty(10**15),
    "numpy": lambda: np.empty(10**15),
    "CUDA": lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "CUDA without type": lambda: fail(RuntimeError("CUDA error: out of memory")),
    "cuBLAS": lambda: fail(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    "C++": lambda: fail(RuntimeError("std::bad_alloc"))}


@pytest.mark.parametrize("kind", FULL)
def test_full_memory_is_one_sentence(kind):
    with pytest.raises(UserError, match=r"not enough memory; .*--batch-size[^.]*\.$"), refuse_memory_errors():
        FULL[kind]()
    with pytest.raises(UserError, match=r"not enough memory; give fewer texts\.$"), \
            refuse_memory_errors("give fewer texts"):
        FULL[kind]()


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), UserError("no")])
def test_other_errors_stay(error):
    with pytest.raises(type(error)) as raised, refuse_memory_errors():
        raise error
    assert raised.value is error
