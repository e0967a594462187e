"""The zip holds what the exercise asks for, and runs from its own contents."""

import io
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pypdf
import pytest

import sentiment_analysis
from helpers.cli import UserError
from report import content, submission
from report.submission import make_readme, make_zip, product_files
from tests.made_up import make_metrics, write_own_sentences, write_run
from tests.toy import ROOT, refused, run_python

AUTHOR = {"name": "Ada Lovelace", "cse": "ada", "id": "123456789"}
OPTIONS = ["--name", "Ada  Lovelace ", "--cse", "ada", "--id", "123456789"]
ZIP = "ex5_123456789.zip"


@pytest.fixture(autouse=True)
def quick_layers(monkeypatch):
    differences = {"loops": 1e-16, "pytorch": 2e-16, "gradient": 3e-10}
    layers = {"shapes": 6, "attention": differences, "norm": differences}
    monkeypatch.setattr(content, "layer_differences", lambda: layers)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The folder of a run, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "required", make_metrics())
    return tmp_path / "runs"


def make_pdf(path, pages):
    writer = pypdf.PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(100, 100)
    writer.write(path)
    return path


def unpack(data):
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert packed.testzip() is None
        return {name: packed.read(name) for name in packed.namelist()}


def submit(call, *options):
    return call(*OPTIONS, *options, main=submission.main)


# ---- What is in it


def test_zip_holds_readme_program_and_report_and_nothing_else(call, runs):
    code, out, err = submit(call)
    assert code == 0, err
    assert "handed in by Ada Lovelace, ada, 123456789" in out
    data = (runs.parent / ZIP).read_bytes()
    found = unpack(data)
    modules = [path for path in ROOT.glob("helpers/**/*.py") if not path.name.startswith(".")]  # all are imported
    program = {*submission.SCRIPTS, *(path.relative_to(ROOT).as_posix() for path in modules)}
    assert {"models.py", "sentiment_analysis.py", "generate_gpt2.py", "helpers/bonus/network.py"} <= program
    assert found.keys() == {"README", "report.pdf"} | program
    assert all(found[name] == (ROOT / name).read_bytes() for name in program)
    text = pypdf.PdfReader(io.BytesIO(found["report.pdf"])).pages[0].extract_text()
    assert all(part in text for part in AUTHOR.values())
    assert "81.23" in text
    submit(call)
    assert (runs.parent / ZIP).read_bytes() == data


def test_readme_has_labelled_lines_packages_commands_and_one_line_for_each_file():
    product = product_files(ROOT)
    lines = make_readme(AUTHOR, product, "torch>=2.6,<3\n# a comment\n  spacy >= 3  # why\n\nsix\n").splitlines()
    assert lines[:3] == ["Name: Ada Lovelace", "CSE username: ada", "ID: 123456789"]
    assert 'pip install "torch>=2.6,<3" "spacy>=3" six' in lines
    assert any(line.startswith("python sentiment_analysis.py ") for line in lines)
    for name in (*product, "report.pdf"):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert line.endswith("."), line


@pytest.fixture
def project(tmp_path):
    """A copy of the program, in which a test may put files."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "helpers", root / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in submission.SCRIPTS:
        shutil.copy(ROOT / name, root)
    return root


def test_files_that_the_program_does_not_import_stay_out(project):
    before = product_files(project)
    for name in ("scratch.py", "._models.py", "helpers/._cli.py", "helpers/old.py", "mine_test.py", "random.py",
                 "mingpt/__init__.py", "mingpt/model.py", "other/x.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes(b"import typst(\0")
    (project / ".#m.py").symlink_to("ada@laptop.1234")
    assert product_files(project) == before


@pytest.mark.parametrize(("line", "files", "added"), [
    ("import layers", ["layers.py"], ["layers.py"]),
    ("def f():\n    from tools.norms import Norm", ["tools/norms.py"], ["tools/norms.py"]),
    ("from tools import norms", ["tools/__init__.py", "tools/norms.py", "tools/other.py"],
     ["tools/__init__.py", "tools/norms.py"]),
    ("import helpers.mine", ["helpers/mine.py"], ["helpers/mine.py"])])
def test_files_that_the_program_imports_are_taken_along(project, line, files, added):
    before = product_files(project).keys()
    for name in files:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("from . import cli\n" if name.startswith("helpers") else "", encoding="utf-8")
    with open(project / "models.py", "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    product = product_files(project)
    submission.check_imports(product)
    assert product.keys() - before == set(added)
    (project / "models.py").unlink()
    with pytest.raises(UserError, match="models.py is missing"):
        product_files(project)


def test_program_reads_no_file_that_the_zip_lacks():
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("helpers/**/*") if path.is_file()}
    others = {name for name in files if not name.endswith((".py", ".pyc"))}
    assert others == set()


def test_pdf_of_the_students_own(call, runs):
    pdf = make_pdf(runs.parent / "mine.pdf", 6)
    shutil.rmtree(runs)
    submit(call, "--report", pdf)
    assert unpack((runs.parent / ZIP).read_bytes())["report.pdf"] == pdf.read_bytes()


# ---- What is refused


@pytest.mark.parametrize(("option", "value", "message"), [
    ("--name", "", "name not given"), ("--cse", " ", "cse not given"), ("--id", "", "id not given"),
    ("--id", "12345678a", "digits"), ("--id", "١٢٣", "digits")])
def test_wrong_author_is_refused(call, runs, option, value, message):
    options = list(OPTIONS)
    options[options.index(option) + 1] = value
    assert message in refused(*call(*options, main=submission.main))


def test_wrong_pdf_is_refused_and_an_older_zip_stays(call, runs):
    folder = runs.parent
    (folder / ZIP).write_bytes(b"old")
    (folder / "broken.pdf").write_bytes(b"<html>")
    assert "has 7 pages and may have 6" in refused(*submit(call, "--report", make_pdf(folder / "long.pdf", 7)))
    assert "not a PDF" in refused(*submit(call, "--report", folder / "broken.pdf"))
    assert "cannot find" in refused(*submit(call, "--report", folder / "none.pdf"))
    assert "cannot find the folder nothing" in refused(*submit(call, "--runs", "nothing"))
    assert (folder / ZIP).read_bytes() == b"old"


def test_substitutes_are_refused_unless_allowed(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "sample", make_metrics(settings=sentiment_analysis.SAMPLE, data="SAMPLE"))
    write_own_sentences(tmp_path / "runs")
    assert "--allow-substitutes" in refused(*submit(call))
    assert not (tmp_path / ZIP).exists()
    code, _, err = submit(call, "--allow-substitutes")
    assert code == 0, err


@pytest.mark.parametrize(("file", "line", "message"), [
    ("models.py", "import scipy.sparse", "models.py, line 1, imports scipy.sparse"),
    ("helpers/data/batches.py", "def f():\n    from torchvision.io import x", "line 2, imports torchvision.io"),
    ("models.py", "from . import other", "imports ..other, which"),
    ("sentiment_analysis.py", "import transformers", "imports transformers"),
    ("helpers/files.py", "import requests", "imports requests"),
    ("new.py", "import report", "imports report"),
    ("models.py", "from helpers.clli import Parser", "helpers.clli.Parser, whose file is missing"),
    ("helpers/new.py", "from .data.vocabulary import Vocab", "helpers.data.vocabulary.Vocab, whose file is missing"),
    ("new.py", "if", "not valid Python")])
def test_imports_that_the_exercise_does_not_allow_are_refused(file, line, message):
    product = product_files(ROOT)
    submission.check_imports(product)
    submission.check_imports(product | {"helpers/gpt2/new.py": b"import transformers, mingpt.model, regex, requests"})
    with pytest.raises(UserError, match=message):
        submission.check_imports(product | {file: line.encode()})


# ---- It runs


def test_unpacked_zip_trains(tmp_path):
    """Without network, on the sample, which is not part of the zip."""
    with zipfile.ZipFile(io.BytesIO(make_zip(ROOT, AUTHOR, b""))) as packed:
        packed.extractall(tmp_path)
    shutil.copytree(ROOT / "sample_reviews", tmp_path / "sample_reviews")
    code, out, err = run_python("-c", "from sentiment_analysis import main; main(['--sample', '--epochs', '1']); "
                                "main(['predict', 'A wonderful film.'])", cwd=tmp_path)
    assert code == 0, err
    assert re.fullmatch(r"(positive|negative) +\d.*A wonderful film\.", out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_unpacked_zip_runs_with_exactly_the_packages_of_its_readme(tmp_path):
    """Install the README's line into a new environment. This downloads gigabytes."""
    with zipfile.ZipFile(io.BytesIO(make_zip(ROOT, AUTHOR, b""))) as packed:
        packed.extractall(tmp_path)
    shutil.copytree(ROOT / "sample_reviews", tmp_path / "sample_reviews")
    (line,) = [line for line in (tmp_path / "README").read_text().splitlines() if line.startswith("pip install ")]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    program = tmp_path / "venv" / "bin"
    environment = os.environ | {"PATH": f"{program}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(line, shell=True, check=True, cwd=tmp_path, env=environment)
    command = [program / "python", "sentiment_analysis.py", "--sample", "--epochs", "1"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "runs" / "sample" / "metrics.json").exists()
