"""The judge on right and wrong layers in many styles, and the feedback for a student."""

import math
import os
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import check
from check import formulas
from check.cases import build
from check.judge import judge
from check.loops import attention_in_loops, norm_in_loops
from check.mistakes import ATTENTION, BY_CODE, MISTAKES, NORM
from check.properties import find_gradient_problem
from helpers import UserError
from tests.mutations import ATTENTION_MUTATIONS, MUTATIONS, NORM_MUTATIONS, mutate

# Styles of holding the parameters: the code of __init__, and the first lines of forward
ATTENTION_STYLES = {
    "linear": ("self.query, self.key, self.value = (nn.Linear(d, d, bias=False) for _ in range(3))",
               "q, k, v = self.query(x), self.key(x), self.value(x)"),
    "biased": ("self.W_Q, self.W_K, self.W_V = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)",
               "q, k, v = self.W_Q(x), self.W_K(x), self.W_V(x)"),
    "bare": ("self.wq, self.wk, self.wv = (nn.Parameter(torch.rand(d, d)) for _ in range(3))",
             "q, k, v = x @ self.wq, x @ self.wk, x @ self.wv"),
    "nameless": ("self.m = nn.ParameterList([torch.eye(d) for _ in range(3)])",
                 "q, k, v = F.linear(x, self.m[2]), (self.m[1] @ x.transpose(1, 2)).transpose(1, 2), x @ self.m[0]"),
    "chunks": ("self.qkv = nn.Linear(d, 3 * d, bias=False)", "q, k, v = self.qkv(x).chunk(3, dim=-1)"),
    "columns": ("self.w = nn.Parameter(torch.zeros(d, 3 * d))",
                "q, k, v = (x @ self.w).view(*x.shape[:2], 3, x.shape[2]).unbind(2)"),
    "pairs": ("self.to_q, self.to_kv = nn.Linear(d, d, bias=False), nn.Linear(d, 2 * d, bias=False)",
              "q, (k, v) = self.to_q(x), self.to_kv(x).chunk(2, -1)"),
    "stacked": ("self.stack = nn.Parameter(torch.randn(3, d, d))",
                'q, k, v = torch.einsum("btd,nde->nbte", x, self.stack)'),
    "four": ("self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))",
             "q, k, v = self.q(x), self.k(x), self.v(x)"),
}
NORM_STYLES = {
    "given": ("self.gamma, self.beta = nn.Parameter(torch.ones(*d)), nn.Parameter(torch.zeros(*d))",
              "g, b = self.gamma, self.beta"),
    "flat": ("self.w, self.bias = (nn.Parameter(torch.full((d[0] * d[1],), n)) for n in (1., 0.))",
             "g, b = self.w.view(x.shape[1:]), self.bias.view(x.shape[1:])"),
    "single": ('self.p = nn.ParameterDict({"shift": torch.zeros(1, *d), "scale": torch.ones(1, *d)})',
               'g, b = self.p["scale"], self.p["shift"]'),
    "pair": ("self.p = nn.Parameter(torch.stack([torch.ones(d), torch.zeros(d)]))", "g, b = self.p"),
    "features": ("self.g, self.b = nn.Parameter(torch.ones(d[1])), nn.Parameter(torch.zeros(d[1]))",
                 "g, b = self.g, self.b"),
}
SOFTMAX = "return F.softmax(q @ k.transpose(1, 2) / k.shape[2] ** 0.5, dim=-1) @ v"
HEADS = """B, T, d = x.shape
        q, k, v = (t.view(B, T, 2, d // 2).transpose(1, 2) for t in (q, k, v))
        y = F.softmax(q @ k.mT / (d // 2) ** 0.5, dim=-1) @ v
        return y.transpose(1, 2).reshape(B, T, d)"""
NORMED = """m, v = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, unbiased=False)
        return g * (x - m) / torch.sqrt(v + 1e-8) + b"""


def write(path, style, rest, extra="", init=""):
    """Write the class of a style, with more code before it and in __init__, and return its name."""
    name = ATTENTION if style in ATTENTION_STYLES else NORM
    style_init, first = (ATTENTION_STYLES | NORM_STYLES)[style]
    path.write_text(
        "import math\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n"
        f"{extra}\n\nclass {name}(nn.Module):\n    def __init__(self, d):\n        super().__init__()\n"
        f"        {style_init}{init}\n\n    def forward(self, x):\n        {first}\n        {rest}\n")
    return name


def define(path):
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


def test_formulas_equal_the_loops():
    generator = torch.Generator().manual_seed(0)
    x, q, k, v, gamma, beta = torch.randn(6, 2, 3, 4, dtype=torch.float64, generator=generator)
    eye = torch.eye(4).tolist()
    for b in range(2):
        expected = torch.tensor(norm_in_loops(x[b].tolist(), gamma[0].tolist(), beta[0].tolist()))
        torch.testing.assert_close(formulas.norm(x[b:b + 1], gamma[0], beta[0])[0], expected.double())
        expected = torch.tensor(attention_in_loops(x[b].tolist(), eye, eye, eye))
        torch.testing.assert_close(formulas.attention(x, x, x, x)[b], expected.double())
    kernel = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(formulas.attention(x, q, k, v), kernel)
    torch.testing.assert_close(formulas.norm(x, gamma[0], beta[0]),
                               F.layer_norm(x, x.shape[1:], gamma[0], beta[0], 1e-8))


@pytest.mark.our_models
@pytest.mark.parametrize(("code", "edits"), MUTATIONS)
def test_mutation_of_our_layers_is_named(tmp_path, code, edits):
    path = tmp_path / "models.py"
    path.write_text(mutate(edits))
    names = [name for name, mutations in ((ATTENTION, NORM_MUTATIONS), (NORM, ATTENTION_MUTATIONS))
             if (code, edits) not in mutations]
    codes = [judge(name, define(path)[name], strict=True)["mistake"] or "" for name in names]
    assert code in "+".join(codes).split("+")


def test_every_known_mistake_is_planted():
    assert {code for code, _ in MUTATIONS} == set(BY_CODE)


OWN_FUNCTION = """
def scaled_dot_product_attention(q, k, v):
    return (q @ k.mT / k.shape[2] ** 0.5).softmax(-1) @ v
"""


@pytest.mark.parametrize(("style", "rest", "extra"), [
    *((style, SOFTMAX, "") for style in ("linear", "bare", "nameless", "chunks", "columns", "stacked", "pairs")),
    ("linear", "return scaled_dot_product_attention(q, k, v)", OWN_FUNCTION),  # a name of torch's
    *((style, NORMED, "") for style in ("given", "flat", "single", "pair")),
])
def test_right_layer(judged, style, rest, extra):
    verdict = judged(style, rest, extra)
    assert verdict["right"], verdict
    assert (verdict["mistake"], verdict["notes"]) == (None, [])
    assert verdict["difference"] < (1e-13 if style in ATTENTION_STYLES else 1e-11)


PLANTED = [
    ("softmax-over-batch", "bare", "return nn.Softmax()(q @ k.mT / q.shape[-1] ** 0.5) @ v"),  # torch's choice of dim
    ("no-softmax", "stacked", 'return torch.einsum("btd,bsd,bse->bte", q, k, v) / q.shape[2] ** 0.5'),
    ("matrices-exchanged", "bare", "return F.softmax(q @ v.mT / k.shape[2] ** 0.5, dim=-1) @ k"),
    ("biases+matrix-reused", "biased", SOFTMAX.replace("q @ k", "k @ k")),
    ("scaled-otherwise", "columns", SOFTMAX.replace("0.5", "0.75")),
    ("scaled-otherwise+biases", "biased", SOFTMAX.replace("k.shape[2] ** 0.5", "math.sqrt(50)")),
    ("softmax-epsilon+overflow", "stacked", """e = torch.exp(q @ k.mT / k.shape[2] ** 0.5)
        return e / (1e-6 + e.sum(-1, keepdim=True)) @ v"""),
    ("not-scaled+dropout-always", "bare", "return F.dropout(F.softmax(q @ k.mT, dim=-1) @ v)"),
    ("heads+wrong-size", "bare", HEADS.replace("// 2", "// 8").replace("2,", "8,", 1)),
    ("heads+output-projected+wrong-size", "four", HEADS.replace("return ", "return self.o(") + ")"),
    ("softmax-over-queries+residual-inside", "chunks", SOFTMAX.replace("dim=-1", "dim=1") + " + x"),
    ("eps-as-minimum+eps-value", "single", NORMED.replace("torch.sqrt(v + 1e-8)", "v.sqrt().clip(1e-5)")),
    ("statistics-differ+unbiased-variance", "given", NORMED.replace("x.var((1, 2)", "x.var(1").replace("Fals", "Tru")),
    ("affine-order", "single", NORMED.replace("return g * ", "return g * (") + ")"),
    ("last-dimension-only+affine-shape", "features", NORMED.replace("(1, 2)", "2")),
    ("last-dimension-only+unbiased-variance+eps-outside-root+eps-value", "given",
     "return g * (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + 1e-6) + b"),
    ("eps-value+built-in", "given", "return F.layer_norm(x, x.shape[1:], g, b)"),
]


@pytest.mark.filterwarnings("ignore:Implicit dimension choice", "ignore:var")  # of the planted layers
@pytest.mark.parametrize(("codes", "style", "rest"), PLANTED)
def test_planted_mistake_is_named(judged, codes, style, rest):
    verdict = judged(style, rest)
    assert verdict["mistake"] == codes, verdict
    assert not verdict["right"]
    labels = {note.split(": ")[0] for note in verdict["notes"]}
    assert labels >= {*codes.split("+"), "exercise"}
    if any(one.changes for one in MISTAKES if one.code in codes.split("+")):
        assert "example" in labels


def test_frozen_weights_are_not_learned(judged):
    assert judged("given", NORMED, init="\n        self.requires_grad_(False)")["mistake"] == "gradient"


@pytest.mark.parametrize(("shown", "rest"), [
    ("for one in", """rows = []
        for one in range(len(x)):
            rows.append((q[one] @ k[one].T / k.shape[2] ** 0.5).softmax(-1) @ v[one])
        return torch.stack(rows)"""),
    ("softmax", "return torch.stack(list(map(one, q, k, v)))"),
    ("vmap", "return torch.vmap(one)(q, k, v)"),
])
def test_loop_is_found_and_shown(judged, shown, rest):
    extra = "def one(q, k, v):\n    return (q @ k.T / k.shape[1] ** 0.5).softmax(-1) @ v\n"
    verdict = judged("linear", rest, extra)
    assert verdict["mistake"] == "loop", verdict
    assert shown in verdict["notes"][0]


@pytest.mark.parametrize("line", ["q, k, v = [w(x) for w in (self.query, self.key, self.value)]",
                                  "q, k, v = (w(x) for w in self.children())"])
def test_loop_over_the_projections_is_allowed(judged, line):
    assert judged("linear", f"{line}\n        {SOFTMAX}")["right"]


@pytest.mark.parametrize(("code", "style", "rest"), [
    (None, "linear", SOFTMAX.replace("k.shape[2] ** 0.5", "torch.sqrt(torch.tensor(x.shape[2]))")),
    (None, "given", f"x = x.float()\n        {NORMED}"),
    ("across-batch", "single", "assert x.dtype == torch.float32\n        " + NORMED.replace("(1, 2)", "(0, 1, 2)")),
])
def test_float32_is_judged_with_its_tolerance(judged, code, style, rest):
    verdict = judged(style, rest)
    assert (verdict["right"], verdict["mistake"]) == (code is None, code), verdict
    assert "float32" in {note.split(":")[0] for note in verdict["notes"]}


@pytest.mark.parametrize(("style", "rest", "nearest"), [
    ("given", NORMED.replace("1e-8", "8e-6"), ["eps-value"]), ("given", NORMED + " + 1e-5", []),
    ("chunks", SOFTMAX.replace("k.shape[2]", "(x.shape[1] * 1.01)"), ["scaled-by-sqrt-T"]),
    ("linear", SOFTMAX.replace("v", "v.flip(1)"), []),
])
def test_unknown_mistake_shows_what_is_clearly_nearest(judged, style, rest, nearest):
    verdict = judged(style, rest)
    assert (verdict["right"], verdict["mistake"]) == (False, None)
    unknown, example, *readings = verdict["notes"]
    assert unknown.startswith("unknown: ")
    assert [re.fullmatch(r"nearest: ([\w-]+), .*", reading)[1] for reading in readings] == nearest
    right, wrong = re.fullmatch(r"example: .* should be (\S+) but is (\S+)", example).groups()
    assert right != wrong


def test_class_that_cannot_be_judged(tmp_path):
    (tmp_path / "models.py").write_text("from torch import nn\nclass MySelfAttention(nn.Linear):\n"
                                        "    def __init__(self, d): super().__init__(d, d // 2)")
    with pytest.raises(UserError, match="must have W_q, W_k and W_v of size"):
        judge(ATTENTION, define(tmp_path / "models.py")[ATTENTION])


class Attention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.W_q, self.W_k, self.W_v = (nn.Linear(d, d, bias=False) for _ in range(3))

    def forward(self, x):
        print("noise")
        weights = self.W_q(x) @ self.W_k(x).mT / math.sqrt(x.shape[2])
        return F.softmax(weights, dim=self.dim) @ self.W_v(x)

    dim = 2


def unfilled(layer, x):
    raise NotImplementedError


def variant(**changes):
    """Return a class like Attention, with other attributes."""
    return type("Mine", (Attention,), changes)


class Hanging(Attention):
    def forward(self, x):
        print("noise")
        while True:
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="feedback forks")
@pytest.mark.parametrize(("cls", "right", "sentence"), [
    (Attention, True, "Attention is right"),
    (variant(dim=1), False, "Mine is wrong: softmax-over-queries"),
    (variant(forward=lambda layer, x: Attention.forward(layer, x.cuda())), True, "Mine is right"),
    (Hanging, False, "did not finish within 1 seconds"),
    (variant(forward=lambda layer, x: os._exit(3)), False, "ended the process (exit code 3"),
    (variant(forward=lambda layer, x: x @ x), False, "with x of shape (2, 3, 4), RuntimeError: "),
    (variant(forward=lambda layer, x: bytearray(1 << 42)), False, "MemoryError"),
    (variant(forward=unfilled), False, "Mine is not filled in"), (3, False, "feedback needs a class"),
])
def test_feedback(monkeypatch, capfd, cls, right, sentence):
    monkeypatch.setattr(check, "SECONDS", 1 if cls is Hanging else 5)
    found = check.feedback(cls)
    assert found.right is right
    assert sentence in repr(found)
    assert sentence in found._repr_html_()
    assert capfd.readouterr() == ("", "")
    if "RuntimeError" in sentence:
        assert "lambda layer, x: x @ x" in repr(found)  # the line of the student


@pytest.mark.skipif(not hasattr(os, "fork"), reason="feedback forks")
@pytest.mark.parametrize(("forward", "lines"), [
    (Attention.forward, 1), (Hanging.forward, 1), (lambda layer, x: print("noise") or os._exit(3), 1),
    (lambda layer, x: [print("noise") for _ in range(99)], 20),
])
def test_feedback_shows_what_the_first_call_prints(monkeypatch, forward, lines):
    monkeypatch.setattr(check, "SECONDS", 1)
    found = check.feedback(variant(forward=forward))
    assert repr(found).count("noise") == found._repr_html_().count("noise") == lines


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # inside torch
def test_forward_mode_finds_wrong_gradients_where_backward_is_impossible(monkeypatch):
    """A forked process cannot call backward() if its parent has used a GPU."""
    original = torch.autograd.gradcheck

    def gradcheck(*args, check_backward_ad=True, **kwargs):
        if check_backward_ad:
            raise RuntimeError("Unable to handle autograd's threading in combination with fork-based multiprocessing.")
        return original(*args, check_backward_ad=False, **kwargs)

    monkeypatch.setattr(torch.autograd, "gradcheck", gradcheck)
    detached = variant(forward=lambda layer, x: Attention.forward(layer, x.detach()))
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    for cls, problem in ((Attention, None), (detached, "they differ from finite differences")):
        assert find_gradient_problem(build(ATTENTION, cls, 3, 4).double(), x, exact=True) == problem
