"""`model.pt` and calibrated probabilities, compared with one text at a time and with known optima."""

import shutil

import numpy as np
import pytest
import torch

from helpers import UserError, imdb
from helpers.calibration import fit, sharpness
from helpers.imdb import cut_spans, make_reviews, read_reviews
from helpers.predictor import Pipeline, Predictor, make_pipeline, models_text
from helpers.text import tokenize
from tests.test_own_models import EXTRA_LAYER
from tests.toy import ROOT, BagOfWords, probabilities, random_reviews, toy_vocab, use_models

TEXTS = ["A superb, moving film.", "boring", "", "It is not boring at all !", "superb " * 60]


@pytest.fixture(params=["toy_run", "toy_bonus_run"])
def model_file(request, tmp_path):
    """A copy of the `model.pt` of a finished run."""
    return shutil.copy(request.getfixturevalue(request.param) / "model.pt", tmp_path)


def test_saved_predictor_is_the_predictor(model_file, tmp_path, capsys):
    first = Predictor.load(model_file)
    assert "note" not in capsys.readouterr().err
    assert any(first.calibration)
    first.save(tmp_path / "again.pt")
    again = Predictor.load(tmp_path / "again.pt")
    assert (again.calibration, again.data, again.pipeline.settings) == (first.calibration, "IMDB",
                                                                       first.pipeline.settings)
    assert probabilities(again, TEXTS).equal(probabilities(first, TEXTS))
    again.calibration = 0.5, 0.0, 0.0
    again.save(tmp_path / "again.pt")
    assert Predictor.load(tmp_path / "again.pt").calibration == [0.5, 0.0, 0.0], "not what was read before"


def test_answer_does_not_depend_on_the_other_texts(model_file):
    loaded = Predictor.load(model_file)
    alone = torch.cat([probabilities(loaded, [text]) for text in TEXTS])
    torch.testing.assert_close(probabilities(loaded, TEXTS), alone, atol=1e-5, rtol=1e-5)
    logit = loaded.logits(make_reviews(*tokenize(TEXTS[:1])))
    assert alone[0].item() == pytest.approx(1 / (1 + np.exp(-logit.item())))


def test_changed_models_py_is_a_note_if_the_weights_fit_and_one_sentence_otherwise(toy_run, monkeypatch, capsys):
    path, text = toy_run / "model.pt", models_text()
    expected = probabilities(Predictor.load(path), TEXTS)
    capsys.readouterr()
    use_models(monkeypatch, "# a comment\n" + text)
    assert probabilities(Predictor.load(path), TEXTS).equal(expected)
    assert "note" not in capsys.readouterr().err
    use_models(monkeypatch, text + "\nTHREE = 1 + 2\n")
    assert probabilities(Predictor.load(path), TEXTS).equal(expected)
    assert "note: models.py has changed" in capsys.readouterr().err
    use_models(monkeypatch, text + EXTRA_LAYER)
    with pytest.raises(UserError, match="do not fit models.py, which has changed.*train again"):
        Predictor.load(path)


def test_model_of_another_version_is_one_sentence(toy_run):
    torch.save(torch.load(toy_run / "model.pt") | {"version": 0}, "model.pt")
    with pytest.raises(UserError, match="another version.*train again"):
        Predictor.load("model.pt")


@pytest.mark.our_models
def test_bundled_network_has_its_stored_accuracy_on_the_sample():
    sample = read_reviews(imdb.SAMPLE)
    logits = Predictor.load(ROOT / "pretrained" / "sentiment" / "model.pt").logits(sample)
    assert ((logits > 0).numpy() == sample.labels).mean() > 0.85


def factor(calibration, length):
    """Return the factor of the logit by the formula."""
    a, b, c = calibration
    log = np.log(np.maximum(length, 1))
    return 16 ** np.tanh(a + b * log + c * log**2)


def test_fit_finds_the_sharpness_that_labels_were_drawn_with():
    chance, true = np.random.default_rng(0), [-1.2, 0.5, -0.06]
    lengths, logits = np.exp(chance.uniform(1, 6, 200_000)).astype(int), chance.normal(0, 3, 200_000)
    labels = chance.random(200_000) < 1 / (1 + np.exp(-logits * factor(true, lengths)))
    found = fit(torch.from_numpy(logits), lengths, torch.from_numpy(labels))
    for length in (3, 20, 400):
        assert sharpness(found, np.array([length])).item() == pytest.approx(factor(true, length), rel=0.05)


def test_fit_is_finite_if_all_texts_are_classified_correctly():
    found = fit(torch.tensor([5.0, -5.0, 3.0]), np.array([10, 20, 30]), torch.tensor([1, 0, 1]))
    assert np.isfinite(found).all()
    assert sharpness([0, 0, 0], np.array([0, 1, 500])).tolist() == [1, 1, 1]


SETTINGS = {"max_len": 500, "blocks": 1, "batch_size": 8, "dropout": None, "freeze": None, "bonus": None}


def test_calibration_is_fitted_to_excerpts_and_whole_reviews_and_changes_no_label():
    reviews = random_reviews([3, 7, 30, 60] * 20, np.random.default_rng(1).integers(0, 2, 80))
    pipeline = make_pipeline(SETTINGS)
    assert type(pipeline) is Pipeline
    small = Predictor(BagOfWords(toy_vocab()), toy_vocab(), pipeline, "IMDB")
    before = small.logits(reviews)
    texts = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        texts += [cut_spans(reviews, length, generator) for length in (5, 10, 20, 50)] + [reviews]
    expected = fit(torch.cat([small.logits(each) for each in texts]),
                   np.concatenate([np.diff(each.starts) for each in texts]),
                   torch.from_numpy(np.concatenate([each.labels for each in texts])))
    small.calibrate(reviews)
    assert small.calibration == pytest.approx(expected, rel=1e-2)
    after = small.logits(reviews)
    assert torch.equal(after > 0, before > 0)
    np.testing.assert_allclose(after, before.numpy() * factor(small.calibration, np.diff(reviews.starts)), rtol=1e-4)
