"""The classic mistakes in the exercise's network, in one list.

By `changes` of the two formulas below tests/judge.py knows a mistake in anybody's layer. What has none is noticed there
in another way, or goes beyond the exercise's two layers. `edit`, pieces of our models.py and what replaces them, makes
the mistake in ours, and tests/test_models.py must notice it.
"""

import itertools
import math
from typing import NamedTuple

import torch

ATTENTION, NORM, BOTH, REST = "MySelfAttention", "MyLayerNorm", "both layers", "mask, block and network"


def attention(x, w_q, w_k, w_v, biases=(0, 0, 0), output=None, scale="√d", scale_after=False, softmax=2, stable=True,
              causal=False, across_batch=False, values="V", residual=False):
    """Return softmax(Q Kᵀ / √d) V for x (B, T, d), or what changes make of it; `output` is a fourth matrix and bias."""
    B, T, d = x.shape
    q, k, v = (x @ w.T + b for w, b in zip((w_q, w_k, w_v), biases, strict=True))
    v = x if values == "x" else v
    if across_batch:
        q, k, v = (tensor.reshape(1, B * T, d) for tensor in (q, k, v))
    root = {"√d": math.sqrt(d), "1": 1, "d": d, "√T": math.sqrt(T), "1/√d": 1 / math.sqrt(d)}[scale]
    weights = q @ k.transpose(1, 2) / (1 if scale_after else root)
    if causal:
        weights = weights.masked_fill(torch.ones_like(weights, dtype=torch.bool).triu(1), -math.inf)
    if softmax is not None:
        exps = weights.exp()
        weights = weights.softmax(softmax) if stable else exps / exps.sum(softmax, keepdim=True)
    y = ((weights / root if scale_after else weights) @ v).reshape(B, T, d)
    y = y @ output[0].T + output[1] if output else y
    return y + x if residual else y


def norm(x, gamma, beta, over=(1, 2), correction=0, eps=1e-8, divisor="√(σ² + ε)", centred=True, affine="γβ"):
    """Return γ (x - μ) / √(σ² + ε) + β for x (B, T, d), or what changes make of it."""
    mean, var = x.mean(dim=over, keepdim=True), x.var(dim=over, keepdim=True, correction=correction)
    squares = x.square().mean(dim=over, keepdim=True)
    divide = {"√(σ² + ε)": (var + eps).sqrt(), "√σ² + ε": var.sqrt() + eps, "σ² + ε": var + eps,
              "√(mean of x² + ε)": (squares + eps).sqrt()}[divisor]
    y = (x - mean if centred else x) / divide
    return (gamma * y if "γ" in affine else y) + (beta if "β" in affine else 0)


class Mistake(NamedTuple):
    """A mistake: its code, where it is made, what is done, what the exercise says, and changes and edit as above."""

    code: str
    layer: str
    what: str
    exercise: str
    changes: dict | None
    edit: dict | None


FORMULA_1, FORMULA_2 = "softmax(Q Kᵀ / √d) V", "γ (x - μ) / √(σ² + ε) + β with ε = 1e-8"
SEQUENCE = "the softmax runs over the entire sequence: for each query, the weights of all T keys sum to 1"
PROJECTIONS = "Q = x W_qᵀ, K = x W_kᵀ, V = x W_vᵀ with learnable W_q, W_k, W_v of size d × d"
SENTENCE = "a batch (B, T, d) holds B sentences, and each gives a result (T, d) of its own"
ELEMENTS = "μ and σ² = 1/K Σ (x - μ)² are those of all K = T · d elements of a sentence"
AFFINE = "γ and β are learnable, of size K = T · d, and scale and shift each element"
NO_LOOPS = "both layers are written without for-loops"
TRAINED = "the layer is part of a network that is trained: x + attention(x), norms, and gradients through all of it"

# Pieces of models.py
SOFTMAX, SCALE = "F.softmax(scores, dim=2)", "alpha=1 / math.sqrt(x.shape[2])"
PRODUCT, QK = "torch.bmm(self.weights(x, mask), v)", "q, k = self.W_q(x), self.W_k(x)"
COUNT, SUM = "n = d * real.sum(dim=1, keepdim=True).clamp(min=1)", "sum(dim=(1, 2), keepdim=True)"
ROOT, GAMMA, BETA = "torch.sqrt(var + self.eps)", "self.gamma[:T] * centred", " + self.beta[:T]"
ONES, ZEROS = "nn.Parameter(torch.ones(input_dim))", "nn.Parameter(torch.zeros(input_dim))"
W_V = "self.W_v = nn.Linear(input_dim, input_dim, bias=False)"

MISTAKES = [Mistake(*row) for row in [
    ("softmax-over-queries", ATTENTION, "softmax(Q Kᵀ / √d, dim=1) V: the softmax runs over the queries", SEQUENCE,
     {"softmax": 1}, {SOFTMAX: "F.softmax(scores, dim=1)"}),
    ("softmax-over-batch", ATTENTION, "softmax(Q Kᵀ / √d, dim=0) V: the softmax runs over the batch", SEQUENCE,
     {"softmax": 0}, {SOFTMAX: "F.softmax(scores, dim=0)"}),
    ("no-softmax", ATTENTION, "(Q Kᵀ / √d) V: there is no softmax", FORMULA_1,
     {"softmax": None}, {SOFTMAX: "scores"}),
    ("not-scaled", ATTENTION, "softmax(Q Kᵀ) V: the scores are not divided by √d", FORMULA_1,
     {"scale": "1"}, {SCALE: "alpha=1"}),
    ("scaled-by-d", ATTENTION, "softmax(Q Kᵀ / d) V: the scores are divided by d", FORMULA_1,
     {"scale": "d"}, {SCALE: "alpha=1 / x.shape[2]"}),
    ("scaled-by-sqrt-T", ATTENTION, "softmax(Q Kᵀ / √T) V: the scores are divided by √T", FORMULA_1,
     {"scale": "√T"}, {SCALE: "alpha=1 / math.sqrt(x.shape[1])"}),
    ("multiplied-by-sqrt-d", ATTENTION, "softmax(Q Kᵀ · √d) V: the scores are multiplied by √d", FORMULA_1,
     {"scale": "1/√d"}, {SCALE: "alpha=math.sqrt(x.shape[2])"}),
    ("scaled-after-softmax", ATTENTION, "softmax(Q Kᵀ) / √d V: the division by √d comes after the softmax", FORMULA_1,
     {"scale_after": True}, {SCALE: "alpha=1", PRODUCT: f"{PRODUCT} / math.sqrt(x.shape[2])"}),
    ("attention-across-batch", ATTENTION, "a token attends to the tokens of all sentences of the batch", SENTENCE,
     {"across_batch": True}, {f"return {PRODUCT}": (
         "B, T, d = x.shape\n        mask = None if mask is None else mask.reshape(1, B * T)\n"
         "        weights = self.weights(x.reshape(1, B * T, d), mask)\n"
         "        return (weights @ v.reshape(1, B * T, d)).reshape(B, T, d)")}),
    ("causal", ATTENTION, "a token attends to itself and earlier ones only", SEQUENCE,
     {"causal": True}, {SOFTMAX: "F.softmax(scores + torch.full_like(scores, -1e9).triu(1), dim=2)"}),
    ("values-not-projected", ATTENTION, "softmax(Q Kᵀ / √d) x: the values are x itself", PROJECTIONS,
     {"values": "x"}, {"v = self.W_v(x)": "v = x"}),
    ("residual-inside", ATTENTION, "softmax(Q Kᵀ / √d) V + x: x is added here, and again in the block", FORMULA_1,
     {"residual": True}, {PRODUCT: f"{PRODUCT} + x"}),
    ("overflow", ATTENTION, "exp(s) / Σ exp(s): large scores s give inf / inf; subtract the largest, as softmax does",
     TRAINED, {"stable": False}, {SOFTMAX: "scores.exp() / scores.exp().sum(dim=2, keepdim=True)"}),
    ("output-projected", ATTENTION, "softmax(Q Kᵀ / √d) V W_o: a fourth matrix follows", FORMULA_1, None,
     {W_V: f"{W_V}\n        {W_V.replace('_v', '_o')}", PRODUCT: f"self.W_o({PRODUCT})"}),
    ("keys-as-queries", ATTENTION, "softmax(K Qᵀ / √d) V: queries and keys change places", FORMULA_1, None,
     {QK: "k, q = self.W_q(x), self.W_k(x)"}),
    ("matrices-exchanged", ATTENTION, "by their names, the matrices change places", PROJECTIONS, None,
     {QK: "q, k = self.W_q(x), self.W_v(x)", "v = self.W_v(x)": "v = self.W_k(x)"}),
    ("biases", ATTENTION, "x W_qᵀ + b: nn.Linear adds a bias unless it gets bias=False", PROJECTIONS, None,
     {"bias=False": "bias=True"}),

    ("last-dimension-only", NORM, "μ and σ² are those of each token, over its d features", ELEMENTS,
     {"over": 2}, {COUNT: "n = d", SUM: "sum(dim=2, keepdim=True)"}),
    ("tokens-only", NORM, "μ and σ² are those of each feature, over the T tokens", ELEMENTS,
     {"over": 1}, {COUNT: COUNT.replace("d * ", ""), SUM: "sum(dim=1, keepdim=True)"}),
    ("across-batch", NORM, "μ and σ² are those of the whole batch", ELEMENTS,
     {"over": (0, 1, 2)}, {COUNT: "n = (d * real.sum()).clamp(min=1)", SUM: "sum()"}),
    ("across-batch", NORM, "μ and σ² are those of each feature, over tokens and batch", ELEMENTS,
     {"over": (0, 1)}, {COUNT: "n = real.sum().clamp(min=1)", SUM: "sum(dim=(0, 1))"}),
    ("across-batch", NORM, "μ and σ² are those of each element, over the batch", ELEMENTS,
     {"over": 0}, {COUNT: "n = real.sum(dim=0).clamp(min=1)", SUM: "sum(dim=0)"}),
    ("unbiased-variance", NORM, "σ² = 1/(K-1) Σ (x - μ)², as var() and std() have it without correction=0", ELEMENTS,
     {"correction": 1}, {f"square().{SUM} / n": f"square().{SUM} / (n - 1)"}),
    ("eps-outside-root", NORM, "γ (x - μ) / (√σ² + ε) + β: ε is added to the root", FORMULA_2,
     {"divisor": "√σ² + ε"}, {ROOT: "(torch.sqrt(var) + self.eps)"}),
    *(("eps-value", NORM, f"ε = {eps:g}" if eps else "γ (x - μ) / √σ² + β: there is no ε", FORMULA_2,
       {"eps": eps}, {"self.eps = 1e-8": f"self.eps = {eps}"}) for eps in (1e-5, 0, 1e-6, 1e-7, 1e-9, 1e-10, 1e-12)),
    ("no-root", NORM, "γ (x - μ) / (σ² + ε) + β: the variance divides, not its root", FORMULA_2,
     {"divisor": "σ² + ε"}, {ROOT: "(var + self.eps)"}),
    ("not-centred", NORM, "γ x / √(σ² + ε) + β: μ is not subtracted", FORMULA_2,
     {"centred": False}, {GAMMA: "self.gamma[:T] * x * real"}),
    ("not-centred", NORM, "γ x / √(mean of x² + ε) + β: μ is subtracted nowhere", FORMULA_2,
     {"centred": False, "divisor": "√(mean of x² + ε)"}, {"centred = (x - mean) * real": "centred = x * real"}),
    ("affine-missing", NORM, "(x - μ) / √(σ² + ε): there are no γ and β, or none that are used and learnable", AFFINE,
     {"affine": ""}, {GAMMA: "centred", BETA: ""}),
    ("affine-missing", NORM, "γ (x - μ) / √(σ² + ε): β is not used", AFFINE, {"affine": "γ"}, {BETA: ""}),
    ("affine-missing", NORM, "(x - μ) / √(σ² + ε) + β: γ is not used", AFFINE, {"affine": "β"}, {GAMMA: "centred"}),
    ("affine-shape", NORM, "γ and β have another shape than (T, d)", AFFINE, None,
     {ONES: ONES.replace("dim", "dim[1]"), ZEROS: ZEROS.replace("dim", "dim[1]"), "[:T]": ""}),
    ("affine-swapped", NORM, "what starts as ones is added and what starts as zeros multiplies", AFFINE, None,
     {f"gamma = {ONES}": f"gamma = {ZEROS}", f"beta = {ZEROS}": f"beta = {ONES}"}),

    ("loop", BOTH, "a Python loop runs in forward", NO_LOOPS, None,
     {PRODUCT: "torch.stack([one @ other for one, other in zip(self.weights(x, mask), v)])"}),
    ("raises", BOTH, "it raises an error", SENTENCE, None, {"k.transpose(1, 2)": "k.transpose(0, 1)"}),
    ("wrong-shape", BOTH, "it returns something else than a tensor of the shape of x", SENTENCE, None,
     {f"return {PRODUCT}": f"return {PRODUCT}, v"}),
    ("gradient", BOTH, "the result is right but not its gradients, as with detach(), .data or item()", TRAINED, None,
     {SOFTMAX: f"{SOFTMAX}.detach()"}),
    ("changes-input", BOTH, "it changes x itself, which the block needs afterwards", TRAINED, None,
     {"centred = (x - mean) * real": "centred = x.sub_(mean) * real"}),
    ("dropout-inside", BOTH, "in training its result is another, as with dropout", "dropout follows in the block", None,
     {SOFTMAX: f"F.dropout({SOFTMAX}, 0.1, self.training)"}),

    *((code, REST, what, "", None, edit) for code, what, edit in [
        ("padding-read", "attention reads padding", {"if mask is not None:": "if False:"}),
        ("padding-infinite", "padding is masked with -inf", {"torch.finfo(q.dtype).min / 2": "-math.inf"}),
        ("padding-in-statistics", "padding counts in mean and variance", {
            "mask.unsqueeze(2)  # (B, T, 1)\n        n": "torch.ones_like(mask).unsqueeze(2)\n        n"}),
        ("padding-in-mean", "padding counts in the mean over tokens", {
            "(x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)": "x.mean(dim=1)"}),
        ("last-rows", "a short batch gets the last rows of gamma", {GAMMA: GAMMA.replace("[:T]", "[-T:]")}),
        ("no-residual", "attention has no residual", {"(self.attention(x, mask)) + x": "(self.attention(x, mask))"}),
        ("no-residual", "the linear layers have no residual", {"(self.fc1(x))) + x": "(self.fc1(x)))"}),
        ("no-relu", "there is no relu", {"F.relu(self.fc1(x))": "self.fc1(x)"}),
        ("no-dropout", "there is no dropout", {"self.dropout(self.attention(x, mask))": "self.attention(x, mask)"}),
        ("no-length-check", "any batch is taken", {"if ids.shape[1] > self.max_len:": "if False:"})]),
]]
BY_CODE = {mistake.code: mistake for mistake in reversed(MISTAKES)}  # the first one of each code


def combinations(layer):
    """Yield the known mistakes of a layer, none to two (a published norm has four) at once, and their changes."""
    known = [mistake for mistake in MISTAKES if mistake.layer == layer and mistake.changes]
    for number in range(3 if layer == ATTENTION else 5):
        for chosen in itertools.combinations(known, number):
            changes = {name: value for mistake in chosen for name, value in mistake.changes.items()}
            if len(changes) == sum(len(mistake.changes) for mistake in chosen):  # no two change the same
                yield [*chosen], changes
