"""The training script from end to end: what it writes, prints and refuses, on toy data and on the sample."""

import itertools
import math
import os
import platform
import re
from collections import Counter
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

import sentiment_analysis
from helpers import evaluate, figures
from helpers.bonus import BonusSettings
from helpers.data import archive
from helpers.data.archive import SAMPLE_DIR
from helpers.data.vocab import add_glove
from helpers.inference.predictor import MODEL
from models import MyTransformer
from sentiment_analysis import REQUIRED, SAMPLE, Settings, load_imdb_data, preset, set_seed
from tests.toy import (
    QUICK,
    RESULTS,
    ROOT,
    labelled_digest,
    read_json,
    refused,
    run_python,
    train_toy,
    without_times,
    write_archive_folder,
)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The folder of a finished run."""
    return train_toy(data, tmp_path_factory.mktemp("runs"), "first")


@pytest.fixture
def started(monkeypatch):
    """A list of the arguments of each call of `train`, which only records them."""
    started = []
    monkeypatch.setattr(sentiment_analysis, "train", lambda *args: started.append(args))
    return started


def metrics_of(folder):
    return read_json(folder / "metrics.json")


def files_in(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def test_run_writes_model_plot_and_metrics_with_settings_versions_and_results(run, data):
    assert files_in(run.parent) == RESULTS
    assert plt.imread(run / "loss.png").shape[1] >= 1000, "pixels in a row"
    metrics = metrics_of(run)
    assert metrics["settings"] == asdict(replace(REQUIRED, lr=0.01, batch_size=8, min_freq=2, max_len=25))
    assert (metrics["data"], metrics["seed"], metrics["threads"]) == ("IMDB", 42, torch.get_num_threads())
    assert metrics["content_digest"] == labelled_digest(data / "aclImdb")
    versions = {name: version(name) for name in ("torch", "torchtext", "spacy", "numpy")}
    assert metrics["versions"] == versions | {"python": platform.python_version()}
    assert isinstance(metrics["device"], str)
    assert metrics["device"]
    assert len(metrics["epochs"]) == 5
    for epoch in metrics["epochs"]:
        assert set(epoch) == {"train_loss", "valid_loss", "valid_accuracy", "seconds", "tokens_per_second"}
        assert all(math.isfinite(value) and value > 0 for value in epoch.values())
    assert metrics["seconds"] >= sum(epoch["seconds"] for epoch in metrics["epochs"])
    assert metrics["epochs"][-1]["train_loss"] < 0.5 * metrics["epochs"][0]["train_loss"], "it learns"
    (true_negative, false_positive), (false_negative, true_positive) = metrics["test"]["confusion"]
    assert true_negative + false_positive == false_negative + true_positive == 30
    assert metrics["test"]["accuracy"] == (true_negative + true_positive) / 60 > 0.9


def test_two_runs_give_identical_metrics_and_another_seed_others(run, data, tmp_path, capsys):
    first, again = metrics_of(run), metrics_of(train_toy(data, tmp_path, "again"))
    assert without_times(again) == without_times(first)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert (len(lines), len(set(map(len, lines)))) == (5, 1), "one aligned line an epoch"
    assert all(word in lines[0] for word in ("train loss", "valid loss", "valid accuracy", " s ", "tokens/s"))
    other = metrics_of(train_toy(data, tmp_path, "other", "--seed", 43))
    assert other["seed"] == 43
    assert all(other["epochs"][0][loss] != first["epochs"][0][loss] for loss in ("train_loss", "valid_loss"))


def test_results_stay_if_the_plot_fails(call, data, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no font")

    monkeypatch.setattr(figures, "draw_losses", fail)
    code, out, err = call("--data-dir", data, "--cache-dir", data / "cache", "--runs-dir", tmp_path, *QUICK)
    assert (code, files_in(tmp_path)) == (0, ["analysis.json", "metrics.json", "model.pt"])
    assert "no font" in err
    assert "loss.png" not in out


def test_times_do_not_follow_the_clock_on_the_wall(data, tmp_path, monkeypatch):
    """It is set back all the time, and the other clocks stand still."""
    wall = itertools.count(1e9, -3600)
    monkeypatch.setattr(sentiment_analysis, "time", SimpleNamespace(
        time=lambda: next(wall), perf_counter=lambda: 5.0, monotonic=lambda: 5.0))
    metrics = metrics_of(train_toy(data, tmp_path, "still", "--epochs", 1))
    (epoch,) = metrics["epochs"]
    assert metrics["seconds"] >= 0
    assert 0 < epoch["seconds"] < 1
    assert 0 < epoch["tokens_per_second"] < 1e9


@pytest.mark.parametrize("place", ["forward", "load_reviews"])
def test_full_memory_is_refused_in_one_sentence(call, data, tmp_path, monkeypatch, place):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(MyTransformer if place == "forward" else sentiment_analysis, place, fail)
    assert "--batch-size" in refused(*call("--data-dir", data, "--cache-dir", data / "cache", "--runs-dir", tmp_path))
    assert not files_in(tmp_path)


def test_frozen_vectors_stay_glove(data, tmp_path):
    folder = train_toy(data, tmp_path, "frozen", "--freeze", "--epochs", "1", "--blocks", "2")
    saved = torch.load(folder / "model.pt", weights_only=True)
    vocab = Vocab(Counter(), specials=saved["words"])
    add_glove(vocab, 50, tmp_path)
    assert saved["state"]["embedding.weight"].equal(vocab.vectors)


def test_load_imdb_data_returns_what_the_skeleton_expects(data, capsys):
    loaded = load_imdb_data(replace(REQUIRED, min_freq=2, max_len=25), data / "aclImdb", data / "cache")
    *sets, train_loader, valid_loader, test_loader, vocab, pad_id = loaded
    assert sets == [loaded.train_set, loaded.valid_set, loaded.test_set]
    assert (loaded.valid_loader, loaded.vocab, loaded.pad_id) == (valid_loader, vocab, pad_id)
    assert "in GloVe" in capsys.readouterr().out
    assert list(map(len, sets)) == [48, 12, 60]
    assert len(vocab) == vocab.vectors.shape[0]
    assert vocab.itos[pad_id] == "<pad>"
    for dataset, loader in zip(sets, (train_loader, valid_loader, test_loader), strict=True):
        batches = list(loader)
        for ids, labels in batches:
            assert (ids.dtype, labels.dtype) == (torch.int64, torch.float32)
            assert ids.shape[0] == labels.shape[0] <= (32 if loader is train_loader else 8_000 // ids.shape[1])
            assert ids.shape[1] <= 25
            assert ids.max() < len(vocab)
            assert set(labels.tolist()) <= {0.0, 1.0}
        assert sum(len(labels) for _, labels in batches) == len(dataset)


def test_handout_data_are_split_at_random_and_words_of_validation_are_known(data):
    """The split is the same for every seed."""
    settings = replace(REQUIRED, min_freq=1, handout_data=True)
    splits = []
    for seed in (1, 2):
        train_set, valid_set, *_ = load_imdb_data(settings, data / "aclImdb", data / "cache", seed=seed)
        splits.append(valid_set.ids.tolist())
        train_films = {train_set[i][1][-1].item() for i in range(48)}
        valid_films = {valid_set[i][1][-1].item() for i in range(12)}
        assert 0 not in valid_films, "the vocabulary counts validation reviews"
        assert train_films & valid_films, "reviews of a film are in both"
    assert splits[0] == splits[1]


@pytest.mark.parametrize(("arguments", "seed"), [([], 42), ([7], 7)])
def test_seed_is_42_unless_given(arguments, seed):
    set_seed(*arguments)
    assert (np.random.get_state()[1][0], torch.initial_seed()) == (seed, seed)


@pytest.mark.parametrize(("options", "settings", "name"), [
    ("", Settings(blocks=1, epochs=5, lr=1e-4, batch_size=32, max_len=500, dropout=0.1, freeze=False), "required"),
    ("--preset handout", Settings(glove_dim=300, freeze=True, handout_data=True), "handout"),
    ("--preset bonus", preset("bonus"), "bonus"),
    ("--preset bonus-unsup --name mine", replace(preset("bonus"), epochs=8, bonus=BonusSettings(unlabelled=True)),
     "mine"),
    ("--sample --blocks 3", replace(SAMPLE, blocks=3), "sample"),
    ("--epochs 7 --lr 0.5 --batch-size 9 --max-len 30 --dropout 0.2 --freeze --min-freq 4 --glove-dim 100",
     Settings(epochs=7, lr=0.5, batch_size=9, max_len=30, dropout=0.2, freeze=True, min_freq=4, glove_dim=100),
     "required")])
def test_options_override_presets(call, started, data, tmp_path, options, settings, name):
    assert call("--data-dir", data, "--runs-dir", tmp_path, *options.split())[0] == 0
    ((used, source, folder, _, device, seed, *_),) = started
    assert used == settings
    assert source == (SAMPLE_DIR if "--sample" in options else data / "aclImdb")
    assert (folder, seed, device) == (tmp_path / name, 42, "auto")


def test_help_shows_every_default(call):
    text = " ".join(call("--help")[1].split("\noptions:")[1].split())
    defaults = {"seed": 42, "device": "auto", "cache-dir": ".cache", "runs-dir": "runs", "name": "the preset",
                "epochs": 5, "blocks": 1, "lr": 1e-4, "batch-size": 32, "max-len": 500, "dropout": 0.1,
                "freeze": False, "min-freq": 10, "glove-dim": 50}
    for name, default in defaults.items():
        assert re.search(rf" --{name} [^()]*\(default[^()]*: {re.escape(str(default))}[,)]", text), name
    for command, option in (("evaluate", "--run"), ("predict", "--explain")):
        code, out, _ = call(command, "--help")
        assert (code, command in text, option in out, "--lr" in out) == (0, True, True, False)


@pytest.mark.parametrize("options", [
    "--blocks 0", "--blocks -1", "--blocks 1.5", "--blocks many", "--epochs 0", "--batch-size 0", "--max-len 0",
    "--min-freq 0", "--lr 0", "--lr=-1e-4", "--lr nan", "--lr inf", "--lr fast", "--dropout 1", "--dropout=-0.1",
    "--dropout nan", "--glove-dim 51", "--glove-dim fifty", "--device abacus", "--preset best", "--seed x", "--seed=-1",
    "--seed 4294967296", "--name ..", "--name a/b", "--name=", "--no-such-option", "stray", "evaluate",
    "evaluate --run r --lr 1", "--lr 1 predict x", "--data-dir foo evaluate --run r", "--sample evaluate --run r",
    "predict x --data-dir foo"])
def test_bad_option_is_refused_before_anything_is_read(call, started, monkeypatch, tmp_path, options):
    def read(*args, **options):
        raise AssertionError("went on")
    monkeypatch.setattr(archive, "find_source", read)
    monkeypatch.setattr(evaluate, "Predictor", read)
    monkeypatch.chdir(tmp_path)
    assert "--help" in refused(*call(*options.split()))
    assert (started, files_in(tmp_path)) == ([], [])


def test_import_prints_nothing_and_a_refusal_prints_one_line(tmp_path):
    assert run_python("-c", "import sentiment_analysis", cwd=tmp_path, PYTHONPATH=str(ROOT)) == (0, "", "")
    assert not files_in(tmp_path)
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(b"<html><title>404 Not Found</title></html>")
    code, out, err = run_python(ROOT / "sentiment_analysis.py", "--data-dir", ".", cwd=tmp_path, TQDM_DISABLE="1")
    assert "aclImdb_v1.tar.gz is damaged" in refused(code, out, err)
    assert (out, len(err.splitlines()), files_in(tmp_path)) == ("", 1, ["aclImdb_v1.tar.gz"])


@pytest.mark.parametrize(("options", "word"), [
    ([], "18 in test/neg"), (["evaluate", "--run", MODEL.parent], "18 in test/neg"), (["--device", "cuda"], "CUDA")])
def test_other_data_and_a_missing_gpu_are_refused(call, monkeypatch, tmp_path, options, word):
    monkeypatch.chdir(tmp_path)
    write_archive_folder(tmp_path / "data" / "aclImdb", seed=1)
    before = files_in(tmp_path)
    assert word in refused(*call(*options, "--data-dir", "data"))
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(("name", "finished"), [
    ("checkpoint.pt", []), ("tokens", []), ("metrics.json", ["analysis.json", "checkpoint.pt", "model.pt"])])
def test_full_disk_leaves_no_half_written_file(call, data, tmp_path, monkeypatch, name, finished):
    def replace(source, target):
        if name in target.name:
            raise OSError(28, "No space left on device")
        source.rename(target)

    monkeypatch.setattr(os, "replace", replace)
    assert "No space" in refused(*call("--data-dir", data, "--cache-dir", tmp_path / "cache", "--runs-dir",
                                       tmp_path / "runs", *QUICK, "--epochs", "1"))
    assert files_in(tmp_path / "runs") == finished
    assert not [file for file in files_in(tmp_path / "cache") if file.startswith(".")]


def test_sample_is_used_if_the_server_is_unreachable(call, monkeypatch, data, tmp_path):
    """The toy data replace the sample."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archive, "ARCHIVE_URL", "http://127.0.0.1:9/aclImdb_v1.tar.gz")
    for module in (sentiment_analysis, evaluate, archive):
        monkeypatch.setattr(module, "SAMPLE_DIR", data / "aclImdb")
    code, out, _ = call("--cache-dir", data / "cache", "--epochs", "3")
    metrics = metrics_of(Path("runs", "sample"))
    accuracy = f"SAMPLE test accuracy {metrics['test']['accuracy']:.2%}\n"
    assert (code, out.count(accuracy), files_in(tmp_path)) == (0, 1, RESULTS)
    assert "cannot be reached" in out.splitlines()[0]
    assert out.splitlines()[-1] == archive.SAMPLE_NOTICE
    assert (metrics["data"], metrics["content_digest"]) == ("SAMPLE", None)
    assert metrics["settings"] == asdict(replace(SAMPLE, epochs=3))
    evaluated = call("evaluate", "--run", "runs/sample", "--cache-dir", data / "cache")
    assert (evaluated[0], evaluated[1].count(accuracy)) == (0, 1)


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
def test_sample_has_300_distinct_reviews_and_test_has_films_of_its_own():
    texts, films = [], {"train": set(), "test": set()}
    for part, (kind, ratings) in itertools.product(films, [("neg", range(1, 5)), ("pos", range(7, 11))]):
        urls = (SAMPLE_DIR / part / f"urls_{kind}.txt").read_text(encoding="utf-8").splitlines()
        paths = sorted((SAMPLE_DIR / part / kind).iterdir())
        assert len(paths) >= 30
        for path in paths:
            number, rating = map(int, path.stem.split("_"))
            assert rating in ratings
            texts.append(" ".join(path.read_text(encoding="utf-8").lower().split()))
            films[part].add(urls[number])
    assert len(set(texts)) == len(texts) >= 300
    assert all(texts)
    assert not films["train"] & films["test"]
