"""Networks that others might write take the place of `models.py`: training on the sample, predict and the bonus."""

import sys

import pytest

import sentiment_analysis
from helpers import UserError
from helpers.imdb import SAMPLE
from helpers.predictor import Predictor, models_text
from predict import __main__ as predict
from sentiment_analysis import parse_args, settings_of
from tests.toy import probabilities, read_json, use_models

# As in the hand-out, with fixed vectors: no mask, and no other arguments than the exercise's.
HANDOUT = '''
import math
import torch
from torch import nn

class SelfAttention(nn.Module):
    def __init__(self, input_dim):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(input_dim, input_dim) for _ in range(3))

    def forward(self, x):
        scores = self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(x.shape[2])
        return torch.softmax(scores, dim=2) @ self.value(x)

class Norm(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        var, mean = torch.var_mean(x, dim=(1, 2), keepdim=True, correction=0)
        return self.gamma * (x - mean) / torch.sqrt(var + 1e-8) + self.beta

class MyTransformerBlock(nn.Module):
    def __init__(self, max_len, input_dim):
        super().__init__()
        self.reads, self.first, self.second = SelfAttention(input_dim), Norm((max_len, input_dim)), Norm(input_dim)
        self.mlp = nn.Sequential(nn.Linear(input_dim, input_dim), nn.ReLU(), nn.Linear(input_dim, input_dim))

    def forward(self, x):
        x = self.first(self.reads(x) + x)
        return self.second(self.mlp(x) + x)

class MyTransformer(nn.Module):
    def __init__(self, vocab, max_len, num_of_blocks):
        super().__init__()
        self.vectors = nn.Embedding.from_pretrained(vocab.vectors)
        d = vocab.vectors.shape[1]
        self.encoder = nn.Sequential(*[MyTransformerBlock(max_len, d) for _ in range(num_of_blocks)])
        self.last = nn.Linear(d, 1)

    def forward(self, ids):
        return self.last(self.encoder(self.vectors(ids)).mean(dim=1))
'''
QUICK = ["--epochs", "1", "--max-len", "40", "--min-freq", "3", "--device", "cpu"]
EXTRA_LAYER = '''
import torch
_MyTransformer = MyTransformer

class MyTransformer(_MyTransformer):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.more = torch.nn.Linear(1, 1)

    def forward(self, ids):
        return self.more(super().forward(ids))
'''
OWN = {
    "other names and biases": HANDOUT,
    "trained vectors, logits (B,)": HANDOUT.replace("from_pretrained(vocab.vectors)", "from_pretrained(vocab.vectors, "
                                                    "freeze=False)").replace(".mean(dim=1))", ".mean(dim=1))[:, 0]"),
    "options": HANDOUT.replace("num_of_blocks):", "num_of_blocks, dropout=0.1, freeze=True):").replace(
        "nn.ReLU()", "nn.ReLU(), nn.Dropout(0.2)"),
    "an extra layer": models_text() + EXTRA_LAYER,
}


@pytest.mark.parametrize("name", OWN)
def test_own_models_py_is_trained_and_used_everywhere(call, monkeypatch, tmp_path, name):
    use_models(monkeypatch, OWN[name])
    _, out, _ = call(sentiment_analysis.main, "--sample", *QUICK, "--out", "mine")
    assert out.splitlines()[-1].startswith("SAMPLE")
    settings = read_json(tmp_path / "mine" / "metrics.json")["settings"]
    assert settings["dropout"] == (0.1 if name == "options" else None)
    code, out, err = call(predict.main, "A superb film.", "--model", "mine/model.pt", "--explain", "why.html")
    assert (code, "%" in out, "models.py" in err) == (0, True, False)
    assert "superb" in (tmp_path / "why.html").read_text(encoding="utf-8")
    call(sentiment_analysis.main, "--preset", "bonus", "--data-dir", SAMPLE, *QUICK, "--out", "bonus")
    assert probabilities(Predictor.load("bonus/model.pt"), ["superb", "awful"]).isfinite().all()


def test_options_that_the_network_does_not_take_are_refused(monkeypatch):
    use_models(monkeypatch, HANDOUT)
    assert settings_of(parse_args([]))["dropout"] == 0.1
    for options in (["--dropout", "0.5"], ["--freeze"]):
        with pytest.raises(SystemExit):
            parse_args(options)


def test_without_its_class_or_its_folder_only_the_bonus_is_refused(monkeypatch):
    use_models(monkeypatch, HANDOUT.replace("MyTransformerBlock", "Block"))
    with pytest.raises(UserError, match="MyTransformerBlock"):
        parse_args(["--preset", "bonus"])
    monkeypatch.setitem(sys.modules, "helpers.bonus", None)
    with pytest.raises(UserError, match="helpers/bonus"):
        parse_args(["--preset", "bonus"])
    parse_args([])
