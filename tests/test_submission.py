"""The zip to hand in: its files, its README, what is refused, and that it runs elsewhere."""

import re
import shutil
import subprocess
import sys
import zipfile

import pypdf
import pytest

from helpers import UserError
from report import submission
from report.build import read_pdf
from tests.made_up import BONUS, NOTES, write_run, write_sentences
from tests.toy import ROOT, run_python

AUTHOR = ["--name", "Ada Lovelace", "--cse", "ada", "--id", "123456789"]
NAME = "ex5_123456789.zip"


@pytest.fixture
def hand_in(tmp_path, monkeypatch):
    """A function that makes the zip from made-up runs and notes, and opens it. Later options replace earlier ones."""
    write_run(tmp_path / "runs" / "required")
    write_sentences(tmp_path / "runs")
    (tmp_path / "notes.typ").write_text(NOTES, encoding="utf-8")

    def hand_in(*options):
        monkeypatch.setattr(sys, "argv", ["submission", *AUTHOR, *map(str, options)])
        submission.main()
        return zipfile.ZipFile(NAME)

    return hand_in


def test_zip_holds_readme_program_and_report(hand_in):
    archive = hand_in()
    helpers = {f"helpers/{path.name}" for path in (ROOT / "helpers").glob("*.py")}
    code = {"models.py", "sentiment_analysis.py", "generate_gpt2.py"} | helpers
    assert set(archive.namelist()) == code | {"README", "report.pdf"}
    for name in code:
        assert archive.read(name) == (ROOT / name).read_bytes()
    _, draft, text = read_pdf(archive.read("report.pdf"))
    assert draft == ""
    assert "81.20 %" in text
    readme = archive.read("README").decode()
    assert readme.startswith("Name: Ada Lovelace\nCSE username: ada\nID: 123456789\n")
    assert '"torchtext==0.6.0"' in readme
    files = readme.partition("Files:\n")[2].splitlines()
    assert {line.split()[0] for line in files} == code | {"report.pdf"}
    assert all(len(line.split()) > 2 for line in files)


def test_same_input_gives_the_same_bytes(hand_in, tmp_path):
    hand_in()
    first = (tmp_path / NAME).read_bytes()
    hand_in()
    assert (tmp_path / NAME).read_bytes() == first


def test_bonus_is_in_the_zip_if_it_is_in_the_report(hand_in, tmp_path):
    write_run(tmp_path / "runs" / "two", blocks=2, valid_accuracy=0.8)
    assert not any("bonus" in name for name in hand_in().namelist())
    write_run(tmp_path / "runs" / "bonus", valid_accuracy=0.93, **BONUS)
    archive = hand_in()
    assert "helpers/bonus/__init__.py" in archive.namelist()
    assert "--preset bonus" in archive.read("README").decode()


@pytest.mark.parametrize(("options", "message"), [
    (["--id", "12"], "README lacks an ID"),  # a rule of check/
    (["--runs", "elsewhere"], "no finished run"),
    (["--notes", "no.typ"], r"draft \(Explanation missing: layers, training, generation\)"),
    (["--report", "long.pdf"], "7 pages"),
    (["--report", "notes.typ"], "the report cannot be read")])
def test_refusals(hand_in, tmp_path, options, message):
    (tmp_path / "no.typ").write_text("= Layers\n// nothing")
    pdf = pypdf.PdfWriter()
    for _ in range(7):
        pdf.add_blank_page(100, 100)
    pdf.write(tmp_path / "long.pdf")
    with pytest.raises(UserError, match=message):
        hand_in(*options)
    assert not (tmp_path / NAME).exists()


def test_own_pdf(hand_in, tmp_path):
    pdf = pypdf.PdfWriter()
    pdf.add_blank_page(100, 100)
    pdf.write(tmp_path / "mine.pdf")
    assert hand_in("--report", "mine.pdf").read("report.pdf") == (tmp_path / "mine.pdf").read_bytes()


def test_files_that_are_as_they_were_cloned(tmp_path, monkeypatch):
    def git(folder, *arguments):
        subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    files = {"models.py": b"theirs\n", "helpers/text.py": b"text\n"}
    original, clone = tmp_path / "original", tmp_path / "clone"
    for name, data in files.items():
        (original / name).parent.mkdir(parents=True, exist_ok=True)
        (original / name).write_bytes(data)
    monkeypatch.setattr(submission, "ROOT", original)
    assert submission.unchanged_files(files) == ["helpers/text.py"]  # no repository
    git(original, "init", "-q")
    git(original, "add", ".")
    git(original, "commit", "-qm", "theirs")
    git(tmp_path, "clone", "-q", original, clone)
    monkeypatch.setattr(submission, "ROOT", clone)
    assert submission.unchanged_files(files | {"new.py": b""}) == ["models.py", "helpers/text.py"]
    (clone / "models.py").write_bytes(b"mine\n")
    git(clone, "commit", "-qam", "mine")
    assert submission.unchanged_files(files | {"models.py": b"mine\n"}) == ["helpers/text.py"]


@pytest.mark.slow
def test_zip_runs_elsewhere(hand_in, tmp_path):
    archive, folder = hand_in(), tmp_path / "unpacked"
    archive.extractall(folder)
    packages = re.findall('"(.+?)"', archive.read("README").decode().partition("pip install ")[2].splitlines()[0])
    plan = subprocess.run([sys.executable, "-m", "pip", "install", "--dry-run", *packages], capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    shutil.copytree(ROOT / "sample_reviews", folder / "sample_reviews")
    code, out, err = run_python("sentiment_analysis.py", "--sample", "--epochs", "2", cwd=folder)
    assert code == 0, err
    assert "SAMPLE test accuracy" in out
    assert sorted(path.name for path in (folder / "runs").glob("*/*")) == ["loss.png", "metrics.json", "model.pt"]
