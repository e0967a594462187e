"""The notebook, from the first cell to the last, on the sample and without network; and how it stops."""

import contextlib
import json
import re
import subprocess
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebook.ipynb"
ADDRESS = re.search('REPOSITORY = \\\\"(.+?)\\\\"', NOTEBOOK.read_text(encoding="utf-8"))[1]
PLACEHOLDER = "https://github.com/OWNER/NAME"


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """A function that runs the notebook in a folder, cloning an address, and returns its code cells."""
    for name, value in {"SAMPLE": "1", "TQDM_DISABLE": "1", "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1",
                        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "IPYTHONDIR": str(tmp_path / "ipython")}.items():
        monkeypatch.setenv(name, value)

    def execute(folder, address=PLACEHOLDER, **options):
        folder.mkdir(exist_ok=True)
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        for cell in notebook.cells:
            cell.source = cell.source.replace(ADDRESS, address)
        with contextlib.suppress(nbclient.exceptions.CellExecutionError):  # is among the outputs
            nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}, **options).execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]
    return execute


@pytest.fixture
def repository(tmp_path):
    """A git repository whose files are links to the project's."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in [*(path.name for path in ROOT.glob("*.py")), "helpers", "check", "sample_reviews", "pretrained",
                 "requirements.txt"]:
        (folder / name).symlink_to(ROOT / name)
    for command in (["init", "--quiet"], ["add", "."],
                    ["-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--message", "m"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def text_of(cell):
    """Return what a cell printed and showed as text."""
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def pictures(cell):
    """Return the kinds of the pictures that a cell showed."""
    return [kind for output in cell.outputs for kind in output.get("data", {}) if kind.startswith("image/")]


def failure(cell):
    """Return the message with which a cell failed, or None."""
    return next((output.evalue for output in cell.outputs if output.output_type == "error"), None)


@pytest.mark.skipif(not (ROOT / "sample_reviews").exists(), reason="no sample_reviews/")
def test_every_cell_runs_on_the_sample_from_an_empty_folder(execute, repository, tmp_path):
    """Which holds the project afterwards, so that the notebook can be run again."""
    cells = execute(tmp_path / "empty", str(repository))
    assert [failure(cell) for cell in cells] == [None] * len(cells)
    assert "error: " not in "".join(map(text_of, cells))
    _, training, plot, accuracy, predictions, explanation, sentences, layers = cells
    assert "SAMPLE test accuracy" in text_of(training)
    assert "'accuracy': 0." in text_of(accuracy)
    labels = [line.split()[0] for line in text_of(predictions).splitlines() if "%" in line]
    assert (len(labels), labels[:2]) == (3, ["positive", "negative"])
    assert pictures(plot) == ["image/png"]
    assert any("text/html" in output.get("data", {}) for output in explanation.outputs)
    assert len([line for line in text_of(sentences).splitlines() if line.startswith("This film")]) == 5
    assert text_of(layers).count("right: equal to the loops") == 2
    assert (tmp_path / "empty" / "project" / "runs" / "notebook" / "model.pt").exists()


@pytest.mark.parametrize(("address", "message"), [
    (PLACEHOLDER, "Write the address of the project after REPOSITORY, and run again."),
    ("/not/there", "/not/there cannot be cloned.")])
def test_a_repository_that_is_not_to_be_had_stops_the_run_with_a_sentence(execute, tmp_path, address, message):
    first, *others = execute(tmp_path / "empty", address)
    assert failure(first) == message
    assert [cell.execution_count for cell in others] == [None] * len(others)
    assert not list((tmp_path / "empty").iterdir())


def test_every_step_that_fails_says_so(execute, tmp_path):
    """Each command, in a project whose scripts exit with an error; the first of them would stop the run."""
    for name in ("sentiment_analysis.py", "generate_gpt2.py"):
        (tmp_path / name).write_text("raise SystemExit(2)", encoding="utf-8")
    cells = execute(tmp_path, allow_errors=True)
    steps = [cell for cell in cells[1:] if re.search("^!", cell.source, re.MULTILINE)]
    assert len(steps) == sum("!" in re.findall("^ *(.)", cell.source, re.MULTILINE) for cell in cells[1:])
    assert [failure(cell) for cell in steps] == [
        *(f"The {step} failed." for step in ("training", "prediction", "explanation", "generation")),
        "A layer is wrong, or cannot be judged."]
    untouched = execute(tmp_path)[2:]
    assert [cell.execution_count for cell in untouched] == [None] * len(untouched)


def test_notebook_is_kept_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    assert [cell for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count")] == []
    assert all(len(line) <= 121 for cell in notebook["cells"] for line in cell["source"])


def test_readme_and_notebook_name_one_repository():
    """Or none yet: `make address` writes it to both."""
    name = ADDRESS.removeprefix("https://github.com/")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(f"git clone {ADDRESS} ") == 1
    assert readme.count(f"https://colab.research.google.com/github/{name}/blob/main/notebook.ipynb") == 1
