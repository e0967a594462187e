"""Tests of `models.py`, yours or ours: python -m pytest tests/test_models.py

The layers are compared with plain loops over their formulas and with the layers of PyTorch. Names are as in the
hand-out: `MySelfAttention(input_dim)`, whose first three `nn.Linear` are W_q, W_k and W_v; `MyLayerNorm((max_len, d))`
with `gamma` and `beta`; `MyTransformer(vocab=, max_len=, num_of_blocks=)`. Padding is tested if
`MyTransformer.masks_padding` is True. Shapes: B reviews in a batch, T tokens in a review, d features of a token.
"""

import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchtext.vocab import Vocab

from models import MyLayerNorm, MySelfAttention, MyTransformer

SHAPES = [(2, 3, 4), (3, 5, 9), (1, 1, 4)]  # (B, T, d); √d is a whole number, because it may be in float32
MAX_LEN, PAD = 6, 1  # tokens of a review and id of padding in the tests of the network
REVIEWS = [[3], [4, 5], [0, 2, 3, 7, 9], [6, 6, 2, 8, 11, 5]]  # ids
MASKS_PADDING = getattr(MyTransformer, "masks_padding", False)
BLOCK_PARTS = {"attention", "dropout", "norm1", "fc1", "fc2", "norm2"}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a busy machine, two threads make tiny tensors a hundred times slower


def assert_same(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance, check_dtype=False)


def make_layer(cls, T, d):
    """Return a MySelfAttention or a MyLayerNorm in float64 with random parameters."""
    layer = cls(d) if cls is MySelfAttention else cls((T, d))
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.double()


def find_projections(attention):
    """Return the three `nn.Linear` of an attention: W_q, W_k and W_v."""
    linear = [layer for layer in attention.modules() if isinstance(layer, nn.Linear)]
    assert len(linear) >= 3, "these tests need three nn.Linear; `python -m check models.py` judges other attentions"
    return linear[:3]


# The formulas in plain loops, for one review x (T, d)


def attention_in_loops(layer, x):
    """Return softmax(Q Kᵀ / √d) V."""
    T, d = x.shape
    q, k, v = (projection(x).tolist() for projection in find_projections(layer))
    result = torch.zeros(T, d, dtype=torch.float64)
    for i in range(T):
        scores = []
        for j in range(T):
            products = [q[i][n] * k[j][n] for n in range(d)]
            scores.append(sum(products) / math.sqrt(d))
        exponentials = [math.exp(score - max(scores)) for score in scores]
        for j in range(T):
            weight = exponentials[j] / sum(exponentials)  # how much token i reads of token j
            for n in range(d):
                result[i, n] += weight * v[j][n]
    return result


def norm_in_loops(layer, x):
    """Return gamma (x - mean) / √(variance + 1e-8) + beta. A short review has the first rows of gamma and beta."""
    T, d = x.shape
    numbers = x.flatten().tolist()
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    gamma, beta = layer.gamma.reshape(-1, d), layer.beta.reshape(-1, d)
    result = torch.zeros(T, d, dtype=torch.float64)
    for t in range(T):
        for n in range(d):
            normalised = (x[t, n] - mean) / math.sqrt(variance + 1e-8)
            result[t, n] = gamma[t, n] * normalised + beta[t, n]
    return result


def block_in_loops(block, x):
    """Return norm2(fc2(relu(fc1(x))) + x) after x = norm1(attention(x) + x)."""
    x = norm_in_loops(block.norm1, attention_in_loops(block.attention, x) + x)
    return norm_in_loops(block.norm2, block.fc2(F.relu(block.fc1(x))) + x)


# The layers, in float64


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [1, 100])  # large scores must not overflow in the softmax
def test_attention_is_the_formula(shape, factor):
    layer = make_layer(MySelfAttention, *shape[1:])
    x = factor * torch.randn(shape, dtype=torch.float64)
    y = layer(x)
    assert_same(y, torch.stack([attention_in_loops(layer, review) for review in x]))
    q, k, v = (projection(x) for projection in find_projections(layer))
    assert_same(y, F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("deviation", [3, 1e-4, 0])  # if the variance is about 1e-8, the place of epsilon matters
def test_norm_is_the_formula(shape, deviation):
    layer = make_layer(MyLayerNorm, *shape[1:])
    x = 2 + deviation * torch.randn(shape, dtype=torch.float64)
    y = layer(x)
    assert_same(y, torch.stack([norm_in_loops(layer, review) for review in x]))
    gamma, beta = layer.gamma.reshape(shape[1:]), layer.beta.reshape(shape[1:])
    assert_same(y, F.layer_norm(x, shape[1:], gamma, beta, eps=1e-8))


def test_norm_starts_with_gamma_1_and_beta_0():
    layer = MyLayerNorm((5, 4))
    assert (layer.gamma.flatten().tolist(), layer.beta.flatten().tolist()) == ([1] * 20, [0] * 20)


def test_norm_far_from_zero_keeps_its_digits():
    """In float32, the mean of x² minus the square of the mean has no correct digit here."""
    layer, x = MyLayerNorm((5, 4)), 1000 + torch.randn(3, 5, 4)
    assert_same(layer(x), F.layer_norm(x.double(), (5, 4), eps=1e-8), 1e-3)


@pytest.mark.parametrize("cls", [MySelfAttention, MyLayerNorm])
def test_gradients_equal_finite_differences(cls):
    layer = make_layer(cls, 3, 4)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    # gradcheck moves each number of x and of the parameters a little, and compares the result with the gradient.
    assert torch.autograd.gradcheck(lambda x, *parameters: layer(x), (x, *layer.parameters()))


# The network, in float32


def make_network():
    """Return a small network of two blocks in evaluation mode whose layer norms have random parameters."""
    vocab = Vocab(Counter({f"word{i}": 20 - i for i in range(10)}))  # <unk> has id 0, <pad> 1, the words 2 to 11
    vocab.vectors = torch.randn(len(vocab), 4)
    network = MyTransformer(vocab=vocab, max_len=MAX_LEN, num_of_blocks=2)
    for layer in network.modules():
        if isinstance(layer, MyLayerNorm):
            nn.init.normal_(layer.gamma, mean=1)
            nn.init.normal_(layer.beta)
    return network.eval()


def pad(reviews, T=MAX_LEN):
    """Return lists of ids as a tensor (B, T)."""
    return torch.tensor([review + [PAD] * (T - len(review)) for review in reviews])


def test_logit_of_a_review_does_not_depend_on_its_batch():
    network, ids = make_network(), pad(REVIEWS)
    logits = network(ids)
    assert logits.shape in ((4, 1), (4,))
    assert_same(logits, torch.cat([network(review) for review in ids.split(1)]), 1e-5)
    assert logits.unique().numel() == 4
    assert network(ids).equal(logits), "dropout is for training only"


@pytest.mark.parametrize("dropout", [False, True])
def test_norm_after_attention_reads_the_residual(monkeypatch, dropout):
    """It reads x + attention(x), or x alone if dropout sets all of attention(x) to zero."""
    monkeypatch.setattr(F, "dropout", lambda x, p=0.5, training=True, inplace=False: 0 * x if training else x)
    network, calls = make_network().train(dropout), []
    for layer in network.modules():
        if isinstance(layer, MySelfAttention | MyLayerNorm):
            layer.register_forward_hook(lambda layer, inputs, y: calls.append((type(layer), inputs[0], y)))
    network(pad(REVIEWS))
    of_attention = [i for i, (cls, _, _) in enumerate(calls) if cls is MySelfAttention]
    assert len(of_attention) == 2, "each of the two blocks has one attention"
    for i in of_attention:
        (_, x, y), (cls, residual, _) = calls[i:i + 2]
        assert cls is MyLayerNorm
        assert_same(residual, x if dropout else x + y)


def test_network_is_the_formula():
    """Compare with plain loops on one review at a time: vectors, blocks, mean of the tokens, linear layer."""
    network = make_network().double()
    parts = {name for name, _ in network.named_children()}
    block_parts = [{name for name, _ in block.named_children()} for block in getattr(network, "blocks", [])]
    if parts != {"embedding", "blocks", "fc"} or block_parts != [BLOCK_PARTS] * 2:
        pytest.skip("the network has other parts, or other names for them")
    for review in REVIEWS if MASKS_PADDING else REVIEWS[-1:]:  # the last one has MAX_LEN tokens
        x = network.embedding.weight[review]
        for block in network.blocks:
            x = block_in_loops(block, x)
        assert_same(network(torch.tensor([review])).reshape(1), network.fc(x.mean(dim=0)))


@pytest.mark.skipif(not MASKS_PADDING, reason="the network does not say that it masks padding")
def test_padding_changes_nothing():
    network = make_network()
    alone = torch.cat([network(torch.tensor([review])) for review in REVIEWS])
    assert_same(network(pad(REVIEWS)), alone, 1e-5)
    assert_same(network(pad(REVIEWS[:3], T=5)), alone[:3], 1e-5)
    network(pad([[], [3, 4]], T=3)).sum().backward()  # one review is empty
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_training_lowers_the_loss():
    """Positive reviews contain word 2, and negative ones word 3."""
    labels = torch.arange(64) % 2
    ids = torch.randint(4, 12, (64, MAX_LEN))
    ids[torch.arange(64), torch.randint(MAX_LEN, (64,))] = 3 - labels
    network = make_network().train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.01)
    for _ in range(150):
        loss = F.binary_cross_entropy_with_logits(network(ids).reshape(64), labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # it begins near log 2
