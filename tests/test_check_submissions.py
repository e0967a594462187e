"""The check of whole submissions: files, notebooks, folders and zips, the rules of hand-in, and bad input."""

import ast
import csv
import io
import json
import math
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from check import __main__ as command
from check import device, locate, readme, rules, train, unpack
from check.judge import judge
from check.mistakes import ATTENTION, NORM
from check.output import count_results, make_row, summarise
from check.process import add_loops
from helpers.cli import UserError
from helpers.source import read_source, select_needed
from tests.toy import ROOT, run_python

pypdf = pytest.importorskip("pypdf")

LAYERS = """
import torch
import torch.nn as nn
import torch.nn.functional as F

class MySelfAttention(nn.Module):
    def __init__(self, input_dim):
        super().__init__()
        self.W_q, self.W_k, self.W_v = (nn.Linear(input_dim, input_dim) for _ in range(3))

    def forward(self, x):
        q, k, v = self.W_q(x), self.W_k(x), self.W_v(x)
        return F.softmax(q @ k.mT / x.shape[2] ** 0.5, dim=2) @ v

class MyLayerNorm(nn.Module):
    def __init__(self, input_dim):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(input_dim)), nn.Parameter(torch.zeros(input_dim))

    def forward(self, x):
        mean, var = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, correction=0)
        return self.gamma * (x - mean) / torch.sqrt(var + 1e-8) + self.beta
"""
WRONG = LAYERS.replace("var + 1e-8", "var + 1e-6")
TRAINING = "import numpy as np\nimport torch\nfrom models import *\nnp.random.seed(0)\ntorch.manual_seed(0)\n"
README = "Name: Ada Lovelace\nCSE username: ada\nID: 123456789\n"


def make_pdf(pages=2):
    writer = pypdf.PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(100, 100)
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


PDF = make_pdf()
RIGHT = {"README": README, "models.py": LAYERS, "sentiment_analysis.py": TRAINING, "report.pdf": PDF}


def write_folder(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_notebook(*cells):
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
        {"cell_type": "code", "metadata": {}, "outputs": [], "source": cell.splitlines(True)} for cell in cells]})


# Whole submissions, by the command


BAD = {  # what a solution does when it is imported, and the sentence
    "hangs": ("import time\ntime.sleep(999)", "took more than 15 seconds (training belongs under"),
    "leaves": ("import sys\nsys.exit()", "raises SystemExit"),
    "reads": ("name = input()", "raises EOFError"),
    "imports": ("import check.judge", "imports check, which is neither installed nor in the same folder."),
}
JUDGED = """
import os, shutil
from helpers.files import WHERE
assert 'mine' in WHERE
assert (os.listdir('..'), os.listdir('../..')) == (['d'], ['c'])  # nothing of others is near
for _ in range(100): print('x' * 1_000_000)
os.fork()
shutil.rmtree(os.path.dirname(os.path.abspath(__file__)), ignore_errors=True)
"""


def test_command_on_many_submissions(tmp_path):
    """A wrong one, some that misbehave, and zips that cannot be read: the others are judged all the same."""
    wrapped = {f"work/{name}": content for name, content in RIGHT.items() if name != "models.py"}
    package = {"work/net/models.py": f"from .number import EPS\n{WRONG.replace('1e-6', 'EPS')}",
               "work/net/number.py": "EPS = 1e-6"}
    paths = [write_zip(tmp_path / "ex5_123456789.zip", RIGHT),
             write_zip(tmp_path / "ex5_12.zip", wrapped | package | {"__MACOSX/._README": ""})]
    mine = {"helpers/__init__.py": "", "helpers/files.py": "WHERE = 'mine'"}
    sentences = {}
    for name, (code, sentences[name]) in BAD.items():
        paths.append(write_zip(tmp_path / f"{name}.zip", RIGHT | {"models.py": f"{code}\n{LAYERS}"}))
    paths.append(write_zip(tmp_path / "well.zip", RIGHT | mine | {"models.py": f"{JUDGED}\n{LAYERS}"}))
    (tmp_path / "damaged.zip").write_bytes(b"PK\3\4")
    paths.append(tmp_path / "damaged.zip")
    table = tmp_path / "grades.csv"
    exit_code, out, err = run_python("-m", "check", *paths, "--json", "--csv", table, "--jobs", "2", "--timeout", "15",
                                     cwd=ROOT)
    assert (exit_code, err) == (2, "")
    right, wrong, *bad, well, damaged = map(json.loads, out.splitlines())
    assert list(right) == ["submission", "ok", "layers", "rules"]
    assert "error" not in well, well
    assert (right["ok"], well["ok"], wrong["ok"]) == (True, False, False)
    assert [rule for rule, result in well["rules"].items() if not result["ok"]] == ["name"]
    assert [rule for rule, result in wrong["rules"].items() if not result["ok"]] == ["readme", "extra"]
    assert [wrong["layers"][name]["mistake"] for name in (ATTENTION, NORM)] == [None, "eps-value"]
    for answer, (name, sentence) in zip(bad, sentences.items(), strict=True):
        assert list(answer) == ["submission", "error"], name
        assert sentence in answer["error"]
    assert "damaged" in damaged["error"]
    rows = list(csv.reader(table.open(encoding="utf-8-sig")))
    assert [row[1] for row in rows] == ["ok", "yes", "no", *["no"] * len(bad), "no", "no"]


def test_command_on_a_notebook_with_one_class_for_a_gpu(tmp_path):
    layer = LAYERS[:LAYERS.index("class MyLayerNorm")].replace("range(3))", 'range(3))\n        self.to("cuda:0")')
    cells = ["!pip install torchtext==0.6.0\n%matplotlib inline\nimport torch\nprint(f'{1}')", layer.replace(
        "mT / ", "mT.cuda() / "), "%%bash\nls", "while True:\n    train()"]
    (tmp_path / "work.ipynb").write_text(make_notebook(*cells))
    exit_code, out, _ = run_python("-m", "check", tmp_path / "work.ipynb")
    assert exit_code == 1
    lines = out.splitlines()
    assert lines[0].startswith(f"{ATTENTION:<18}right")
    assert f"{NORM:<18}wrong: missing" in lines


# Kinds of paths


@pytest.mark.parametrize("text", [
    "!pip install x\n!python -m spacy download \\\n    en_core_web_sm\nx = !ls\n%time f()\nclass MyLayerNorm: y = SIZE",
    "%matplotlib inline\nx = 7 % (3\n    % 2)\nSIZE = 5\ntrain()\nclass MyLayerNorm:\n    y = SIZE\n",
])
def test_lines_for_the_shell_are_skipped_and_keep_their_numbers(tmp_path, text):
    path = tmp_path / "export.py"
    path.write_text(text)
    found = read_source(path, "export.py")
    assert found.is_notebook
    assert len(found.text.splitlines()) == len(text.splitlines())
    assert NORM in locate.list_defined(found.tree)


@pytest.mark.parametrize("header", [
    '"""work.ipynb\n\nAutomatically generated by Colab.\n"""\n', "# In[1]:\n\n", "get_ipython().system('ls')\n",
])
def test_export_of_a_notebook_is_not_run_as_a_whole(tmp_path, header):
    (tmp_path / "work.py").write_text(f"{header}from google.colab import drive\n{LAYERS}\ntrain()\n")
    found = read_source(tmp_path / "work.py", "work.py")
    assert found.is_notebook
    needed = ast.unparse(select_needed(found.tree, [ATTENTION, NORM]))
    assert not {"train", "drive", "get_ipython"} & {*needed.split("(")}


def test_only_what_the_classes_need_is_run(tmp_path):
    path = tmp_path / "work.ipynb"
    cells = ["import torch, os\nfrom torch import nn\nSIZE = 3\nHALF = SIZE / 2\nx = load()\nos.remove('x')",
             "%%writefile layers.py\nWIDTH = 7", "class MyLayerNorm(nn.Module):\n    def f(self, x): return x + HALF",
             "%%time\nMyLayerNorm.g = 5\nmodel = train(MyLayerNorm)\ntorch.set_default_dtype(torch.float32)"]
    path.write_text(make_notebook(*cells))
    body = select_needed(read_source(path, "work.ipynb").tree, [ATTENTION, NORM]).body
    lines = [line for statement in body for line in ast.unparse(statement).splitlines()]
    assert "SIZE = 3" in lines
    assert "HALF = SIZE / 2" in lines
    assert "MyLayerNorm.g = 5" in lines
    assert not {"x = load()", "os.remove('x')", "model = train(MyLayerNorm)"} & {*lines}
    assert (tmp_path / "layers.py").read_text() == "WIDTH = 7"


@pytest.mark.parametrize(("files", "where"), [
    ({"models.py": LAYERS, "work.ipynb": make_notebook(LAYERS)}, ["models.py"] * 2),
    ({"models.py": LAYERS, "old.py": LAYERS}, ["models.py"] * 2),
    ({"work.ipynb": make_notebook(LAYERS)}, ["work.ipynb"] * 2),
    ({"work.ipynb": make_notebook(f"%%writefile a.py\n{LAYERS}", "from a import *")}, ["a.py"] * 2),
    ({"a/attention.py": "class MySelfAttention: pass", "b/norm.py": "class MyLayerNorm: pass"},
     ["a/attention.py", "b/norm.py"]),
    ({"all.py": LAYERS, "mingpt/model.py": LAYERS, "__MACOSX/all.py": LAYERS, "notes.py": "a b"}, ["all.py"] * 2),
    ({"models.py": "from layers import MySelfAttention, MyLayerNorm", "layers.py": LAYERS}, ["layers.py"] * 2),
])
def test_classes_are_found(tmp_path, files, where):
    found = locate.find_layers(write_folder(tmp_path, files), "x.zip")
    assert [str(Path(path).relative_to(tmp_path)) for path, _ in found.values()] == where


@pytest.mark.parametrize(("files", "sentence"), [
    ({"a/models.py": LAYERS, "b/models.py": LAYERS}, "x.zip defines MySelfAttention in a/models.py and in b/models.py"),
    ({"work.ipynb": "{"}, "work.ipynb in x.zip is not a notebook, or it is damaged."),
    ({"work.ipynb": '{"cells": 3}'}, "is not a notebook"),
    ({"models.py": "a b"}, "models.py in x.zip is not valid Python"),
])
def test_classes_that_are_not_found(tmp_path, files, sentence):
    with pytest.raises(UserError) as error:
        locate.find_layers(write_folder(tmp_path, files), "x.zip")
    assert sentence in str(error.value)


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("entries", "sentence"), [
    ([], "is empty;"),
    ([("../x.py", "")], "holds ../x.py, which would be unpacked outside its folder."),
    ([("/etc/x.py", "")], "outside its folder"), ([("C:\\x.py", "")], "outside its folder"),
    ([(link("x.py"), "/etc/passwd")], "holds x.py, a link"),
    ([("models.py", "1"), ("models.py", "2")], "holds models.py twice"),
    ([("ex5_1.zip", "PK"), ("__MACOSX/._ex5_1.zip", "")], "holds another zip, ex5_1.zip, and no code"),
    ([(f"{number}.py", "") for number in range(2001)], "holds more than 2,000 files"),
    ([("data.bin", bytes(201_000_000))], "holds more than 200 MB"),
])
def test_zip_that_is_refused(tmp_path, entries, sentence):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    with pytest.raises(UserError) as error:
        unpack.copy_submission(path, tmp_path / "copy")
    assert str(error.value).startswith(f"{path} ")
    assert sentence in str(error.value)
    assert not [other for other in tmp_path.rglob("*.py") if not other.is_relative_to(tmp_path / "copy")]


def test_encrypted_and_lying_zips_are_refused(tmp_path):
    data = bytearray(write_zip(tmp_path / "x.zip", {"models.py": LAYERS}).read_bytes())
    place = data.index(b"PK\1\2")
    encrypted = data[:place + 8] + b"\1" + data[place + 9:]
    lying = data[:place + 24] + b"\1\0\0\0" + data[place + 28:]  # one byte instead of all
    for content, sentence in ((encrypted, "is encrypted"), (lying, "cannot be unpacked"), (data[:200], "is not a zip")):
        (tmp_path / "y.zip").write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            unpack.copy_submission(tmp_path / "y.zip", tmp_path / "copy")


def test_names_of_other_systems(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"work\\models.py": LAYERS, "work\\שלום.py": "", "work\\\x01.txt": ""})
    unpack.copy_submission(path, tmp_path / "copy")
    assert (tmp_path / "copy" / "work" / "models.py").exists()
    assert unpack.show("\x01.txt") == "?.txt"


@pytest.mark.parametrize(("name", "sentence"), [
    ("models.rar", "is not a .py file, a notebook, a folder or a zip."), ("none.py", "does not exist."),
    ("/dev/null", "is not a .py file")])
def test_other_files_are_refused(tmp_path, name, sentence):
    (tmp_path / "models.rar").touch()
    with pytest.raises(UserError, match=sentence):
        unpack.copy_submission(tmp_path / name, tmp_path / "copy")


def test_folder_with_a_zip_only_is_refused(tmp_path):
    write_zip(write_folder(tmp_path / "work", {".DS_Store": ""}) / "ex5_1.zip", RIGHT)
    with pytest.raises(UserError, match="work holds a zip, ex5_1.zip, and no code; give the path of the zip."):
        unpack.copy_submission(tmp_path / "work", tmp_path / "copy")


def test_neighbours_of_a_file_are_copied_without_links_and_large_files(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MAX_NEIGHBOUR", 100)
    folder = write_folder(tmp_path / "work", {"models.py": LAYERS, "a/b.py": "", ".git/x": "", "data.csv": "x" * 101})
    (folder / "link").symlink_to("/etc/passwd")
    target = unpack.copy_submission(folder / "models.py", tmp_path / "copy")
    assert target.read_text() == LAYERS
    copied = [str(path.relative_to(tmp_path / "copy")) for path in locate.list_files(tmp_path / "copy")]
    assert copied == ["a/b.py", "models.py"]


# The rules


def broken_rules(folder, name="ex5_123456789.zip"):
    found = rules.check_rules(folder, name, locate.find_layers(folder, name))
    return {code: rule["detail"] for code, rule in found.items() if not rule["ok"]}


GPT = "import requests, regex, tools\nfrom mingpt.model import GPT\nfrom mingpt.utils import set_seed\nset_seed(1)\n"
SEEDS = "from numpy.random import seed\nfrom torch import manual_seed as start\nseed(1)\nstart(1)"
IN_NOTEBOOK = "!ls\nimport google.colab, torch, numpy as np\nnp.random.seed(0)\ntorch.manual_seed(0)"


@pytest.mark.parametrize("files", [
    RIGHT,
    {f"work/{name}": content for name, content in RIGHT.items()} | {"work/models.py": f"from work import a\n{LAYERS}"},
    {f"a/b/{name}": content for name, content in RIGHT.items()},
    {"README.md": "# Ada Lovelace\nada, 123456789", "ex5.ipynb": make_notebook(LAYERS, IN_NOTEBOOK),
     "report.PDF": PDF},
    RIGHT | {"sentiment_analysis.py": "from models import *", "mingpt_test.py": GPT, "tools.py": "import transformers"},
    RIGHT | {"sentiment_analysis.py": SEEDS},
])
def test_rules_that_are_kept(tmp_path, files):
    assert broken_rules(write_folder(tmp_path, files)) == {}


@pytest.mark.parametrize(("changes", "code", "sentence"), [
    ({"README": None}, "readme", "the README is missing"),
    ({"README": README.replace("ID: 123456789", "")}, "readme", "README lacks an ID"),
    ({"README": README.replace("Ada Lovelace", "")}, "readme", "README lacks a name"),
    ({"README": "123456789\nAda Lovelace"}, "readme", "README lacks a CSE username"),
    ({"README": README.replace("89", "80")}, "readme", "has the ID 123456780, but the file name has 123456789"),
    ({"report.pdf": None}, "pdf", "the PDF is missing"),
    ({"report.pdf": b"%PDF-1.5 not really"}, "pdf", "report.pdf cannot be opened as a PDF"),
    ({"report.pdf": make_pdf(0)}, "pdf", "report.pdf cannot be opened as a PDF"),
    ({"report.pdf": make_pdf(7)}, "pdf", "report.pdf has 7 pages, and at most 6 are allowed"),
    ({"other.pdf": PDF}, "pdf", "2 PDFs (other.pdf, report.pdf)"),
    ({"data.csv": "1"}, "extra", "remove data.csv"),
    ({".DS_Store": "1"}, "extra", "remove .DS_Store"),
    ({"__MACOSX/._models.py": "1"}, "extra", "remove __MACOSX/"),
    ({"model.pt": "1"}, "extra", "remove model.pt"),
    ({"code/a.py": "", "code/a.csv": "1", "code/b/c.pt": "", "code/b/d.pt": ""}, "extra", "remove code/a.csv, code/b/"),
    ({f"{number}.png": "1" for number in range(11)}, "extra", "6.png and 3 more"),
    ({"README.md": README}, "readme", "2 READMEs (README, README.md)"),
    ({"README": None, "a/README": README}, "readme", "a/README is in a folder; move it out of there"),
    ({"mingpt/model.py": "import torch", "mingpt/bpe.py": "x"}, "extra", "mingpt/ (minGPT's own code)"),
    ({"gpt/a.py": "class GPT: pass\nclass CausalSelfAttention: pass"}, "extra", "remove gpt/ (minGPT's own code)"),
    ({"minGPT-main/projects/a.py": "import mingpt"}, "extra", "remove minGPT-main/ (minGPT's own code)"),
    ({"requirements.txt": "torch"}, "extra", "remove requirements.txt"),
    ({"sentiment_analysis.py": TRAINING.replace("np.random", "random")}, "seeds", "np.random.seed is not called"),
    ({"sentiment_analysis.py": TRAINING.replace("torch.m", "m")}, "seeds", "torch.manual_seed is not called"),
    ({"models.py": f"import nltk\n{LAYERS}"}, "imports", "models.py imports nltk, which the exercise does not allow"),
    ({"models.py": f"def f():\n    from transformers import x\n{LAYERS}"}, "imports", "models.py imports transformers"),
    ({"a.py": "x = __import__('nltk')"}, "imports", "a.py imports nltk, which the exercise does not allow"),
    ({"a.py": "from importlib import *\nimport_module('regex')"}, "imports", "only for generating"),
    ({"broken.py": "a b"}, "code", "broken.py is not valid Python"),
])
def test_rule_that_is_broken(tmp_path, changes, code, sentence):
    files = {name: content for name, content in (RIGHT | changes).items() if content is not None}
    broken = broken_rules(write_folder(tmp_path, files))
    assert list(broken) == [code]
    assert sentence in broken[code]


def test_name_of_the_zip(tmp_path):
    folder = write_folder(tmp_path, RIGHT)
    assert broken_rules(folder, "ex5.zip") == {"name": "the zip is called ex5.zip; call it ex5_ID.zip, with your ID"}
    assert broken_rules(folder, "work") == {}


@pytest.mark.parametrize("text", [
    README, "Ada Lovelace\nada\n123456789", "Ada Lovelace, ada, 123456789", "Ada Lovelace ada 123456789",
    "**Name:** Ada Lovelace\n**Login** : ada\n**ID** = 123456789", "ID 123456789\nName - Ada Lovelace\nUsername ada",
    "# Exercise 5\n\nSubmitted by: Ada Lovelace | 123456789 | ada\n", "שם: עדה לאבלייס\nCSE: ada\nת.ז.: 123456789",
    "שם: עדה לאבלייס\nשם משתמש: ada\nת\"ז: 123456789", "Name: Ada Löw\nBenutzername: ada\nMatrikelnummer: 123456789",
    "| Name | CSE username | ID |\n|---|---|---|\n| Ada Lovelace | ada | 123456789 |", "Ada Lovelace - ada - 123456789",
    "## Name\r\nAda Lovelace\r\n## Username\r\nada\r\n## ID\r\n123456789\r\n",
    "Methods (67577)\nName: Ada Lovelace\nCSE ID: ada\nI.D.: 12345678-9", "name: ada\nCS: ada\nID: 123 456 789",
    "My name is Ada Lovelace, my username is ada and my ID is 123456789.",
    "<b>Name</b>: Ada Lovelace<br>\nCS: ada\nID: 123456789<br>",
    "# ML ex5\n* Ada Lovelace\n* ada\n* 123456789", "Author: Ada Lovelace <ada@cs.huji.ac.il>\nID: 123456789",
    "Name: Ada Lovelace (123456789)\nCSE Username ada", "ada 123456789 Ada Lovelace\n## How to run\npython train.py",
])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_readme_in_many_styles(tmp_path, text, encoding):
    (tmp_path / "README.txt").write_bytes(text.encode(encoding))
    found = readme.check_readme(tmp_path, "123456789")
    assert found["ok"], found


@pytest.mark.parametrize(("text", "lacks"), [
    ("Name:\nCSE username:\nID:\n", "a name, a CSE username and an ID"), ("", "a name, a CSE username and an ID"),
    ("# README\nName: Ada Lovelace\nID: 123456789\n\nmodels.py\ntrain.py\n", "a CSE username"),
    ("# Exercise Five\nUsername: ada\nID: 123456789\nRun train.py first\nTo run by hand: python train.py", "a name"),
    ("| Name | ID |\n|---|---|\n| Ada Lovelace | 123456789 |", "a CSE username"),
    ("| Username | ID |\n| ada | 123456789 |", "a name"), ("Methods (67577)\nAda Lovelace, ada", "an ID"),
    ("This is the solution of exercise 5.\n123456789", "a name and a CSE username"),
    ("Ada Lovelace, 123456789\n## How to run\npython train.py", "a CSE username"),
    ("Name: Ada Lovelace\nID: 123456789\n\ncheers", "a CSE username"), ("Exercise Five\nada\n123456789", "a name"),
])
def test_readme_that_lacks_something(tmp_path, text, lacks):
    (tmp_path / "README.md").write_text(text)
    assert readme.check_readme(tmp_path, "123456789")["detail"].startswith(f"README.md lacks {lacks}; add ")


def test_loop_in_a_layer_breaks_a_rule_and_shows_in_the_table():
    layer = {"right": False, "mistake": "not-scaled+loop", "difference": 1.0, "notes": []}
    result = add_loops({"submission": "=x.zip", "rules": {"name": {"ok": True, "detail": ""}},
                        "layers": {ATTENTION: layer, NORM: layer | {"right": True, "mistake": None}}})
    assert not result["ok"]
    assert result["rules"]["loops"] == {"ok": False, "detail": f"{ATTENTION} runs a loop; use matrix products"}
    assert summarise(result) == (f"✗  =x.zip  {ATTENTION} wrong: not-scaled, loop; loops: {ATTENTION} runs a loop; "
                                 "use matrix products")
    assert make_row(result)[:4] == ["'=x.zip", "no", "wrong: not-scaled, loop", "right"]


def test_layer_that_cannot_be_judged_shows_with_its_reason():
    layer = {"right": True, "mistake": None, "difference": 1.0, "notes": []}
    failed = layer | {"right": False, "error": "It hangs.", "notes": ["reason: It hangs."]}
    result = add_loops({"submission": "x.zip", "rules": {"name": {"ok": True, "detail": ""}},
                        "layers": {ATTENTION: failed, NORM: layer}})
    assert result["rules"]["loops"] == {"ok": True, "detail": f"none in {NORM}"}
    assert summarise(result) == "?  x.zip  It hangs."
    assert (make_row(result)[2], make_row(result)[-1]) == ("cannot be judged", "It hangs.")
    assert count_results([result] * 2) == "2 submissions: 0 right, 0 wrong, 2 could not be judged"


def test_table_goes_to_the_home_folder_and_a_wrong_place_or_a_submission_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    judged = []
    monkeypatch.setattr(command, "judge_submission", lambda path, options: judged.append(path) or {
        "submission": path, "ok": False, "rules": {}, "error": "x"})
    for table in ("~", "/proc/none/x.csv", "~/a.ZIP", "~/models.py", "~/x.csv"):
        monkeypatch.setattr(sys, "argv", ["check", "~/a.zip", "b.zip", "--json", f"--csv={table}"])
        with pytest.raises((SystemExit, UserError, OSError)):
            command.main()
    assert sorted(judged) == [f"{tmp_path}/a.zip", "b.zip"]
    assert [row[0] for row in csv.reader((tmp_path / "x.csv").open())][1:] == [f"{tmp_path}/a.zip", "b.zip"]


@pytest.mark.parametrize(("exit_code", "loss", "ok", "detail"), [
    (0, 0.7, True, "the loss after one epoch is 0.7"), (0, math.nan, False, "the loss after one epoch is nan"),
    (2, None, False, "stopped: x.py has no class MyLayerNorm."),
])
def test_result_of_the_epoch(tmp_path, exit_code, loss, ok, detail):
    if loss:
        write_folder(tmp_path, {"sample/metrics.json": json.dumps({"epochs": [{"train_loss": loss}]})})
    done = subprocess.CompletedProcess([], exit_code, "", "note: x\nerror: x.py has no class MyLayerNorm.\n")
    assert train.read_result(done, tmp_path) == {"ok": ok, "detail": detail}


def test_epoch_needs_one_file_with_both_classes(tmp_path):
    middle = LAYERS.index("class MyLayerNorm")
    folder = write_folder(tmp_path, {"a.py": LAYERS[:middle], "b.py": f"from torch import nn\n{LAYERS[middle:]}"})
    assert "needs one file that defines MyTransformer" in train.train(folder, "x.zip", 1)["detail"]
    network = write_folder(folder, {"c.py": "from a import *\nfrom b import *\nclass MyTransformer: pass"}) / "c.py"
    assert train.find_network(folder, "x.zip") == network


def test_network_of_a_notebook_is_extracted(tmp_path):
    write_folder(tmp_path, {"work.ipynb": make_notebook(LAYERS, "class MyTransformer: pass\ntrain()")})
    names = {}
    exec(train.find_network(tmp_path, "x.zip").read_text(), names)
    assert {ATTENTION, NORM, "MyTransformer"} <= names.keys()


# A GPU on the CPU


@pytest.mark.parametrize("edit", [
    ("range(3))", 'range(3))\n        self.cuda()'),
    ("range(3))", 'range(3))\n        self.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))'),
    ("input_dim, input_dim)", 'input_dim, input_dim, device="cuda:0")'),
    ("q, k, v = ", 'x = x.to("cuda")\n        assert torch.cuda.device_count()\n        q, k, v = '),
    ("dim=2)", 'dim=2) * torch.ones(1, device="cuda", dtype=x.dtype)'),
    ("x.shape[2] ** 0.5", 'torch.tensor(x.shape[2], dtype=x.dtype).cuda(0).sqrt().to(0)'),
    ("class MyS", 'DEVICE = torch.zeros(1).cuda().device\ntorch.set_default_device("cuda")\n\nclass MyS'),
])
def test_code_for_a_gpu_is_judged_on_the_cpu(monkeypatch, edit):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for name in {*device.NOTHING, *device.ANSWERS, *device.TYPES, "get_device_properties"}:
        monkeypatch.setattr(torch.cuda, name, getattr(torch.cuda, name, None), raising=False)
    for name in ("set_default_device", "set_default_tensor_type"):
        monkeypatch.setattr(torch, name, getattr(torch, name))
    assert edit[0] in LAYERS
    with device.CpuAsGpu():
        with monkeypatch.context() as patch:
            patch.setattr(device.CpuAsGpu, "__enter__", lambda self: None)
            device.pretend_gpu()
        names = {"__name__": "solution"}
        try:
            exec(LAYERS.replace(*edit), names)
            verdict = judge(ATTENTION, names[ATTENTION])
        finally:
            torch.set_default_device(None)  # as it was; other tests run in this process
    assert verdict["right"], verdict


def test_no_module_of_the_project_stays_loaded():
    before = dict(sys.modules)
    with locate_project_hidden():
        assert not {"check", "helpers", "models", "tests"} & {name.partition(".")[0] for name in sys.modules}
    assert {name for name in before if name.startswith("check")} <= {*sys.modules}


def locate_project_hidden():
    from check.solution import hide_project
    return hide_project()


def test_what_the_generation_imports_may_use_transformers(tmp_path):
    """In a package of a package too; and no other file may."""
    folder = write_folder(tmp_path, {
        "models.py": LAYERS, "generate_gpt2.py": "from helpers.gpt2 import weights\nimport helpers.runtime",
        "helpers/gpt2/weights.py": "import transformers", "helpers/gpt2/other.py": "import transformers",
        "helpers/runtime.py": "import os"})
    sources = {path: read_source(path, path.name) for path in folder.rglob("*.py")}
    result = rules.check_imports(folder, sources, {folder / "models.py"})
    assert not result["ok"]
    assert "other.py" in result["detail"]
    assert "weights.py" not in result["detail"]
