"""Right and wrong layers in many styles, judged; solutions that cannot be judged; the list of mistakes itself."""

import itertools
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import models
from helpers.cli import UserError
from tests import diagnose
from tests.judge import EXACT, FLOAT32, MAIN, attention_ways, distance, judge, make_cases, norm_ways
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
    "bare": """self.wq, self.wk, self.wv = (nn.Parameter(torch.rand(d, d)) for _ in range(3))
        FORWARD
        q, k, v = x @ self.wq, x @ self.wk, x @ self.wv""",
    "nameless": """self.matrices = nn.ParameterList([torch.eye(d) for _ in range(3)])
        FORWARD
        v, q = torch.matmul(x, self.matrices[0]), F.linear(x, self.matrices[2])
        k = (self.matrices[1] @ x.transpose(1, 2)).transpose(1, 2)""",
    "chunks": """self.qkv = nn.Linear(d, 3 * d, bias=False)
        FORWARD
        q, k, v = self.qkv(x).chunk(3, dim=-1)""",
    "columns": """self.w = nn.Parameter(torch.zeros(d, 3 * d))
        FORWARD
        q, k, v = (x @ self.w).view(*x.shape[:2], 3, x.shape[2]).unbind(2)""",
    "turns": """self.proj = nn.Linear(d, 3 * d, bias=False)
        FORWARD
        q, k, v = self.proj(x).view(*x.shape, 3).unbind(3)""",
    "stacked": """self.stack = nn.Parameter(torch.randn(3, d, d))
        FORWARD
        q, k, v = torch.einsum("btd,nde->nbte", x, self.stack)""",
    "keys": """self.to_k, self.to_q = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        FORWARD
        q, k = self.to_q(x), self.to_k(x)""",
    "four": """self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        FORWARD
        q, k, v = self.q(x), self.k(x), self.v(x)""",
    "projected": """self.to_qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d)
        FORWARD
        q, k, v = map(lambda t: t.contiguous(), self.to_qkv(x).chunk(3, -1))""",
    "given": """self.gamma, self.beta = nn.Parameter(torch.ones(*d)), nn.Parameter(torch.zeros(*d))
        FORWARD
        g, b = self.gamma, self.beta""",
    "flat": """self.w, self.bias = nn.Parameter(torch.ones(d[0] * d[1])), nn.Parameter(torch.zeros(d[0] * d[1]))
        FORWARD
        g, b = self.w.view(x.shape[1:]), self.bias.view(x.shape[1:])""",
    "single": """self.p = nn.ParameterDict({"shift": torch.zeros(1, *d), "scale": torch.ones(1, *d)})
        FORWARD
        g, b = self.p["scale"], self.p["shift"]""",
    "drawn": """self.a, self.b = nn.Parameter(torch.rand(d)), nn.Parameter(torch.rand(d))
        FORWARD
        g, b = self.a, self.b""",
    "features": """self.g, self.b = nn.Parameter(torch.ones(d[1])), nn.Parameter(torch.zeros(d[1]))
        FORWARD
        g, b = self.g, self.b""",
    "tokens": """self.g, self.b = nn.Parameter(torch.ones(d[0])), nn.Parameter(torch.zeros(d[0]))
        FORWARD
        g, b = self.g[:, None], self.b[:, None]""",
    "swapped": """self.gamma, self.beta = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))
        FORWARD
        b, g = self.gamma, self.beta""",
    "none": "FORWARD",
}
SOFTMAX = "return F.softmax(q @ k.transpose(1, 2) / k.shape[2] ** 0.5, dim=-1) @ v"
STEPS = """scores = torch.einsum("bid,bjd->bij", q, k).mul(q.size(2) ** -0.5)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        return torch.einsum("bij,bjd->bid", weights / weights.sum(-1, keepdim=True), v)"""
TURNED = "return (v.mT @ torch.softmax(k @ (q.mT * x.shape[-1] ** -0.5), 1)).mT"
NORMED = """m, v = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, unbiased=False)
        return g * (x - m) / torch.sqrt(v + 1e-8) + b"""
SUMMED = """rows = x.reshape(len(x), -1).flip(1)
        m = rows.sum(1) / rows.size(1)
        s = torch.rsqrt((rows ** 2).sum(1) / rows.size(1) - m ** 2 + 1e-8)
        return (x - m[:, None, None]).mul(s.view(-1, 1, 1)).mul(g).add(b)"""
MEAN, VAR = "m = x.mean((1, 2), keepdim=True)", "v = ((x - m) ** 2).mean((1, 2), keepdim=True)"


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
        return judge(name, load(tmp_path / "models.py")[name])
    return judged


def test_own_functions_may_be_called_as_torchs(judged):
    own = """
def scaled_dot_product_attention(q, k, v):
    return (q @ k.mT / k.shape[2] ** 0.5).softmax(-1) @ v
"""
    assert judged("linear", "return scaled_dot_product_attention(q, k, v)", own)["right"]


@pytest.mark.parametrize(("style", "rest"), [("linear", SOFTMAX), ("given", NORMED)])
def test_frozen_weights_are_not_learned(judged, monkeypatch, style, rest):
    init, forward = STYLES[style].split("FORWARD")
    monkeypatch.setitem(STYLES, style, f"{init}self.requires_grad_(False)\n        FORWARD{forward}")
    verdict = judged(style, rest)
    assert verdict["mistake"] == "gradient"
    assert "requires_grad=False" in verdict["notes"][0]


def test_gamma_and_beta_may_be_one_parameter(judged, monkeypatch):
    monkeypatch.setitem(STYLES, "given", """self.p = nn.Parameter(torch.stack([torch.ones(d), torch.zeros(d)]))
        FORWARD
        g, b = self.p""")
    assert judged("given", NORMED)["right"]


def load(path):
    """Return what a file defines, without a trace in sys.modules."""
    names = {"__name__": "solution"}
    exec(compile(path.read_text(), path, "exec"), names)
    return names


@pytest.mark.parametrize("rest", [SOFTMAX, STEPS, TURNED], ids=["softmax", "steps", "turned"])
@pytest.mark.parametrize("style", ["linear", "bare", "nameless", "chunks", "columns", "turns", "stacked"])
def test_right_attention(judged, style, rest):
    verdict = judged(style, rest)
    assert verdict["right"], verdict
    assert verdict["mistake"] is None
    assert verdict["difference"] < 1e-13
    assert verdict["notes"] == []


@pytest.mark.parametrize("rest", [NORMED, SUMMED], ids=["normed", "summed"])
@pytest.mark.parametrize("style", ["given", "flat", "single", "drawn"])
def test_right_norm(judged, style, rest):
    verdict = judged(style, rest)
    assert verdict["right"], verdict
    assert verdict["difference"] < 1e-11


PLANTED = [
    ("softmax-over-queries", "linear", "return F.softmax(q.bmm(k.mT) / math.sqrt(q.size(-1)), dim=1).bmm(v)"),
    ("softmax-over-batch", "bare", "return nn.Softmax()(q @ k.mT / q.shape[-1] ** 0.5) @ v"),  # torch's choice of dim
    ("no-softmax", "stacked", 'return torch.einsum("btd,bsd,bse->bte", q, k, v) / q.shape[2] ** 0.5'),
    ("not-scaled", "chunks", SOFTMAX.replace(" / k.shape[2] ** 0.5", "")),
    ("scaled-by-d", "columns", SOFTMAX.replace(" ** 0.5", "")),
    ("scaled-by-sqrt-T", "nameless", SOFTMAX.replace("shape[2]", "shape[1]")),
    ("multiplied-by-sqrt-d", "turns", SOFTMAX.replace("/ k", "* k")),
    ("scaled-after-softmax", "linear", "return torch.bmm(F.softmax(q @ k.mT, 2) / math.sqrt(x.size(2)), v)"),
    ("attention-across-batch", "bare", """q, k, v = (t.reshape(-1, t.shape[2]) for t in (q, k, v))
        return (F.softmax(q @ k.T / k.shape[1] ** 0.5, dim=-1) @ v).view(x.shape)"""),
    ("attention-over-features", "nameless", "return v @ F.softmax(k.mT @ q / math.sqrt(x.shape[-1]), dim=-2)"),
    ("causal", "chunks", """keep = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        return ((q @ k.mT / k.shape[2] ** 0.5).masked_fill(~keep, float("-inf"))).softmax(-1) @ v"""),
    ("values-not-projected", "keys", SOFTMAX.replace("@ v", "@ x")),
    ("values-not-projected", "linear", SOFTMAX.replace("@ v", "@ x")),
    ("residual-inside", "stacked", SOFTMAX + " + x"),
    ("output-projected", "four", SOFTMAX.replace("return ", "return self.o(") + ")"),
    ("keys-as-queries", "linear", "return F.softmax(k @ q.mT / k.shape[2] ** 0.5, dim=-1) @ v"),
    ("matrices-exchanged", "bare", "return F.softmax(q @ v.mT / k.shape[2] ** 0.5, dim=-1) @ k"),
    ("biases", "biased", SOFTMAX),
    ("not-scaled+causal", "linear", """scores = q @ k.mT + torch.full((x.shape[1],) * 2, -1e30).triu(1)
        return scores.softmax(2) @ v"""),
    ("softmax-over-queries+residual-inside", "turns", SOFTMAX.replace("dim=-1", "dim=1") + " + x"),
    ("scaled-by-d+biases", "biased", SOFTMAX.replace(" ** 0.5", "")),
    ("biases+output-projected", "projected", SOFTMAX.replace("return ", "return self.out(") + ")"),

    ("last-dimension-only", "given", NORMED.replace("(1, 2)", "-1")),
    ("last-dimension-only", "single", NORMED.replace("(1, 2)", "(2,)")),
    ("tokens-only", "given", NORMED.replace("(1, 2)", "1")),
    ("across-batch", "flat", "return g * (x - x.mean()) / (x.var(correction=0) + 1e-8) ** 0.5 + b"),
    ("across-batch", "given", NORMED.replace("(1, 2)", "(0, 1)")),
    ("across-batch", "given", NORMED.replace("(1, 2)", "0")),
    ("unbiased-variance", "single", NORMED.replace(", unbiased=False", "")),
    ("eps-outside-root", "flat", NORMED.replace("torch.sqrt(v + 1e-8)", "(v.sqrt() + 1e-8)")),
    ("eps-outside-root", "given", NORMED.replace("torch.sqrt(v + 1e-8)", "(torch.sqrt(v + 1e-8) + 1e-8)")),
    ("eps-value", "drawn", NORMED.replace("1e-8", "1e-5")),
    ("eps-value", "given", NORMED.replace(" + 1e-8", "")),
    ("eps-value", "flat", SUMMED.replace("1e-8", "1e-6")),
    ("no-root", "given", NORMED.replace("torch.sqrt", "")),
    ("not-centred", "single", NORMED.replace("(x - m)", "x")),
    ("not-centred", "given", "return g * x * torch.rsqrt(x.pow(2).mean((1, 2), keepdim=True) + 1e-8) + b"),
    ("affine-missing", "none", NORMED.replace("g * ", "").replace(" + b", "")),
    ("affine-missing", "given", NORMED.replace("g * ", "").replace(" + b", "")),
    ("affine-missing", "flat", NORMED.replace(" + b", "")),
    ("affine-missing", "given", NORMED.replace("g * ", "")),
    ("affine-shape", "features", NORMED),
    ("affine-shape", "tokens", NORMED),
    ("affine-swapped", "swapped", NORMED),
    ("last-dimension-only+affine-shape", "features", NORMED.replace("(1, 2)", "2")),
    ("unbiased-variance+eps-outside-root", "given", """s = x.view(len(x), -1).std(1).view(-1, 1, 1)
        return g * ((x - x.mean((1, 2), keepdim=True)) / (s + 1e-8)) + b"""),
    ("last-dimension-only+unbiased-variance+eps-outside-root", "flat",
     "return (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + 1e-8) * g + b"),
    ("last-dimension-only+unbiased-variance+eps-outside-root+eps-value", "given",
     "return g * (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + 1e-6) + b"),
    ("eps-outside-root+eps-value", "single", NORMED.replace("torch.sqrt(v + 1e-8)", "(v ** 0.5 + 1e-6)")),

    ("raises", "linear", SOFTMAX.replace("transpose(1, 2)", "transpose(0, 1)")),
    ("raises", "given", NORMED.replace("g *", "x.gamma *")),
    ("wrong-shape", "bare", SOFTMAX + ", q"),
    ("wrong-shape", "given", NORMED.replace("+ b", "+ b.sum(1)[:, None, None, None]")),
    ("overflow", "chunks", STEPS.replace(" - scores.amax(-1, keepdim=True)", "")),
    ("gradient", "linear", SOFTMAX.replace("q @ k", "q.data @ k")),
    ("gradient", "given", NORMED.replace("- m)", "- m.detach())")),
    ("gradient", "flat", "v = x.detach().var((1, 2), keepdim=True, correction=0)\n        " + NORMED.replace(
        ", v = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, unbiased=False)", " = x.mean((1, 2), True)")),
    ("changes-input", "given", """x -= x.mean((1, 2), keepdim=True)
        return g * x / (x.square().mean((1, 2), keepdim=True) + 1e-8).sqrt() + b"""),
    ("dropout-inside", "linear", SOFTMAX.replace("-1)", "-1) * F.dropout(torch.ones(1), 0.1, self.training)")),
    ("built-in", "bare", "return F.scaled_dot_product_attention(q, k, v)"),
    ("built-in", "given", "return F.layer_norm(x, x.shape[1:], g, b, 1e-8)"),
    ("eps-value+built-in", "drawn", "return F.layer_norm(x, x.shape[1:], g, b)"),
    ("built-in", "given", "return torch.native_layer_norm(x, x.shape[1:], g, b, 1e-8)[0]"),
    ("built-in", "given", "return g * F.group_norm(x, 1, eps=1e-8) + b"),
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
        assert verdict["difference"] > 1000 * EXACT
        assert "shows on" in labels


def test_every_code_is_planted():
    planted = {code for codes, *_ in PLANTED + [("loop",)] for code in codes.split("+")}
    assert planted == {mistake.code for mistake in MISTAKES if mistake.layer != REST}


LOOPING = [
    ("for one in", """rows = []
        for one in range(len(x)):
            rows.append((q[one] @ k[one].T / k.shape[2] ** 0.5).softmax(-1) @ v[one])
        return torch.stack(rows)"""),
    ("while b <", """y, b = torch.empty_like(x), 0
        while b < len(x):
            y[b] = one(q[b], k[b], v[b])
            b += 1
        return y"""),
    ("for w in", "return torch.stack([one(*w) for w in zip(q, k, v)])"),
    ("for rows in", "return torch.cat(tuple(one(*rows)[None] for rows in zip(q, k, v)))"),
    ("softmax", "return torch.stack(list(map(one, q, k, v)))"),
    ("mm()", """weights = (q @ k.mT / k.shape[2] ** 0.5).softmax(-1)
        return torch.stack(list(map(torch.mm, weights, v)))"""),
    ("vmap", "return torch.vmap(one)(q, k, v)"),
    ("softmax", "return again(q, k, v)"),
    ("for b in", "return helper(q, k, v)"),
    ("for number in", "return self.inner(q, k, v)"),
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

class Inner(nn.Module):
    def forward(self, q, k, v):
        return torch.stack([one(q[number], k[number], v[number]) for number in range(len(q))])
"""


@pytest.mark.parametrize(("shown", "rest"), LOOPING)
def test_loop_is_found_wherever_it_is_and_shown(judged, monkeypatch, shown, rest):
    monkeypatch.setitem(STYLES, "linear", "self.inner = Inner()\n        " + STYLES["linear"])
    verdict = judged("linear", rest, EXTRA)
    assert verdict["mistake"] == "loop", verdict
    assert verdict["difference"] < 1e-13
    assert shown in verdict["notes"][0]


@pytest.mark.parametrize(("style", "line"), [
    ("linear", "q, k, v = [w(x) for w in (self.query, self.key, self.value)]"),
    ("linear", "q, k, v = (w(x) for w in self.children())"),
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
    (None, "bare", CAST + SOFTMAX),
    (None, "stacked", CHECK + STEPS.replace("amax(-1, keepdim=True)", "detach().amax(-1, keepdim=True)")),
    (None, "given", CAST_X + NORMED),
    (None, "flat", ONES),
    ("scaled-by-sqrt-T", "bare", CAST + SOFTMAX.replace("shape[2]", "shape[1]")),
    ("keys-as-queries", "linear", CHECK + SOFTMAX.replace("q @ k", "k @ q")),
    ("gradient", "bare", CAST + SOFTMAX.replace("q @", "q.detach() @")),
    ("eps-value", "flat", ONES.replace("1e-8", "1e-9")),
    ("eps-outside-root", "given", CAST_X + NORMED.replace("torch.sqrt(v + 1e-8)", "(v.sqrt() + 1e-8)")),
    ("across-batch", "single", CHECK + NORMED.replace("(1, 2)", "(0, 1, 2)")),
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
    note = judged("stacked", SOFTMAX + " * 2")["notes"][-1]
    expected, found = map(float, re.findall(r"-?\d+\.\d+", note))
    assert "x of shape (1, 1, 2), ordinary numbers: y[0, 0, 0]" in note
    assert found == pytest.approx(2 * expected, rel=1e-4)


@pytest.mark.parametrize(("init", "size", "code"), [
    ("T, d", "T, d", None), ("size", "*size", None), ("size", "size[1]", "affine-shape"),
    ("d", "1, 1, d", "affine-shape"),
])
def test_layer_norm_may_be_built_in_other_ways(tmp_path, init, size, code):
    (tmp_path / "models.py").write_text(
        "import torch\nfrom torch import nn\nclass MyLayerNorm(nn.Module):\n"
        f"    def __init__(self, {init}):\n        super().__init__()\n"
        f"        self.g, self.b = nn.Parameter(torch.ones({size})), nn.Parameter(torch.zeros({size}))\n"
        "    def forward(self, x, mask=None):\n"
        "        v, m = torch.var_mean(x, (1, 2), correction=0, keepdim=True)\n"
        "        return self.g * (x - m) / torch.sqrt(v + 1e-8) + self.b\n")
    verdict = judge(NORM, load(tmp_path / "models.py")[NORM])
    assert verdict["mistake"] == code
    assert any(note.startswith("interface: ") for note in verdict["notes"]) == (init != "size")


# The list


@pytest.mark.parametrize(("name", "ways", "most"), [(ATTENTION, attention_ways, 2), (NORM, norm_ways, 4)])
def test_known_mistakes_are_far_from_the_formula_and_from_each_other(name, ways, most):
    """On one of the inputs at least; and the formula without changes is that of the loops, on all of them."""
    cases = make_cases(name, getattr(models, name), torch.float64)
    found = itertools.islice(ways(cases[MAIN].tensors), sum(1 for _ in combinations(name, most)))
    formula, *known = [way for way in found if len(way.mistakes) <= 1]
    assert len(known) == sum(mistake.layer == name and bool(mistake.changes) for mistake in MISTAKES)
    for case in cases:
        assert distance(case._replace(y=formula.expected(case)), formula.loops) < 1e-12
    for one, other in itertools.combinations([formula, *known], 2):
        least = 10 * FLOAT32 if "too" not in other.mistakes[0].what else 1000 * EXACT
        assert any(distance(case._replace(y=one.expected(case)), other.expected) > least for case in cases), other


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
    assert mistake.code in [judge(name, load(path)[name])["mistake"] for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: one.what)
def test_suite_notices_the_mistake(tmp_path, mistake):
    """Put into models.py, each makes a test of tests/test_models.py fail, one that does not judge by this list."""
    (tmp_path / "models.py").write_text(edited(mistake))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import models, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-qx", "-p", "no:cacheprovider", "-k", "not whatever", "tests/test_models.py"]
    exit_code, out, _ = run_python("-c", code, tmp_path, *options)
    assert exit_code == 1, out
    assert "1 failed" in out


# Whole solutions


def solution(folder, attention="linear", norm="given", extra="", name="models.py"):
    """Write a whole solution and return its path."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    write(path, attention, SOFTMAX)
    first = path.read_text()
    write(path, norm, NORMED, extra)
    path.write_text(first + path.read_text())
    return path


@pytest.fixture
def loaded(monkeypatch):
    """A function that loads a solution and returns its module, or the sentence with which it is refused."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def loaded(path):
        monkeypatch.setitem(sys.modules, "models", models)
        try:
            return diagnose.load(path)
        except UserError as error:
            return str(error)
    return loaded


@pytest.mark.parametrize(("text", "sentence"), [
    ("!pip install torch", "is not Python: invalid syntax (models.py, line 1)."),
    ("x = 1\0", "is not Python"),
    ("import torch\nimport no_such_package.layers", "needs no_such_package, which is neither beside it nor installed"),
    ("x = 1\nprint(y)", "line 2 raises NameError (name 'y' is not defined)."),
    ("import argparse\nargparse.ArgumentParser().parse_args()\nx", "line 3 raises NameError"),
    ("import sys\nsys.exit('done')", "line 2 raises SystemExit (done)."),
    ("class MySelfAttention: pass", "has no class MyLayerNorm."),
    ("MySelfAttention = 1", "has no class MySelfAttention."),
    ("from torch import nothing_like_it", "line 1 raises ImportError (cannot import name 'nothing_like_it'"),
])
def test_file_that_cannot_be_loaded(tmp_path, loaded, text, sentence):
    path = tmp_path / "models.py"
    path.write_text(text)
    message = loaded(path)
    assert message.startswith(str(path))
    assert sentence in message
    assert "\n" not in message


def test_what_is_no_file_of_python(tmp_path, loaded):
    (tmp_path / "work.ipynb").write_text("{}")
    assert "is a notebook" in loaded(tmp_path / "work.ipynb")
    (tmp_path / "models.txt").write_text("")
    assert "is no .py file" in loaded(tmp_path / "models.txt")
    assert "is a folder" in loaded(tmp_path)
    assert "is not there" in loaded(tmp_path / "none.py")


def test_solution_finds_its_neighbours_and_not_ours(tmp_path, loaded):
    """A helpers.py beside it, as the exercises have, is another one than our helpers/."""
    (tmp_path / "helpers.py").write_text("from torch.nn import functional as F\nWHERE = __file__\n")
    module = loaded(solution(tmp_path, extra="from helpers import WHERE"))
    assert Path(module.WHERE) == tmp_path / "helpers.py"
    assert judge(ATTENTION, module.MySelfAttention)["right"]
    assert sys.modules["helpers.cli"].UserError is UserError
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(("text", "sentence"), [
    ("class MySelfAttention:\n    pass", "MySelfAttention(2) raises TypeError"),
    ("class MySelfAttention:\n    def __init__(self, d): pass", "MySelfAttention is not an nn.Module."),
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d, heads): super().__init__()", "missing 1 required"),
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d): super().__init__()\n"
     "    def forward(self, x, mask): return x", "must take x and nothing else: missing a required argument: 'mask'"),
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d): super().__init__(); self.w = nn.Linear(d, 2 * d)\n"
     "    def forward(self, x): return x", "W_q, W_k and W_v of size 2 × 2; its parameters are w.weight (4, 2)"),
])
def test_class_that_cannot_be_judged(tmp_path, text, sentence):
    path = tmp_path / "models.py"
    path.write_text(f"from torch import nn\n{text}\n")
    with pytest.raises(UserError, match=re.escape(sentence)):
        judge(ATTENTION, load(path)[ATTENTION])


def run(path, *options):
    """Run the command; return exit code, standard output and standard error."""
    return run_python("-m", "tests.diagnose", path, *options)


def test_command_on_a_solution_that_prints_and_writes(tmp_path):
    noise = "print('noise')\nimport os\nos.system('echo noise')\nopen('left.txt', 'w').write('x')\nimport beside\n"
    path = solution(tmp_path / "work", attention="biased", extra=noise)
    (tmp_path / "work" / "beside.py").write_text("")
    code, out, err = run(path, "--json")
    assert (code, err) == (1, "")
    answer = json.loads(out)
    assert list(answer) == [ATTENTION, NORM]
    assert [list(one) for one in answer.values()] == [["right", "mistake", "difference", "notes"]] * 2
    assert [(one["right"], one["mistake"]) for one in answer.values()] == [(False, "biases"), (True, None)]
    assert sorted(file.name for file in path.parent.iterdir()) == ["beside.py", "models.py"]


def test_exit_code_says_whether_both_are_right(monkeypatch, capsys):
    ours = {name: judge(name, getattr(models, name)) for name in (ATTENTION, NORM)}
    for right, code in ((True, 0), (False, 1)):
        monkeypatch.setattr(diagnose, "ask", lambda *_: ours | {NORM: ours[NORM] | {"right": right}})  # noqa: B023
        monkeypatch.setattr(sys, "argv", ["diagnose", "models.py"])
        with pytest.raises(SystemExit, match=str(code)):
            diagnose.main()
        first, second = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"MySelf\w+ +right: equal to the loops within \de-1\d, and so are the gradients", first)
        assert second.startswith(f"{NORM:<18}{'right' if right else 'wrong'}: ")


@pytest.mark.parametrize(("extra", "options", "sentence"), [
    ("while True: pass", ["--timeout", "2.5"], "took more than 2.5 seconds"),
    ("import ctypes\nMySelfAttention.forward = lambda self, x: ctypes.string_at(0)", [],
     "MySelfAttention of {} ended Python (exit code -11)."),
    pytest.param("huge = bytearray(40 << 30)", [], "raises MemoryError", marks=pytest.mark.skipif(
        sys.platform != "linux", reason="Linux alone limits memory")),
])
def test_command_refuses_in_one_sentence(tmp_path, extra, options, sentence):
    path = solution(tmp_path)
    path.write_text(f"{path.read_text()}\n{extra}\n")
    line = refused(*run(path, *options))
    assert sentence.format(path) in line


def test_pytest_runs_the_exercises_part_on_a_solution(tmp_path):
    """One without mask, block and network, with weights of other names."""
    path = solution(tmp_path, attention="chunks", norm="features")
    options = ["-q", "-p", "no:cacheprovider", "tests/test_models.py", "--models", str(path)]
    code, out, _ = run_python("-m", "pytest", *options)
    assert code == 1
    assert re.search(r"\b1 failed, 5 passed", out), out
    assert "wrong: affine-shape" in out


def test_lines_that_a_student_reads(judged):
    assert diagnose.describe(ATTENTION, judged("biased", SOFTMAX))[0] == f"{ATTENTION:<18}right but for its biases"
    verdict = judged("given", NORMED.replace(", unbiased=False", "").replace("1, 2", "2,"))
    headline, *lines = diagnose.describe(NORM, verdict)
    assert headline == f"{NORM:<18}wrong: last-dimension-only, unbiased-variance"
    assert [line.split()[0] for line in lines] == ["last-dimension-only", "exercise", "unbiased-variance", "shows"]
    assert max(map(len, lines)) <= 110
    assert diagnose.describe(NORM, judged("given", "return x"))[0] == f"{NORM:<18}wrong: no known mistake"
