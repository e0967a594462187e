"""The zip to hand in: its files, its README, what is refused, and that it runs elsewhere."""

import shutil
import subprocess
import sys
import zipfile

import pytest

from helpers import UserError
from helpers.imdb import SAMPLE
from report import submission
from report.build import read_pdf
from tests.made_up import BONUS, NOTES, write_run, write_sentences
from tests.test_own_models import HANDOUT, QUICK
from tests.toy import ROOT

AUTHOR = ["--name", "Ada Lovelace", "--cse", "ada", "--id", "123456789"]
NAME = "ex5_123456789.zip"


@pytest.fixture
def hand_in(tmp_path, monkeypatch):
    """A function that makes the zip from made-up runs and notes, and opens it. Later options replace earlier ones."""
    write_run(tmp_path / "runs" / "required")
    write_sentences(tmp_path / "runs")
    (tmp_path / "notes.typ").write_text(NOTES, encoding="utf-8")

    def hand_in(*options):
        monkeypatch.setattr(sys, "argv", ["submission", *AUTHOR, *options])
        submission.main()
        return zipfile.ZipFile(NAME)

    return hand_in


def test_zip_holds_readme_program_and_report(hand_in, tmp_path):
    archive = hand_in()
    helpers = {f"helpers/{path.name}" for path in (ROOT / "helpers").glob("*.py")}
    code = {"models.py", "sentiment_analysis.py", "generate_gpt2.py"} | helpers
    assert {*archive.namelist()} == code | {"README", "report.pdf"}
    assert all(archive.read(name) == (ROOT / name).read_bytes() for name in code)
    _, draft, text = read_pdf(archive.read("report.pdf"))
    assert draft == ""
    assert "81.20" in text
    readme = archive.read("README").decode()
    assert readme.startswith("Name: Ada Lovelace\nCSE username: ada\nID: 123456789\n")
    lines = readme.partition("Files:\n")[2].splitlines()
    assert {line.split()[0] for line in lines} == code | {"report.pdf"}
    before = (tmp_path / NAME).read_bytes()
    hand_in()
    assert (tmp_path / NAME).read_bytes() == before, "the same input gives other bytes"
    (tmp_path / "mine.pdf").write_bytes(archive.read("report.pdf"))
    own_pdf = hand_in("--report", "mine.pdf", "--runs", "elsewhere")
    assert own_pdf.read("report.pdf") == archive.read("report.pdf")


def test_bonus_is_in_the_zip_if_it_is_in_the_report(hand_in, tmp_path):
    write_run(tmp_path / "runs" / "two", blocks=2, valid_accuracy=0.8)
    assert not any("bonus" in name for name in hand_in().namelist())
    write_run(tmp_path / "runs" / "bonus", valid_accuracy=0.93, **BONUS)
    archive = hand_in()
    assert "helpers/bonus/__init__.py" in archive.namelist()
    assert "--preset bonus" in archive.read("README").decode()


@pytest.mark.parametrize(("options", "message"), [
    (["--id", "12"], "README lacks an ID"),  # a rule of check/
    (["--notes", "none.typ"], r"draft \(Explanation missing: layers, training, generation\)"),
    (["--report", "notes.typ"], "the report cannot be read")])
def test_refusals(hand_in, tmp_path, options, message):
    (tmp_path / "none.typ").write_text("= Layers\n// nothing")
    with pytest.raises(UserError, match=message):
        hand_in(*options)
    assert not (tmp_path / NAME).exists()


def test_files_that_are_as_they_were_cloned(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    product = {"models.py": b"theirs", "text.py": b"text"}
    for name, data in product.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(submission, "ROOT", tmp_path)
    assert submission.unchanged_files(product) == ["text.py"]  # without git, all but models.py
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "theirs")
    git("update-ref", "refs/remotes/origin/HEAD", "HEAD")  # as in a clone
    assert submission.unchanged_files(product) == ["models.py", "text.py"]
    assert submission.unchanged_files({"models.py": b"mine", "text.py": b"text", "new.py": b""}) == ["text.py"]


def test_zip_runs_elsewhere_with_another_models_py(hand_in, tmp_path):
    folder = tmp_path / "unpacked"
    hand_in().extractall(folder)
    shutil.copytree(SAMPLE, folder / SAMPLE.name)
    (folder / "models.py").write_text(HANDOUT, encoding="utf-8")
    command = [sys.executable, "sentiment_analysis.py", "--sample", *QUICK]
    assert "SAMPLE test accuracy" in subprocess.check_output(command, cwd=folder, text=True)
