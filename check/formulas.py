"""The formulas of the two layers, with the changes that known mistakes make to them."""

import math

import torch


def attention(x, q, k, v=None, scores="tokens", scale="√d", softmax=2, scale_after=False, causal=False, values="V",
              residual=False):
    """Return softmax(Q Kᵀ / √d) V, or what a known mistake makes of it.

    x, q, k and v are (B, T, d). The other arguments change the formula: check/mistakes.py says how.
    """
    B, T, d = x.shape
    divisor = {"√d": math.sqrt(d), "1": 1, "d": d, "√T": math.sqrt(T), "1/√d": 1 / math.sqrt(d)}[scale]
    v = x if values == "x" else v
    if scores == "batch":
        q, k, v = (tensor.reshape(1, B * T, d) for tensor in (q, k, v))
    weights = q.mT @ k if scores == "features" else q @ k.mT  # (B, d, d) or (B, T, T)
    if not scale_after:
        weights = weights / divisor
    if causal:
        later = torch.ones_like(weights, dtype=torch.bool).triu(1)
        weights = weights.masked_fill(later, -math.inf)
    if softmax is not None:
        weights = weights.softmax(softmax)
    if scale_after:
        weights = weights / divisor
    y = v @ weights if scores == "features" else weights @ v
    y = y.reshape(B, T, d)
    return y + x if residual else y


def norm(x, gamma, beta, over=(1, 2), correction=0, eps=1e-8, divisor="√(σ² + ε)", centred=True, affine="γβ"):
    """Return γ (x - μ) / √(σ² + ε) + β, or what a known mistake makes of it.

    x is (B, T, d), gamma and beta broadcast over it. The other arguments change the formula, as in `attention`.
    """
    mean = x.mean(dim=over, keepdim=True)
    var = x.var(dim=over, keepdim=True, correction=correction)
    squares = x.square().mean(dim=over, keepdim=True)
    divisors = {
        "√(σ² + ε)": (var + eps).sqrt(),
        "√σ² + ε": var.sqrt() + eps,
        "√(σ² + ε) + ε": (var + eps).sqrt() + eps,
        "σ² + ε": var + eps,
        "√(mean of x² + ε)": (squares + eps).sqrt(),
    }
    y = (x - mean if centred else x) / divisors[divisor]
    if "γ" in affine:
        y = gamma * y
    return y + beta if "β" in affine else y
