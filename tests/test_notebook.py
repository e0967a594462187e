"""The notebook: from the first cell to the last on the sample and without network, how it stops, and what it stores."""

import contextlib
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
PATH_OF_A_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|content|Users|work|mnt)/|site-packages")


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """A function that runs the notebook in a folder, cloning an address, and returns its code cells.

    Before that, `edit` is called with the list of cells.
    """
    for name, value in {"SAMPLE": "1", "TQDM_DISABLE": "1", "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1",
                        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "IPYTHONDIR": str(tmp_path / "ipython")}.items():
        monkeypatch.setenv(name, value)

    def execute(folder, address=PLACEHOLDER, edit=lambda cells: None):
        folder.mkdir(exist_ok=True)
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        for cell in notebook.cells:
            cell.source = cell.source.replace(ADDRESS, address)
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        edit(notebook.cells)
        with contextlib.suppress(nbclient.exceptions.CellExecutionError):  # is among the outputs
            nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
        return code_cells(notebook)
    return execute


@pytest.fixture
def repository(tmp_path):
    """A git repository whose files are links to the project's."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in [*(path.name for path in ROOT.glob("*.py")), "helpers", "check", "report", "benchmarks",
                 "sample_reviews", "pretrained", "requirements.txt", "requirements-report.txt"]:
        (folder / name).symlink_to(ROOT / name)
    for command in (["init", "--quiet"], ["add", "."],
                    ["-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--message", "m"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cells, stream="stdout"):
    """Return what cells printed to a stream."""
    return "".join(output.text for cell in cells for output in cell.outputs if output.get("name") == stream)


def shown(cells, kind):
    """Return what cells showed of a kind, such as "image/png"."""
    return [output.data[kind] for cell in cells for output in cell.outputs if kind in output.get("data", {})]


def failures(cells):
    """Return the messages of the errors with a traceback."""
    return [output.evalue for cell in cells for output in cell.outputs if output.output_type == "error"]


def not_executed(cells):
    return [cell.source for cell in cells if cell.execution_count is None]


@pytest.mark.skipif(not (ROOT / "sample_reviews").exists(), reason="no sample_reviews/")
def test_every_cell_runs_on_the_sample_from_an_empty_folder(execute, repository, tmp_path):
    """Which holds the project afterwards, so that the notebook can be run again."""
    cells = execute(tmp_path / "empty", str(repository))
    assert (failures(cells), not_executed(cells), text_of(cells, "stderr")) == ([], [], "")
    text = text_of(cells)
    assert float(re.search("difference from the loops: (.+)", text)[1]) < 1e-12
    full, without_blocks = map(float, re.findall(r"^SAMPLE test accuracy .*?([\d.]+)%$", text, re.MULTILINE))
    assert full >= max(75, without_blocks + 5), "the full network learns the sample, and is far ahead"
    assert len(re.findall("^epoch ", text, re.MULTILINE)) == 20
    (sentences,) = [text_of([cell]) for cell in cells if "Fifty sentences by" in text_of([cell])]
    assert "Fifty sentences by a small GPT trained on film reviews, not GPT-2" in sentences
    assert len(re.findall(r"\S.*\n", sentences)) == 51
    assert text.count("MySelfAttention   right: equal to the loops") == 2
    assert text.count("MyLayerNorm       right: equal to the loops") == 1
    assert text.count("MyLayerNorm       wrong: last-dimension-only\n") == 1
    assert any("<iframe srcdoc=" in page for page in shown(cells, "text/html"))
    assert len(shown(cells, "image/png")) == 13
    files = {path.name for path in (tmp_path / "empty" / "project" / "runs" / "notebook").iterdir()}
    assert {"sample", "gpt2", "ex5_123456789.zip"} <= files


@pytest.mark.parametrize(("address", "message"), [
    (PLACEHOLDER, "Write the address of the project after REPOSITORY, and run again."),
    ("/not/there", "/not/there cannot be cloned.")])
def test_an_unreachable_repository_stops_the_run_with_a_sentence(execute, tmp_path, address, message):
    cells = execute(tmp_path / "empty", address)
    assert failures(cells) == [message]
    assert len(not_executed(cells)) == len(cells) - 1
    assert not list((tmp_path / "empty").iterdir())


def test_a_step_that_fails_prints_one_sentence_and_stops_the_run(execute, monkeypatch):
    """Each kind of error that the project raises for its users, after the cells of the installation."""
    monkeypatch.chdir(ROOT)
    errors = ["open('missing.json')", "assert False, 'The logit depends on padding.'", "raise UserError('No data.')"]

    def edit(cells):
        codes = [cell for cell in cells if cell.cell_type == "code"]
        start = next(i for i, cell in enumerate(codes) if "set_custom_exc" in cell.source) + 1
        cells[:] = codes[:start] + [nbformat.v4.new_code_cell(source) for source in [*errors, "print('went on')"]]
        for cell in cells[-4:-2]:
            cell.metadata.tags = ["raises-exception"]  # nbclient then goes on

    *_, missing, failed, user_error, last = execute(ROOT, edit=edit)
    assert [text_of([cell], "stderr") for cell in (missing, failed, user_error)] == [
        "error: [Errno 2] No such file or directory: 'missing.json'\n",
        "error: The logit depends on padding.\n", "error: No data.\n"]
    assert failures([missing, failed, user_error]) == []
    assert not_executed([user_error, last]) == ["print('went on')"]


def test_code_cells_are_short_and_use_the_shell_only_to_install():
    install, *others = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    lines = [line for cell in others for line in cell.source.splitlines()]
    assert [line for line in lines if re.match(r"\s*[!%]", line)] == ["%matplotlib inline"]
    assert max(map(len, lines)) <= 110
    assert max(len(cell.source.splitlines()) for cell in [install, *others]) <= 15


def test_stored_outputs_are_those_of_one_complete_run_and_small():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert (failures(cells), text_of(cells, "stderr")) == ([], "")
    assert len(shown(cells, "image/png")) == 13
    assert NOTEBOOK.stat().st_size <= 2_000_000
    for kind in ("text/html", "text/plain"):
        assert PATH_OF_A_MACHINE.search("\n".join(shown(cells, kind))) is None
    assert PATH_OF_A_MACHINE.search(text_of(cells)) is None


def test_readme_and_notebook_name_one_repository():
    """Or none yet: `make address` writes it to both."""
    name = ADDRESS.removeprefix("https://github.com/")
    readme, notebook = ((ROOT / file).read_text(encoding="utf-8") for file in ("README.md", "notebook.ipynb"))
    assert readme.count(f"git clone {ADDRESS} ") == 1
    for text in (readme, notebook):
        assert text.count(f"https://colab.research.google.com/github/{name}/blob/main/notebook.ipynb") == 1
