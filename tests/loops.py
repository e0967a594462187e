"""The layers' formulas in plain loops, one number at a time: what the vectorised layers are compared with."""

import math

import torch
from torch import nn

from models import MyLayerNorm

SHAPES = [(3, 5, 4), (2, 3, 7), (1, 6, 4), (4, 1, 5), (3, 4, 1), (1, 1, 1)]  # (B, T, d)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0]], dtype=torch.bool)  # the last one has holes


def attention_in_loops(x, w_q, w_k, w_v, mask):
    """Return softmax(Q Kᵀ / √d) V of one review, one number at a time."""
    T, d = len(x), len(x[0])
    q, k, v = ([[sum(w[j][i] * x[t][i] for i in range(d)) for j in range(d)] for t in range(T)]
               for w in (w_q, w_k, w_v))
    y = []
    for t in range(T):
        scores = [sum(q[t][i] * k[s][i] for i in range(d)) / math.sqrt(d) for s in range(T)]
        top = max(scores)  # subtracted, or exp would overflow; the quotients stay the same
        exps = [math.exp(scores[s] - top) if mask[s] else 0.0 for s in range(T)]
        y.append([sum(exps[s] / sum(exps) * v[s][i] for s in range(T)) for i in range(d)])
    return y


def norm_in_loops(x, gamma, beta, mask):
    """Return gamma ⊙ (x - mean) / √(var + 1e-8) + beta of one review, number by number; 0 where there is padding."""
    T, d = len(x), len(x[0])
    counted = [x[t][i] for t in range(T) if mask[t] for i in range(d)]
    mean = sum(counted) / len(counted)
    var = sum((value - mean) ** 2 for value in counted) / len(counted)
    return [[gamma[t][i] * (x[t][i] - mean) / math.sqrt(var + 1e-8) + beta[t][i] if mask[t] else 0.0
             for i in range(d)] for t in range(T)]


def attention_oracle(layer, x, mask):
    """Return what a MySelfAttention must give for a batch."""
    weights = [w.weight.tolist() for w in (layer.W_q, layer.W_k, layer.W_v)]
    return torch.tensor([attention_in_loops(x[b].tolist(), *weights, mask[b].tolist()) for b in range(len(x))],
                        dtype=x.dtype)


def norm_oracle(layer, x, mask):
    """Return what a MyLayerNorm must give for a batch."""
    gamma, beta = layer.gamma.tolist(), layer.beta.tolist()
    return torch.tensor([norm_in_loops(x[b].tolist(), gamma, beta, mask[b].tolist()) for b in range(len(x))],
                        dtype=x.dtype)


def random_norm(T, d):
    """Return a MyLayerNorm in float64 whose gamma and beta differ everywhere."""
    norm = MyLayerNorm((T, d)).double()
    nn.init.normal_(norm.gamma, mean=1)
    nn.init.normal_(norm.beta)
    return norm
