"""The layers and the network, compared with plain loops over the formulas and with the kernels of PyTorch."""

import ast
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchtext.vocab import Vocab

import models
from check.cases import build
from check.judge import judge
from check.loops import MASK, SHAPES, attention_oracle, norm_oracle
from check.mistakes import ATTENTION, NORM
from check.output import describe
from models import MyLayerNorm, MySelfAttention
from tests.toy import run_python

SOURCE = Path(models.__file__)
exercise = pytest.mark.exercise
WHOLE = torch.ones_like(MASK)
CASES = [(shape, torch.ones(shape[:2], dtype=torch.bool)) for shape in SHAPES]
CASES += [((3, 5, 4), MASK)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draw(*shape, mean=0.0, deviation=1.0):
    """Return normally distributed numbers in float64."""
    return mean + deviation * torch.randn(*shape, dtype=torch.float64)


def same(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def random_norm(T, d):
    """Return a MyLayerNorm in float64 with random parameters."""
    layer = MyLayerNorm((T, d)).double()
    nn.init.normal_(layer.gamma, mean=1)
    nn.init.normal_(layer.beta)
    return layer


def random_block(T, d, dropout=0.1):
    """Return a MyTransformerBlock in float64 and evaluation mode with random parameters."""
    block = models.MyTransformerBlock(T, d, dropout).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


def make_vocab(words=12, d=6):
    """Return the words w0 (the most frequent), w1, ... after "<unk>" (0) and "<pad>" (1), with random vectors."""
    vocab = Vocab(Counter({f"w{i}": words - i for i in range(words)}))
    vocab.vectors = torch.randn(len(vocab), d)
    return vocab


def make_network(**options):
    """Return a small MyTransformer in evaluation mode with random gammas and betas."""
    network = models.MyTransformer(make_vocab(), **{"max_len": 9, "num_of_blocks": 2} | options)
    for name, parameter in network.named_parameters():
        if name.endswith(("gamma", "beta")):
            nn.init.normal_(parameter, mean=1)
    return network.eval()


def pad(rows, T):
    """Return lists of ids as a tensor (B, T), padded with 1."""
    return torch.tensor([row + [1] * (T - len(row)) for row in rows])


# The kernels of PyTorch with the weights of the layers


def pytorch_attention(layer, x, mask=None):
    return F.scaled_dot_product_attention(layer.W_q(x), layer.W_k(x), layer.W_v(x),
                                          attn_mask=None if mask is None else mask.unsqueeze(1))


def pytorch_norm(norm, x):
    T = x.shape[1]
    return F.layer_norm(x, x.shape[1:], norm.gamma[:T], norm.beta[:T], eps=1e-8)


def pytorch_feed_forward(block, x):
    return pytorch_norm(block.norm2, block.fc2(F.relu(block.fc1(x))) + x)


def pytorch_block(block, x):
    return pytorch_feed_forward(block, pytorch_norm(block.norm1, pytorch_attention(block.attention, x) + x))


# The formulas, in float64


@exercise
@pytest.mark.parametrize("name", [ATTENTION, NORM])
def test_layer_is_the_formula_whatever_its_weights_are_called(name):
    verdict = judge(name, getattr(models, name))
    assert verdict["right"], "\n".join(describe(name, verdict))


@pytest.mark.parametrize(("shape", "mask"), CASES)
def test_attention_is_the_formula_over_the_real_tokens(shape, mask):
    layer, x = MySelfAttention(shape[2]).double(), draw(*shape)
    y = layer(x, mask)
    assert y.shape == shape
    same(y[mask], attention_oracle(layer, x, mask)[mask])
    same(y[mask], pytorch_attention(layer, x, mask)[mask])
    same(layer(100 * x, mask)[mask], pytorch_attention(layer, 100 * x, mask)[mask])  # a sharp softmax must not overflow
    if mask.all():
        same(layer(x), y)


@pytest.mark.parametrize(("shape", "mask"), CASES)
def test_norm_is_the_formula_over_the_real_tokens(shape, mask):
    layer, x = random_norm(shape[1] + 2, shape[2]), draw(*shape, mean=2, deviation=3)  # its first rows count
    y = layer(x, mask)
    same(y[mask], norm_oracle(layer, x, mask)[mask])
    if mask.all():
        same(layer(x), y)
        same(y, pytorch_norm(layer, x))


@pytest.mark.parametrize("shape", SHAPES)
def test_block_is_its_formula(shape):
    block, x = random_block(shape[1] + 2, shape[2]), draw(*shape)
    same(block(x), pytorch_block(block, x), 1e-9)


def test_layers_have_the_exercises_parameters():
    assert {name: tuple(p.shape) for name, p in MySelfAttention(4).named_parameters()} == {
        "W_q.weight": (4, 4), "W_k.weight": (4, 4), "W_v.weight": (4, 4)}
    norm = MyLayerNorm((5, 4))
    assert {name for name, _ in norm.named_parameters()} == {"gamma", "beta"}
    assert norm.gamma.equal(torch.ones(5, 4))
    assert norm.beta.equal(torch.zeros(5, 4))


# Corner cases


@pytest.mark.parametrize("deviation", [0, 1e-6, 1e-4, 1e-3])
def test_eps_stands_inside_the_root(deviation):
    """If the variance is about 1e-8 or less, the result depends on eps."""
    layer, x = random_norm(5, 4), draw(3, 5, 4, mean=2, deviation=deviation)
    same(layer(x), norm_oracle(layer, x, WHOLE), 1e-9)
    if deviation == 0:
        same(layer(x), layer.beta.expand(3, 5, 4))


def test_norm_far_from_zero_keeps_its_digits():
    """In float32, E[x²] - E[x]² would have no correct digits here."""
    x, norm = 1000 + torch.randn(3, 5, 4), MyLayerNorm((5, 4))
    for mask in (WHOLE, MASK):
        same(norm(x, mask)[mask].double(), norm_oracle(norm, x.double(), mask)[mask], 1e-3)


@pytest.fixture
def layer(request):
    """A layer with random parameters, in float64, or in float32 if a solution supports only that."""
    torch.manual_seed(1)
    if request.param == "block":
        return random_block(5, 4)
    layer = build(request.param, getattr(models, request.param), 5, 4).double()
    for parameter in layer.parameters():
        if parameter.numel() > 1:
            nn.init.normal_(parameter, mean=request.param == NORM)
    try:
        layer(draw(1, 5, 4))
    except (RuntimeError, AssertionError):
        layer.float()
    return layer


LAYERS = pytest.mark.parametrize("layer", [ATTENTION, NORM, "block"], indirect=True)
LAYERS_AND_MASKS = pytest.mark.parametrize(("layer", "mask"), [
    *(pytest.param(name, None, marks=exercise, id=f"{name}-whole") for name in (ATTENTION, NORM)),
    pytest.param("block", None, id="block-whole"),
    *(pytest.param(name, MASK, id=f"{name}-masked") for name in (ATTENTION, NORM, "block"))], indirect=["layer"])


def call(layer, x, mask):
    """Return the result of a layer. Solutions of other people take no mask."""
    x = x.to(next(layer.parameters()).dtype)
    return layer(x) if mask is None else layer(x, mask)


@LAYERS
def test_masked_result_is_that_of_the_unpadded_review(layer):
    x = draw(1, 3, 4)
    padded = torch.cat([x, torch.full((1, 2, 4), 1e3, dtype=torch.float64)], dim=1)
    same(layer(padded, torch.tensor([[True] * 3 + [False] * 2]))[:, :3], layer(x))


@LAYERS
def test_a_review_of_padding_alone_is_finite(layer):
    x = draw(2, 5, 4).requires_grad_()
    y = layer(x, torch.tensor([[False] * 5, [True] * 5]))
    gradients = torch.autograd.grad(y.sum(), [x, *layer.parameters()])
    assert all(numbers.isfinite().all() for numbers in (y, *gradients))


@LAYERS_AND_MASKS
def test_reviews_of_a_batch_are_independent(layer, mask):
    x = draw(3, 5, 4)
    for b in range(3):
        same(call(layer, x, mask)[b:b + 1], call(layer, x[b:b + 1], None if mask is None else mask[b:b + 1]), 1e-6)


@LAYERS_AND_MASKS
def test_input_may_be_non_contiguous_and_is_not_changed(layer, mask):
    x = draw(4, 3, 5).to(next(layer.parameters()).dtype).permute(1, 2, 0)
    assert not x.is_contiguous()
    before, mask_before = x.clone(memory_format=torch.contiguous_format), MASK.clone()
    same(call(layer, x, mask), call(layer, before, mask), 1e-6)
    assert x.equal(before)
    assert mask_before.equal(MASK)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@LAYERS
def test_gradients(layer, mask):
    """The gradients of the input and of the parameters equal finite differences."""
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def forward(x, *parameters):
        y = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, mask))
        return y if mask is None else y[mask]

    assert torch.autograd.gradcheck(forward, (draw(3, 5, 4).requires_grad_(), *parameters), fast_mode=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@LAYERS
def test_result_has_the_dtype_of_the_input(layer, mask, dtype, tolerance):
    x, real = draw(3, 5, 4).to(dtype), WHOLE if mask is None else mask
    y = layer.to(dtype)(x, mask)
    expected = layer.double()(x.double(), mask)[real]
    assert y.dtype == dtype
    assert (y[real].double() - expected).abs().max() / expected.abs().max() < tolerance


# The source


def test_layers_have_no_loops():
    """MyTransformer may loop over its blocks."""
    nodes = []
    for top in ast.parse(SOURCE.read_text(encoding="utf-8")).body:
        if getattr(top, "name", None) != "MyTransformer":
            nodes += ast.walk(top)
    loops = ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
    assert not [ast.unparse(node) for node in nodes if isinstance(node, loops)]
    names = {getattr(node, "attr", getattr(node, "id", None)) for node in nodes}
    assert "softmax" in names, "the walk must reach the layers"
    assert not names & {"map", "vmap", "vectorize", "apply_along_axis", "unbind", "tolist"}


def test_attention_multiplies_with_bmm(monkeypatch):
    calls, bmm = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *args, **kwargs: calls.append(args) or bmm(*args, **kwargs))
    MySelfAttention(4)(torch.randn(3, 5, 4))
    assert calls


def test_import_has_no_side_effects():
    code = ("import torch; before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(); "
            "import models; assert before[0].equal(torch.get_rng_state()); "
            "assert before[1:] == (torch.get_default_dtype(), torch.get_num_threads())")
    assert run_python("-c", code, cwd=SOURCE.parent) == (0, "", "")


# Dropout and the network


def test_dropout_stands_between_attention_and_residual():
    block, x = random_block(5, 4, dropout=1.0).train(), draw(3, 5, 4)
    same(block(x), pytorch_feed_forward(block, pytorch_norm(block.norm1, x)), 1e-9)


def test_dropout_is_a_tenth_by_default():
    def probabilities(module):
        return {m.p for m in module.modules() if isinstance(m, nn.Dropout)}
    assert probabilities(models.MyTransformerBlock(5, 4)) == {0.1}
    assert probabilities(models.MyTransformer(make_vocab(), 9, 1)) == {0.1}
    assert probabilities(models.MyTransformer(make_vocab(), 9, 1, dropout=0.3)) == {0.3}


def test_dropout_is_for_training_only():
    network, ids = make_network(dropout=0.5), torch.randint(2, 14, (4, 7))
    assert network(ids).equal(network(ids))
    network.train()
    assert not network(ids).allclose(network(ids))


@pytest.mark.parametrize("num_of_blocks", [1, 3])
def test_network_is_vectors_blocks_mean_and_linear(num_of_blocks):
    network, ids = make_network(num_of_blocks=num_of_blocks), torch.randint(2, 14, (4, 7))
    ids[0, :2] = 0  # an unknown word is a token like any other
    x = network.embedding.weight[ids]
    assert len(network.blocks) == num_of_blocks
    assert len(list(network.parameters())) == 1 + 11 * num_of_blocks + 2, "no block shares its weights"
    for block in network.blocks:
        x = pytorch_block(block, x)
    logits = network(ids)
    assert logits.shape == (4, 1)
    same(logits, network.fc(x.mean(dim=1)), 1e-4)


def test_logits_do_not_depend_on_padding_and_other_reviews():
    network = make_network()
    rows = [[3], [4, 5], [0, 2, 3, 7, 9], [6, 6, 2, 8, 11, 12, 13, 2, 5]]
    alone = torch.cat([network(torch.tensor([row])) for row in rows])
    same(network(pad(rows, 9)), alone, 1e-5)
    same(network(pad(rows[:3], 7)), alone[:3], 1e-5)
    same(network(pad(rows[:3], 5).flip(0)), alone[:3].flip(0), 1e-5)
    assert len(set(alone.flatten().tolist())) == 4


def test_batch_longer_than_max_len_is_refused():
    network = make_network(max_len=9)
    network(torch.randint(2, 14, (2, 9)))
    with pytest.raises(ValueError, match=r"\b10\b.*\b9\b|\b9\b.*\b10\b"):
        network(torch.randint(2, 14, (2, 10)))


def test_review_of_padding_alone_has_finite_logit_and_gradients():
    network = make_network().train()
    logits = network(pad([[], [3, 4, 5]], 3))
    assert logits.isfinite().all()
    F.binary_cross_entropy_with_logits(logits.squeeze(1), torch.tensor([0.0, 1.0])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("freeze", [False, True])
def test_freeze_decides_whether_word_vectors_are_trained(freeze):
    vocab = make_vocab()
    before = vocab.vectors.clone()
    network = models.MyTransformer(vocab, 9, 1, freeze=freeze)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(pad([[2, 3], [4, 5, 6]], 4)).sum().backward()
    optimizer.step()
    after = network.embedding.weight.detach()
    assert after[2:7].equal(before[2:7]) == freeze
    assert after[1].equal(before[1]), "the vector of padding must stay"
    assert vocab.vectors.equal(before), "the vocabulary must keep GloVe's vectors"


@pytest.mark.parametrize("num_of_blocks", [1, 2])
def test_training_code_of_the_skeleton_lowers_the_loss(num_of_blocks):
    """Positive reviews contain w0 (id 2), and negative ones w1 (id 3)."""
    rows = [torch.randint(4, 14, (3 + i % 7,)).tolist() for i in range(64)]
    for i, row in enumerate(rows):
        row[i % len(row)] = 2 + i % 2
    targets = torch.tensor([1.0 - i % 2 for i in range(64)])
    train_loader = list(zip(pad(rows, 9).split(16), targets.split(16), strict=True))
    model = models.MyTransformer(make_vocab(), 9, num_of_blocks)
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            logits = model(inputs)
            loss = criterion(logits.squeeze(1), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[0] > 0.4
    assert losses[-1] < 0.1
