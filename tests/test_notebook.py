"""The notebook on the sample, without network: as it is, filled in with the folded solutions, and with mistakes."""

import re
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.timeout(900)  # on a busy machine
ROOT = Path(__file__).parents[1]
PATH_OF_A_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|content|Users|work|mnt)/|site-packages")
FORWARD = re.compile(r"    def forward\(self, x\):.*raise NotImplementedError", re.DOTALL)
ANSWER_THE_QUESTIONS_OF_THE_NOTES = """
import re
notes = Path("notes.typ").read_text(encoding="utf-8")
Path("notes.typ").write_text(re.sub("^= .*", r"\\g<0>\\nMy answer.", notes, flags=re.MULTILINE), encoding="utf-8")
"""
COMPARE_LOOPS_WITH_THOSE_OF_THE_CHECK = """
from check import loops
x, attention, norm = torch.randn(5, 4), MySelfAttention(4), MyLayerNorm((5, 4))
for parameter in norm.parameters(): nn.init.normal_(parameter)
matrices = [parameter.tolist() for parameter in attention.parameters()]
expected = loops.attention_in_loops(x.tolist(), *matrices)
torch.testing.assert_close(attention_in_loops(attention, x), torch.tensor(expected))
expected = loops.norm_in_loops(x.tolist(), norm.gamma.tolist(), norm.beta.tolist())
torch.testing.assert_close(norm_in_loops(norm, x), torch.tensor(expected))
"""


def read_notebook():
    return nbformat.read(ROOT / "notebook.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def index_of(notebook, text):
    """Return the index of the one code cell that contains a text."""
    (cell,) = [cell for cell in code_cells(notebook) if text in cell.source]
    return notebook.cells.index(cell)


def solutions(notebook):
    """Return the code of the folded solutions: of the self-attention and of the layer normalisation."""
    texts = "\n".join(cell.source for cell in notebook.cells)
    return re.findall(r"```python\n(    def forward\(self, x\):.*?)\n```", texts, re.DOTALL)


def fill_in(notebook, *forwards):
    """Replace the `forward` of the cells to fill in."""
    cells = [cell for cell in code_cells(notebook) if FORWARD.search(cell.source)]
    for cell, forward in zip(cells, forwards, strict=True):
        cell.source = cell.source.replace(FORWARD.search(cell.source)[0], forward)


def execute(notebook, folder):
    """Execute the notebook in a folder, and return what it printed and all results as text. An error is raised."""
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, because the notebook writes to it."""
    for name in ("SAMPLE", "TQDM_DISABLE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no network
    for name in ("helpers", "check", "predict", "report", "sample_reviews", "pretrained", "benchmarks/results"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in [*ROOT.glob("*.py"), ROOT / "requirements.txt"]:
        shutil.copy(path, tmp_path)
    return tmp_path


def test_as_it_is_it_goes_on_with_our_layers_and_hands_in_nothing(project):
    text = execute(read_notebook(), project)
    for name in ("MySelfAttention", "MyLayerNorm"):
        assert text.count(f"✗ {name} is not filled in") == 1
        assert text.count(f"Your {name} is not right yet, so the network below has ours") == 1
    assert re.findall(r"is wrong: (\S+)", text) == ["softmax-over-queries", "not-scaled", "last-dimension-only"]
    assert text.count("There is nothing of your own to hand in yet") == 1
    assert not list(project.glob("*.zip"))


def test_filled_in_it_hands_in_the_classes_of_the_learner(project):
    notebook = read_notebook()
    fill_in(notebook, *solutions(notebook))
    notebook.cells.insert(index_of(notebook, "AUTHOR ="), nbformat.v4.new_code_cell(ANSWER_THE_QUESTIONS_OF_THE_NOTES))
    notebook.cells.append(nbformat.v4.new_code_cell(COMPARE_LOOPS_WITH_THOSE_OF_THE_CHECK))
    text = execute(notebook, project)
    assert re.findall(r"^✓ (\w+) is right", text, re.MULTILINE) == ["MySelfAttention", "MyLayerNorm"]
    assert re.findall(r"^(\w+) +right: ", text, re.MULTILINE) == ["MySelfAttention", "MyLayerNorm"]  # python -m check
    handed_in = (project / "models.py").read_text(encoding="utf-8")
    assert [solution in handed_in for solution in solutions(notebook)] == [True, True]
    assert (project / "models_ours.py").read_bytes() == (ROOT / "models.py").read_bytes()
    assert (project / "ex5_123456789.zip").exists()


def test_known_mistakes_are_named(project):
    notebook = read_notebook()
    attention, norm = solutions(notebook)
    fill_in(notebook, attention.replace("dim=2", "dim=1"), norm.replace("correction=0, ", ""))
    del notebook.cells[index_of(notebook, "feedback(MyLayerNorm)") + 1:]
    text = execute(notebook, project)
    assert re.findall(r"✗ My\w+ is wrong: (\S+)", text) == ["softmax-over-queries", "unbiased-variance"]


def test_stored_outputs_are_those_of_one_complete_run_and_small():
    cells = code_cells(read_notebook())
    outputs = [output for cell in cells for output in cell.outputs]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not PATH_OF_A_MACHINE.search(str(outputs))
    assert (ROOT / "notebook.ipynb").stat().st_size <= 800_000
