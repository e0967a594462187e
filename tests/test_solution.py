"""`--models FILE` trains the network of another file, with our data, loop, plot and test."""

import pytest
import torch

from helpers.solution import HandoutTransformer, load_module
from tests.toy import ROOT, read_json, refused, train_toy

LAYERS = """
import torch
from torch import nn
class MySelfAttention(nn.Module):
    def __init__(self, input_dim):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(input_dim, input_dim, bias=False) for _ in range(3))
    def forward(self, x):
        scores = torch.bmm(self.q(x), self.k(x).transpose(1, 2)) / x.shape[2] ** 0.5
        return torch.bmm(scores.softmax(dim=2), self.v(x))
class MyLayerNorm(nn.Module):
    def __init__(self, input_dim):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(input_dim)), nn.Parameter(torch.zeros(input_dim))
    def forward(self, x):
        mean, var = x.mean((1, 2), keepdim=True), x.var((1, 2), unbiased=False, keepdim=True)
        return self.gamma * (x - mean) / torch.sqrt(var + 1e-8) + self.beta
"""
NETWORK = """
class MyTransformer(nn.Module):
    def __init__(self, vocab, max_len, num_of_blocks):
        super().__init__()
        self.embedding, self.fc = nn.Embedding.from_pretrained(vocab.vectors), nn.Linear(max_len, 1)
    def forward(self, x):
        return self.fc(self.embedding(x).mean(2))
"""


@pytest.mark.parametrize("source", [LAYERS, LAYERS + NETWORK], ids=["layers alone", "network"])
def test_network_of_another_file_is_trained_and_tested(data, tmp_path, capsys, source):
    """With padding to max_len (the network has a weight for each position), and without a model.pt."""
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    run = train_toy(data, tmp_path, "run", "--epochs", 3, "--models", tmp_path / "mine.py")
    assert {path.name for path in run.iterdir()} == {"metrics.json", "loss.png"}
    metrics = read_json(run / "metrics.json")
    assert metrics["models"] == str(tmp_path / "mine.py")
    assert len(metrics["epochs"]) == 3
    assert metrics["epochs"][-1]["train_loss"] < metrics["epochs"][0]["train_loss"]
    assert sum(map(sum, metrics["test"]["confusion"])) == 60
    assert "mine.py" in capsys.readouterr().out


def test_layers_alone_get_the_network_of_the_hand_out(tmp_path):
    """Our own layers in it give the logits of our own network on reviews without padding."""
    class Vocab:
        stoi, vectors = {"<pad>": 1}, torch.randn(7, 4)

    module = load_module(ROOT / "models.py")
    torch.manual_seed(0)
    theirs = HandoutTransformer(module, Vocab, 5, 2, 0.1, False).eval()
    ours = module.MyTransformer(Vocab, 5, 2).eval()
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(2, 7, (3, 5))
    torch.testing.assert_close(theirs(ids), ours(ids))


@pytest.mark.parametrize(("source", "words"), [
    (None, "cannot open"), ("x = 1", "no class MySelfAttention"), ("import no_such_module", "no_such_module"),
    ("raise SystemExit", "cannot be imported"), ("def f(:", "SyntaxError"),
    (LAYERS + NETWORK.replace("nn.Linear(max_len, 1)", "nn.Linear(3, 1)"), "fails on ids of shape"),
    (LAYERS + NETWORK.replace("nn.Linear(max_len, 1)", "nn.Linear(max_len, 2)"), "one logit for each"),
    (LAYERS + NETWORK.replace("return", "torch.empty(10**15); return"), "--batch-size"),
    (LAYERS + NETWORK.replace("(self, vocab, ", "(self, words, "), "cannot be built")])
def test_file_that_is_no_solution_is_refused(call, tmp_path, source, words):
    if source is not None:
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    options = ["--sample", "--epochs", 1, "--cache-dir", tmp_path / "cache", "--runs-dir", tmp_path / "runs"]
    assert words in refused(*call("--models", tmp_path / "mine.py", *options))
    assert not list((tmp_path / "runs").glob("*/metrics.json"))


def test_bonus_and_models_exclude_each_other(call, tmp_path):
    assert "--models" in refused(*call("--models", tmp_path / "m.py", "--preset", "bonus", "--data-dir", tmp_path))
