"""The check of whole submissions: files, notebooks, folders and zips, the rules of hand-in, and the command."""

import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from check import process
from check.locate import find_layers, list_submissions
from check.mistakes import ATTENTION, NORM
from check.process import judge_submission
from check.rules import check_rules, find_id
from helpers import UserError

pypdf = pytest.importorskip("pypdf")

ROOT = Path(__file__).parents[1]
HEAD = "import torch\nfrom torch import nn\n"
ATTENTION_CLASS = """
class MySelfAttention(nn.Module):
    def __init__(self, input_dim):
        super().__init__()
        self.W_q, self.W_k, self.W_v = (nn.Linear(input_dim, input_dim) for _ in range(3))
"""
FORWARD = """
def forward(self, x):
    q, k, v = self.W_q(x), self.W_k(x), self.W_v(x)
    return (q @ k.mT / x.shape[2] ** 0.5).softmax(2) @ v
"""
NORM_CLASS = """
class MyLayerNorm(nn.Module):
    def __init__(self, input_dim):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(input_dim)), nn.Parameter(torch.zeros(input_dim))

    def forward(self, x):
        var, mean = torch.var_mean(x, (1, 2), keepdim=True, correction=0)
        return self.gamma * (x - mean) / torch.sqrt(var + 1e-8) + self.beta
"""
LAYERS = HEAD + ATTENTION_CLASS + FORWARD.replace("\n", "\n    ") + NORM_CLASS
TRAINING = "import numpy as np\nimport torch\nfrom models import *\nnp.random.seed(0)\ntorch.manual_seed(0)\n"
README = "Name: Ada Lovelace\nCSE username: ada\nID: 123456789\n"


def make_pdf(pages=2):
    writer, buffer = pypdf.PdfWriter(), io.BytesIO()
    for _ in range(pages):
        writer.add_blank_page(100, 100)
    writer.write(buffer)
    return buffer.getvalue()


RIGHT = {"README": README, "models.py": LAYERS, "sentiment_analysis.py": TRAINING, "report.pdf": make_pdf()}


def write_folder(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def write_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_notebook(*cells):
    return json.dumps({"cells": [{"cell_type": "code", "source": cell.splitlines(True)} for cell in cells]})


DELETES = f"import os, shutil\n{LAYERS}".replace("    var, mean", """    print('x' * 1_000_000)
        os.system('sleep 60 &')
        shutil.rmtree(os.path.dirname(os.path.dirname(__file__)), ignore_errors=True)
        var, mean""")


def test_command_on_a_folder_of_submissions(tmp_path):
    """Right ones, wrong ones, one that misbehaves, and one that cannot be read: each gets a row."""
    folder = tmp_path / "submissions"
    write_zip(folder / "ex5_123456789.zip", RIGHT)
    write_zip(folder / "lovelaceada_12_345_ex5_111111111.zip", RIGHT | {
        "README": README.replace("123456789", "111111111"), "models.py": LAYERS.replace("+ 1e-8", "+ 1e-6")})
    write_zip(folder / "other.zip", RIGHT | {"models.py": DELETES})
    write_folder(folder, {"unpacked/README": README, "unpacked/code/models.py": LAYERS, "z.rar": "Rar!"})
    table = tmp_path / "grades.csv"
    command = [sys.executable, "-m", "check", folder, "--json", "--csv", table, "--jobs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["id"] for result in results] == ["123456789", "111111111", "123456789", "123456789", None]
    assert [result["ok"] for result in results] == [True, False, False, False, False]
    broken = [[code for code, rule in result["rules"].items() if not rule["ok"]] for result in results]
    assert broken == [[], [], ["name"], ["pdf", "seeds"], []]
    assert [result["layers"][NORM]["mistake"] for result in results[:4]] == [None, "eps-value", None, None]
    assert "is not a .py file, a notebook, a folder or a zip" in results[4]["error"]
    header, *rows = csv.reader(table.read_text(encoding="utf-8-sig").splitlines())
    assert [row[0] for row in rows] == ["123456789", "111111111", "123456789", "123456789", ""]
    assert rows[1][header.index(NORM)] == "wrong: eps-value"
    assert f"{NORM}: ε = 1e-06." in rows[1][-1]
    assert (folder / "other.zip").exists()


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["none.py"], 2), (["a.py", "--csv", "b.zip"], 2)])
def test_exit_code_of_the_command(arguments, code):
    command = [sys.executable, "-m", "check", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


@pytest.mark.parametrize(("files", "expected"), [
    (["a.zip", "b/models.py"], ["a.zip", "b"]), (["a/models.py", "b/c/x.ipynb"], ["a", "b"]),
    (["a/1.zip", "b/2.zip"], ["a/1.zip", "b/2.zip"]), (["g/a.zip", "g/b.zip"], ["g/a.zip", "g/b.zip"]),
    (["README", "a/models.py", "b/x.py"], ["."]), (["a/models.py", "b/data.csv"], ["."]),
    (["r.pdf", "a/models.py", "b/x.py"], ["."]), (["a/models.py", "minGPT/x.py", ".git/x.zip"], ["."]),
])
def test_set_of_submissions(tmp_path, files, expected):
    folder = write_folder(tmp_path / "s", dict.fromkeys(files, "x"))
    assert [str(path.relative_to(folder)) for path in list_submissions(folder)] == expected


LOADS = "import pandas as pd\ndata = pd.read_csv('none.csv')\n"
ADDS = "def add_to(cls):\n    return lambda function: setattr(cls, function.__name__, function)"


@pytest.mark.parametrize("files", [
    {"work.ipynb": make_notebook("!pip install x\n%matplotlib inline", LAYERS, "for", "while True: pass")},
    {"work.py": f"# %%\n{LOADS}# %%\n{LAYERS}\nwhile True:\n    x = 1\n"},
    {"work.ipynb": make_notebook(HEAD, "from __future__ import annotations\n" + LAYERS.replace("x):", "x: Unknown):"))},
    {"work.ipynb": make_notebook(HEAD, ATTENTION_CLASS, FORWARD, "MySelfAttention.forward = forward", NORM_CLASS)},
    {"work.py": f"{HEAD}{ATTENTION_CLASS}{ADDS}\n\n@add_to(MySelfAttention){FORWARD}{NORM_CLASS}"},
    {"work.ipynb": make_notebook(LAYERS.replace("softmax(2)", "softmax(1)"), LAYERS)},
    {"work.py": "from models import MySelfAttention, MyLayerNorm\ntrain(MySelfAttention)", "models.py": LAYERS},
    {"work.ipynb": make_notebook("from net.layers import *"), "net/size.py": "EPS = 1e-8",
     "net/layers.py": "from .size import EPS\n" + LAYERS.replace("1e-8", "EPS")},
    {"work.ipynb": make_notebook(f"%%writefile a.py\n{LAYERS}", "from a import *")},
    {"work.py": f"from helpers import EPS\n{LAYERS.replace('1e-8', 'EPS')}", "helpers.py": "EPS = 1e-8"},
    {"work.py": f"import sys\nsys.modules[__name__].EPS = 1e-8\nSIZE = EPS\n{LAYERS.replace('1e-8', 'SIZE')}"},
    {"work.py": "import torch\ntorch.set_default_device('cuda')\n" + LAYERS.replace(
        "range(3))", "range(3))\n        self.to('cuda:0')").replace("mT / ", "mT.cuda() / ")},
])
def test_layers_are_found_and_right(tmp_path, files):
    folder = write_folder(tmp_path, files)
    result = judge_submission(folder / next(iter(files)), timeout=30)
    assert result["ok"], result


@pytest.mark.parametrize(("text", "mistake", "sentence"), [
    (LAYERS.replace("q, k, v =", "time.sleep(99); q, k, v ="), None, "took more than 10 seconds"),
    (LAYERS.replace("q, k, v =", "os.abort(); q, k, v ="), None, "SIGABRT"),
    (LAYERS.replace("q, k, v =", "raise NotImplementedError; q, k, v ="), "not-filled-in", ""),
    (HEAD + NORM_CLASS, "missing", ""),
])
def test_other_layer_is_judged(tmp_path, text, mistake, sentence):
    path = write_folder(tmp_path, {"models.py": f"import os, time\n{text}"}) / "models.py"
    layers = judge_submission(path, timeout=10)["layers"]
    assert (layers[ATTENTION]["mistake"], layers[NORM]["right"]) == (mistake, True)
    assert sentence in layers[ATTENTION].get("error", "")


@pytest.mark.parametrize(("files", "sentence"), [
    ({"models.py": "a b"}, "is not valid Python"), ({"a/models.py": LAYERS, "b/models.py": LAYERS}, "keep one of them"),
    ({"work.ipynb": "{"}, "is not a notebook"), ({"a.py": "x = 1"}, "has no class MySelfAttention"),
])
def test_submission_without_layers(tmp_path, files, sentence):
    assert sentence in judge_submission(write_folder(tmp_path, files))["error"]


def test_zips(tmp_path, monkeypatch):
    write_zip(tmp_path / "x.zip", {"../../models.py": LAYERS, "work\\a.py": "", "b.py": ""})
    process.unpack(tmp_path / "x.zip", tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").rglob("*.py")} == {"models.py", "a.py", "b.py"}
    monkeypatch.setattr(process, "MAX_FILES", 2)
    (tmp_path / "y.zip").write_bytes((tmp_path / "x.zip").read_bytes()[:100])
    for name, sentence in (("y.zip", "cannot be unpacked"), ("x.zip", "holds more than 2 files")):
        with pytest.raises(UserError, match=sentence):
            process.unpack(tmp_path / name, tmp_path / "copy")


def broken_rules(folder, name="ex5_123456789.zip"):
    rules = check_rules(folder, name, find_layers(folder, name))
    return {code: rule["detail"] for code, rule in rules.items() if not rule["ok"]}


GENERATION = {"generate_gpt2.py": "from mingpt.model import GPT\nfrom helpers.gpt2 import hub\n",
              "helpers/gpt2/hub.py": "import transformers"}
COLAB = "!ls\nimport google.colab, torch, numpy as np\nnp.random.seed(0)\ntorch.manual_seed(0)"


@pytest.mark.parametrize("files", [
    RIGHT, RIGHT | GENERATION, {f"a/b/{name}": content for name, content in (RIGHT | GENERATION).items()},
    {f"code/{name}" if name.endswith(".py") else name: content for name, content in (RIGHT | GENERATION).items()},
    {"README.md": "# Ada Lovelace\nada, 123456789", "ex5.ipynb": make_notebook(LAYERS, COLAB), "r.PDF": make_pdf()},
    RIGHT | {"README": "שם: עדה לאבלייס\nCSE: ada\nת.ז.: 123456789".encode("utf-16")},
])
def test_rules_that_are_kept(tmp_path, files):
    assert broken_rules(write_folder(tmp_path, files)) == {}


@pytest.mark.parametrize(("changes", "code", "sentence"), [
    ({"README": None}, "readme", "0 READMEs"), ({"README.md": README}, "readme", "2 READMEs"),
    ({"README": "Name:\nCSE username:\nID: 123456789"}, "readme", "lacks a name"),
    ({"README": README.replace("89", "80")}, "readme", "has the ID 123456780, but the file name has 123456789"),
    ({"report.pdf": None}, "pdf", "0 PDFs"), ({"report.pdf": b"no"}, "pdf", "cannot be opened"),
    ({"report.pdf": make_pdf(7)}, "pdf", "has 7 pages"), ({"b.pdf": make_pdf()}, "pdf", "2 PDFs"),
    ({"model.pt": "", "__MACOSX/._a": "", "mingpt/b/a.py": ""}, "extra", "remove __MACOSX, mingpt, model.pt (minGPT's"),
    ({"sentiment_analysis.py": TRAINING.replace("np.random", "random")}, "seeds", "np.random.seed: not called"),
    ({"models.py": f"import nltk\n{LAYERS}"}, "imports", "models.py imports nltk"),
    (GENERATION | {"other.py": "import helpers.gpt2.hub"}, "imports", "hub.py imports transformers"),
    ({"broken.py": "a b"}, "code", "broken.py is not valid Python"),
])
def test_rule_that_is_broken(tmp_path, changes, code, sentence):
    files = {name: content for name, content in (RIGHT | changes).items() if content is not None}
    broken = broken_rules(write_folder(tmp_path, files))
    assert list(broken) == [code]
    assert sentence in broken[code]


@pytest.mark.parametrize("name", [
    "lovelaceada_12345_67890_ex5_123456789.zip", "ex5_123456789-1.zip", "ex5_123456789 (1).zip",
    "Ada_7_assignsubmission_file_ex5_123456789.zip", "final.zip",
])
def test_names_of_learning_platforms(tmp_path, name):
    folder = write_folder(tmp_path, RIGHT)
    assert list(broken_rules(folder, name)) == (["name"] if name == "final.zip" else [])
    assert find_id(folder, name) == "123456789"
