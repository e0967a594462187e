"""The formulas of the two layers in plain loops, one number at a time.

The vectorised layers must give the same results.
"""

import math

import torch

SHAPES = [(3, 5, 4), (2, 3, 7), (1, 6, 4), (4, 1, 5), (3, 4, 1), (1, 1, 1)]  # (B, T, d)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0]], dtype=torch.bool)  # the last row has gaps


def project_in_loops(x, w, bias=None):
    """Return x wᵀ, plus a bias if there is one: x (T, d), w (d, d), bias (d) -> (T, d), all as lists."""
    T, d = len(x), len(x[0])
    y = [[0.0] * d for _ in range(T)]
    for t in range(T):
        for j in range(d):
            y[t][j] = sum(w[j][i] * x[t][i] for i in range(d)) + (bias[j] if bias else 0.0)
    return y


def softmax_in_loops(scores, mask):
    """Return the softmax over the scores where `mask` is true, and 0 elsewhere."""
    highest = max(scores)  # subtracted to keep exp from overflowing; the quotients stay the same
    exps = [math.exp(score - highest) if real else 0.0 for score, real in zip(scores, mask, strict=True)]
    return [value / sum(exps) for value in exps]


def attention_in_loops(x, w_q, w_k, w_v, mask, biases=(None, None, None)):
    """Return softmax(Q Kᵀ / √d) V of one review: x (T, d), matrices (d, d), mask (T) -> (T, d), all as lists."""
    T, d = len(x), len(x[0])
    q, k, v = (project_in_loops(x, w, bias) for w, bias in zip((w_q, w_k, w_v), biases, strict=True))
    y = [[0.0] * d for _ in range(T)]
    for t in range(T):
        scores = []
        for s in range(T):
            product = sum(q[t][i] * k[s][i] for i in range(d))
            scores.append(product / math.sqrt(d))
        weights = softmax_in_loops(scores, mask)
        for i in range(d):
            y[t][i] = sum(weights[s] * v[s][i] for s in range(T))
    return y


def norm_in_loops(x, gamma, beta, mask):
    """Return gamma ⊙ (x - mean) / √(var + 1e-8) + beta of one review: x (T, d), mask (T) -> (T, d), 0 at padding."""
    T, d = len(x), len(x[0])
    real = [t for t in range(T) if mask[t]]
    elements = [x[t][i] for t in real for i in range(d)]
    mean = sum(elements) / len(elements)
    var = sum((element - mean) ** 2 for element in elements) / len(elements)
    root = math.sqrt(var + 1e-8)
    y = [[0.0] * d for _ in range(T)]
    for t in real:
        for i in range(d):
            y[t][i] = gamma[t][i] * (x[t][i] - mean) / root + beta[t][i]
    return y


def attention_oracle(layer, x, mask):
    """Return what a MySelfAttention must give for a batch: x (B, T, d), mask (B, T) -> (B, T, d)."""
    matrices = [w.weight.tolist() for w in (layer.W_q, layer.W_k, layer.W_v)]
    y = [attention_in_loops(x[b].tolist(), *matrices, mask[b].tolist()) for b in range(len(x))]
    return torch.tensor(y, dtype=x.dtype)


def norm_oracle(layer, x, mask):
    """Return what a MyLayerNorm must give for a batch: x (B, T, d), mask (B, T) -> (B, T, d)."""
    gamma, beta = layer.gamma.tolist(), layer.beta.tolist()
    y = [norm_in_loops(x[b].tolist(), gamma, beta, mask[b].tolist()) for b in range(len(x))]
    return torch.tensor(y, dtype=x.dtype)
