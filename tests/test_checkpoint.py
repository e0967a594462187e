"""Interrupted runs continue as if they had not stopped; checkpoints of other runs are refused."""

import contextlib
import dataclasses
import itertools
import math
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import sentiment_analysis
from helpers.checkpoint import Checkpoint, data_digest
from helpers.cli import UserError, run_command
from helpers.data import archive
from helpers.data.reviews import read_reviews
from helpers.files import read_torch, write_torch
from tests.toy import RESULTS, labelled_digest, read_json, train_toy, without_times, write_archive_folder


def metrics_of(folder):
    """Check that a run has finished; return its metrics without times."""
    assert sorted(path.name for path in folder.iterdir()) == RESULTS
    return without_times(read_json(folder / "metrics.json"))


@pytest.fixture
def train(data, tmp_path, capsys):
    """A function that trains the run "mine"; returns metrics without times, weights, and standard output."""
    def train(*options):
        capsys.readouterr()
        epochs = [] if "--epochs" in options else ["--epochs", "6"]
        folder = train_toy(data, tmp_path, "mine", *epochs, *options)
        return metrics_of(folder), torch.load(folder / "model.pt")["state"], capsys.readouterr().out
    return train


@contextlib.contextmanager
def disturbance(epoch, step, action):
    """Call `action(model)` in a step of an epoch, after the forward pass. An epoch has six steps."""
    original, steps = sentiment_analysis.train_epoch, itertools.count(1)

    def hook(model, *args):
        if next(steps) == step:
            action(model)

    def train_epoch(model, *args):
        if args[-1] == f"epoch {epoch}":
            model.register_forward_hook(hook)
        return original(model, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment_analysis, "train_epoch", train_epoch)
        yield


@pytest.fixture
def interrupted(train, tmp_path):
    """A function that trains until Ctrl-C stops it in the middle of an epoch; returns the path of the checkpoint."""
    def stop(model):
        raise KeyboardInterrupt

    def interrupted(epoch, *options):
        with disturbance(epoch, 3, stop), pytest.raises(KeyboardInterrupt):
            train(*options)
        return tmp_path / "mine" / "checkpoint.pt"
    return interrupted


def test_resumed_run_ends_as_the_uninterrupted_one(train, interrupted):
    options = ["--preset", "bonus", "--blocks", "2"]
    interrupted(2, *options)
    metrics, state, out = train(*options, "--overwrite")
    assert sum(line.startswith("epoch") for line in out.splitlines()) == 6
    interrupted(3, *options)
    path = interrupted(6, *options, "--resume")
    saved = read_torch(path)
    write_torch(path, saved | {"seconds": saved["seconds"] + 1e6})
    again, same_state, out = train(*options, "--resume")
    assert "continuing after epoch 5" in out
    assert sum(line.startswith("epoch") for line in out.splitlines()) == 1
    assert again == metrics
    assert all(tensor.equal(same_state[name]) for name, tensor in state.items())
    assert read_json(path.with_name("metrics.json"))["seconds"] > 1e6, "the times of all parts are added"


def test_every_random_generator_continues(tmp_path):
    def draw():
        return np.random.normal(), torch.randn(1).item(), np.random.rand(), torch.rand(1).item()

    draw()  # numpy's leaves a second number for the next call
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    checkpoint.save([], 1.5)
    expected = draw()
    assert draw() != expected
    assert checkpoint.start(resume=True) == ([], 1.5)
    assert draw() == expected


OTHERS = {  # options of another run, and what the refusal calls different
    "--lr 0.02": "lr 0.01 instead of 0.02", "--seed 43": "seed 42 instead of 43",
    "--epochs 7": "epochs 6 instead of 7", "--preset bonus": "other bonus",
    "--data-dir other": r"\(other data, other vocabulary\)"}


def test_checkpoint_of_another_run_is_refused_and_kept(train, interrupted, monkeypatch, tmp_path):
    path = interrupted(3)
    before = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    write_archive_folder(Path("other", "aclImdb"), films_per_list=10, seed=1)
    for options, difference in OTHERS.items():
        if "--data-dir" in options:
            monkeypatch.setattr(archive, "CONTENT_SHA256", labelled_digest("other/aclImdb"))
        with pytest.raises(UserError, match=difference):
            train(*options.split(), "--resume")
    assert path.read_bytes() == before


@pytest.mark.parametrize(("files", "options", "words"), [
    ([], [], None), ([], ["--resume"], None), ([], ["--overwrite"], None),
    (["checkpoint.pt"], [], "--resume .*--overwrite"), (["checkpoint.pt"], ["--resume"], None),
    (["checkpoint.pt"], ["--overwrite"], None), (["checkpoint.pt"], ["--resume", "--overwrite"], "not allowed"),
    (["metrics.json"], [], None), (["metrics.json"], ["--resume"], "finished"),
    (["metrics.json"], ["--overwrite"], None),
    (["checkpoint.pt", "metrics.json"], [], "--resume .*--overwrite"),
    (["checkpoint.pt", "metrics.json"], ["--resume"], None)])
def test_no_run_is_lost_by_mistake(call, data, tmp_path, monkeypatch, files, options, words):
    """Of an interrupted run, there is a checkpoint; of a finished one, there is only metrics.json."""
    trained = []
    monkeypatch.setattr(sentiment_analysis, "train", lambda *args: trained.append(args[-1]))
    (tmp_path / "mine").mkdir()
    for name in files:
        (tmp_path / "mine" / name).write_text(name)
    code, _, err = call("--data-dir", data, "--runs-dir", tmp_path, "--name", "mine", *options)
    assert trained == ([] if words else ["--resume" in options])
    assert code == (2 if words else 0)
    assert re.search(words or "^$", err)
    assert all((tmp_path / "mine" / name).read_text() == name for name in files)


def test_resuming_nothing_starts_a_run(tmp_path, capsys):
    assert Checkpoint(tmp_path / "checkpoint.pt", {}).start(resume=True) == ([], 0.0)
    assert "no interrupted run" in capsys.readouterr().out


def swapped(array, places):
    array = array.copy()
    array[places] = array[places[::-1]]
    return array


CHANGES = {  # none of them changes the vocabulary
    "order of words": lambda old: {"tokens": swapped(old.tokens, [0, 1])},
    "unknown word": lambda old: {"words": [f"{word}x" if word.startswith("film1") else word for word in old.words]},
    "ends of reviews": lambda old: {"starts": old.starts + (np.arange(len(old.starts)) == 1)},
    "labels": lambda old: {"labels": swapped(old.labels, [0, -1])},
    "films": lambda old: {"movies": swapped(old.movies, [0, -1])},
    "test reviews": lambda old: {"test": ~old.test}}


@pytest.mark.parametrize("change", CHANGES)
def test_digest_of_the_data_notices(data, change):
    reviews = read_reviews(data / "aclImdb")
    is_train = ~reviews.test
    other = dataclasses.replace(reviews, **CHANGES[change](reviews))
    assert data_digest(other, is_train) != data_digest(reviews, is_train)


def test_digest_of_the_data_notices_the_split_but_not_the_packing(toy_folder, toy_archive):
    folder, archive = read_reviews(toy_folder), read_reviews(toy_archive)
    mixed = np.random.default_rng(0).permutation(len(folder.words))  # as if the files were read in another order
    renumbered = dataclasses.replace(folder, words=[folder.words[i] for i in mixed],
                                     tokens=np.argsort(mixed).astype(np.int32)[folder.tokens])
    digest = data_digest(folder, ~folder.test)
    assert data_digest(archive, ~archive.test) == data_digest(renumbered, ~folder.test) == digest
    assert data_digest(folder, folder.test) != digest


@pytest.mark.parametrize("content", [b"", b"<html>", None], ids=["empty", "html", "truncated"])
def test_damaged_checkpoint_is_refused(tmp_path, content):
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    checkpoint.save([], 1.5)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.start(resume=True)


@pytest.mark.parametrize(("step", "value"), [(1, math.nan), (6, math.inf)])
def test_diverging_run_keeps_the_last_good_checkpoint(train, step, value):
    """Weights that the last step of an epoch spoils affect only the validation."""
    def spoil(model):
        model.fc.bias.data[:] = value

    epochs = "--epochs", "4"
    metrics, _, _ = train(*epochs)
    with disturbance(3, step, spoil), pytest.raises(UserError, match="loss became (inf|nan) in .*epoch 3.*--lr"):
        train(*epochs)
    again, _, out = train("--resume", *epochs)
    assert "continuing after epoch 2" in out
    assert again == metrics


@pytest.fixture
def fork(data, tmp_path):
    """A function that trains in a new process and kills it at a change to its files; returns the id of the process."""
    def fork(name, *options, change=None):
        if child := os.fork():
            return child
        changes, code = itertools.count(1), 1

        def kill(event, args):
            is_change = event in ("open", "os.rename", "os.remove") and f"runs/{name}/" in str(args[0])
            if is_change and next(changes) == change:
                if event != "open":
                    os.kill(os.getpid(), signal.SIGKILL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # bytes, after which SIGXFSZ kills it

        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, as the next one is
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            sys.addaudithook(kill)
            run_command(lambda: train_toy(data, tmp_path / "runs", name, *options, "--cache-dir", tmp_path / "cache"))
            code = 0
        except SystemExit as stop:
            code = stop.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return fork


def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_run_killed_at_any_moment_continues(fork, data, tmp_path, capfd, step):
    """The first run is killed at its first change to a file, the next one `step` changes later, and so on."""
    epochs = "--epochs", "3"
    whole = metrics_of(train_toy(data, tmp_path / "runs", "whole", *epochs))
    change = 1
    while end(fork(str(change), *epochs, change=change)) < 0:
        assert end(fork(str(change), *epochs, "--resume")) == 0
        change += step
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) > 18 / step
    assert all(metrics_of(folder) == whole for folder in runs)
    out = capfd.readouterr().out
    assert sum(f"continuing after epoch {epoch}\n" in out for epoch in range(1, 4)) > 1


def test_two_processes_at_once_and_ctrl_c(fork, data, tmp_path, capfd):
    """Two processes fill the same cache. While one writes a run, the other one is refused."""
    runs = tmp_path / "runs"
    bonus = "--preset", "bonus", "--epochs", "2"
    whole = metrics_of(train_toy(data, runs, "whole", *bonus))
    assert list(map(end, [fork("one", *bonus), fork("two", *bonus)])) == [0, 0]
    first = fork("mine", *bonus[:2], "--epochs", "100000")
    while not (runs / "mine" / "checkpoint.pt").exists():
        time.sleep(0.05)
    assert end(fork("mine")) == 2
    os.kill(first, signal.SIGINT)
    assert end(first) == 130
    assert os.listdir(runs / "mine") == ["checkpoint.pt"]
    assert end(fork("mine", *bonus, "--overwrite")) == 0
    assert all(metrics_of(runs / name) == whole for name in ("one", "two", "mine"))
    assert len(list((tmp_path / "cache").iterdir())) == 4, "tokens, n-grams, two regions, and nothing else"
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert f"error: another process is writing to {runs / 'mine'}; " in err
    assert "error: stopped by Ctrl-C; " in err
