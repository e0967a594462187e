"""Fixtures that several test files use, and the option --models."""

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # on a busy machine, two threads make tiny tensors a hundred times slower
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

import sentiment_analysis
from check.solution import load
from helpers.cli import UserError, run_command
from helpers.data import archive
from tests.toy import Server, labelled_digest, write_archive_folder, write_tar


def pytest_addoption(parser):
    parser.addoption("--models", metavar="PATH", help="run the tests of the exercise's layers on this file")


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
    """Keep tests on the CPU, where results are reproducible; only test_cuda.py undoes this."""
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
    """A folder with a toy `aclImdb/`, verified as if it were IMDB, and a cache for all runs on it."""
    folder = tmp_path_factory.mktemp("data")
    write_archive_folder(folder / "aclImdb", films_per_list=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "CONTENT_SHA256", labelled_digest(folder / "aclImdb"))
        yield folder


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that runs a command line in this process; returns exit code, standard output and standard error."""
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
