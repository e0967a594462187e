"""The two formulas, with the changes that known mistakes make to them.

The arguments with a default are the keys of `Mistake.changes` in check/mistakes.py. Without a change, the results are
those of the loops in check/loops.py. All tensors may have more dimensions in front.
"""

import math

import torch

SCALES = {  # what the scores are divided by; `width` is the number of features of one head
    "√d": lambda d, T, width: width ** 0.5,
    "√d of all heads": lambda d, T, width: d ** 0.5,
    "1": lambda d, T, width: 1,
    "d": lambda d, T, width: width,
    "√T": lambda d, T, width: T ** 0.5,
    "1/√d": lambda d, T, width: width ** -0.5,
    "d^¼": lambda d, T, width: width ** 0.25,
}
DIVISORS = {  # what x - μ is divided by
    "√(σ² + ε)": lambda var, eps: (var + eps).sqrt(),
    "σ² + ε": lambda var, eps: var + eps,
    "√σ² + ε": lambda var, eps: var.sqrt() + eps,
    "√(σ² + ε) + ε": lambda var, eps: (var + eps).sqrt() + eps,
    "max(√σ², ε)": lambda var, eps: var.sqrt().clamp(min=eps),
    "√max(σ², ε)": lambda var, eps: var.clamp(min=eps).sqrt(),
}


def attention(x, q, k, v, scores="tokens", scale="√d", softmax=-1, epsilon=0, shifted=True, scale_after=False,
              causal=False, residual=False, heads=1, split="features", merge="features", viewed=""):
    """Return softmax(Q Kᵀ / √d) V, or what a known mistake makes of it.

    Args:
        x, q, k, v: (..., B, T, d).
        scores: what attends to what: "tokens", "features", or tokens of the whole "batch".
        scale: a key of SCALES, or such a function.
        softmax: the dimension of the scores (..., B, heads, T, T) that it runs over, "all" for the last two, or None.
        epsilon: is added to the sum of the softmax; `shifted` says whether the largest score is subtracted before.
        scale_after: whether the softmax is divided, instead of the scores.
        split, merge: whether "features" are split among the heads and joined again, or "tokens" by mistake.
        viewed: "Q", "K", "V" or "Y" (the result): what `view` turns, which moves numbers to other tokens.
    Returns:
        (..., B, T, d).
    """
    shape = q.shape
    *_, T, d = shape
    q, k, v = (view_turned(t) if name == viewed else t for name, t in zip("QKV", (q, k, v), strict=True))
    q, k, v = (split_heads(t, heads, split) for t in (q, k, v))  # (..., B, heads, T, d / heads)
    if scores == "batch":
        q, k, v = (t.transpose(-3, -4).flatten(-3, -2) for t in (q, k, v))  # (..., heads, B T, d / heads)
    divide_by = SCALES[scale] if isinstance(scale, str) else scale
    divisor = divide_by(d, T, q.shape[-1])
    products = q.mT @ k if scores == "features" else q @ k.mT
    if not scale_after:
        products = products / divisor
    if causal:
        is_later = torch.ones(products.shape[-2:], dtype=torch.bool).triu(1)
        products = products.masked_fill(is_later, -math.inf)
    weights = normalise(products, softmax, epsilon, shifted)
    if scale_after:
        weights = weights / divisor
    y = v @ weights if scores == "features" else weights @ v
    if scores == "batch":
        y = y.unflatten(-2, (-1, T)).transpose(-3, -4)  # (..., B, heads, T, d / heads)
    if merge == "features":
        y = y.transpose(-2, -3)
    y = y.reshape(shape)
    if viewed == "Y":
        y = y.mT.reshape(shape)
    return y + x if residual else y


def view_turned(t):
    """Return what `view(B, d, T)` in place of `transpose` makes of a tensor (..., T, d), turned back."""
    *front, T, d = t.shape
    return t.reshape(*front, d, T).mT


def split_heads(t, heads, split):
    """Return (..., B, heads, T, d / heads) of a tensor (..., B, T, d)."""
    *front, T, d = t.shape
    if split == "tokens":
        return t.reshape(*front, heads, T, d // heads)
    return t.unflatten(-1, (heads, d // heads)).transpose(-2, -3)


def normalise(scores, dim, epsilon, shifted):
    """Return the softmax over a dimension of the scores, as in `attention`."""
    if dim is None:
        return scores
    if dim == "all":
        return scores.flatten(-2).softmax(-1).reshape(scores.shape)
    if not epsilon:
        return scores.softmax(dim)
    if shifted:
        scores = scores - scores.amax(dim, keepdim=True)
    exps = torch.exp(scores)
    return exps / (exps.sum(dim, keepdim=True) + epsilon)


def norm(x, gamma, beta, mean_over=(-2, -1), var_over=(-2, -1), around="own", correction=0, eps=1e-8,
         divisor="√(σ² + ε)", centred=True, affine="γ x̂ + β"):
    """Return γ (x - μ) / √(σ² + ε) + β, or what a known mistake makes of it.

    Args:
        x: (B, T, d).
        gamma, beta: (..., T, d).
        mean_over, var_over: the dimensions over which μ and σ² are computed.
        around: whether σ² is computed around its "own" mean, or around "μ".
        correction: 0 for the biased variance, 1 for the unbiased one.
        divisor: a key of DIVISORS, or "√(mean of x² + ε)".
        centred: whether μ is subtracted from x.
        affine: "γ x̂ + β", "(γ + β) x̂" or "γ (x̂ + β)".
    Returns:
        (..., B, T, d).
    """
    mean = x.mean(mean_over, keepdim=True)
    var = x.var(var_over, keepdim=True, correction=correction)
    if around == "μ":
        n = x.numel() // var.numel()
        var = (x - mean).square().mean(var_over, keepdim=True) * n / (n - correction)
    if divisor == "√(mean of x² + ε)":
        root = (x.square().mean(var_over, keepdim=True) + eps).sqrt()
    else:
        root = DIVISORS[divisor](var, eps)
    y = (x - mean if centred else x) / root
    if affine == "(γ + β) x̂":
        return (gamma + beta) * y
    if affine == "γ (x̂ + β)":
        return gamma * (y + beta)
    return gamma * y + beta
