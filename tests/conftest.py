"""What all tests share: a folder and an environment of their own, no GPU, toy data, and small trained networks."""

import os
import sys
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # on a busy machine, two threads make tiny tensors a hundred times slower

import pytest
import torch

import sentiment_analysis
from helpers import imdb, run
from helpers.predictor import models_text, same_code
from tests.toy import ROOT, SMALL, write_toy_archive

HAS_GPU = torch.cuda.is_available()


def pytest_configure(config):
    home = tempfile.TemporaryDirectory()
    config.add_cleanup(home.cleanup)
    for name in ("HOME", "HF_HOME", "MPLCONFIGDIR"):  # some libraries read them when they are imported
        os.environ[name] = home.name


def models_is_ours():
    """Return whether `models.py` is the one that the bundled network was trained with."""
    saved = torch.load(ROOT / "pretrained" / "sentiment" / "model.pt", weights_only=True)
    return "models" in saved and same_code(saved["models"], models_text())


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not HAS_GPU:
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))
    needing_ours = [item for item in items if item.get_closest_marker("our_models")]
    if needing_ours and not models_is_ours():
        for item in needing_ours:
            item.add_marker(pytest.mark.skip(reason="the bundled network was not trained with this models.py"))


@pytest.fixture(autouse=True, scope="session")
def no_gpu():
    """Keep tests on the CPU, also on a machine with a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda.random, "device_count", lambda: 0)
        yield


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Run each test in a folder of its own, and from the same random numbers in any order of the tests."""
    monkeypatch.chdir(tmp_path)
    sentiment_analysis.set_seed(0)


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that runs the `main` of a program; returns exit code, standard output and standard error."""
    def call(main, *options):
        monkeypatch.setattr(sys, "argv", ["program", *map(str, options)])
        try:
            run(main)
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()
    return call


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """An extracted toy archive. Do not change its files."""
    folder = tmp_path_factory.mktemp("toy") / "aclImdb"
    write_toy_archive(folder)
    return folder


def accept_as_imdb(patch, folder):
    """Let the reviews of `folder` pass as the unaltered ones of IMDB."""
    files = imdb.read_folder(folder, imdb.LABELLED | imdb.UNLABELLED)
    files = {name: content for name, content in files.items() if "/urls_" not in name}
    patch.setattr(imdb, "LABELLED_SHA256", imdb.content_digest(files, ("neg", "pos")))
    patch.setattr(imdb, "UNLABELLED_SHA256", imdb.content_digest(files, ("unsup",)))


@pytest.fixture
def toy_imdb(toy_data, monkeypatch):
    """The toy archive, which passes as IMDB in this test."""
    accept_as_imdb(monkeypatch, toy_data)
    return toy_data


@pytest.fixture(scope="session")
def train_toy(toy_data, tmp_path_factory):
    """A function that trains a small network on the toy archive and returns the folder of its run."""
    cache = tmp_path_factory.mktemp("cache")

    def train_toy(out, *options):
        where = "--data-dir", toy_data, "--cache-dir", cache, "--out", out
        with pytest.MonkeyPatch.context() as patch:
            accept_as_imdb(patch, toy_data)
            args = sentiment_analysis.parse_args([*SMALL, *map(str, [*where, *options])])
            sentiment_analysis.train(args)
        return args.out

    return train_toy


@pytest.fixture(scope="session")
def toy_run(train_toy, tmp_path_factory):
    """The folder of a finished run of the exercise on the toy archive."""
    return train_toy(tmp_path_factory.mktemp("runs") / "required")


@pytest.fixture(scope="session")
def toy_bonus_run(train_toy, tmp_path_factory):
    """The folder of a finished run of the bonus, with unlabelled reviews, on the toy archive."""
    return train_toy(tmp_path_factory.mktemp("runs") / "bonus", "--preset", "bonus-unsup")
