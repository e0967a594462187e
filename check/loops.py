"""The formulas of the two layers in plain loops, one number at a time. Vectorised layers must give the same results."""

import math


def project_in_loops(x, w, bias=None):
    """Return x wᵀ, plus a bias if there is one: x (T, d), w (d, d), bias (d) -> (T, d), all as lists."""
    T, d = len(x), len(x[0])
    y = [[0.0] * d for _ in range(T)]
    for t in range(T):
        for j in range(d):
            y[t][j] = sum(w[j][i] * x[t][i] for i in range(d)) + (bias[j] if bias else 0.0)
    return y


def softmax_in_loops(scores):
    """Return the softmax over some numbers."""
    highest = max(scores)  # subtracted to keep exp from overflowing; the quotients stay the same
    exps = [math.exp(score - highest) for score in scores]
    return [value / sum(exps) for value in exps]


def attention_in_loops(x, w_q, w_k, w_v, biases=(None, None, None)):
    """Return softmax(Q Kᵀ / √d) V of one review: x (T, d), matrices (d, d), biases (d) -> (T, d), all as lists."""
    T, d = len(x), len(x[0])
    q, k, v = (project_in_loops(x, w, bias) for w, bias in zip((w_q, w_k, w_v), biases, strict=True))
    y = [[0.0] * d for _ in range(T)]
    for t in range(T):
        scores = []
        for s in range(T):
            product = sum(q[t][i] * k[s][i] for i in range(d))
            scores.append(product / math.sqrt(d))
        weights = softmax_in_loops(scores)
        for i in range(d):
            y[t][i] = sum(weights[s] * v[s][i] for s in range(T))
    return y


def norm_in_loops(x, gamma, beta):
    """Return gamma ⊙ (x - mean) / √(var + 1e-8) + beta of one review: x, gamma, beta (T, d) -> (T, d), all as lists."""
    T, d = len(x), len(x[0])
    elements = [x[t][i] for t in range(T) for i in range(d)]
    mean = sum(elements) / len(elements)
    var = sum((element - mean) ** 2 for element in elements) / len(elements)
    root = math.sqrt(var + 1e-8)
    y = [[0.0] * d for _ in range(T)]
    for t in range(T):
        for i in range(d):
            y[t][i] = gamma[t][i] * (x[t][i] - mean) / root + beta[t][i]
    return y
