"""Interrupted runs go on as if nothing had happened; files that are no networks are refused."""

import itertools
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, train_toy, without_times, write_archive_folder

import checkpoint
import imdb
import sentiment_analysis
from files import UserError

ROOT = Path(checkpoint.__file__).parent


@pytest.fixture
def train(data, tmp_path, capsys):
    """A function that trains run "mine" with the given options: metrics without times, weights, standard output."""
    def train(*options):
        capsys.readouterr()
        folder = train_toy(data, tmp_path, "mine", "--epochs", "6", *options)
        assert sorted(path.name for path in folder.iterdir()) == ["loss.png", "metrics.json", "model.pt"]
        return (without_times(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))),
                torch.load(folder / "model.pt")["state"], capsys.readouterr().out)
    return train


@pytest.fixture
def interrupted(train, monkeypatch):
    """A function that trains likewise and is stopped by Ctrl-C in the middle of an epoch."""
    def interrupted(at, *options):
        def cut(loader):
            yield from itertools.islice(loader, 3)
            raise KeyboardInterrupt

        def train_epoch(model, loader, optimizer, scheduler, scaler, device, title):
            loader = cut(loader) if title == f"epoch {at}" else loader
            return original(model, loader, optimizer, scheduler, scaler, device, title)

        original = sentiment_analysis.train_epoch
        with monkeypatch.context() as patch:
            patch.setattr(sentiment_analysis, "train_epoch", train_epoch)
            with pytest.raises(KeyboardInterrupt):
                train(*options)
    return interrupted


# Going on


@pytest.mark.parametrize("options", [[], ["--preset", "bonus", "--blocks", "2", "--dropout", "0.3"]])
def test_resumed_run_ends_as_the_uninterrupted_one(train, interrupted, options):
    metrics, state, _ = train(*options)
    interrupted(3, *options)
    interrupted(6, *options, "--resume")
    again, same_state, out = train(*options, "--resume")
    assert "going on after epoch 5" in out
    assert sum(line.startswith("epoch") for line in out.splitlines()) == 1
    assert again == metrics
    assert all(tensor.equal(same_state[name]) for name, tensor in state.items())


def test_seconds_are_those_of_all_parts(train, interrupted, tmp_path):
    interrupted(3)
    path = tmp_path / "mine" / "checkpoint.pt"
    saved = checkpoint.read(path)
    saved["progress"][1] += 1000
    checkpoint.write(path, saved)
    train("--resume")
    assert 1000 < json.loads((tmp_path / "mine" / "metrics.json").read_text(encoding="utf-8"))["seconds"] < 1100


def test_nothing_to_resume_starts_anew_and_says_so(train):
    metrics, _, out = train("--resume")
    assert "starting anew" in out
    assert len(metrics["epochs"]) == 6


def test_run_without_resume_says_what_it_could_go_on_with(train, interrupted):
    interrupted(3)
    _, _, out = train()
    assert "--resume" in out
    assert sum(line.startswith("epoch") for line in out.splitlines()) == 6


def test_every_generator_of_random_numbers_goes_on(tmp_path):
    def draw():
        return random.random(), np.random.normal(), torch.rand(1).item()
    random.gauss(), np.random.normal(), torch.randn(1)  # each leaves a second number for the next call
    checkpoint.save_checkpoint(tmp_path / "c.pt", {}, {}, None)
    expected = draw()
    assert draw() != expected
    checkpoint.load_checkpoint(tmp_path / "c.pt", {}, {})
    assert draw() == expected


# Refusals


@pytest.mark.parametrize(("options", "difference"), [
    (["--lr", "0.02"], "lr 0.01 instead of 0.02"),
    (["--seed", "43"], "seed 42 instead of 43"),
    (["--epochs", "7"], "epochs 6 instead of 7"),
    (["--preset", "bonus"], "ngrams None instead of labels"),
])
def test_checkpoint_of_another_run_is_refused_and_stays(train, interrupted, tmp_path, options, difference):
    interrupted(3)
    before = (tmp_path / "mine" / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError) as refusal:
        train(*options, "--resume")
    assert difference in str(refusal.value)
    assert (tmp_path / "mine" / "checkpoint.pt").read_bytes() == before


def test_checkpoint_of_other_data_is_refused(train, interrupted, data, monkeypatch, tmp_path):
    interrupted(3)
    write_archive_folder(tmp_path / "aclImdb", films_per_list=10, seed=1)
    monkeypatch.setattr(imdb, "CONTENT_SHA256", imdb.read_reviews(tmp_path / "aclImdb").digest)
    with pytest.raises(UserError, match="data .* instead of "):
        train("--resume", "--data-dir", str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_damaged_checkpoint_is_refused(train, interrupted, tmp_path, content):
    interrupted(3)
    path = tmp_path / "mine" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(UserError, match="damaged"):
        train("--resume")


def test_diverging_run_keeps_the_last_good_checkpoint(train, monkeypatch, tmp_path):
    def train_epoch(model, loader, optimizer, scheduler, scaler, device, title):
        if title == "epoch 3":
            model.fc.bias.data[:] = math.nan
        return original(model, loader, optimizer, scheduler, scaler, device, title)

    original = sentiment_analysis.train_epoch
    metrics, _, _ = train()
    with monkeypatch.context() as patch:
        patch.setattr(sentiment_analysis, "train_epoch", train_epoch)
        with pytest.raises(UserError, match="loss became nan in epoch 3, step 1;.*--lr"):
            train()
    again, _, out = train("--resume")
    assert "going on after epoch 2" in out
    assert again == metrics


def test_weights_spoilt_by_the_last_step_of_an_epoch_are_no_good_checkpoint(train, monkeypatch, tmp_path):
    def train_epoch(model, *args):
        loss = original(model, *args)
        model.fc.bias.data[:] = math.inf if args[-1] == "epoch 2" else 0
        return loss

    original = sentiment_analysis.train_epoch
    monkeypatch.setattr(sentiment_analysis, "train_epoch", train_epoch)
    with pytest.raises(UserError, match="loss became (inf|nan) in .*epoch 2"):
        train()
    assert len(checkpoint.read(tmp_path / "mine" / "checkpoint.pt")["progress"][0]) == 1


# Processes that are killed, and two at once. They are forked from one that has run before, which makes them start fast.


HELPER = """
import os, random, signal, sys, time
import imdb, sentiment_analysis
from files import run_command
imdb.CONTENT_SHA256, *options = sys.argv[1:]

def run(*more):
    sys.argv = ["sentiment_analysis.py", *options, *more]
    try:
        run_command(sentiment_analysis.main)
        return 0
    except SystemExit as stop:
        return stop.code

def start(*more):
    return os.fork() or os._exit(run(*more))

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture
def processes(data, tmp_path):
    """A function that runs Python code after `HELPER` in a process of its own; returns what it printed."""
    def processes(code):
        helper = subprocess.run([sys.executable, "-c", HELPER + code, imdb.CONTENT_SHA256, "--data-dir", data,
                                 "--runs-dir", tmp_path, "--epochs", "6", *QUICK], capture_output=True, text=True,
                                env=os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"})
        assert helper.returncode == 0, helper.stderr
        assert "Traceback" not in helper.stderr
        return helper.stdout, helper.stderr
    return processes


def metrics_of(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["loss.png", "metrics.json", "model.pt"]
    return without_times(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_run_killed_at_any_moment_goes_on(processes, tmp_path, kills):
    out, _ = processes(f"""
options += ["--cache-dir", {str(tmp_path / "cache")!r}, "--epochs", "20"]
assert run("--name", "whole") == 0
started = time.time()
assert end(start("--name", "whole")) == 0
seconds = time.time() - started
kills = ended = 0
while kills < {kills}:
    child = start("--name", "killed", "--resume")
    time.sleep(random.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    code = end(child)
    kills += code == -signal.SIGKILL
    if code == 0:
        os.rename({str(tmp_path / "killed")!r}, {str(tmp_path / "ended-")!r} + str(ended))
        ended += 1
assert end(start("--name", "killed", "--resume")) == 0
print(kills, "kills")
""")
    assert f"{kills} kills" in out
    assert "going on after epoch" in out or kills < 10
    folders = [path for path in tmp_path.iterdir() if path.name.startswith(("killed", "ended-"))]
    assert [metrics_of(folder) for folder in folders] == [metrics_of(tmp_path / "whole")] * len(folders)


def test_two_processes_at_once(processes, data, tmp_path):
    """They share a cache that neither finds there; a run that one of them writes is refused to the other."""
    _, err = processes(f"""
options += ["--cache-dir", {str(tmp_path / "cache")!r}, "--preset", "bonus"]
assert run("--name", "none", "--cache-dir", {str(data / "cache")!r}) == 0
children = start("--name", "one", "--epochs", "1"), start("--name", "two", "--epochs", "1")
assert [end(child) for child in children] == [0, 0]
first = start("--name", "mine", "--epochs", "100000")
while not os.path.exists({str(tmp_path / "mine" / "checkpoint.pt")!r}):
    time.sleep(0.1)
assert end(start("--name", "mine", "--epochs", "1")) == 2
os.kill(first, signal.SIGKILL)
end(first)
assert end(start("--name", "mine", "--epochs", "1")) == 0
""")
    assert metrics_of(tmp_path / "one") == metrics_of(tmp_path / "two") == metrics_of(tmp_path / "mine")
    assert len(list((tmp_path / "cache").iterdir())) == 2, "tokens and channels, and nothing half-written"
    assert f"error: another process is writing to {tmp_path / 'mine'}" in err


def test_packed_keys_come_back():
    keys = np.array([0, 1, 255, 256, 49_139**3 - 1, 2**48 - 1])
    packed = checkpoint.pack(keys)
    assert packed.shape == (6, 6)
    assert checkpoint.unpack(packed).tolist() == keys.tolist()
    assert checkpoint.unpack(checkpoint.pack(keys[:0])).tolist() == []
    with pytest.raises(ValueError, match="48 bits"):
        checkpoint.pack(np.array([2**48]))
