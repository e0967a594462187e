"""The known mistakes in the two layers.

A mistake that changes a formula is recognised by its results: check/formulas.py computes them. The others are
recognised by the roles of the parameters (check/search.py) or by other properties of the layer (check/properties.py).
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
ONE_HEAD = "one softmax(Q Kᵀ / √d) V with W_q, W_k and W_v of size d × d: there is one head"
START = "the hand-out starts γ at 1 and β at 0, so that training starts with the normalised x"
INTERFACE = "the block calls MyLayerNorm((max_len, d)): the only argument is the pair (T, d)"
BOTH_LAYERS = "both layers are to be written: their parameters in __init__, their formula in forward"
SIZES = "the layers work for every d; the word vectors have d = 300 or another size"


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
    softmax=-2)
add("softmax-over-batch", ATTENTION, "softmax(Q Kᵀ / √d, dim=0) V: the softmax runs over the batch", SEQUENCE,
    softmax=-4)
add("softmax-over-all", ATTENTION, "one softmax runs over all T · T scores of a sentence", SEQUENCE, softmax="all")
for eps in (1e-8, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
    for shifted, inner in ((True, "score - largest score"), (False, "score")):
        add("softmax-epsilon", ATTENTION, f"ε = {eps:g} is added to the sum of exp({inner}) in the softmax", FORMULA_1,
            epsilon=eps, shifted=shifted)
add("no-softmax", ATTENTION, "(Q Kᵀ / √d) V: the softmax is missing", FORMULA_1, softmax=None)
add("not-scaled", ATTENTION, "softmax(Q Kᵀ) V: the scores are not divided by √d", FORMULA_1, scale="1")
add("scaled-by-d", ATTENTION, "softmax(Q Kᵀ / d) V: the scores are divided by d", FORMULA_1, scale="d")
add("scaled-by-sqrt-T", ATTENTION, "softmax(Q Kᵀ / √T) V: the scores are divided by √T", FORMULA_1, scale="√T")
add("scaled-by-fourth-root", ATTENTION, "softmax(Q Kᵀ / √√d) V: the scores are divided by the fourth root of d",
    FORMULA_1, scale="d^¼")
add("multiplied-by-sqrt-d", ATTENTION, "softmax(Q Kᵀ · √d) V: the scores are multiplied by √d", FORMULA_1,
    scale="1/√d")
add("scaled-otherwise", ATTENTION, "softmax(Q Kᵀ / c) V: the scores are divided by a number other than √d",
    FORMULA_1)
add("scaled-after-softmax", ATTENTION, "softmax(Q Kᵀ) / √d V: the division by √d comes after the softmax", FORMULA_1,
    scale_after=True)
add("attention-across-batch", ATTENTION, "a token attends to the tokens of all sentences in the batch", SENTENCE,
    scores="batch")
add("attention-over-features", ATTENTION, "V softmax(Qᵀ K / √d): features attend to features", FORMULA_1,
    scores="features")
add("attention-over-features", ATTENTION, "V softmax(Qᵀ K / √d, dim=1): features attend to features", FORMULA_1,
    scores="features", softmax=-2)
add("causal", ATTENTION, "a token attends only to itself and to earlier tokens", SEQUENCE, causal=True)
add("residual-inside", ATTENTION, "softmax(Q Kᵀ / √d) V + x: the layer adds x, and the block adds it again", FORMULA_1,
    residual=True)
for letter in "QKV":
    add("viewed", ATTENTION, f"view or reshape turns {letter} into (d, T), which moves numbers to other tokens; "
        "transpose(1, 2) does not", FORMULA_1, viewed=letter)
add("viewed", ATTENTION, "view or reshape turns the result (d, T) into (T, d), which moves numbers to other tokens; "
    "transpose(1, 2) does not", FORMULA_1, viewed="Y")
for n in (2, 3, 4, 5, 6, 8, 10):
    many = f"attention with {n} heads"
    add("heads", ATTENTION, f"{many}, each on d / {n} features", ONE_HEAD, heads=n)
    add("heads", ATTENTION, f"{many}, and the scores are divided by √d", ONE_HEAD, heads=n, scale="√d of all heads")
    add("heads-viewed", ATTENTION, f"{many}; view or reshape splits the tokens instead of the features", ONE_HEAD,
        heads=n, split="tokens", merge="tokens")
    add("heads-viewed", ATTENTION, f"{many}; view or reshape joins the heads without transpose(1, 2)", ONE_HEAD,
        heads=n, merge="tokens")
add("values-not-projected", ATTENTION, "softmax(Q Kᵀ / √d) x: the values are x itself", PROJECTIONS)
add("scores-not-projected", ATTENTION, "Q or K is x itself", PROJECTIONS)
add("matrix-reused", ATTENTION, "one matrix has two roles", PROJECTIONS)
add("output-projected", ATTENTION, "softmax(Q Kᵀ / √d) V W_o: there is a fourth matrix", FORMULA_1)
add("keys-as-queries", ATTENTION, "softmax(K Qᵀ / √d) V: queries and keys are swapped", FORMULA_1)
add("matrices-exchanged", ATTENTION, "the matrices are swapped, judging by their names", PROJECTIONS)
add("biases", ATTENTION, "x W_qᵀ + b: nn.Linear adds a bias unless it gets bias=False; the exercise's formula has none",
    PROJECTIONS)

EACH_TOKEN, EACH_FEATURE = {"mean_over": (-1,), "var_over": (-1,)}, {"mean_over": (-2,), "var_over": (-2,)}
add("last-dimension-only", NORM, "μ and σ² are computed for each token, over its d features", ELEMENTS, **EACH_TOKEN)
add("tokens-only", NORM, "μ and σ² are computed for each feature, over the T tokens", ELEMENTS, **EACH_FEATURE)
for what, dims in (("over the whole batch", (-3, -2, -1)), ("for each feature, over tokens and batch", (-3, -2)),
                   ("for each element, over the batch", (-3,))):
    add("across-batch", NORM, f"μ and σ² are computed {what}", ELEMENTS, mean_over=dims, var_over=dims)
for dims, what in (((-1,), "for each token, over its d features"), ((-2,), "for each feature, over the T tokens")):
    for around in ({}, {"around": "μ"}):
        add("statistics-differ", NORM, f"σ² over the sentence, but μ {what}", ELEMENTS, mean_over=dims, **around)
        add("statistics-differ", NORM, f"μ over the sentence, but σ² {what}", ELEMENTS, var_over=dims, **around)
add("unbiased-variance", NORM, "σ² = 1/(K-1) Σ (x - μ)²: the default of var() and std(); correction=0 gives 1/K",
    ELEMENTS, correction=1)
add("eps-outside-root", NORM, "γ (x - μ) / (√σ² + ε) + β: ε is added outside the root", FORMULA_2,
    divisor="√σ² + ε")
add("eps-outside-root", NORM, "γ (x - μ) / (√(σ² + ε) + ε) + β: ε is added inside and outside the root", FORMULA_2,
    divisor="√(σ² + ε) + ε")
add("eps-as-minimum", NORM, "γ (x - μ) / max(σ, ε) + β: ε is the smallest deviation, instead of being added",
    FORMULA_2, divisor="max(√σ², ε)")
add("eps-as-minimum", NORM, "γ (x - μ) / √max(σ², ε) + β: ε is the smallest variance, instead of being added",
    FORMULA_2, divisor="√max(σ², ε)")
add("eps-value", NORM, "γ (x - μ) / √σ² + β: ε is missing", FORMULA_2, eps=0)
for eps in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9, 1e-10, 1e-12):
    add("eps-value", NORM, f"ε = {eps:g}", FORMULA_2, eps=eps)
add("no-root", NORM, "γ (x - μ) / (σ² + ε) + β: the divisor is the variance, without the root", FORMULA_2,
    divisor="σ² + ε")
add("not-centred", NORM, "γ x / √(σ² + ε) + β: μ is not subtracted from x", FORMULA_2, centred=False)
add("not-centred", NORM, "γ x / √(mean of x² + ε) + β: μ is subtracted neither from x nor in σ²", FORMULA_2,
    centred=False, divisor="√(mean of x² + ε)")
add("affine-missing", NORM, "γ or β is missing, not used or not learnable", AFFINE)
add("affine-order", NORM, "(γ + β) (x - μ) / √(σ² + ε): β is added to γ, instead of to the product", FORMULA_2,
    affine="(γ + β) x̂")
add("affine-order", NORM, "γ ((x - μ) / √(σ² + ε) + β): β is added before γ multiplies", FORMULA_2,
    affine="γ (x̂ + β)")
add("affine-shape", NORM, "the shape of γ and β is not (T, d)", AFFINE)
add("affine-swapped", NORM, "the parameter that starts at 1 is added, and the one that starts at 0 multiplies", AFFINE)
add("affine-start", NORM, "γ and β do not start at 1 and 0", START)
add("interface", NORM, "the exercise's block cannot build the layer", INTERFACE)

add("loop", BOTH, "forward runs a Python loop", NO_LOOPS)
add("built-in", BOTH, "a layer or function of PyTorch does the work", FROM_SCRATCH)
add("not-filled-in", BOTH, "the layer is not filled in", BOTH_LAYERS)
add("raises", BOTH, "forward raises an error", SENTENCE)
add("wrong-size", BOTH, "the layer does not work for every size", SIZES)
add("wrong-shape", BOTH, "the result is not a tensor with the shape of x", SENTENCE)
add("overflow", BOTH, "large numbers give NaN or infinity, as exp of a large score does", TRAINED)
add("gradient", BOTH, "the result is right but its gradients are wrong, as with detach(), .data or item()", TRAINED)
add("changes-input", BOTH, "forward changes x itself, which the block still needs", TRAINED)
add("dropout-inside", BOTH, "after train(), the same x gives another result than after eval()", DROPOUT)
add("dropout-always", BOTH, "the same x gives another result in each call, after eval() too; F.dropout needs "
    "training=self.training", DROPOUT)

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
