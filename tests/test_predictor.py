"""`model.pt` and `analysis.json`, compared with spaCy and the network on one review at a time."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

from helpers import analysis
from helpers.bonus.network import BonusTransformer
from helpers.bonus.regions import RegionEmbedding
from helpers.cli import UserError
from helpers.inference.predictor import Predictor, as_reviews, classify, find_model
from models import MyTransformer
from tests.toy import read_json, spacy_words, train_toy


def load_network(saved, preset):
    """Return the network of the content of a `model.pt`."""
    vocab = Vocab(Counter(), specials=saved["words"])
    vocab.vectors = saved["state"]["embedding.weight"]
    if preset == "bonus":
        num_channels = saved["state"]["fc.weight"].shape[1] - 50
        embeddings = [RegionEmbedding(len(vocab), width) for width in (2, 10)]
        network = BonusTransformer(vocab, 25, 2, 0.0, False, num_channels, 0.0, embeddings)
    else:
        network = MyTransformer(vocab, 25, 2)
    network.load_state_dict(saved["state"])
    return network.eval()


def network_inputs(text, predictor, saved, preset):
    """Return what the network reads of a text: ids (1, T), and channels (1, T, C) for the bonus."""
    words = spacy_words(text)
    kept = list(range(len(words)))
    if len(words) > 25:
        kept = kept[:12] + kept[-13:] if preset == "bonus" else kept[:25]
    id_of = {word: number for number, word in enumerate(saved["words"])}
    ids = torch.tensor([[id_of.get(words[i], 0) for i in kept]])
    if preset == "required":
        return [ids]
    channels = predictor.pipeline.table.channels(as_reviews([text]))
    return [ids, torch.from_numpy(channels[kept]).float().unsqueeze(0)]


@pytest.fixture(scope="module", params=["required", "bonus"])
def trained(request, data, tmp_path_factory):
    """A preset and the folder of a run, whose network still makes mistakes."""
    options = "--preset", request.param, "--epochs", "1", "--blocks", "2", "--lr", "0.0003"
    return request.param, train_toy(data, tmp_path_factory.mktemp("runs"), "a", *options)


def test_logits_and_metrics_are_those_of_one_review_at_a_time(data, trained):
    preset, folder = trained
    predictor, saved = Predictor.load(folder / "model.pt"), torch.load(folder / "model.pt", weights_only=True)
    network = load_network(saved, preset)
    texts, logits, losses, confusion = [], [], [], [[0, 0], [0, 0]]
    for label, kind in enumerate(("neg", "pos")):
        for path in sorted((data / "aclImdb" / "test" / kind).iterdir()):
            texts.append(path.read_text(encoding="utf-8"))
            logits.append(network(*network_inputs(texts[-1], predictor, saved, preset)).item())
            losses.append(math.log1p(math.exp(-logits[-1] if label else logits[-1])))
            confusion[label][logits[-1] > 0] += 1
    test = read_json(folder / "metrics.json")["test"]
    assert test["confusion"] == confusion
    assert confusion[0][1] != confusion[1][0], "the network makes mistakes"
    assert test["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)

    reviews, (a, b, c) = as_reviews(texts), predictor.calibration
    lengths = np.diff(reviews.starts)
    assert lengths.max() > 25
    factors = 16 ** np.tanh(a + b * np.log(lengths) + c * np.log(lengths) ** 2)
    calibrated = torch.from_numpy(logits * factors).float()
    assert factors != pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(predictor.logits(reviews), calibrated, atol=1e-5, rtol=1e-5)


def test_analysis_of_a_training(data, trained):
    preset, folder = trained
    found, predictor = read_json(folder / "analysis.json"), Predictor.load(folder / "model.pt")
    sizes = [found["data"][name] for name in ("train", "valid", "test")]
    assert sizes == ([48, 12, 60] if preset == "required" else [57, 3, 60])

    def probabilities_of(texts):
        return predictor.logits(as_reviews(texts)).sigmoid().tolist()

    paths = sorted((data / "aclImdb" / "test").glob("*/*.txt"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    known, number, errors = {}, Counter(), Counter()
    for path, text, probability in zip(paths, texts, probabilities_of(texts), strict=True):
        stars = int(path.stem.split("_")[1])
        known[analysis.shorten(text)] = stars, stars > 5, pytest.approx(probability, abs=1e-5)
        number[stars] += 1
        errors[stars] += (probability > 0.5) != (stars > 5)
    rows = {row["stars"]: (row["reviews"], row["error"]) for row in found["error_by_stars"]}
    assert rows == {stars: (number[stars], errors[stars] / number[stars]) for stars in number}
    of_lengths = sum(row["error"] * row["reviews"] for row in found["error_by_length"])
    assert of_lengths == pytest.approx(errors.total()) != 0
    assert found["examples"]
    for one in found["examples"]:
        assert (one["stars"], one["label"], one["probability"]) == known[one["text"]]
    for one in found["attention"]:
        np.testing.assert_allclose(np.sum(one["weights"], axis=1), 1, atol=1e-3)
        assert len(one["words"]) == len(one["weights"])
        assert probabilities_of([one["sentence"]]) == pytest.approx([one["probability"]], abs=1e-5)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("logit", [-7.0, -0.1, 0.0, 0.1, 7.0])
def test_label_and_probability_of_a_logit(logit):
    label, probability = classify(torch.tensor(logit))
    assert label == ("positive" if logit > 0 else "negative")
    assert probability == pytest.approx(1 / (1 + math.exp(-abs(logit))))


@pytest.mark.parametrize(("text", "label"), [
    ("Not bad at all.", "positive"), ("The film was not good.", "negative"), ("Don't waste your time.", "negative"),
    ("I loved every minute of it.", "positive"), ("It is not worth watching.", "negative"),
    ("It never gets boring.", "positive"), ("A waste of time.", "negative"), ("Hardly worth the money.", "negative"),
    ("<p>A masterpiece!</p>", "positive"), ("<b>Excellent</b>", "positive"), ("awful!boring!bad!", "negative"),
    ("great;superb;wonderful", "positive"), ("superb|wonderful", "positive"), ("great...superb", "positive")])
def test_bundled_network_is_right_about_plain_sentences(bundled, text, label):
    assert classify(bundled.logits(as_reviews([text]))[0])[0] == label


@pytest.mark.parametrize(("path", "expected"), [
    ("run", "run/model.pt"), ("run/", "run/model.pt"), ("run/model.pt", "run/model.pt"), ("run/old.pt", "run/old.pt"),
    ("run/metrics.json", "run/model.pt"), ("nowhere.pt", "nowhere.pt"), ("run/renamed", "run/renamed"),
    ("empty", "empty has no model.pt"), ("empty/metrics.json", "empty has no model.pt"), (".", "has no model.pt"),
    ("run/checkpoint.pt", "--resume")])
def test_model_of_a_run(tmp_path, monkeypatch, path, expected):
    monkeypatch.chdir(tmp_path)
    for folder, name in (("run", "model.pt"), ("run", "old.pt"), ("run", "renamed"), ("empty", "metrics.json")):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, name).touch()
    if " " not in expected and expected != "--resume":
        assert find_model(path) == Path(expected)
    else:
        with pytest.raises(UserError, match=expected):
            find_model(path)


@pytest.fixture(scope="module")
def bundled():
    return Predictor.load()
