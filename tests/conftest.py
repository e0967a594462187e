"""Fixtures of several test files: one thread, no GPU, toy data, the command line, a server; and the option --models."""

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # two threads on a busy machine make tiny tensors a hundred times slower
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

import sentiment_analysis
from helpers import archive
from helpers.cli import UserError, run_command
from tests.diagnose import load
from tests.toy import Server, labelled_digest, write_archive_folder, write_tar


def pytest_addoption(parser):
    parser.addoption("--models", metavar="PATH", help="run the exercise's part of tests/test_models.py on this file")


def pytest_configure(config):
    if config.option.models:
        try:
            load(config.option.models)  # from here on, `import models` gives the solution
        except UserError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(config, items):
    if config.option.models:
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("exercise")])
        items[:] = [item for item in items if item.get_closest_marker("exercise")]


@pytest.fixture(autouse=True, scope="session")
def no_gpu():
    """Keep all tests on the CPU, whose results are the same every time; test_cuda.py alone undoes this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda.random, "device_count", lambda: 0)
        yield


@pytest.fixture
def toy_folder(tmp_path):
    folder = tmp_path / "toy" / "aclImdb"
    write_archive_folder(folder)
    return folder


@pytest.fixture
def toy_archive(toy_folder, tmp_path):
    return write_tar(toy_folder, tmp_path / "toy_packed" / "aclImdb_v1.tar.gz")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a toy `aclImdb/` that stands for IMDB, verified like it, and a cache for all runs on it."""
    folder = tmp_path_factory.mktemp("data")
    write_archive_folder(folder / "aclImdb", films_per_list=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "CONTENT_SHA256", labelled_digest(folder / "aclImdb"))
        yield folder


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that runs a script's command line in this process: exit code, standard output, standard error."""
    def call(*options, main=sentiment_analysis.main):
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, options)])
        capsys.readouterr()
        try:
            run_command(main)
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err
    return call


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()
