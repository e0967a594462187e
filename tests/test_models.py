"""The layers beside plain loops over the exercise's formulas, beside PyTorch's own kernels, and under training."""

import ast
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.nn import functional as F
from torchtext.vocab import Vocab

import models
from models import MyLayerNorm, MySelfAttention, MyTransformer, MyTransformerBlock

SHAPES = [(3, 5, 4), (2, 3, 7), (1, 6, 4), (4, 1, 5), (3, 4, 1), (1, 1, 1)]  # (B, T, d)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0]], dtype=torch.bool)  # the last one has holes
SOURCE = Path(models.__file__)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_norm(T, d, dtype=torch.float64):
    """A MyLayerNorm whose gamma and beta differ everywhere."""
    norm = MyLayerNorm((T, d)).to(dtype)
    nn.init.normal_(norm.gamma, mean=1)
    nn.init.normal_(norm.beta)
    return norm


def random_block(T, d, dropout=0.1):
    block = MyTransformerBlock(T, d, dropout).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


def make_vocab(words=12, d=6):
    """Words w0 (the most frequent), w1, ... after "<unk>" (0) and "<pad>" (1), with random vectors."""
    vocab = Vocab(Counter({f"w{i}": words - i for i in range(words)}))
    vocab.vectors = torch.randn(len(vocab), d)
    return vocab


def make_network(**options):
    """A small MyTransformer in evaluation mode whose gammas and betas differ everywhere."""
    options = {"max_len": 9, "num_of_blocks": 2} | options
    network = MyTransformer(make_vocab(), **options)
    for name, parameter in network.named_parameters():
        if name.endswith(("gamma", "beta")):
            nn.init.normal_(parameter, mean=1)
    return network.eval()


def pad(rows, T):
    return torch.tensor([row + [1] * (T - len(row)) for row in rows])


def same(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


# The formulas, in float64


@pytest.mark.parametrize(("B", "T", "d"), SHAPES)
def test_attention_is_the_formula(B, T, d):
    layer, x = MySelfAttention(d).double(), torch.randn(B, T, d, dtype=torch.float64)
    expected = attention_oracle(layer, x, torch.ones(B, T))
    assert expected.shape == (B, T, d)
    same(layer(x), expected)
    same(layer(x, torch.ones(B, T, dtype=torch.bool)), expected)


@pytest.mark.parametrize(("B", "T", "d"), SHAPES)
def test_norm_is_the_formula(B, T, d):
    layer, x = random_norm(T, d), 3 * torch.randn(B, T, d, dtype=torch.float64) + 2
    expected = norm_oracle(layer, x, torch.ones(B, T))
    same(layer(x), expected)
    same(layer(x, torch.ones(B, T, dtype=torch.bool)), expected)


def test_masked_attention_is_the_formula_over_the_real_tokens():
    layer, x = MySelfAttention(4).double(), torch.randn(3, 5, 4, dtype=torch.float64)
    same(layer(x, MASK)[MASK], attention_oracle(layer, x, MASK)[MASK])


def test_masked_norm_is_the_formula_over_the_real_tokens():
    layer, x = random_norm(5, 4), 3 * torch.randn(3, 5, 4, dtype=torch.float64) + 2
    same(layer(x, MASK)[MASK], norm_oracle(layer, x, MASK)[MASK])


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_pytorchs(masked):
    layer, x = MySelfAttention(4).double(), torch.randn(3, 5, 4, dtype=torch.float64)
    mask = MASK if masked else None
    expected = F.scaled_dot_product_attention(layer.W_q(x), layer.W_k(x), layer.W_v(x),
                                              attn_mask=MASK.unsqueeze(1) if masked else None)
    real = MASK if masked else torch.ones_like(MASK)
    same(layer(x, mask)[real], expected[real])


@pytest.mark.parametrize(("B", "T", "d"), SHAPES)
def test_norm_is_pytorchs_over_tokens_and_features(B, T, d):
    layer, x = random_norm(T, d), torch.randn(B, T, d, dtype=torch.float64)
    same(layer(x), F.layer_norm(x, x.shape[1:], layer.gamma, layer.beta, eps=1e-8))


def test_layers_have_the_exercises_parameters():
    assert {name: tuple(p.shape) for name, p in MySelfAttention(4).named_parameters()} == {
        "W_q.weight": (4, 4), "W_k.weight": (4, 4), "W_v.weight": (4, 4)}
    norm = MyLayerNorm((5, 4))
    assert {name for name, _ in norm.named_parameters()} == {"gamma", "beta"}
    assert norm.gamma.equal(torch.ones(5, 4))
    assert norm.beta.equal(torch.zeros(5, 4))


# Corner cases


def test_sharp_attention_does_not_overflow():
    layer, x = MySelfAttention(4).double(), 100 * torch.randn(2, 5, 4, dtype=torch.float64)
    same(layer(x), F.scaled_dot_product_attention(layer.W_q(x), layer.W_k(x), layer.W_v(x)))


def test_statistics_of_the_normalised_output():
    y = MyLayerNorm((6, 5)).double()(7 * torch.randn(4, 6, 5, dtype=torch.float64) - 3)
    same(y.mean(dim=(1, 2)), torch.zeros(4, dtype=torch.float64))
    same(y.var(dim=(1, 2), correction=0), torch.ones(4, dtype=torch.float64), 1e-8)
    assert y.mean(dim=2).abs().min() > 1e-3, "tokens must keep their own means"


def test_masked_statistics_of_the_normalised_output():
    y = MyLayerNorm((5, 4)).double()(7 * torch.randn(3, 5, 4, dtype=torch.float64) - 3, MASK)
    for row, real in zip(y, MASK, strict=True):
        assert row[real].mean().item() == pytest.approx(0, abs=1e-12)
        assert row[real].var(correction=0).item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("spread", [0, 1e-6, 1e-4, 1e-3])
def test_eps_stands_inside_the_root(spread):
    """Where the variance is about 1e-8 or less, eps decides the result."""
    layer, x = random_norm(5, 4), spread * torch.randn(3, 5, 4, dtype=torch.float64) + 2
    y = layer(x)
    same(y, norm_oracle(layer, x, torch.ones(3, 5)), 1e-9)
    if spread == 0:
        same(y, layer.beta.expand(3, 5, 4))


@pytest.mark.parametrize("masked", [False, True])
def test_short_batch_takes_the_first_rows_of_gamma_and_beta(masked):
    long, short = random_norm(8, 4), MyLayerNorm((5, 4)).double()
    short.load_state_dict({"gamma": long.gamma[:5], "beta": long.beta[:5]})
    x, mask = torch.randn(3, 5, 4, dtype=torch.float64), MASK if masked else None
    same(long(x, mask), short(x, mask))


@pytest.mark.parametrize("layer", [MySelfAttention(4).double(), random_norm(5, 4), random_block(5, 4)],
                         ids=["attention", "norm", "block"])
class TestEachLayer:
    def test_masked_result_is_that_of_the_unpadded_sentence(self, layer):
        x = torch.randn(1, 3, 4, dtype=torch.float64)
        padded = torch.cat([x, torch.full((1, 2, 4), 1e3, dtype=torch.float64)], dim=1)
        same(layer(padded, torch.tensor([[True] * 3 + [False] * 2]))[:, :3], layer(x))

    @pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
    def test_permuting_the_batch_permutes_the_output(self, layer, mask):
        x, order = torch.randn(3, 5, 4, dtype=torch.float64), torch.tensor([2, 0, 1])
        same(layer(x[order], None if mask is None else mask[order]), layer(x, mask)[order])

    @pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
    def test_reviews_do_not_see_each_other(self, layer, mask):
        x = torch.randn(3, 5, 4, dtype=torch.float64)
        for b in range(3):
            same(layer(x, mask)[b:b + 1], layer(x[b:b + 1], None if mask is None else mask[b:b + 1]))

    @pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
    def test_non_contiguous_input(self, layer, mask):
        x = torch.randn(4, 3, 5, dtype=torch.float64).permute(1, 2, 0)
        assert not x.is_contiguous()
        same(layer(x, mask), layer(x.contiguous(), mask))

    @pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
    def test_input_stays_as_it_was(self, layer, mask):
        x = torch.randn(3, 5, 4, dtype=torch.float64)
        before, mask_before = x.clone(), MASK.clone()
        layer(x, mask)
        assert x.equal(before)
        assert mask_before.equal(MASK)

    def test_a_review_of_padding_alone_is_finite(self, layer):
        x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
        mask = torch.tensor([[False] * 5, [True] * 5])
        y = layer(x, mask)
        assert y.isfinite().all()
        gradients = torch.autograd.grad(y.sum(), [x, *layer.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)

    @pytest.mark.parametrize("masked", [False, True])
    def test_gradients(self, layer, masked):
        """The gradients of input and parameters are those that finite differences give."""
        x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
        mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
        names, parameters = zip(*layer.named_parameters(), strict=True)

        def forward(x, *parameters):
            y = functional_call(layer, dict(zip(names, parameters, strict=True)), (x, mask if masked else None))
            return y[mask] if masked else y

        assert gradcheck(forward, (x, *parameters), fast_mode=True)

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
    def test_keeps_the_type_of_numbers(self, layer, dtype, tolerance, masked):
        mask = MASK if masked else torch.ones_like(MASK)
        x = torch.randn(3, 5, 4).to(dtype)
        state = {name: parameter.to(dtype) for name, parameter in layer.named_parameters()}
        y = functional_call(layer, state, (x, mask if masked else None))
        expected = functional_call(layer, {name: p.double() for name, p in state.items()}, (x.double(), mask))
        assert y.dtype == dtype
        difference = (y.double() - expected)[mask].abs().max() / expected[mask].abs().max()
        assert difference < tolerance


def test_norm_far_from_zero_keeps_its_digits():
    """E[x²] - E[x]² has no digits left here in float32."""
    x = 1000 + torch.randn(3, 5, 4)
    same(MyLayerNorm((5, 4))(x).double(), F.layer_norm(x.double(), (5, 4), eps=1e-8), 1e-3)
    same(MyLayerNorm((5, 4))(x, MASK)[MASK].double(),
         norm_oracle(MyLayerNorm((5, 4)), x.double(), MASK)[MASK], 1e-3)


# The source


def layer_nodes():
    """Every node of models.py outside the two classes whose loops over blocks are fine."""
    for top in ast.parse(SOURCE.read_text(encoding="utf-8")).body:
        if getattr(top, "name", None) not in ("MyTransformerBlock", "MyTransformer"):
            yield from ast.walk(top)


def test_layers_have_no_loops():
    loops = ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
    assert not [ast.unparse(node) for node in layer_nodes() if isinstance(node, loops)]
    hidden = {"map", "vmap", "vectorize", "apply_along_axis", "unbind", "tolist"}
    names = {getattr(node, "attr", getattr(node, "id", None)) for node in layer_nodes()}
    assert "softmax" in names, "the walk must reach the layers"
    assert not names & hidden


def test_attention_multiplies_with_bmm(monkeypatch):
    calls, bmm = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *args, **kwargs: calls.append(args) or bmm(*args, **kwargs))
    MySelfAttention(4)(torch.randn(3, 5, 4))
    assert calls


def test_imports_torch_only_and_has_no_side_effects():
    imported = {name.partition(".")[0] for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8")))
                for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                             else [node.module] if isinstance(node, ast.ImportFrom) else [])}
    assert imported - sys.stdlib_module_names == {"torch"}
    code = ("import torch; before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(); "
            "import models; assert before[0].equal(torch.get_rng_state()); "
            "assert before[1:] == (torch.get_default_dtype(), torch.get_num_threads())")
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCE.parent, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The block and the network


def feed_forward(block, x):
    return block.fc2(F.relu(block.fc1(x)))


def layer_norm(norm, x):
    T = x.shape[1]
    return F.layer_norm(x, x.shape[1:], norm.gamma[:T], norm.beta[:T], eps=1e-8)


def block_oracle(block, x):
    """The block's formula from PyTorch's kernels and the block's own weights, without padding and dropout."""
    a = block.attention
    x = layer_norm(block.norm1, F.scaled_dot_product_attention(a.W_q(x), a.W_k(x), a.W_v(x)) + x)
    return layer_norm(block.norm2, feed_forward(block, x) + x)


@pytest.mark.parametrize(("B", "T", "d"), SHAPES)
def test_block_is_its_formula(B, T, d):
    block, x = random_block(T + 2, d), torch.randn(B, T, d, dtype=torch.float64)
    same(block(x), block_oracle(block, x), 1e-9)


def test_dropout_stands_between_attention_and_residual():
    block, x = random_block(5, 4, dropout=1.0).train(), torch.randn(3, 5, 4, dtype=torch.float64)
    h = layer_norm(block.norm1, x)  # all of the attention's output is dropped
    same(block(x), layer_norm(block.norm2, feed_forward(block, h) + h), 1e-9)


def test_dropout_is_a_tenth_unless_asked_otherwise():
    def probabilities(module):
        return {m.p for m in module.modules() if isinstance(m, nn.Dropout) and m.p}
    assert probabilities(MyTransformerBlock(5, 4)) == {0.1}
    assert probabilities(MyTransformer(make_vocab(), 9, 1)) == {0.1}
    assert probabilities(MyTransformer(make_vocab(), 9, 1, dropout=0.3)) == {0.3}


@pytest.mark.parametrize("num_of_blocks", [1, 3])
def test_network_is_vectors_blocks_mean_and_linear(num_of_blocks):
    network = make_network(num_of_blocks=num_of_blocks)
    ids = torch.randint(2, 14, (4, 7))
    x = network.embedding.weight[ids]
    assert len(network.blocks) == num_of_blocks
    for block in network.blocks:
        x = block_oracle(block, x)
    logits = network(ids)
    assert logits.shape == (4, 1)
    same(logits, network.fc(x.mean(dim=1)), 1e-4)


def test_logits_do_not_depend_on_padding_and_batch_mates():
    network = make_network()
    rows = [[3], [4, 5], [0, 2, 3, 7, 9], [6, 6, 2, 8, 11, 12, 13, 2, 5]]
    alone = torch.cat([network(torch.tensor([row])) for row in rows])
    same(network(pad(rows, 9)), alone, 1e-5)
    same(network(pad(rows[:3], 7)), alone[:3], 1e-5)
    same(network(pad(rows[:3], 5).flip(0)), alone[:3].flip(0), 1e-5)
    assert len(set(alone.flatten().tolist())) == 4


def test_channels_stand_beside_the_word_vectors_and_padding_hides_theirs():
    network = make_network(channels=2)
    ids, channels = pad([[3, 4], [5, 6, 7]], 3), torch.randn(2, 3, 2)
    logits = network(ids, channels)
    assert logits.shape == (2, 1)
    same(network(ids[:1, :2], channels[:1, :2]), logits[:1], 1e-5)
    same(network(pad([[3, 4]], 5), F.pad(channels[:1], (0, 0, 0, 2), value=9.0)), logits[:1], 1e-5)
    assert ((network(ids, channels + 1) - logits).abs() > 1e-3).all()


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_about_the_same_logits(dtype):
    """What CUDA trains in, at the exercise's size: nothing overflows, and padding stays hidden."""
    network = MyTransformer(make_vocab(d=50), 500, 1).eval()
    ids = torch.randint(2, 14, (2, 500))
    ids[0, 100:] = 1
    with torch.no_grad():
        expected = network(ids)
        with torch.autocast("cpu", dtype):
            logits = network(ids)
    same(logits.float(), expected, 0.02)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"dropout": 0.0, "input_dropout": 0.5}])
def test_dropout_acts_in_training_only(options):
    network, ids = make_network(**options), torch.randint(2, 14, (4, 7))
    assert network(ids).equal(network(ids))
    network.train()
    assert not network(ids).allclose(network(ids))


@pytest.mark.parametrize("freeze", [False, True])
def test_freeze_decides_whether_word_vectors_are_trained(freeze):
    vocab = make_vocab()
    before = vocab.vectors.clone()
    network = MyTransformer(vocab, 9, 1, freeze=freeze)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.1)
    network(pad([[2, 3], [4, 5, 6]], 4)).sum().backward()
    optimizer.step()
    after = network.embedding.weight.detach()
    assert after[2:7].equal(before[2:7]) == freeze
    assert after[1].equal(before[1]), "the vector of padding must stay"
    assert vocab.vectors.equal(before), "the vocabulary must keep GloVe's vectors"


def toy_reviews():
    """Reviews of 3 to 9 words; the positive ones hold w0 (id 2), the negative ones w1 (id 3)."""
    rows, labels = [], []
    for i in range(64):
        row = torch.randint(4, 14, (3 + i % 7,)).tolist()
        row[i % len(row)] = 2 + i % 2
        rows.append(row)
        labels.append(1.0 - i % 2)
    return pad(rows, 9).split(16), torch.tensor(labels).split(16)


@pytest.mark.parametrize("num_of_blocks", [1, 2])
def test_the_skeletons_training_code_lowers_the_loss(num_of_blocks):
    train_loader = list(zip(*toy_reviews(), strict=True))
    model = MyTransformer(make_vocab(), 9, num_of_blocks)
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
