"""The notebook on the sample, without network: as it is, filled in with the folded solutions, and with mistakes."""

import ast
import re
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = [pytest.mark.timeout(900), pytest.mark.our_models]  # the time is for busy machines
ROOT = Path(__file__).parents[1]
FORWARD = re.compile(r"    def forward\(self, x\):.*raise NotImplementedError", re.DOTALL)
ANSWER_THE_QUESTIONS_OF_THE_NOTES = """
notes = Path("notes.typ").read_text(encoding="utf-8")
Path("notes.typ").write_text(notes.replace("\\n\\n", "\\nMy answer.\\n\\n") + "My answer.", encoding="utf-8")
"""
OTHER_LINES = "\n!echo for the shell\nverdict = feedback(MySelfAttention)\nprint(verdict.right)"
COMPARE_LOOPS_WITH_THE_LAYERS = """
x, attention, norm = torch.randn(5, 4), models.MySelfAttention(4), models.MyLayerNorm((5, 4))
for parameter in norm.parameters(): nn.init.normal_(parameter)
torch.testing.assert_close(attention_in_loops(attention, x), attention(x[None])[0])
torch.testing.assert_close(norm_in_loops(norm, x), norm(x[None])[0])
"""


def read_notebook():
    return nbformat.read(ROOT / "notebook.ipynb", as_version=4)


def find(notebook, text):
    """Return the one code cell that contains a text."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
    return cell


def solutions(notebook):
    """Return the code of the folded solutions: of the self-attention and of the layer normalisation."""
    texts = "\n".join(cell.source for cell in notebook.cells)
    return re.findall(r"```python\n(    def forward\(self, x\):.*?)\n```", texts, re.DOTALL)


def fill_in(notebook, *forwards):
    """Replace the `forward` of the cells to fill in."""
    cells = [cell for cell in notebook.cells if FORWARD.search(cell.source)]
    for cell, forward in zip(cells, forwards, strict=True):
        cell.source = cell.source.replace(FORWARD.search(cell.source)[0], forward)


def execute(notebook, folder):
    """Execute the notebook in a folder, and return what it printed and all results as text. An error is raised."""
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, because the notebook writes to it."""
    for name in ("SAMPLE", "TQDM_DISABLE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no network
    for name in ("helpers", "check", "predict", "report", "sample_reviews", "pretrained", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in [*ROOT.glob("*.py"), ROOT / "requirements.txt"]:
        shutil.copy(path, tmp_path)
    return tmp_path


def test_as_it_is_it_goes_on_with_our_layers_and_hands_in_nothing(project, monkeypatch):
    monkeypatch.delenv("SAMPLE")  # IMDB cannot be downloaded
    text = execute(read_notebook(), project)
    assert "uses the sample" in text
    layers = ["MySelfAttention", "MyLayerNorm"]
    assert re.findall(r"(\w+) is not filled in", text) == layers
    assert re.findall(r"Your (\w+) is not right yet, so the network below has ours", text) == layers
    assert re.findall(r"is wrong: (\S+)", text) == ["softmax-over-queries", "not-scaled", "last-dimension-only"]
    assert text.count("There is nothing of your own to hand in yet") == 1
    assert not list(project.glob("*.zip"))


def test_filled_in_it_hands_in_the_classes_of_the_learner(project):
    notebook = read_notebook()
    fill_in(notebook, *solutions(notebook))
    cell = find(notebook, "class MySelfAttention(")
    cell.source = "%%time\nSOFTMAX = F.softmax\n" + cell.source.replace("F.softmax(", "SOFTMAX(") + OTHER_LINES
    cell = find(notebook, "AUTHOR =")
    cell.source = ANSWER_THE_QUESTIONS_OF_THE_NOTES + cell.source + COMPARE_LOOPS_WITH_THE_LAYERS
    text = execute(notebook, project)
    assert re.findall(r"^✓ (\w+) is right", text, re.MULTILINE) == ["MySelfAttention", "MyLayerNorm"]
    assert re.findall(r"^(\w+) +right: ", text, re.MULTILINE) == 2 * ["MySelfAttention", "MyLayerNorm"]
    statements = ast.parse((project / "models.py").read_text(encoding="utf-8")).body
    assert [*map(type, statements)][4:] == [ast.Assign, *4 * [ast.ClassDef]]  # after the imports
    assert (project / "models_ours.py").read_bytes() == (ROOT / "models.py").read_bytes()
    assert (project / "ex5_123456789.zip").exists()


def test_known_mistakes_are_named(project):
    notebook = read_notebook()
    attention, norm = solutions(notebook)
    fill_in(notebook, attention.replace("dim=2", "dim=1"), norm.replace("correction=0, ", ""))
    cell = find(notebook, "Attention = choose")
    cell.source = "Attention, Norm = MySelfAttention, MyLayerNorm\nos.mkdir('runs')"
    parts = [find(notebook, text) for text in ("class MyTransformer(", "def code_of_classes", "draft =")]
    del notebook.cells[notebook.cells.index(cell) + 1:]
    notebook.cells += parts
    text = execute(notebook, project)
    assert re.findall(r"✗ My\w+ is wrong: (\S+)", text) == ["softmax-over-queries", "unbiased-variance"]
    assert "models.py is not written" in text
    assert (project / "models.py").read_bytes() == (ROOT / "models.py").read_bytes()


def test_stored_outputs_are_complete_and_small():
    cells = [cell for cell in read_notebook().cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|content|Users|work|mnt)/|site-packages", str(outputs))
    assert (ROOT / "notebook.ipynb").stat().st_size <= 800_000
