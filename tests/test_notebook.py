"""The notebook, from the first cell to the last, on the sample and without network."""

import json
import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebook.ipynb"


def outputs(cell):
    """Return what a cell printed and showed: text, and the kinds of its pictures."""
    text = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs)
    return text, [kind for output in cell.outputs for kind in output.get("data", {}) if kind.startswith("image/")]


@pytest.mark.skipif(not (ROOT / "sample_reviews").exists(), reason="no sample_reviews/")
def test_every_cell_runs_on_the_sample(tmp_path, monkeypatch):
    """In a folder like a clone of the project, to which runs may be written."""
    for name in [*(path.name for path in ROOT.glob("*.py")), "helpers", "tests", "sample_reviews", "pretrained"]:
        (tmp_path / name).symlink_to(ROOT / name)
    for name, value in {"SAMPLE": "1", "TQDM_DISABLE": "1", "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1",
                        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [outputs(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "error: " not in "".join(text for text, _ in shown)
    _, training, plot, accuracy, predictions, explanation, sentences, layers = shown
    assert "SAMPLE test loss" in training[0]
    assert "'accuracy': 0." in accuracy[0]
    labels = [line.split()[0] for line in predictions[0].splitlines() if "%" in line]
    assert (len(labels), labels[:2]) == (3, ["positive", "negative"])
    assert plot[1] == explanation[1] == ["image/png"]
    assert len([line for line in sentences[0].splitlines() if line.startswith("This film")]) == 5
    assert layers[0].count("right: equal to the loops") == 2
    assert (tmp_path / "runs" / "notebook" / "model.pt").exists()


def test_notebook_is_kept_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    assert [cell for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count")] == []
    assert all(len(line) <= 121 for cell in notebook["cells"] for line in cell["source"])
