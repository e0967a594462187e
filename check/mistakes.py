"""The known mistakes in the two layers.

A mistake that changes a formula is recognised by its results: check/formulas.py computes them. The others are
recognised by the roles of the parameters (check/hypotheses.py) or by other properties of the layer
(check/properties.py).
"""

import itertools
from typing import NamedTuple

ATTENTION, NORM, BOTH = "MySelfAttention", "MyLayerNorm", "both layers"

FORMULA_1, FORMULA_2 = "softmax(Q Kᵀ / √d) V", "γ (x - μ) / √(σ² + ε) + β with ε = 1e-8"
SEQUENCE = "the softmax runs over the entire sequence: for each query, the weights of all T keys sum to 1"
PROJECTIONS = "Q = x W_qᵀ, K = x W_kᵀ, V = x W_vᵀ with learnable W_q, W_k, W_v of size d × d"
SENTENCE = "a batch (B, T, d) holds B sentences; each sentence has its own result (T, d)"
ELEMENTS = "μ and σ² = 1/K Σ (x - μ)² are computed over all K = T · d elements of a sentence"
AFFINE = "γ and β are learnable, have size K = T · d, and scale and shift each element"
NO_LOOPS = "both layers are written without for-loops"
FROM_SCRATCH = "both layers are implemented from scratch"
TRAINED = "the network computes x + attention(x), normalises the sum, and is trained by gradients through all layers"
DROPOUT = "dropout follows in the block"


class Mistake(NamedTuple):
    code: str  # variants of a mistake share one code
    layer: str  # ATTENTION, NORM or BOTH
    what: str  # what the layer does
    exercise: str  # what the exercise says
    changes: dict  # arguments of the formula in check/formulas.py; empty if the formula stays the same


MISTAKES = []


def add(code, layer, what, exercise, **changes):
    """Add a known mistake to the list."""
    MISTAKES.append(Mistake(code, layer, what, exercise, changes))


add("softmax-over-queries", ATTENTION, "softmax(Q Kᵀ / √d, dim=1) V: the softmax runs over the queries", SEQUENCE,
    softmax=1)
add("softmax-over-batch", ATTENTION, "softmax(Q Kᵀ / √d, dim=0) V: the softmax runs over the batch", SEQUENCE,
    softmax=0)
add("no-softmax", ATTENTION, "(Q Kᵀ / √d) V: the softmax is missing", FORMULA_1, softmax=None)
add("not-scaled", ATTENTION, "softmax(Q Kᵀ) V: the scores are not divided by √d", FORMULA_1, scale="1")
add("scaled-by-d", ATTENTION, "softmax(Q Kᵀ / d) V: the scores are divided by d", FORMULA_1, scale="d")
add("scaled-by-sqrt-T", ATTENTION, "softmax(Q Kᵀ / √T) V: the scores are divided by √T", FORMULA_1, scale="√T")
add("multiplied-by-sqrt-d", ATTENTION, "softmax(Q Kᵀ · √d) V: the scores are multiplied by √d", FORMULA_1,
    scale="1/√d")
add("scaled-after-softmax", ATTENTION, "softmax(Q Kᵀ) / √d V: the division by √d comes after the softmax", FORMULA_1,
    scale_after=True)
add("attention-across-batch", ATTENTION, "a token attends to the tokens of all sentences in the batch", SENTENCE,
    scores="batch")
add("attention-over-features", ATTENTION, "V softmax(Qᵀ K / √d): features attend to features", FORMULA_1,
    scores="features")
add("attention-over-features", ATTENTION, "V softmax(Qᵀ K / √d, dim=1): features attend to features", FORMULA_1,
    scores="features", softmax=1)
add("causal", ATTENTION, "a token attends only to itself and to earlier tokens", SEQUENCE, causal=True)
add("values-not-projected", ATTENTION, "softmax(Q Kᵀ / √d) x: the values are x itself", PROJECTIONS, values="x")
add("residual-inside", ATTENTION, "softmax(Q Kᵀ / √d) V + x: the layer adds x, and the block adds it again", FORMULA_1,
    residual=True)
add("output-projected", ATTENTION, "softmax(Q Kᵀ / √d) V W_o: there is a fourth matrix", FORMULA_1)
add("keys-as-queries", ATTENTION, "softmax(K Qᵀ / √d) V: queries and keys are swapped", FORMULA_1)
add("matrices-exchanged", ATTENTION, "the matrices are swapped, judging by their names", PROJECTIONS)
add("biases", ATTENTION, "x W_qᵀ + b: nn.Linear adds a bias unless it gets bias=False", PROJECTIONS)

add("last-dimension-only", NORM, "μ and σ² are computed for each token, over its d features", ELEMENTS, over=2)
add("tokens-only", NORM, "μ and σ² are computed for each feature, over the T tokens", ELEMENTS, over=1)
add("across-batch", NORM, "μ and σ² are computed over the whole batch", ELEMENTS, over=(0, 1, 2))
add("across-batch", NORM, "μ and σ² are computed for each feature, over tokens and batch", ELEMENTS, over=(0, 1))
add("across-batch", NORM, "μ and σ² are computed for each element, over the batch", ELEMENTS, over=0)
add("unbiased-variance", NORM, "σ² = 1/(K-1) Σ (x - μ)²: the default of var() and std(); correction=0 gives 1/K",
    ELEMENTS, correction=1)
add("eps-outside-root", NORM, "γ (x - μ) / (√σ² + ε) + β: ε is added outside the root", FORMULA_2,
    divisor="√σ² + ε")
add("eps-outside-root", NORM, "γ (x - μ) / (√(σ² + ε) + ε) + β: ε is added inside and outside the root", FORMULA_2,
    divisor="√(σ² + ε) + ε")
add("eps-value", NORM, "γ (x - μ) / √σ² + β: ε is missing", FORMULA_2, eps=0)
for eps in (1e-5, 1e-6, 1e-7, 1e-9, 1e-10, 1e-12):
    add("eps-value", NORM, f"ε = {eps:g}", FORMULA_2, eps=eps)
add("no-root", NORM, "γ (x - μ) / (σ² + ε) + β: the divisor is the variance, without the root", FORMULA_2,
    divisor="σ² + ε")
add("not-centred", NORM, "γ x / √(σ² + ε) + β: μ is not subtracted from x", FORMULA_2, centred=False)
add("not-centred", NORM, "γ x / √(mean of x² + ε) + β: μ is subtracted neither from x nor in σ²", FORMULA_2,
    centred=False, divisor="√(mean of x² + ε)")
add("affine-missing", NORM, "(x - μ) / √(σ² + ε): γ and β are missing, not used or not learnable", AFFINE, affine="")
add("affine-missing", NORM, "γ (x - μ) / √(σ² + ε): β is not used", AFFINE, affine="γ")
add("affine-missing", NORM, "(x - μ) / √(σ² + ε) + β: γ is not used", AFFINE, affine="β")
add("affine-shape", NORM, "the shape of γ and β is not (T, d)", AFFINE)
add("affine-swapped", NORM, "the parameter that starts at 1 is added, and the one that starts at 0 multiplies", AFFINE)

add("loop", BOTH, "forward runs a Python loop", NO_LOOPS)
add("built-in", BOTH, "a layer or function of PyTorch does the work", FROM_SCRATCH)
add("raises", BOTH, "forward raises an error", SENTENCE)
add("wrong-shape", BOTH, "the result is not a tensor with the shape of x", SENTENCE)
add("overflow", BOTH, "large numbers give NaN or infinity, as exp of a large score does", TRAINED)
add("gradient", BOTH, "the result is right but its gradients are wrong, as with detach(), .data or item()", TRAINED)
add("changes-input", BOTH, "forward changes x itself, which the block still needs", TRAINED)
add("dropout-inside", BOTH, "after train(), the same x gives another result than after eval()", DROPOUT)

BY_CODE = {mistake.code: mistake for mistake in reversed(MISTAKES)}  # the first variant of each code


def combinations(layer, most):
    """Yield lists of up to `most` mistakes of a layer, the shortest first, each with the changes of all its mistakes.

    Mistakes that change the same argument are not combined.
    """
    known = [mistake for mistake in MISTAKES if mistake.layer == layer and mistake.changes]
    for size in range(most + 1):
        for chosen in itertools.combinations(known, size):
            changes = {}
            for mistake in chosen:
                changes |= mistake.changes
            if len(changes) == sum(len(mistake.changes) for mistake in chosen):
                yield list(chosen), changes
