"""The formulas of the two layers, with the changes that known mistakes make to them.

All tensors may have dimensions in front, for several assignments of roles or several numbers that are tried.
"""

import math

import torch


def attention(x, q, k, v, scores="tokens", scale="√d", softmax="keys", epsilon=0, shifted=True, scale_after=False,
              causal=False, residual=False, heads=1, split="features", merge="features", viewed=""):
    """Return softmax(Q Kᵀ / √d) V, or what a known mistake makes of it.

    x, q, k and v are (..., B, T, d). The other arguments change the formula: check/mistakes.py says how.
    """
    q, k, v = view_as_transposed(q, k, v, viewed)
    shape = q.shape
    if heads > 1:
        q, k, v = (split_heads(tensor, heads, split) for tensor in (q, k, v))
    if scores == "batch":
        q, k, v = (tensor.flatten(-3, -2).unsqueeze(-3) for tensor in (q, k, v))
    weights = q.mT @ k if scores == "features" else q @ k.mT  # (..., B, d, d) or (..., B, T, T)
    divisor = get_divisor(scale, x, q.shape[-1])
    if not scale_after:
        weights = weights / divisor
    if causal:
        later = torch.ones(weights.shape[-2:], dtype=torch.bool).triu(1)
        weights = weights.masked_fill(later, -math.inf)
    weights = normalise_weights(weights, softmax, epsilon, shifted)
    if scale_after:
        weights = weights / divisor
    y = v @ weights if scores == "features" else weights @ v
    if heads > 1:
        y = merge_heads(y, merge)
    y = view_result(y.reshape(*y.shape[:-3], *shape[-3:]), viewed)
    return y + x if residual else y


def get_divisor(scale, x, width):
    """Return what the scores are divided by. `width` is d, or the width of a head.

    The scale is a name, or numbers, or a function of d.
    """
    T, d = x.shape[-2:]
    if not isinstance(scale, str):
        return scale(d) if callable(scale) else scale
    return {"√d": math.sqrt(width), "√d of all heads": math.sqrt(d), "1": 1, "d": width, "√T": math.sqrt(T),
            "1/√d": 1 / math.sqrt(width), "d^¼": width ** 0.25}[scale]


def normalise_weights(scores, over, epsilon, shifted):
    """Return the softmax of the scores over the keys, the queries, the sentences, all T · T, or nothing.

    An epsilon is added to the sum of the exponentials. With `shifted`, the largest score is subtracted first.
    """
    if over == "nothing":
        return scores
    if over == "all":
        return scores.flatten(-2).softmax(-1).reshape(scores.shape)
    dim = {"keys": -1, "queries": -2, "sentences": -3}[over]
    if not epsilon:
        return scores.softmax(dim)
    exps = torch.exp(scores - scores.amax(dim, keepdim=True)) if shifted else scores.exp()
    return exps / (exps.sum(dim, keepdim=True) + epsilon)


def view_as_transposed(q, k, v, viewed):
    """Return q, k and v after one of them, (T, d), was viewed as (d, T) instead of transposed."""
    def view(tensor):
        T, d = tensor.shape[-2:]
        return tensor.reshape(*tensor.shape[:-2], d, T).mT

    return view(q) if viewed == "Q" else q, view(k) if viewed == "K" else k, view(v) if viewed == "V" else v


def view_result(y, viewed):
    """Return the result (T, d), after its transpose was viewed as (T, d)."""
    return y.mT.reshape(y.shape) if viewed == "Y" else y


def split_heads(tensor, heads, split):
    """Return (..., heads, B, T, d / heads).

    With the split "features", each head has d / heads features of each token. Otherwise, it has the numbers of
    T / heads tokens, as after a view without transpose.
    """
    *_, T, d = tensor.shape
    if split == "features":
        return tensor.unflatten(-1, (heads, d // heads)).movedim(-2, -4)
    return tensor.reshape(*tensor.shape[:-2], heads, T, d // heads).movedim(-3, -4)


def merge_heads(y, merge):
    """Return (..., B, T, d), the inverse of `split_heads`."""
    if merge == "features":
        return y.movedim(-4, -2).flatten(-2)
    y = y.movedim(-4, -3)  # (..., B, heads, T, d / heads)
    return y.reshape(*y.shape[:-3], y.shape[-2], -1)


def norm(x, gamma, beta, affine="γ x̂ + β", **changes):
    """Return γ (x - μ) / √(σ² + ε) + β, or what a known mistake makes of it.

    x is (B, T, d), gamma and beta broadcast over it. `changes` are arguments of `normalise`.
    """
    return scale_and_shift(normalise(x, **changes), gamma, beta, affine)


def normalise(x, mean_over=(-2, -1), var_over=(-2, -1), around="own", correction=0, eps=1e-8, divisor="√(σ² + ε)",
              centred=True):
    """Return (x - μ) / √(σ² + ε), or what a known mistake makes of it.

    μ and σ² are computed over the dimensions `mean_over` and `var_over`. σ² is taken around the mean over the same
    dimensions ("own"), or around μ.
    """
    mean = x.mean(dim=mean_over, keepdim=True)
    if around == "own" or mean_over == var_over:
        var = x.var(dim=var_over, keepdim=True, correction=correction)
    else:
        squares = (x - mean).square()
        size = squares.numel() // squares.mean(dim=var_over).numel()
        var = squares.sum(dim=var_over, keepdim=True) / (size - correction)
    y = x - mean if centred else x
    return y / divide_by(x, var, var_over, eps, divisor)


def divide_by(x, var, over, eps, divisor):
    """Return the divisor of the norm by its name."""
    if divisor == "√(mean of x² + ε)":
        return (x.square().mean(dim=over, keepdim=True) + eps).sqrt()
    if divisor == "σ² + ε":
        return var + eps
    if divisor == "√σ² + ε":
        return var.sqrt() + eps
    if divisor == "√(σ² + ε) + ε":
        return (var + eps).sqrt() + eps
    if divisor == "max(√σ², ε)":
        return var.sqrt().clamp(min=eps)
    if divisor == "√max(σ², ε)":
        return var.clamp(min=eps).sqrt()
    return (var + eps).sqrt()


def scale_and_shift(y, gamma, beta, affine):
    """Return γ y + β, or what a known mistake makes of it."""
    if affine == "(γ + β) x̂":
        return (gamma + beta) * y
    if affine == "γ (x̂ + β)":
        return gamma * (y + beta)
    if "γ" in affine:
        y = gamma * y
    return y + beta if "β" in affine else y
