"""The two formulas, with the changes that known mistakes make to them.

The arguments with a default are the keys of `Mistake.changes`. All tensors may have more dimensions in front.
"""

import math

import torch

DIVISORS = {  # what x - μ is divided by
    "√(σ² + ε)": lambda var, eps: (var + eps).sqrt(), "σ² + ε": lambda var, eps: var + eps,
    "√σ² + ε": lambda var, eps: var.sqrt() + eps,
}
DIVISORS["max(√σ², ε)"] = lambda var, eps: var.sqrt().clamp(min=eps)
DIVISORS["√max(σ², ε)"] = lambda var, eps: var.clamp(min=eps).sqrt()


def attention(x, q, k, v, scores="tokens", scale="√d", softmax=-1, epsilon=0, shifted=True, scale_after=False,
              causal=False, residual=False, heads=1, split="features", merge="features", viewed=""):
    """Return softmax(Q Kᵀ / √d) V, or what a known mistake makes of it: x, q, k, v (..., B, T, d) -> (..., B, T, d).

    `scale` may also be (power, factor) of a division by factor · d^power. `softmax` is a dimension of the scores
    (..., B, heads, T, T).
    """
    *_, T, d = shape = q.shape
    if viewed in ("Q", "K", "V"):  # as view(B, d, T) does in place of transpose
        q, k, v = (t.reshape(*shape[:-2], d, T).mT if name == viewed else t for name, t in zip("QKV", (q, k, v)))  # noqa: B905
    q, k, v = (split_heads(t, heads, split) for t in (q, k, v))  # (..., B, heads, T, d / heads)
    if scores == "batch":
        q, k, v = (t.transpose(-3, -4).flatten(-3, -2) for t in (q, k, v))  # (..., heads, B T, d / heads)
    width = q.shape[-1]
    divisors = {"√d": width ** 0.5, "√d of all heads": d ** 0.5, "1": 1, "d": width, "√T": T ** 0.5,
                "1/√d": width ** -0.5, "d^¼": width ** 0.25}
    divisor = divisors[scale] if isinstance(scale, str) else scale[1] * d ** scale[0]
    s = q.mT @ k if scores == "features" else q @ k.mT
    s = s if scale_after else s / divisor
    if causal:
        is_later = torch.ones(s.shape[-2:], dtype=torch.bool).triu(1)
        s = s.masked_fill(is_later, -math.inf)
    weights = normalise(s, softmax, epsilon, shifted)
    weights = weights / divisor if scale_after else weights
    y = v @ weights if scores == "features" else weights @ v
    if scores == "batch":
        y = y.unflatten(-2, (-1, T)).transpose(-3, -4)  # (..., B, heads, T, d / heads)
    y = y.transpose(-2, -3).reshape(shape) if merge == "features" else y.reshape(shape)
    y = y.mT.reshape(shape) if viewed == "Y" else y
    return y + x if residual else y


def split_heads(t, heads, split):
    """Return (..., B, heads, T, d / heads) of a tensor (..., B, T, d); `split` says what is split, "tokens" wrongly."""
    *front, T, d = t.shape
    if split == "tokens":
        return t.reshape(*front, heads, T, d // heads)
    return t.unflatten(-1, (heads, d // heads)).transpose(-2, -3)


def normalise(scores, dim, epsilon, shifted):
    """Return the softmax over a dimension of the scores, over "all" of a review, or over none."""
    if dim is None:
        return scores
    if dim == "all":
        return scores.flatten(-2).softmax(-1).reshape(scores.shape)
    if not epsilon:
        return scores.softmax(dim)
    exps = torch.exp(scores - scores.amax(dim, keepdim=True) if shifted else scores)
    return exps / (exps.sum(dim, keepdim=True) + epsilon)


def norm(x, gamma, beta, mean_over=(-2, -1), var_over=(-2, -1), around="own", correction=0, eps=1e-8,
         divisor="√(σ² + ε)", centred=True, affine="γ x̂ + β"):
    """Return γ (x - μ) / √(σ² + ε) + β, or what a known mistake makes of it: x (B, T, d), gamma, beta (..., T, d).

    `around` says whether σ² is computed around its own mean or around μ, and `divisor` is a key of DIVISORS or
    "√(mean of x² + ε)".
    """
    mean, own = x.mean(mean_over, keepdim=True), x.mean(var_over, keepdim=True)
    squares = (x - (mean if around == "μ" else own)).square()
    var = squares.sum(var_over, keepdim=True) / (x.numel() // own.numel() - correction)
    if divisor == "√(mean of x² + ε)":
        var, divisor = x.square().mean(var_over, keepdim=True), "√(σ² + ε)"
    y = (x - mean if centred else x) / DIVISORS[divisor](var, eps)
    if affine == "(γ + β) x̂":
        return (gamma + beta) * y
    return gamma * (y + beta) if affine == "γ (x̂ + β)" else gamma * y + beta
