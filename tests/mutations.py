"""Edits of models.py that each make one mistake: pairs of a code and {text in models.py: its replacement}."""

from pathlib import Path

import models

SOFTMAX = "F.softmax(scores, dim=2)"
SCALE = "alpha=1 / math.sqrt(d)"
PRODUCT = "torch.bmm(self.weights(x, mask), v)"
QK = "q, k = self.W_q(x), self.W_k(x)"
W_V = "self.W_v = nn.Linear(input_dim, input_dim, bias=False)"
COUNT = "n = d * is_token.sum(dim=1, keepdim=True).clamp(min=1)"
SUM = "sum(dim=(1, 2), keepdim=True)"
SQUARES = f"square().{SUM} / n"
CENTRED = "centred = (x - mean) * is_token"
ROOT = "torch.sqrt(var + self.eps)"
GAMMA, BETA = "self.gamma[:T] * centred", " + self.beta[:T]"
EPSILONS = 0, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9, 1e-10, 1e-12
INIT = "):\n        super().__init__()\n        self.eps"
ONES, ZEROS = "nn.Parameter(torch.ones(input_dim))", "nn.Parameter(torch.zeros(input_dim))"

ACROSS_BATCH = """B, T, d = x.shape
        mask = None if mask is None else mask.reshape(1, B * T)
        weights = self.weights(x.reshape(1, B * T, d), mask)
        return (weights @ v.reshape(1, B * T, d)).reshape(B, T, d)"""
EXPS = "torch.exp(scores - scores.amax(dim=2, keepdim=True))"
VIEWED = "{0}.reshape({0}.shape[0], {0}.shape[2], {0}.shape[1]).mT"
HEADS = """B, T, d = x.shape
        q, k, v = (t.unflatten(2, (2, -1)).transpose(1, 2) for t in (self.W_q(x), self.W_k(x), v))
        y = F.softmax(q @ k.mT / math.sqrt(d / 2), dim=3) @ v
        return y.transpose(1, 2).reshape(B, T, d)"""
OVER_FEATURES = "v @ F.softmax(self.W_q(x).mT @ self.W_k(x) / math.sqrt(x.shape[2]), dim=2)"
BUILT_IN = "F.scaled_dot_product_attention(q, k, torch.eye(x.shape[1]).to(q).expand(x.shape[0], -1, -1), bias)"

ATTENTION_MUTATIONS = [
    ("softmax-over-queries", {SOFTMAX: "F.softmax(scores, dim=1)"}),
    ("softmax-over-batch", {SOFTMAX: "F.softmax(scores, dim=0)"}),
    ("no-softmax", {SOFTMAX: "scores"}),
    ("not-scaled", {SCALE: "alpha=1"}),
    ("scaled-by-d", {SCALE: "alpha=1 / d"}),
    ("scaled-by-sqrt-T", {SCALE: "alpha=1 / math.sqrt(x.shape[1])"}),
    ("multiplied-by-sqrt-d", {SCALE: "alpha=math.sqrt(d)"}),
    ("scaled-after-softmax", {SCALE: "alpha=1", PRODUCT: f"{PRODUCT} / math.sqrt(x.shape[2])"}),
    ("attention-across-batch", {f"return {PRODUCT}": ACROSS_BATCH}),
    ("attention-over-features", {PRODUCT: OVER_FEATURES}),
    ("softmax-over-all", {SOFTMAX: "F.softmax(scores.flatten(1), dim=1).view_as(scores)"}),
    ("softmax-epsilon", {SOFTMAX: f"{EXPS} / ({EXPS}.sum(dim=2, keepdim=True) + 1e-8)"}),
    ("scaled-by-fourth-root", {SCALE: "alpha=d ** -0.25"}),
    ("scaled-otherwise", {SCALE: "alpha=1 / math.sqrt(300)"}),
    ("viewed", {QK: f"{QK}\n        q = {VIEWED.format('q')}"}),
    ("viewed", {PRODUCT: f"{PRODUCT}.mT.reshape(x.shape)"}),
    ("heads", {f"return {PRODUCT}": HEADS}),
    ("heads-viewed", {f"return {PRODUCT}": HEADS.replace("y.transpose(1, 2)", "y")}),
    ("scores-not-projected", {QK: "q, k = x, self.W_k(x)"}),
    ("matrix-reused", {"v = self.W_v(x)": "v = self.W_k(x)"}),
    ("causal", {SOFTMAX: "F.softmax(scores + torch.full_like(scores, -1e9).triu(1), dim=2)"}),
    ("values-not-projected", {"v = self.W_v(x)": "v = x"}),
    ("residual-inside", {PRODUCT: f"{PRODUCT} + x"}),
    ("output-projected", {W_V: f"{W_V}\n        {W_V.replace('_v', '_o')}", PRODUCT: f"self.W_o({PRODUCT})"}),
    ("keys-as-queries", {QK: "k, q = self.W_q(x), self.W_k(x)"}),
    ("matrices-exchanged", {QK: "q, k = self.W_q(x), self.W_v(x)", "v = self.W_v(x)": "v = self.W_k(x)"}),
    ("biases", {"bias=False": "bias=True"}),
]

NORM_MUTATIONS = [
    ("last-dimension-only", {COUNT: "n = d", SUM: "sum(dim=2, keepdim=True)"}),
    ("tokens-only", {COUNT: COUNT.replace("d * ", ""), SUM: "sum(dim=1, keepdim=True)"}),
    ("across-batch", {COUNT: "n = (d * is_token.sum()).clamp(min=1)", SUM: "sum()"}),
    ("across-batch", {COUNT: "n = is_token.sum().clamp(min=1)", SUM: "sum(dim=(0, 1))"}),
    ("statistics-differ", {f"x * is_token).{SUM} / n": "x * is_token).sum(dim=2, keepdim=True) / d"}),
    ("unbiased-variance", {SQUARES: f"square().{SUM} / (n - 1)"}),
    ("eps-outside-root", {ROOT: "(torch.sqrt(var) + self.eps)"}),
    *(("eps-value", {"self.eps = 1e-8": f"self.eps = {eps}"}) for eps in EPSILONS),
    ("eps-as-minimum", {ROOT: "torch.sqrt(var).clamp(min=self.eps)"}),
    ("no-root", {ROOT: "(var + self.eps)"}),
    ("not-centred", {GAMMA: "self.gamma[:T] * x * is_token"}),
    ("affine-missing", {BETA: ""}),
    ("affine-missing", {GAMMA: "centred"}),
    ("affine-order", {f"{GAMMA} / {ROOT}{BETA}": f"self.gamma[:T] * (centred / {ROOT}{BETA})"}),
    ("affine-start", {ONES: ZEROS}),
    ("interface", {f"input_dim{INIT}": f"T, d{INIT}", "self.eps = 1e-8": "self.eps, input_dim = 1e-8, (T, d)"}),
    ("affine-shape", {ONES: ONES.replace("dim", "dim[1]"), ZEROS: ZEROS.replace("dim", "dim[1]"), "[:T]": ""}),
    ("affine-swapped", {f"gamma = {ONES}": f"gamma = {ZEROS}", f"beta = {ZEROS}": f"beta = {ONES}"}),
]

OTHER_MUTATIONS = [
    ("loop", {PRODUCT: "torch.stack([one @ other for one, other in zip(self.weights(x, mask), v)])"}),
    ("built-in", {SOFTMAX: BUILT_IN}),
    ("not-filled-in", {f"return {PRODUCT}": "raise NotImplementedError"}),
    ("raises", {"k.transpose(1, 2), alpha": "k.transpose(0, 1), alpha"}),
    ("wrong-shape", {f"return {PRODUCT}": f"return {PRODUCT}, v"}),
    ("overflow", {SOFTMAX: "scores.exp() / scores.exp().sum(dim=2, keepdim=True)"}),
    ("gradient", {SOFTMAX: f"{SOFTMAX}.detach()"}),
    ("changes-input", {CENTRED: "centred = x.sub_(mean) * is_token"}),
    ("wrong-size", {"d = x.shape[2]\n": "d = x.shape[2]\n        assert d % 2 == 0\n"}),
    ("dropout-always", {SOFTMAX: f"F.dropout({SOFTMAX}, 0.1)"}),
    ("dropout-inside", {SOFTMAX: f"F.dropout({SOFTMAX}, 0.1, self.training)"}),
]

MUTATIONS = ATTENTION_MUTATIONS + NORM_MUTATIONS + OTHER_MUTATIONS

def mutate(edits):
    """Return the source of models.py after some edits."""
    source = Path(models.__file__).read_text(encoding="utf-8")
    for old, new in edits.items():
        assert old in source, old
        source = source.replace(old, new)
    return source
