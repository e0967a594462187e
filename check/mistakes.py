"""The known mistakes in the two layers.

They are recognised by results (check/formulas.py), roles of parameters (check/search.py) or check/properties.py.
"""

import functools
import itertools
from typing import NamedTuple

ATTENTION, NORM, BOTH = "MySelfAttention", "MyLayerNorm", "both layers"
# What the exercise says
FORMULA_1, FORMULA_2 = "softmax(Q Kᵀ / √d) V", "γ (x - μ) / √(σ² + ε) + β with ε = 1e-8"
SEQUENCE = "the softmax runs over the entire sequence: for each query, the weights of all T keys sum to 1"
PROJECTIONS = "Q = X W_q, K = X W_k, V = X W_v with learnable W_q, W_k, W_v of size d × d"
REVIEW = "a batch (B, T, d) holds B reviews; each review has its own result (T, d)"
ELEMENTS = "μ and σ² = 1/(T·d) Σ (x - μ)² are computed over all T·d elements of a review"
AFFINE = "γ and β are learnable, have size T·d, and scale and shift each element"
NO_LOOPS = "both layers are written without for-loops"
FROM_SCRATCH = "both layers are to be your own code: the formula as matrix products, sums and F.softmax"
TRAINED = "the network computes x + attention(x), normalises the sum, and is trained by gradients through all layers"
DROPOUT = "dropout follows in the block"
ONE_HEAD = "one softmax(Q Kᵀ / √d) V with W_q, W_k and W_v of size d × d: there is one head"
START = "the hand-out starts γ at 1 and β at 0, so that training starts with the normalised x"
INTERFACE = "the block calls MyLayerNorm((max_len, d)): the only argument is the pair (T, d)"
SIZES = "the layers work for every d; the word vectors have d = 300 or another size"


class Mistake(NamedTuple):
    code: str  # variants of a mistake share one code
    layer: str  # ATTENTION, NORM or BOTH
    what: str  # what the layer does
    exercise: str  # what the exercise says, or ""
    changes: dict  # arguments of the formula in check/formulas.py; empty if the formula stays the same


MISTAKES = []


def add(layer, code, what, exercise, **changes):
    """Add a known mistake to the list."""
    MISTAKES.append(Mistake(code, layer, what, exercise, changes))


attention, norm, both = (functools.partial(add, layer) for layer in (ATTENTION, NORM, BOTH))
attention("softmax-over-queries", "softmax(Q Kᵀ / √d, dim=1) V: the softmax runs over the queries", SEQUENCE,
    softmax=-2)
attention("softmax-over-batch", "dim=0: the softmax runs over the batch, as F.softmax without dim does here", SEQUENCE,
    softmax=-4)
attention("softmax-over-all", "one softmax runs over all T·T scores of a review", SEQUENCE, softmax="all")
for eps in (1e-8, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
    for shifted, inner in ((True, "score - largest score"), (False, "score")):
        attention("softmax-epsilon", f"ε = {eps:g} is added to the sum of exp({inner}) in the softmax", FORMULA_1,
            epsilon=eps, shifted=shifted)
attention("no-softmax", "(Q Kᵀ / √d) V: the softmax is missing", FORMULA_1, softmax=None)
attention("not-scaled", "softmax(Q Kᵀ) V: the scores are not divided by √d", FORMULA_1, scale="1")
attention("scaled-by-d", "softmax(Q Kᵀ / d) V: the scores are divided by d", FORMULA_1, scale="d")
attention("scaled-by-sqrt-T", "softmax(Q Kᵀ / √T) V: the scores are divided by √T", FORMULA_1, scale="√T")
attention("scaled-by-fourth-root", "softmax(Q Kᵀ / √√d) V: the scores are divided by the fourth root of d", FORMULA_1,
    scale="d^¼")
attention("multiplied-by-sqrt-d", "softmax(Q Kᵀ · √d) V: the scores are multiplied by √d", FORMULA_1, scale="1/√d")
attention("scaled-otherwise", "softmax(Q Kᵀ / c) V: the scores are divided by a number other than √d", FORMULA_1)
attention("scaled-after-softmax", "softmax(Q Kᵀ) / √d V: the division by √d comes after the softmax", FORMULA_1,
    scale_after=True)
attention("attention-across-batch", "a token attends to the tokens of all reviews in the batch", REVIEW,
    scores="batch")
attention("attention-over-features", "V softmax(Qᵀ K / √d): features attend to features", FORMULA_1, scores="features")
attention("attention-over-features", "V softmax(Qᵀ K / √d, dim=1): features attend to features", FORMULA_1,
    scores="features", softmax=-2)
attention("causal", "a token attends only to itself and to earlier tokens", SEQUENCE, causal=True)
attention("residual-inside", "softmax(Q Kᵀ / √d) V + x: the layer adds x, and the block adds it again", FORMULA_1,
    residual=True)
for letter in "QKV":
    attention("viewed", f"view or reshape turns {letter} into (d, T), which mixes tokens; transpose(1, 2) does not",
        FORMULA_1, viewed=letter)
attention("viewed", "view or reshape turns the result into (T, d), which mixes tokens; transpose(1, 2) does not",
    FORMULA_1, viewed="Y")
for n in (2, 3, 4, 5, 6, 8, 10):
    many = f"attention with {n} heads"
    attention("heads", f"{many}, each on d / {n} features", ONE_HEAD, heads=n)
    attention("heads", f"{many}, and the scores are divided by √d", ONE_HEAD, heads=n, scale="√d of all heads")
    attention("heads-viewed", f"{many}; view or reshape splits the tokens instead of the features", ONE_HEAD, heads=n,
        split="tokens", merge="tokens")
    attention("heads-viewed", f"{many}; view or reshape joins the heads without transpose(1, 2)", ONE_HEAD, heads=n,
        merge="tokens")
attention("values-not-projected", "softmax(Q Kᵀ / √d) x: the values are x itself", PROJECTIONS)
attention("scores-not-projected", "Q or K is x itself", PROJECTIONS)
attention("matrix-reused", "one matrix has two roles", PROJECTIONS)
attention("output-projected", "softmax(Q Kᵀ / √d) V W_o: there is a fourth matrix", FORMULA_1)
attention("keys-as-queries", "softmax(K Qᵀ / √d) V: queries and keys are swapped", FORMULA_1)
attention("matrices-exchanged", "the matrices are swapped, judging by their names", PROJECTIONS)
attention("biases", "X W_q + b: nn.Linear adds a bias unless it gets bias=False; the exercise's formula has none",
    PROJECTIONS)

for what, dims in (("over the whole batch", (-3, -2, -1)), ("for each feature, over tokens and batch", (-3, -2)),
                   ("for each element, over the batch", (-3,))):
    norm("across-batch", f"μ and σ² are computed {what}", ELEMENTS, mean_over=dims, var_over=dims)
for code, dims, what in (("last-dimension-only", (-1,), "for each token, over its d features"),
                         ("tokens-only", (-2,), "for each feature, over the T tokens")):
    norm(code, f"μ and σ² are computed {what}", ELEMENTS, mean_over=dims, var_over=dims)
    for around in ({}, {"around": "μ"}):
        norm("statistics-differ", f"σ² over the review, but μ {what}", ELEMENTS, mean_over=dims, **around)
        norm("statistics-differ", f"μ over the review, but σ² {what}", ELEMENTS, var_over=dims, **around)
norm("unbiased-variance", "σ² = 1/(T·d - 1) Σ (x - μ)²: the default of var() and std(); correction=0 gives 1/(T·d)",
    ELEMENTS, correction=1)
norm("eps-outside-root", "γ (x - μ) / (√σ² + ε) + β: ε is added outside the root", FORMULA_2, divisor="√σ² + ε")
norm("eps-as-minimum", "γ (x - μ) / max(σ, ε) + β: ε is the smallest deviation, instead of being added", FORMULA_2,
    divisor="max(√σ², ε)")
norm("eps-as-minimum", "γ (x - μ) / √max(σ², ε) + β: ε is the smallest variance, instead of being added", FORMULA_2,
    divisor="√max(σ², ε)")
norm("eps-value", "γ (x - μ) / √σ² + β: ε is missing", FORMULA_2, eps=0)
for eps in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9, 1e-10, 1e-12):
    norm("eps-value", f"ε = {eps:g}", FORMULA_2, eps=eps)
norm("no-root", "γ (x - μ) / (σ² + ε) + β: the divisor is the variance, without the root", FORMULA_2, divisor="σ² + ε")
norm("not-centred", "γ x / √(σ² + ε) + β: μ is not subtracted from x", FORMULA_2, centred=False)
norm("not-centred", "γ x / √(mean of x² + ε) + β: μ is subtracted neither from x nor in σ²", FORMULA_2, centred=False,
    divisor="√(mean of x² + ε)")
norm("affine-missing", "γ or β is missing, not used or not learnable", AFFINE)
norm("affine-order", "(γ + β) (x - μ) / √(σ² + ε): β is added to γ, instead of to the product", FORMULA_2,
    affine="(γ + β) x̂")
norm("affine-order", "γ ((x - μ) / √(σ² + ε) + β): β is added before γ multiplies", FORMULA_2, affine="γ (x̂ + β)")
norm("affine-shape", "the shape of γ and β is not (T, d)", AFFINE)
norm("affine-swapped", "the parameter that starts at 1 is added, and the one that starts at 0 multiplies", AFFINE)
norm("affine-start", "γ and β do not start at 1 and 0", START)
norm("interface", "the exercise's block cannot build the layer", INTERFACE)
both("loop", "forward runs a Python loop", NO_LOOPS)
both("built-in", "a layer or function of PyTorch does the work", FROM_SCRATCH)
both("not-filled-in", "the layer is not filled in", "")
both("raises", "forward raises an error", "")
both("wrong-size", "the layer does not work for every size", SIZES)
both("wrong-shape", "the result is not a tensor with the shape of x", REVIEW)
attention("overflow", "large scores give NaN; use torch.softmax, which subtracts the maximum before exp", "")
both("gradient", "the result is right but its gradients are wrong, as with detach(), .data or item()", TRAINED)
both("changes-input", "forward changes x itself, which the block still needs", TRAINED)
both("dropout-inside", "after train(), the same x gives another result than after eval()", DROPOUT)
both("dropout-always", "after eval() too, the same x gives other results; F.dropout needs training=self.training",
    DROPOUT)

RARE = {"viewed", "softmax-epsilon", "heads-viewed"}  # not combined with others
BY_CODE = {mistake.code: mistake for mistake in reversed(MISTAKES)}  # the first variant of each code


def combinations(layer, fewest, most, d):
    """Yield (mistakes, changes): each set of mistakes of a layer that change different arguments of its formula."""
    known = [one for one in MISTAKES if one.layer == layer and one.changes and d % one.changes.get("heads", 1) == 0]
    common = [one for one in known if one.code not in RARE]
    for number in range(fewest, most + 1):
        for chosen in itertools.combinations(known if number == 1 else common, number):
            changes = {}
            for mistake in chosen:
                changes |= mistake.changes
            if len(changes) == sum(len(mistake.changes) for mistake in chosen):
                yield chosen, changes
