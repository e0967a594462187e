"""The judge on right and wrong layers in many styles, the list of known mistakes, and the command."""

import itertools
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import check.__main__ as command
import models
from check import solution
from check.cases import MAIN, make_cases
from check.distance import EXACT, FLOAT32, distance
from check.hypotheses import list_hypotheses
from check.judge import judge
from check.mistakes import ATTENTION, BY_CODE, MISTAKES, NORM
from check.output import describe
from helpers.cli import UserError
from tests.mutations import LAYER_MUTATIONS, NETWORK_MUTATIONS, mutate
from tests.toy import refused, run_python

# Styles of holding the parameters: the code of __init__, FORWARD, and the first lines of forward
ATTENTION_STYLES = {
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
    "alone": "FORWARD",
    "whole": """self.m = nn.MultiheadAttention(d, 1, batch_first=True)
        FORWARD""",
    "scaled": """self.q, self.k = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.v = nn.Parameter(torch.eye(d))
        self.root = nn.Parameter(torch.tensor(d ** 0.5), requires_grad=False)
        FORWARD
        q, k, v = self.q(x) / self.root, self.k(x), x @ self.v""",
}
NORM_STYLES = {
    "given": """self.gamma, self.beta = nn.Parameter(torch.ones(*d)), nn.Parameter(torch.zeros(*d))
        FORWARD
        g, b = self.gamma, self.beta""",
    "flat": """self.w, self.bias = nn.Parameter(torch.ones(d[0] * d[1])), nn.Parameter(torch.zeros(d[0] * d[1]))
        FORWARD
        g, b = self.w.view(x.shape[1:]), self.bias.view(x.shape[1:])""",
    "single": """self.p = nn.ParameterDict({"shift": torch.zeros(1, *d), "scale": torch.ones(1, *d)})
        FORWARD
        g, b = self.p["scale"], self.p["shift"]""",
    "pair": """self.p = nn.Parameter(torch.stack([torch.ones(d), torch.zeros(d)]))
        FORWARD
        g, b = self.p""",
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
    "zeros": """self.gamma, self.beta = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.zeros(d))
        FORWARD
        g, b = self.gamma, self.beta""",
    "ones": """self.gamma, self.beta = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))
        FORWARD
        g, b = self.gamma, self.beta""",
    "late": """self.gamma, self.beta = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.rand(d))
        FORWARD
        g, b = self.gamma, self.beta""",
    "two": """self.g, self.b = nn.Parameter(torch.ones(T, d)), nn.Parameter(torch.zeros(T, d))
        FORWARD
        g, b = self.g, self.b""",
    "listed": """self.g, self.b = nn.Parameter(torch.ones(1, 1, d)), nn.Parameter(torch.zeros(1, 1, d))
        FORWARD
        g, b = self.g, self.b""",
    "none": "FORWARD",
}
SOFTMAX = "return F.softmax(q @ k.transpose(1, 2) / k.shape[2] ** 0.5, dim=-1) @ v"
STEPS = """scores = torch.einsum("bid,bjd->bij", q, k).mul(q.size(2) ** -0.5)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        return torch.einsum("bij,bjd->bid", weights / weights.sum(-1, keepdim=True), v)"""
HEADS = """B, T, d = x.shape
        q, k, v = (t.view(B, T, 2, d // 2).transpose(1, 2) for t in (q, k, v))
        y = F.softmax(q @ k.mT / (d // 2) ** 0.5, dim=-1) @ v
        return y.transpose(1, 2).reshape(B, T, d)"""
TURNED = "return (v.mT @ torch.softmax(k @ (q.mT * x.shape[-1] ** -0.5), 1)).mT"
NORMED = """m, v = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, unbiased=False)
        return g * (x - m) / torch.sqrt(v + 1e-8) + b"""
SUMMED = """rows = x.reshape(len(x), -1).flip(1)
        m = rows.sum(1) / rows.size(1)
        s = torch.rsqrt((rows ** 2).sum(1) / rows.size(1) - m ** 2 + 1e-8)
        return (x - m[:, None, None]).mul(s.view(-1, 1, 1)).mul(g).add(b)"""


def write(path, style, rest, extra="", init=""):
    """Write the class of a style, with more code before it and in __init__, and return its name."""
    name = ATTENTION if style in ATTENTION_STYLES else NORM
    arguments = "T, d" if style == "two" else "d"
    style_init, forward = (ATTENTION_STYLES | NORM_STYLES)[style].split("FORWARD")
    path.write_text(
        "import math\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n"
        f"{extra}\n\nclass {name}(nn.Module):\n    def __init__(self, {arguments}):\n        super().__init__()\n"
        f"        {style_init}{init}\n\n    def forward(self, x):\n        {forward.strip()}\n        {rest}\n")
    return name


def define(path):
    """Return what a file defines. It leaves no trace in sys.modules."""
    names = {"__name__": "solution"}
    exec(compile(path.read_text(), path, "exec"), names)
    return names


@pytest.fixture
def judged(tmp_path):
    """A function that judges a class, given its style and the rest of its forward."""
    def judged(style, rest, extra="", init="", strict=True):
        name = write(tmp_path / "models.py", style, rest, extra, init)
        return judge(name, define(tmp_path / "models.py")[name], strict)
    return judged


# Right layers


OWN_FUNCTION = """
def scaled_dot_product_attention(q, k, v):
    return (q @ k.mT / k.shape[2] ** 0.5).softmax(-1) @ v
"""


@pytest.mark.parametrize(("style", "rest", "extra"), [
    ("linear", SOFTMAX, ""), ("bare", STEPS, ""), ("nameless", TURNED, ""), ("chunks", SOFTMAX, ""),
    ("columns", STEPS, ""), ("turns", TURNED, ""), ("stacked", SOFTMAX, ""),
    ("linear", "return scaled_dot_product_attention(q, k, v)", OWN_FUNCTION),  # a name of torch's
    ("given", NORMED, ""), ("flat", SUMMED, ""), ("single", NORMED, ""), ("drawn", SUMMED, ""), ("pair", NORMED, ""),
])
def test_right_layer(judged, style, rest, extra):
    verdict = judged(style, rest, extra)
    assert verdict["right"], verdict
    assert (verdict["mistake"], verdict["notes"]) == (None, [])
    assert verdict["difference"] < (1e-13 if style in ATTENTION_STYLES else 1e-11)


# Mistakes


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
    ("attention-over-features", "linear", "return v @ F.softmax(q.mT @ k / math.sqrt(x.shape[-1]), dim=-1)"),
    ("causal", "chunks", """keep = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        return ((q @ k.mT / k.shape[2] ** 0.5).masked_fill(~keep, float("-inf"))).softmax(-1) @ v"""),
    ("values-not-projected", "keys", SOFTMAX.replace("@ v", "@ x")),
    ("values-not-projected", "linear", SOFTMAX.replace("@ v", "@ x")),
    ("residual-inside", "stacked", SOFTMAX + " + x"),
    ("output-projected", "four", SOFTMAX.replace("return ", "return self.o(") + ")"),
    ("keys-as-queries", "linear", "return F.softmax(k @ q.mT / k.shape[2] ** 0.5, dim=-1) @ v"),
    ("matrices-exchanged", "bare", "return F.softmax(q @ v.mT / k.shape[2] ** 0.5, dim=-1) @ k"),
    ("biases", "biased", SOFTMAX),
    ("matrix-reused", "linear", SOFTMAX.replace("@ v", "@ k")),
    ("matrix-reused", "bare", "k = q\n        " + STEPS),
    ("matrix-reused", "chunks", "return F.softmax(v @ k.mT / k.shape[2] ** 0.5, dim=-1) @ v"),
    ("matrix-reused", "keys", "return F.softmax(q @ k.mT / k.shape[2] ** 0.5, dim=-1) @ k"),
    ("biases+matrix-reused", "biased", SOFTMAX.replace("q @ k", "k @ k")),
    ("scores-not-projected", "linear", SOFTMAX.replace("q @", "x @")),
    ("scores-not-projected", "stacked", "k = x\n        " + STEPS),
    ("scaled-by-fourth-root", "linear", SOFTMAX.replace("0.5", "0.25")),
    ("scaled-by-fourth-root", "bare", STEPS.replace("-0.5", "-0.25")),
    ("scaled-otherwise", "chunks", SOFTMAX.replace("k.shape[2] ** 0.5", "8")),
    ("scaled-otherwise", "nameless", TURNED.replace("x.shape[-1] ** -0.5", "300 ** -0.5")),
    ("scaled-otherwise", "linear", SOFTMAX.replace("0.5", "0.75")),
    ("scaled-otherwise+biases", "biased", SOFTMAX.replace("k.shape[2] ** 0.5", "math.sqrt(50)")),
    ("viewed", "linear", SOFTMAX.replace("k.transpose(1, 2)", "k.view(k.shape[0], k.shape[2], k.shape[1])")),
    ("viewed", "stacked", "k = k.reshape(len(x), -1, x.shape[1]).mT\n        " + STEPS),
    ("viewed", "bare", "v = v.reshape(len(x), -1, x.shape[1]).mT\n        " + STEPS),
    ("viewed", "linear", SOFTMAX.replace("return ", "return (").replace("@ v", "@ v).mT.reshape(x.shape)")),
    ("softmax-over-all", "bare", """scores = q @ k.mT / k.shape[2] ** 0.5
        return scores.flatten(1).softmax(1).view_as(scores) @ v"""),
    ("softmax-over-all", "linear", """e = q.bmm(k.mT) / math.sqrt(k.shape[2])
        e = torch.exp(e - e.amax((1, 2), keepdim=True))
        return torch.bmm(e / e.sum((1, 2), keepdim=True), v)"""),
    ("softmax-epsilon", "linear", STEPS.replace("weights.sum(-1, keepdim=True)",
                                                "(weights.sum(-1, keepdim=True) + 1e-8)")),
    ("softmax-epsilon+overflow", "stacked", """e = torch.exp(q @ k.mT / k.shape[2] ** 0.5)
        return e / (1e-6 + e.sum(-1, keepdim=True)) @ v"""),
    ("dropout-always", "linear", SOFTMAX.replace("F.softmax(", "F.dropout(F.softmax(").replace("=-1)", "=-1), 0.1)")),
    ("dropout-always", "chunks", "v = nn.functional.dropout(v, p=0.5, training=True)\n        " + STEPS),
    ("not-scaled+dropout-always", "bare", "return F.dropout(F.softmax(q @ k.mT, dim=-1) @ v)"),
    ("heads+wrong-size", "linear", HEADS),
    ("heads+wrong-size", "chunks", """assert x.shape[2] % 2 == 0
        q, k, v = torch.stack([q, k, v]).unflatten(-1, (2, -1)).transpose(2, 3)
        y = torch.einsum("bhts,bhsd->bthd", (q @ k.mT / (x.shape[2] / 2) ** 0.5).softmax(-1), v)
        return y.flatten(2)"""),
    ("heads+wrong-size", "bare", HEADS.replace("// 2", "// 8").replace("2,", "8,", 1)),
    ("heads+output-projected+wrong-size", "four", HEADS.replace("return ", "return self.o(") + ")"),
    ("heads-viewed+wrong-size", "linear", HEADS.replace("T, 2, d // 2).transpose(1, 2)", "2, T, d // 2)")
     .replace("y.transpose(1, 2)", "y")),
    ("heads-viewed+wrong-size", "bare", HEADS.replace("y.transpose(1, 2)", "y")),
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
    *(("eps-value", "flat", SUMMED.replace("1e-8", eps)) for eps in ("1e-6", "1e-7", "1e-9", "1e-10", "1e-12")),
    *(("eps-value", "single", NORMED.replace("1e-8", eps)) for eps in ("1e-2", "1e-3", "1e-4")),
    ("eps-as-minimum", "given", NORMED.replace("torch.sqrt(v + 1e-8)", "torch.sqrt(v).clamp(min=1e-8)")),
    ("eps-as-minimum", "flat", NORMED.replace("torch.sqrt(v + 1e-8)", "torch.sqrt(v.clamp_min(1e-8))")),
    ("eps-as-minimum+eps-value", "single", NORMED.replace("torch.sqrt(v + 1e-8)", "v.sqrt().clip(1e-5)")),
    ("statistics-differ", "given", NORMED.replace("x.var((1, 2)", "x.var(2")),
    ("statistics-differ", "flat", NORMED.replace("x.var((1, 2), keepdim=True, unbiased=False)",
                                                 "(x - x.mean((1, 2), True)).pow(2).mean(-1, True)")),
    ("statistics-differ", "single", NORMED.replace("x.mean((1, 2)", "x.mean(1")),
    ("statistics-differ+unbiased-variance", "given", NORMED.replace("x.var((1, 2)", "x.var(1").replace("Fals", "Tru")),
    ("affine-order", "given", NORMED.replace("g *", "(g + b) *").replace(") + b", ")")),
    ("affine-order", "flat", "g = g + b\n        " + NORMED.replace(") + b", ")")),
    ("affine-order", "given", NORMED.replace("return g * ", "return g * (") + ")"),
    ("affine-order", "single", SUMMED.replace(".mul(g).add(b)", ".add(b).mul(g)")),
    ("affine-start", "zeros", NORMED),
    ("affine-start", "ones", SUMMED),
    ("affine-start", "late", NORMED),
    ("interface", "two", NORMED),
    ("affine-shape+interface", "listed", NORMED),
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
    ("values-not-projected+scores-not-projected", "alone", "return (x @ x.mT / x.shape[2] ** 0.5).softmax(2) @ x"),
    ("biases+output-projected+built-in", "whole", "return self.m(x, x, x)[0]"),
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
    if any(one.changes for one in MISTAKES if one.code in codes.split("+")) and style not in ("keys", "none", "alone"):
        assert verdict["difference"] > (5 if "epsilon" in codes else 1000) * EXACT
        assert "example" in labels


def test_every_code_is_planted():
    planted = {code for codes, *_ in PLANTED for code in codes.split("+")}
    assert planted | {"loop"} == set(BY_CODE)  # LOOPING follows


@pytest.mark.parametrize(("style", "rest"), [("linear", SOFTMAX), ("given", NORMED)])
def test_frozen_weights_are_not_learned(judged, style, rest):
    verdict = judged(style, rest, init="\n        self.requires_grad_(False)")
    assert verdict["mistake"] == "gradient"
    assert "requires_grad=False" in verdict["notes"][0]


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
def test_loop_is_found_and_shown(judged, shown, rest):
    verdict = judged("linear", rest, EXTRA, init="\n        self.inner = Inner()")
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
    (None, "scaled", "return (q @ k.mT).softmax(-1) @ v"),
    (None, "stacked", CHECK + STEPS.replace("amax(-1, keepdim=True)", "detach().amax(-1, keepdim=True)")),
    (None, "given", CAST_X + NORMED),
    (None, "flat", ONES),
    ("scaled-by-sqrt-T", "bare", CAST + SOFTMAX.replace("shape[2]", "shape[1]")),
    ("gradient", "bare", CAST + SOFTMAX.replace("q @", "q.detach() @")),
    ("eps-value", "flat", ONES.replace("1e-8", "1e-9")),
    ("across-batch", "single", CHECK + NORMED.replace("(1, 2)", "(0, 1, 2)")),
])
def test_float32_is_judged_with_its_tolerance(judged, codes, style, rest):
    verdict = judged(style, rest)
    assert (verdict["right"], verdict["mistake"]) == (codes is None, codes), verdict
    if codes is None:
        assert EXACT < verdict["difference"] < FLOAT32
    assert "float32" in {note.split(":")[0] for note in verdict["notes"]}


@pytest.mark.parametrize(("style", "rest", "nearest"), [
    ("given", NORMED.replace("1e-8", "8e-6"), "eps-value"),
    ("given", NORMED + " + 1e-5", "the formula"),
    ("flat", NORMED.replace("1e-8", "1e-8 + 1e-13"), "the formula"),
    ("chunks", SOFTMAX.replace("k.shape[2]", "(x.shape[1] * 1.01)"), "scaled-by-sqrt-T"),
])
def test_unknown_mistake(judged, style, rest, nearest):
    verdict = judged(style, rest)
    assert (verdict["right"], verdict["mistake"]) == (False, None)
    unknown, example, readings = verdict["notes"]
    assert unknown == "unknown: the results match neither the formula nor a known mistake"
    assert readings.startswith(f"nearest: {nearest} (off by ")
    assert readings.count("off by") == 3
    right, wrong = re.fullmatch(r"example: .* should be (\S+) but is (\S+)", example).groups()
    assert right != wrong


def test_unknown_factor_of_two_is_shown_in_the_example(judged):
    unknown, example, _ = judged("stacked", SOFTMAX + " * 2")["notes"]
    assert unknown.startswith("unknown: ")
    assert example.startswith("example: x of shape (1, 1, 2) with ordinary numbers: y[0, 0, 1] should be")
    expected, found = map(float, re.findall(r"-?\d+\.\d+", example))
    assert found == pytest.approx(2 * expected, rel=1e-3)


@pytest.mark.parametrize(("init", "size", "code"), [
    ("T, d", "T, d", "interface"), ("size", "*size", None), ("size", "size[1]", "affine-shape"),
    ("d", "1, 1, d", "affine-shape+interface"),
])
def test_layer_norm_may_be_built_in_other_ways(tmp_path, init, size, code):
    (tmp_path / "models.py").write_text(
        "import torch\nfrom torch import nn\nclass MyLayerNorm(nn.Module):\n"
        f"    def __init__(self, {init}):\n        super().__init__()\n"
        f"        self.g, self.b = nn.Parameter(torch.ones({size})), nn.Parameter(torch.zeros({size}))\n"
        "    def forward(self, x, mask=None):\n"
        "        v, m = torch.var_mean(x, (1, 2), correction=0, keepdim=True)\n"
        "        return self.g * (x - m) / torch.sqrt(v + 1e-8) + self.b\n")
    verdict = judge(NORM, define(tmp_path / "models.py")[NORM])
    assert verdict["mistake"] == code
    if "interface" in (code or ""):
        assert "MyLayerNorm((3, 4)) raises TypeError" in " ".join(verdict["notes"])


# The list of mistakes


@pytest.mark.parametrize("name", [ATTENTION, NORM])
def test_known_mistakes_differ_from_the_formula_and_from_each_other(name):
    """Any two differ on at least one input. The formula without changes equals the loops on all inputs."""
    cases = make_cases(name, getattr(models, name), torch.float64)
    hypotheses = list_hypotheses(name, cases[MAIN], 0, 1)
    formula = hypotheses[0]
    changed = [mistake.changes for mistake in MISTAKES if mistake.layer == name and mistake.changes]
    known = [one for one in hypotheses if one.roles == formula.roles and one.changes in changed]
    assert len(known) == len(changed)
    for case in cases:
        assert distance(case._replace(y=formula.expected(case)), formula.loops) < 1e-12
    for one, other in itertools.combinations([formula, *known], 2):
        tiny = {"epsilon", "divisor"} & {*other.mistakes[0].changes, *one.changes}
        least = 5 * EXACT if tiny else 10 * FLOAT32
        assert any(distance(case._replace(y=one.expected(case)), other.expected) > least for case in cases), other


def test_every_known_mistake_has_a_mutation():
    assert Counter(code for code, _ in LAYER_MUTATIONS) == Counter(mistake.code for mistake in MISTAKES)
    for _, edits in LAYER_MUTATIONS + NETWORK_MUTATIONS:
        compile(mutate(edits), "models.py", "exec")


@pytest.mark.slow
@pytest.mark.parametrize(("code", "edits"), LAYER_MUTATIONS)
def test_mutation_of_our_layers_is_named(tmp_path, code, edits):
    path = tmp_path / "models.py"
    path.write_text(mutate(edits))
    codes = [judge(name, define(path)[name], strict=True)["mistake"] or "" for name in (ATTENTION, NORM)]
    assert code in "+".join(codes).split("+")


@pytest.mark.slow
@pytest.mark.parametrize(("code", "edits"), LAYER_MUTATIONS + NETWORK_MUTATIONS)
def test_suite_notices_the_mutation(tmp_path, code, edits):
    """The tests of tests/test_models.py must notice it without the judge."""
    (tmp_path / "models.py").write_text(mutate(edits))
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); import models, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-qx", "-p", "no:cacheprovider", "-k", "not whatever", "tests/test_models.py"]
    exit_code, out, _ = run_python("-c", run, tmp_path, *options)
    assert exit_code == 1, out
    assert "1 failed" in out
    assert re.search("[1-9] deselected", out), "the test that uses the judge must not run"


# Whole solutions


def write_solution(folder, attention="linear", norm="given", extra=""):
    """Write a solution with both classes and return its path."""
    folder.mkdir(exist_ok=True)
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
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def loaded(path):
        monkeypatch.setitem(sys.modules, "models", models)
        try:
            return solution.load(path)
        except UserError as error:
            return str(error)
    return loaded


@pytest.mark.parametrize(("name", "text", "sentence"), [
    ("models.py", "a b", "is not valid Python: invalid syntax (models.py, line 1)."),
    ("models.py", "x = 1\0", "is not valid Python"),
    ("models.py", "import torch\nimport no_such_package.layers",
     "imports no_such_package, which is neither installed nor in the same folder."),
    ("models.py", "x = 1\nprint(y)", "line 2 raises NameError: name 'y' is not defined."),
    ("models.py", "import argparse\nargparse.ArgumentParser().parse_args()\nx", "line 3 raises NameError"),
    ("models.py", "import sys\nsys.exit('done')", "line 2 raises SystemExit: done (what loads data,"),
    ("models.py", "class MySelfAttention: pass", "has no class MyLayerNorm."),
    ("models.py", "MySelfAttention = 1", "has no class MySelfAttention."),
    ("models.py", "from torch import nothing_like_it", "line 1 raises ImportError: cannot import name"),
    ("work.ipynb", "{}", "is a notebook"),
    ("models.txt", "", "is not a .py file"),
    ("work/models.py", None, "does not exist."),
    ("", None, "is a folder"),
])
def test_file_that_cannot_be_loaded(tmp_path, loaded, name, text, sentence):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    message = loaded(path)
    assert message.startswith(str(path))
    assert sentence in message
    assert "\n" not in message


def test_solution_imports_its_own_files_and_not_ours(tmp_path, loaded):
    """Many solutions have a helpers.py, which must not become our package helpers/."""
    (tmp_path / "helpers.py").write_text("from torch.nn import functional as F\nWHERE = __file__\n")
    module = loaded(write_solution(tmp_path, extra="from helpers import WHERE"))
    assert Path(module.WHERE) == tmp_path / "helpers.py"
    assert judge(ATTENTION, module.MySelfAttention)["right"]
    assert sys.modules["helpers.cli"].UserError is UserError
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(("text", "sentence"), [
    ("class MySelfAttention:\n    pass", "MySelfAttention(2) raises TypeError"),
    ("class MySelfAttention:\n    def __init__(self, d): pass", "MySelfAttention is not an nn.Module."),
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d, heads): super().__init__()", "missing 1 required"),
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d): super().__init__()\n"
     "    def forward(self, x, mask): return x", "only argument: missing a required argument: 'mask'"),
    ("class MySelfAttention(nn.Module):\n    def __init__(self, d): super().__init__(); self.w = nn.Linear(d, 2 * d)\n"
     "    def forward(self, x): return x", "W_q, W_k and W_v of size 2 × 2; its parameters are w.weight (4, 2)"),
])
def test_class_that_cannot_be_judged(tmp_path, text, sentence):
    path = tmp_path / "models.py"
    path.write_text(f"from torch import nn\n{text}\n")
    with pytest.raises(UserError, match=re.escape(sentence)):
        judge(ATTENTION, define(path)[ATTENTION])


# The command


def test_command_on_a_solution_that_prints_and_writes(tmp_path):
    noise = "print('noise')\nimport os\nos.system('echo noise')\nopen('left.txt', 'w').write('x')\nimport neighbour\n"
    path = write_solution(tmp_path / "work", attention="biased", extra=noise)
    (tmp_path / "work" / "neighbour.py").write_text("")
    code, out, err = run_python("-m", "check", path, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert list(answer) == ["submission", "ok", "layers", "rules"]
    assert (answer["submission"], answer["ok"], answer["rules"]) == (str(path), True, {})
    layers = answer["layers"]
    assert list(layers) == [ATTENTION, NORM]
    assert [list(one) for one in layers.values()] == [["right", "mistake", "difference", "notes"]] * 2
    assert [(one["right"], one["mistake"]) for one in layers.values()] == [(True, None)] * 2
    assert layers[ATTENTION]["notes"][0].startswith("biases: ")
    assert sorted(file.name for file in path.parent.iterdir()) == ["models.py", "neighbour.py"]


@pytest.mark.parametrize(("right", "exit_code"), [(True, 0), (False, 1)])
def test_exit_code_says_whether_both_are_right(monkeypatch, capsys, right, exit_code):
    verdict = {"right": True, "mistake": None, "difference": 3e-16, "notes": []}
    result = {"submission": "models.py", "ok": right, "layers": {ATTENTION: verdict, NORM: verdict | {"right": right}},
              "rules": {}}
    monkeypatch.setattr(command, "judge_submission", lambda *_: result)
    monkeypatch.setattr(sys, "argv", ["check", "models.py"])
    with pytest.raises(SystemExit, match=str(exit_code)):
        command.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{ATTENTION:<18}right: equal to the loops within 3e-16, with correct gradients"
    assert second.startswith(f"{NORM:<18}{'right' if right else 'wrong'}: ")


@pytest.mark.parametrize(("extra", "options", "sentence"), [
    ("while True: pass", ["--timeout", "2.5"], "took more than 2.5 seconds (training belongs under"),
    ("def forward(self, x):\n    while True: pass\nMySelfAttention.forward = forward", ["--timeout", "2.5"],
     "MySelfAttention of {} took more than 2.5 seconds (does a loop in it never end?)."),
    ("import ctypes\nMySelfAttention.forward = lambda self, x: ctypes.string_at(0)", [],
     "MySelfAttention of {} ended the process (exit code -11, SIGSEGV)."),
    pytest.param("huge = bytearray(40 << 30)", [], "raises MemoryError", marks=pytest.mark.skipif(
        sys.platform != "linux", reason="only Linux limits memory")),
])
def test_command_refuses_in_one_sentence(tmp_path, extra, options, sentence):
    path = write_solution(tmp_path)
    path.write_text(f"{path.read_text()}\n{extra}\n")
    exit_code, out, err = run_python("-m", "check", path, *options)
    assert sentence.format(path) in refused(exit_code, out, err)
    if "forward" in extra:
        assert f"\n{NORM:<18}right" in out  # a layer that ends its process leaves the other one judged


def test_pytest_runs_the_exercises_tests_on_a_solution(tmp_path):
    """The solution has no mask, block and network, and other names for its weights."""
    path = write_solution(tmp_path, attention="chunks", norm="features")
    options = ["-q", "-p", "no:cacheprovider", "tests/test_models.py", "--models", str(path)]
    code, out, _ = run_python("-m", "pytest", *options)
    assert code == 1
    assert re.search(r"\b1 failed, 5 passed", out), out
    assert "affine-shape" in out


def test_text_for_a_student(judged):
    headline, note, _ = describe(ATTENTION, judged("biased", SOFTMAX, strict=False))
    assert headline.startswith(f"{ATTENTION:<18}right: equal to the loops within ")
    assert note.split()[0] == "biases"
    verdict = judged("given", NORMED.replace(", unbiased=False", "").replace("1, 2", "2,"))
    headline, *lines = describe(NORM, verdict)
    assert headline == f"{NORM:<18}wrong: last-dimension-only, unbiased-variance"
    assert [line.split()[0] for line in lines] == ["last-dimension-only", "exercise", "unbiased-variance", "example"]
    assert max(map(len, lines)) <= 110
    assert describe(NORM, judged("given", "return x"))[0] == f"{NORM:<18}wrong: unknown mistake"
