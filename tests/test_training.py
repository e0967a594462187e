"""Options, the training loop, resuming and leaks, compared with plain loops and with uninterrupted runs."""

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from torch.optim.lr_scheduler import ExponentialLR

import sentiment_analysis
from helpers import UserError, imdb
from helpers.batches import BucketLoader, ReviewSet
from helpers.imdb import LABELLED, UNLABELLED, read_reviews, select, split_train_val
from helpers.predictor import Predictor, make_pipeline
from sentiment_analysis import compute_metrics, load_imdb_data, parse_args, set_seed, settings_of, train_epoch
from tests.toy import SMALL, BagOfWords, random_reviews, read_json, toy_vocab, words_of

# Options

EXERCISE = {"blocks": 1, "epochs": 5, "lr": 1e-4, "batch_size": 32, "max_len": 500, "dropout": 0.1, "freeze": False,
            "min_freq": 10, "glove_dim": 50, "valid_share": 0.2, "bonus": None}
BONUS = EXERCISE | {"lr": 1e-3, "max_len": 400, "dropout": 0.3, "valid_share": 0.05, "bonus": {"unlabelled": False}}


@pytest.mark.parametrize(("options", "settings", "folder"), [
    ("", EXERCISE, "required"),
    ("--sample", EXERCISE | {"epochs": 20, "lr": 1e-3, "batch_size": 16, "min_freq": 2}, "sample"),
    ("--preset bonus", BONUS, "bonus"),
    ("--preset bonus-unsup", BONUS | {"epochs": 8, "bonus": {"unlabelled": True}}, "bonus-unsup"),
    ("--blocks 2 --epochs 10", EXERCISE | {"blocks": 2, "epochs": 10}, "required-blocks2-epochs10"),
    ("--preset bonus --lr 0.001 --seed 7", BONUS, "bonus-seed7")])
def test_presets_and_options_that_differ_name_the_folder(options, settings, folder):
    args = parse_args(options.split())
    assert settings_of(args) == settings
    assert args.out.as_posix() == f"runs/{folder}"
    assert parse_args([*options.split(), "--out", "mine"]).out.as_posix() == "mine"


def test_without_network_the_sample_is_trained_on_and_the_last_line_says_so(call, monkeypatch, tmp_path):
    monkeypatch.setattr(imdb, "ARCHIVE_URL", "http://127.0.0.1:9/aclImdb_v1.tar.gz")
    lines = call(sentiment_analysis.main, "--epochs", 3, "--out", "mine")[1].splitlines()
    metrics = read_json(tmp_path / "mine" / "metrics.json")
    assert "127.0.0.1" in lines[0]
    assert lines[-1].startswith("SAMPLE")
    assert metrics["data"] == "SAMPLE"
    assert metrics["settings"].items() >= {"epochs": 3, "lr": 1e-3, "batch_size": 16, "min_freq": 2}.items()
    assert sorted(path.name for path in Path("mine").iterdir()) == ["loss.png", "metrics.json", "model.pt"]
    assert set(metrics) == {"data", "seed", "words", "settings", "device", "threads", "versions", "epochs",
                            "calibration", "test", "seconds", "date"}
    assert metrics["epochs"][2]["train_loss"] < metrics["epochs"][0]["train_loss"]


# The loop


def test_epoch_of_training_is_the_plain_loop():
    """The loss of an epoch is the mean over its reviews. The learning rate changes with every step."""
    labels = [1, 0, 1, 0, 0]
    review_set = ReviewSet(random_reviews([5, 9, 2, 7, 8], labels), toy_vocab(), 9)
    model = BagOfWords(review_set.vocab).eval()
    expected, losses = copy.deepcopy(model).train(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    set_seed(1)
    mean = train_epoch(model, BucketLoader(review_set, 2), optimizer, ExponentialLR(optimizer, 0.5), "")
    set_seed(1)
    plain = torch.optim.Adam(expected.parameters(), lr=0.1)
    for step, (ids, targets) in enumerate(BucketLoader(review_set, 2)):
        plain.param_groups[0]["lr"] = 0.1 * 0.5**step
        probabilities = torch.sigmoid(expected(ids)[:, 0])
        of_reviews = -torch.log(torch.where(targets > 0, probabilities, 1 - probabilities))
        losses += of_reviews.tolist()
        plain.zero_grad()
        of_reviews.mean().backward()
        plain.step()
    assert mean == pytest.approx(np.mean(losses))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name))


def test_metrics_are_those_of_sklearn():
    logits, labels = torch.randn(50), torch.randint(0, 2, (50,)).float()
    metrics = compute_metrics(logits, labels)
    assert metrics["loss"] == pytest.approx(log_loss(labels, torch.sigmoid(logits).double()), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, logits > 0))
    assert metrics["confusion"] == confusion_matrix(labels, logits > 0).tolist()


@pytest.mark.parametrize("preset", ["required", "bonus"])
def test_run_validates_and_calibrates_on_validation_reviews(train_toy, toy_imdb, tmp_path, preset):
    options = "--preset", preset, "--blocks", "2"
    folder = train_toy(tmp_path / "run", *options)
    metrics, predictor = read_json(folder / "metrics.json"), Predictor.load(folder / "model.pt")
    args = parse_args([*SMALL, *options, "--data-dir", str(toy_imdb)])
    data = load_imdb_data(args, make_pipeline(settings_of(args)))
    calibration, predictor.calibration = predictor.calibration, (0.0, 0.0, 0.0)
    for review_set, found in ((data.valid_set, metrics["epochs"][-1]["valid_loss"]),
                              (data.test_set, metrics["test"]["loss"])):
        metrics_again = compute_metrics(predictor.logits(review_set.reviews), review_set.labels)
        assert found == pytest.approx(metrics_again["loss"], rel=1e-4)
    predictor.calibrate(data.valid_set.reviews)
    assert metrics["calibration"] == calibration == pytest.approx(predictor.calibration, rel=1e-3)


# Interrupted and diverging runs


@pytest.fixture
def ctrl_c_in_epoch_3(monkeypatch):
    def train_epoch_or_stop(*arguments):
        if arguments[-1] == "epoch 3":
            monkeypatch.undo()
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(sentiment_analysis, "train_epoch", train_epoch_or_stop)


@pytest.mark.parametrize("preset", ["required", "bonus"])
def test_resumed_run_ends_as_the_uninterrupted_one(train_toy, ctrl_c_in_epoch_3, tmp_path, preset):
    options = "--preset", preset, "--epochs", 3
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "mine", *options)
    with pytest.raises(UserError, match="--resume"):
        train_toy(tmp_path / "mine", *options)
    for name, value in ("seed", 7), ("lr", 0.02):
        with pytest.raises(UserError, match=rf"other .*\b{name}\b"):
            train_toy(tmp_path / "mine", *options, f"--{name}", value, "--resume")
    mine = train_toy(tmp_path / "mine", *options, "--resume")
    whole = train_toy(tmp_path / "whole", *options)
    before, after = (read_json(folder / "metrics.json") for folder in (whole, mine))
    for metrics in (before, after):
        for part in (metrics, *metrics["epochs"]):
            del part["seconds"]
        del metrics["date"]
    assert after == before
    weights, expected = (torch.load(folder / "model.pt")["weights"] for folder in (mine, whole))
    assert all(tensor.equal(weights[name]) for name, tensor in expected.items())
    assert not (mine / "checkpoint.pt").exists()


def test_diverging_run_is_one_sentence(train_toy, tmp_path):
    with pytest.raises(UserError, match="epoch 1 .*--lr"):
        train_toy(tmp_path / "mine", "--lr", 1e30)


# Leaks: change what must not be seen, and compare what training sees before and after.


@pytest.fixture
def reviews(toy_imdb):
    return read_reviews(toy_imdb, LABELLED | UNLABELLED)


def learn(reviews, preset, cache):
    """Fit a preset to `Reviews`, in place of those of an archive; return the pipeline and the data."""
    if preset != "bonus-unsup":
        reviews = select(reviews, reviews.labels >= 0)
    args = parse_args(f"--preset {preset} --min-freq 2 --max-len 25 --device cpu --cache-dir {cache}".split())
    args = argparse.Namespace(**vars(args) | {"valid_share": 0.3, "data_dir": imdb.SAMPLE})
    pipeline = make_pipeline(settings_of(args))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment_analysis, "load_reviews", lambda *_: reviews)
        return pipeline, load_imdb_data(args, pipeline)


def reverse_labels(reviews, chosen):
    return replace(reviews, labels=np.where(chosen & (reviews.labels >= 0), 1 - reviews.labels, reviews.labels))


def replace_texts(reviews, chosen):
    """Return the reviews, where the text of each chosen one is all words."""
    texts = np.split(reviews.tokens, reviews.starts[1:-1])
    for i in np.flatnonzero(chosen):
        texts[i] = np.arange(len(reviews.words), dtype=np.int32)
    return replace(reviews, tokens=np.concatenate(texts), starts=np.cumsum([0, *map(len, texts)]))


def what_training_sees(pipeline, data):
    """Return the vocabulary, and the batches of a pass and the region embeddings as a list of tensors."""
    np.random.seed(0)
    seen = [tensor for batch in data.train_loader for tensor in batch]
    for embedding in getattr(pipeline, "embeddings", []):
        seen += embedding.state_dict().values()
    return data.vocab.itos, seen


@pytest.mark.parametrize("preset", ["required", "bonus-unsup"])
def test_training_knows_nothing_of_validation_and_test_reviews(reviews, tmp_path, preset):
    pipeline, data = learn(reviews, preset, tmp_path / "a")
    set_seed(42)
    is_train, is_valid = split_train_val(reviews, 0.3)
    for review_set, part in ((data.train_set, is_train), (data.valid_set, is_valid), (data.test_set, reviews.test)):
        assert words_of(review_set.reviews) == words_of(select(reviews, part))
    assert (data.valid_loader.dataset, data.test_loader.dataset) == (data.valid_set, data.test_set)
    words, seen = what_training_sees(pipeline, data)
    is_hidden = is_valid | reviews.test
    others = reverse_labels(replace_texts(reviews, is_hidden), is_hidden)
    other_words, other_seen = what_training_sees(*learn(others, preset, tmp_path / "b"))
    assert words == other_words
    assert all(map(torch.equal, seen, other_seen))
    assert len(seen) == len(other_seen)


def test_labels_of_a_film_do_not_reach_the_channels_of_its_reviews(reviews, tmp_path):
    """The labels of fold 0 are reversed. Channels are divided by their deviation, which knows all labels."""
    pipeline, data = learn(reviews, "bonus-unsup", tmp_path / "a")
    in_fold = pipeline.folds == 0
    films = data.train_set.reviews.movies[in_fold]
    assert set(pipeline.folds) == set(range(5))
    assert not set(films) & set(data.train_set.reviews.movies[~in_fold])
    others = reverse_labels(reviews, np.isin(reviews.movies, films))
    other_pipeline, other_data = learn(others, "bonus-unsup", tmp_path / "b")
    before = data.train_set.channels[:-1] * torch.from_numpy(pipeline.table.scale)
    after = other_data.train_set.channels[:-1] * torch.from_numpy(other_pipeline.table.scale)
    of_fold = torch.from_numpy(np.repeat(in_fold, data.train_set.lengths))
    torch.testing.assert_close(after[of_fold], before[of_fold], atol=5e-3, rtol=5e-3)
    assert (after[~of_fold] - before[~of_fold]).abs().max() > 0.1
