"""A `model.pt` as `Predictor` reads it, beside spaCy and `MyTransformer` on one review at a time."""

import math
from collections import Counter

import numpy as np
import pytest
import spacy
import torch
from torchtext.vocab import Vocab

from helpers.predictor import Predictor, as_reviews, classify, pack, unpack
from helpers.regions import RegionEmbedding, Regions
from models import MyTransformer
from tests.toy import read_json, train_toy


@pytest.mark.parametrize("preset", ["required", "bonus"])
def test_logits_are_those_of_one_review_at_a_time(data, tmp_path, preset):
    """The content of `model.pt`, spaCy and MyTransformer give the logits, and the metrics of the run, again."""
    folder = train_toy(data, tmp_path, "a", "--preset", preset, "--epochs", "6", "--blocks", "2")
    predictor, saved = Predictor.load(folder / "model.pt"), torch.load(folder / "model.pt", weights_only=True)
    settings, vocab = saved["settings"], Vocab(Counter(), specials=saved["words"])
    vocab.vectors = saved["state"]["embedding.weight"]
    empty = [RegionEmbedding(len(vocab), width) for width in (2, 10)]
    regions = Regions(empty, 50) if preset == "bonus" else None
    model = MyTransformer(vocab, 25, 2, channels=settings["channels"], regions=regions)
    model.load_state_dict(saved["state"])
    model.eval()
    tokenizer, texts, logits, losses, confusion = spacy.blank("en").tokenizer, [], [], [], [[0, 0], [0, 0]]
    for label, kind in enumerate(("neg", "pos")):
        for path in sorted((data / "aclImdb" / "test" / kind).iterdir()):
            text = path.read_text(encoding="utf-8")
            words = [token.text.lower() for token in tokenizer(" ".join(text.replace("<br />", " ").split()))]
            kept = list(range(len(words)))
            if len(words) > 25:
                kept = kept[:12] + kept[-13:] if preset == "bonus" else kept[:25]
            ids = torch.tensor([[saved["words"].index(words[i]) if words[i] in saved["words"] else 0 for i in kept]])
            inputs = [ids]
            if preset == "bonus":
                inputs.append(torch.from_numpy(predictor.table.channels(as_reviews([text]))[kept]).float().unsqueeze(0))
            logit = model(*inputs).item()
            texts.append(text)
            logits.append(logit)
            losses.append(math.log1p(math.exp(-logit if label else logit)))
            confusion[label][logit > 0] += 1
    reviews, (a, b, c) = as_reviews(texts), predictor.calibration
    calibrated = [logit * 16 ** math.tanh(a + b * math.log(n) + c * math.log(n) ** 2)
                  for logit, n in zip(logits, np.diff(reviews.starts), strict=True)]
    assert any(np.diff(reviews.starts) > 25)
    assert calibrated != pytest.approx(logits, rel=1e-3)
    torch.testing.assert_close(predictor.logits(reviews), torch.tensor(calibrated), atol=1e-5, rtol=1e-5)
    for logit in (*logits, 0.0):
        probability = 1 / (1 + math.exp(-abs(logit)))
        assert classify(torch.tensor(logit)) == ("positive" if logit > 0 else "negative", pytest.approx(probability))
    test = read_json(folder / "metrics.json")["test"]
    assert test["confusion"] == confusion
    assert test["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_packed_keys_come_back():
    keys = np.array([0, 1, 255, 256, 49_139**3 - 1, 2**48 - 1])
    assert pack(keys).shape == (6, 6)
    assert unpack(pack(keys)).tolist() == keys.tolist()
    assert unpack(pack(keys[:0])).tolist() == []
    with pytest.raises(ValueError, match="48 bits"):
        pack(np.array([2**48]))
