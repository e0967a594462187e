"""Right and wrong layers in many styles, judged; solutions that cannot be judged; the list of mistakes itself."""

import itertools
import json
import re
import sys
from pathlib import Path
from runpy import run_path

import pytest
import torch

import models
from helpers.cli import UserError
from tests import diagnose
from tests.judge import EXACT, FLOAT32, Candidate, compare_with_loops, compute, distances, judge, make_cases
from tests.mistakes import ATTENTION, BOTH, MISTAKES, NORM, REST, combinations
from tests.toy import refused, run_python

# How a layer may hold its projections, and what it does before the softmax. INIT ... FORWARD become methods.
STYLES = {
    "linear": """self.query, self.key, self.value = (nn.Linear(d, d, bias=False) for _ in range(3))
        FORWARD
        q, k, v = self.query(x), self.key(x), self.value(x)""",
    "biased": """self.W_Q, self.W_K, self.W_V = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        FORWARD
        q, k, v = self.W_Q(x), self.W_K(x), self.W_V(x)""",
    "bare": """self.wv, self.wk, self.wq = (nn.Parameter(torch.rand(d, d)) for _ in range(3))
        FORWARD
        q, k, v = x @ self.wq, (self.wk @ x.mT).mT, torch.einsum("btd,de->bte", x, self.wv)""",
    "chunks": """self.qkv = nn.Linear(d, 3 * d, bias=False)
        FORWARD
        q, k, v = self.qkv(x).chunk(3, dim=-1)""",
    "columns": """self.w, self.b = nn.Parameter(torch.zeros(d, 3 * d)), nn.Parameter(torch.zeros(3 * d))
        FORWARD
        v, q, k = (x @ self.w + self.b).view(*x.shape[:2], 3, x.shape[2]).unbind(2)""",
    "keys": """self.to_k, self.to_q = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        FORWARD
        q, k = self.to_q(x), self.to_k(x)""",
    "projected": """self.to_qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d)
        FORWARD
        q, k, v = self.to_qkv(x).chunk(3, -1)""",
    "given": """self.gamma, self.beta = nn.Parameter(torch.ones(*d)), nn.Parameter(torch.zeros(*d))
        FORWARD
        g, b = self.gamma, self.beta""",
    "flat": """self.shift, self.w = nn.Parameter(torch.rand(d[0] * d[1])), nn.Parameter(torch.rand(d[0] * d[1]))
        FORWARD
        g, b = self.w.view(x.shape[1:]), self.shift.view(x.shape[1:])""",
    "features": """self.g, self.b = nn.Parameter(torch.ones(d[1])), nn.Parameter(torch.zeros(d[1]))
        FORWARD
        g, b = self.g, self.b""",
    "none": "FORWARD",
}
SOFTMAX = "return F.softmax(q @ k.transpose(1, 2) / k.shape[2] ** 0.5, dim=-1) @ v"
STEPS = """scores = torch.einsum("bid,bjd->bij", q, k).mul(q.size(2) ** -0.5)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        return torch.einsum("bij,bjd->bid", weights / weights.sum(-1, keepdim=True), v)"""
NORMED = """m, v = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, unbiased=False)
        return g * (x - m) / torch.sqrt(v + 1e-8) + b"""
SUMMED = """rows = x.reshape(len(x), -1).flip(1)
        m = rows.sum(1) / rows.size(1)
        s = torch.rsqrt((rows ** 2).sum(1) / rows.size(1) - m ** 2 + 1e-8)
        return (x - m[:, None, None]).mul(s.view(-1, 1, 1)).mul(g).add(b)"""


def write(path, style, rest, extra=""):
    """Write a solution's class in one of the styles and return its name."""
    name = ATTENTION if list(STYLES).index(style) < list(STYLES).index("given") else NORM
    init, forward = STYLES[style].split("FORWARD")
    path.write_text("import math\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n"
                    f"{extra}\n\nclass {name}(nn.Module):\n    def __init__(self, d):\n        super().__init__()\n"
                    f"        {init}\n\n    def forward(self, x):\n        {forward.strip()}\n        {rest}\n")
    return name


@pytest.fixture
def judged(tmp_path):
    def judged(style, rest, extra=""):
        name = write(tmp_path / "models.py", style, rest, extra)
        return judge(name, run_path(tmp_path / "models.py")[name])
    return judged


@pytest.mark.parametrize("rest", [SOFTMAX, STEPS], ids=["softmax", "steps"])
@pytest.mark.parametrize("style", ["linear", "bare", "chunks"])
def test_right_attention(judged, style, rest):
    verdict = judged(style, rest)
    assert verdict["right"], verdict
    assert verdict["mistake"] is None
    assert verdict["difference"] < 1e-13
    assert verdict["notes"] == []


@pytest.mark.parametrize("rest", [NORMED, SUMMED], ids=["normed", "summed"])
@pytest.mark.parametrize("style", ["given", "flat"])
def test_right_norm(judged, style, rest):
    verdict = judged(style, rest)
    assert verdict["right"], verdict
    assert verdict["difference"] < 1e-11


PLANTED = [
    ("softmax-over-queries", "linear", "return F.softmax(q.bmm(k.mT) / math.sqrt(q.size(-1)), dim=1).bmm(v)"),
    ("softmax-over-batch", "bare", "return nn.Softmax()(q @ k.mT / q.shape[-1] ** 0.5) @ v"),  # torch's choice of dim
    ("no-softmax", "chunks", 'return torch.einsum("btd,bsd,bse->bte", q, k, v) / q.shape[2] ** 0.5'),
    ("not-scaled", "chunks", SOFTMAX.replace(" / k.shape[2] ** 0.5", "")),
    ("scaled-by-d", "bare", SOFTMAX.replace(" ** 0.5", "")),
    ("scaled-by-sqrt-T", "linear", SOFTMAX.replace("shape[2]", "shape[1]")),
    ("multiplied-by-sqrt-d", "chunks", SOFTMAX.replace("/ k", "* k")),
    ("scaled-after-softmax", "linear", "return torch.bmm(F.softmax(q @ k.mT, 2) / math.sqrt(x.size(2)), v)"),
    ("attention-across-batch", "bare", """q, k, v = (t.reshape(-1, t.shape[2]) for t in (q, k, v))
        return (F.softmax(q @ k.T / k.shape[1] ** 0.5, dim=-1) @ v).view(x.shape)"""),
    ("causal", "chunks", """keep = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        return ((q @ k.mT / k.shape[2] ** 0.5).masked_fill(~keep, float("-inf"))).softmax(-1) @ v"""),
    ("values-not-projected", "keys", SOFTMAX.replace("@ v", "@ x")),
    ("values-not-projected", "linear", SOFTMAX.replace("@ v", "@ x")),
    ("residual-inside", "bare", SOFTMAX + " + x"),
    ("overflow", "chunks", STEPS.replace(" - scores.amax(-1, keepdim=True)", "")),
    ("keys-as-queries", "linear", "return F.softmax(k @ q.mT / k.shape[2] ** 0.5, dim=-1) @ v"),
    ("matrices-exchanged", "bare", "return F.softmax(q @ v.mT / k.shape[2] ** 0.5, dim=-1) @ k"),
    ("biases", "columns", SOFTMAX),
    ("biases+not-scaled+causal", "biased", """scores = q @ k.mT + torch.full((x.shape[1],) * 2, -1e30).triu(1)
        return scores.softmax(2) @ v"""),
    ("biases+output-projected", "projected", SOFTMAX.replace("return ", "return self.out(") + ")"),

    ("last-dimension-only", "given", NORMED.replace("(1, 2)", "-1")),
    ("tokens-only", "given", NORMED.replace("(1, 2)", "1")),
    ("across-batch", "flat", "return g * (x - x.mean()) / (x.var(correction=0) + 1e-8) ** 0.5 + b"),
    ("unbiased-variance", "flat", NORMED.replace(", unbiased=False", "")),
    ("eps-outside-root", "flat", NORMED.replace("torch.sqrt(v + 1e-8)", "(v.sqrt() + 1e-8)")),
    ("eps-value", "flat", SUMMED.replace("1e-8", "1e-5")),
    ("no-root", "given", NORMED.replace("torch.sqrt", "")),
    ("not-centred", "flat", NORMED.replace("(x - m)", "x")),
    ("affine-missing", "none", NORMED.replace("g * ", "").replace(" + b", "")),
    ("affine-shape", "features", NORMED),
    ("affine-swapped", "given", "g, b = b, g\n        " + NORMED),
    ("affine-shape+last-dimension-only", "features", NORMED.replace("(1, 2)", "2")),
    ("last-dimension-only+unbiased-variance+eps-outside-root+eps-value", "given",
     "return g * (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + 1e-6) + b"),

    ("raises", "linear", SOFTMAX.replace("transpose(1, 2)", "transpose(0, 1)[:9, :9, :9, 0]")),
    ("wrong-shape", "bare", SOFTMAX + ", q"),
    ("gradient", "linear", SOFTMAX.replace("q @ k", "q.data @ k")),
    ("gradient", "given", NORMED.replace("- m)", "- m.detach())")),
    ("changes-input", "given", """x -= x.mean((1, 2), keepdim=True)
        return g * x / (x.square().mean((1, 2), keepdim=True) + 1e-8).sqrt() + b"""),
    ("dropout-inside", "linear", SOFTMAX.replace("-1)", "-1) * F.dropout(torch.ones(1), 0.1, self.training)")),
]


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize(("codes", "style", "rest"), PLANTED)
def test_planted_mistake_is_named(judged, codes, style, rest):
    verdict = judged(style, rest)
    assert verdict["mistake"] == codes, verdict
    assert not verdict["right"]
    labels = {note.split(": ")[0] for note in verdict["notes"]}
    assert labels >= {*codes.split("+"), "exercise"}
    if any(one.changes for one in MISTAKES if one.code in codes.split("+")) and style not in ("keys", "none"):
        assert "shows on" in labels


def test_every_code_is_planted():
    planted = {code for codes, *_ in PLANTED + [("loop",)] for code in codes.split("+")}
    assert planted == {mistake.code for mistake in MISTAKES if mistake.layer != REST}


LOOPING = [
    "y = x * 0\n        for b in range(len(x)):\n            y[b] = one(q[b], k[b], v[b])\n        return y",
    "y, b = x * 0, 0\n        while b < len(x):\n            y[b], b = one(q[b], k[b], v[b]), b + 1\n        return y",
    "return torch.stack([one(*w) for w in zip(q, k, v)])",
    "return torch.stack(list(map(one, q, k, v)))",
    "return torch.stack(list(map(torch.mm, (q @ k.mT / k.shape[2] ** 0.5).softmax(-1), v)))",
    "return torch.vmap(one)(q, k, v)",
    "return again(q, k, v)",
    "return helper(q, k, v)",
]
EXTRA = """
def one(q, k, v):
    return (q @ k.T / k.shape[1] ** 0.5).softmax(-1) @ v

def again(q, k, v):
    return torch.cat([one(q[0], k[0], v[0])[None], again(q[1:], k[1:], v[1:])]) if len(q) else q

def helper(q, k, v):
    y = []
    for b in range(len(q)):
        y += [one(q[b], k[b], v[b])]
    return torch.stack(y)
"""


@pytest.mark.parametrize("rest", LOOPING)
def test_loop_is_found_wherever_it_is(judged, rest):
    verdict = judged("linear", rest, EXTRA)
    assert verdict["mistake"] == "loop", verdict
    assert verdict["difference"] < 1e-13


@pytest.mark.parametrize(("style", "line"), [
    ("linear", "q, k, v = [w(x) for w in (self.query, self.key, self.value)]"),
    ("chunks", "q, k, v = map(lambda t: t.contiguous(), (q, k, v))"),
    ("bare", "for w in self.parameters():\n            assert w.shape == (x.shape[2], x.shape[2])"),
])
def test_loop_over_the_projections_is_allowed(judged, style, line):
    assert judged(style, f"{line}\n        {SOFTMAX}")["right"]


CAST_X = "x = x.float()\n        "
CAST = "q, k, v = q.float(), k.float(), v.float()\n        "
CHECK = "assert x.dtype == torch.float32\n        "
ONES = """ones = torch.ones(x[0].numel(), 1, dtype=torch.float32)
        m = (x.reshape(len(x), -1) @ ones)[:, :, None] / len(ones)
        v = ((x - m) ** 2).mean((1, 2), keepdim=True)
        return g * (x - m) / torch.sqrt(v + 1e-8) + b"""


@pytest.mark.parametrize(("codes", "style", "rest"), [
    (None, "linear", SOFTMAX.replace("k.shape[2] ** 0.5", "torch.sqrt(torch.tensor(x.shape[2]))")),
    (None, "linear", CHECK + STEPS.replace("amax(-1, keepdim=True)", "detach().amax(-1, keepdim=True)")),
    (None, "given", CAST_X + NORMED),
    (None, "flat", ONES),
    ("scaled-by-sqrt-T", "bare", CAST + SOFTMAX.replace("shape[2]", "shape[1]")),
    ("gradient", "bare", CAST + SOFTMAX.replace("q @", "q.detach() @")),
    ("eps-value", "flat", ONES.replace("1e-8", "1e-9")),
    ("across-batch", "given", CHECK + NORMED.replace("(1, 2)", "(0, 1, 2)")),
])
def test_float32_is_judged_with_its_tolerance(judged, codes, style, rest):
    verdict = judged(style, rest)
    assert (verdict["right"], verdict["mistake"]) == (codes is None, codes), verdict
    if codes is None:
        assert EXACT < verdict["difference"] < FLOAT32
    assert "float32" in {note.split(":")[0] for note in verdict["notes"]}


@pytest.mark.parametrize(("style", "rest", "nearest"), [
    ("linear", SOFTMAX.replace("@ v", "@ v.abs().sqrt()"), None),
    ("given", NORMED.replace("1e-8", "8e-6"), "eps-value"),
    ("chunks", SOFTMAX.replace("k.shape[2]", "(x.shape[1] * 1.01)"), "scaled-by-sqrt-T"),
])
def test_what_no_known_mistake_explains(judged, style, rest, nearest):
    verdict = judged(style, rest)
    assert not verdict["right"]
    assert verdict["mistake"] is None
    unknown, shown = verdict["notes"]
    assert unknown.startswith("unknown: ")
    assert f"the nearest is {nearest or ''}" in unknown
    assert "should be" in shown


def test_numbers_that_are_shown(judged):
    """For one token attention is V, and for one token of two features the normalised numbers are 1 and -1."""
    verdict = judged("linear", SOFTMAX + " * 2")
    note = verdict["notes"][-1]
    expected, found = map(float, re.findall(r"-?\d+\.\d+", note))
    assert "x of shape (1, 1, 2), ordinary numbers: y[0, 0, 0]" in note
    assert found == pytest.approx(2 * expected, abs=1e-3)
    assert verdict["difference"] == pytest.approx(1)  # twice the largest number


# The list


@pytest.mark.parametrize("name", [ATTENTION, NORM])
def test_known_mistakes_are_far_from_the_formula_and_from_each_other(name):
    """On one of the inputs at least; and the formula without changes is that of the loops, on all of them."""
    cases = make_cases(name, getattr(models, name), torch.float64)
    results = [[compute(name, case, Candidate(mistakes, 0, changes)) for case in cases]
               for mistakes, changes in combinations(name) if len(mistakes) <= 1]
    assert len(results) == 1 + sum(mistake.layer == name and bool(mistake.changes) for mistake in MISTAKES)
    for case, y in zip(cases, results[0], strict=True):
        assert compare_with_loops(name, [case._replace(y=y)], 0, EXACT) == (pytest.approx(0, abs=1e-12), None)
    for one, other in itertools.combinations(results, 2):
        assert max(distances(a, b).max() for a, b in zip(one, other, strict=True)) > 10 * FLOAT32


def edited(mistake):
    """Return the source of our models.py with a mistake made in it."""
    text = Path(models.__file__).read_text(encoding="utf-8")
    for old, new in mistake.edit.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("mistake", [one for one in MISTAKES if one.layer != REST], ids=lambda one: one.what)
def test_mistake_made_in_our_layers_is_named(tmp_path, mistake):
    path = tmp_path / "models.py"
    path.write_text(edited(mistake))
    names = [name for name in (ATTENTION, NORM) if mistake.layer in (name, BOTH)]
    assert mistake.code in [judge(name, run_path(path)[name])["mistake"] for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: one.what)
def test_suite_notices_the_mistake(tmp_path, mistake):
    """Put into models.py, each makes a test of tests/test_models.py fail, one that does not judge by this list."""
    (tmp_path / "models.py").write_text(edited(mistake))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import models, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-qx", "-p", "no:cacheprovider", "-k", "not whatever", "tests/test_models.py"]
    code, out, _ = run_python("-c", code, tmp_path, *options)
    assert code == 1, out
    assert "1 failed" in out


# Whole solutions


def solution(folder, attention="linear", norm="given", extra=""):
    """Write a whole solution and return its path."""
    path = folder / "models.py"
    write(path, attention, SOFTMAX)
    first = path.read_text()
    write(path, norm, NORMED, extra)
    path.write_text(first + path.read_text())
    return path


@pytest.fixture
def loaded(monkeypatch):
    """A function that loads a solution and returns its module, or the sentence with which it is refused."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def loaded(path):
        monkeypatch.setitem(sys.modules, "models", models)
        try:
            return diagnose.load(path)
        except UserError as error:
            return str(error)
    return loaded


@pytest.mark.parametrize(("text", "sentence"), [
    ("!pip install torch", "SyntaxError: invalid syntax (models.py, line 1)."),
    ("class MySelfAttention: pass", "there is no class MyLayerNorm in it."),
    ("import torch\nimport no_such_package.layers", "ModuleNotFoundError: No module named 'no_such_package'."),
    ("x = 1\nprint(y)", "NameError: name 'y' is not defined."),
    ("import sys\nsys.exit('done')", "SystemExit: done."),
    (None, "No such file or directory"),
])
def test_file_that_cannot_be_loaded(tmp_path, loaded, text, sentence):
    if text:
        (tmp_path / "models.py").write_text(text)
    message = loaded(tmp_path / "models.py")
    assert sentence in message
    assert "\n" not in message


def test_solution_finds_its_neighbours_and_not_ours(tmp_path, loaded):
    """A helpers.py beside it, as the exercises have, is another one than our helpers/."""
    (tmp_path / "helpers.py").write_text("from torch.nn import functional as F\nWHERE = __file__\n")
    module = loaded(solution(tmp_path, extra="from helpers import WHERE"))
    assert Path(module.WHERE) == tmp_path / "helpers.py"
    assert judge(ATTENTION, module.MySelfAttention)["right"]
    assert sys.modules["helpers.cli"].UserError is UserError


@pytest.mark.parametrize(("text", "sentence"), [
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d, heads): super().__init__()", "missing 1 required"),
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d): super().__init__()\n"
     "    def forward(self, x, mask): return x", "cannot be called: TypeError: missing a required argument: 'mask'"),
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d): super().__init__(); self.w = nn.Linear(d, 2 * d)\n"
     "    def forward(self, x): return x", "W_q, W_k and W_v of size 4 × 4; its parameters are w.weight (8, 4)"),
])
def test_class_that_cannot_be_judged(tmp_path, text, sentence):
    path = tmp_path / "models.py"
    path.write_text(f"from torch import nn\n{text}\n")
    with pytest.raises(UserError, match=re.escape(sentence)):
        judge(ATTENTION, run_path(path)[ATTENTION])


def test_command_on_a_solution_that_prints_and_writes(tmp_path):
    noise = "print('noise')\nimport os\nos.system('echo noise')\nopen('left.txt', 'w').write('x')\nimport beside\n"
    path = solution(tmp_path, attention="biased", extra=noise)
    (tmp_path / "beside.py").write_text("")
    code, out, err = run_python("-m", "tests.diagnose", path, "--json")
    assert (code, err) == (1, "")
    answer = json.loads(out)
    assert list(answer) == [ATTENTION, NORM]
    assert [list(one) for one in answer.values()] == [["right", "mistake", "difference", "notes"]] * 2
    assert [(one["right"], one["mistake"]) for one in answer.values()] == [(False, "biases"), (True, None)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["beside.py", "models.py"]


def test_command_says_that_ours_are_right():
    code, out, err = run_python("-m", "tests.diagnose", "models.py")
    assert (code, err) == (0, "")
    for name, line in zip((ATTENTION, NORM), out.splitlines(), strict=True):
        assert re.fullmatch(f"{name} +right: equal to the loops within .e-1., and so are the gradients", line)


@pytest.mark.parametrize(("extra", "options", "sentence"), [
    ("while True: pass", ["--timeout", "2.5"], "takes more than 2.5 seconds"),
    ("import ctypes\nMySelfAttention.forward = lambda self, x: ctypes.string_at(0)", [],
     "{}: it ended Python (exit code -11)."),
])
def test_command_refuses_in_one_sentence(tmp_path, extra, options, sentence):
    path = solution(tmp_path)
    path.write_text(f"{path.read_text()}\n{extra}\n")
    line = refused(*run_python("-m", "tests.diagnose", path, *options))
    assert sentence.format(path) in line


def test_pytest_runs_the_exercises_part_on_a_solution(tmp_path):
    """One without mask, block and network, with weights of other names."""
    path = solution(tmp_path, attention="chunks", norm="features")
    options = ["-q", "-p", "no:cacheprovider", "tests/test_models.py", "--models", path]
    code, out, _ = run_python("-m", "pytest", *options)
    assert code == 1
    assert re.search(r"\b1 failed, 5 passed", out), out
    assert "wrong: affine-shape" in out


def test_lines_that_a_student_reads(judged):
    verdict = judged("given", NORMED.replace(", unbiased=False", "").replace("1, 2", "2,"))
    headline, *lines = diagnose.describe(NORM, verdict)
    assert headline == f"{NORM:<18}wrong: last-dimension-only, unbiased-variance"
    assert [line.split()[0] for line in lines] == ["last-dimension-only", "exercise", "unbiased-variance", "shows"]
    assert max(map(len, lines)) <= 110
    assert diagnose.describe(NORM, judged("given", "return x"))[0] == f"{NORM:<18}wrong: no known mistake"
