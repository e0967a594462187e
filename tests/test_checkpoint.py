"""Interrupted runs go on as if nothing had happened; checkpoints of other runs are refused."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sentiment_analysis
from helpers import reviews
from helpers.checkpoint import Checkpoint
from helpers.cli import UserError
from helpers.files import read_torch, write_torch
from tests.toy import QUICK, train_toy, without_times, write_archive_folder

RESULTS = ["loss.png", "metrics.json", "model.pt"]


def metrics_of(folder):
    assert sorted(path.name for path in folder.iterdir()) == RESULTS
    return without_times(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


@pytest.fixture
def train(data, tmp_path, capsys):
    """A function that trains run "mine" with the given options: metrics without times, weights, standard output."""
    def train(*options):
        capsys.readouterr()
        folder = train_toy(data, tmp_path, "mine", "--epochs", "6", *options)
        return metrics_of(folder), torch.load(folder / "model.pt")["state"], capsys.readouterr().out
    return train


@pytest.fixture
def interrupted(train, monkeypatch, tmp_path):
    """A function that trains likewise and is stopped by Ctrl-C in the middle of an epoch; returns the checkpoint."""
    def interrupted(at, *options):
        def stop(*args):
            if next(steps) == 2:
                raise KeyboardInterrupt

        def train_epoch(model, *args):
            if args[-1] == f"epoch {at}":
                model.register_forward_hook(stop)
            return original(model, *args)

        steps = itertools.count()
        original = sentiment_analysis.train_epoch
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sentiment_analysis, "train_epoch", train_epoch)
            train(*options)
        return tmp_path / "mine" / "checkpoint.pt"
    return interrupted


@pytest.mark.parametrize("options", [[], ["--preset", "bonus", "--blocks", "2", "--dropout", "0.3"]])
def test_resumed_run_ends_as_the_uninterrupted_one(train, interrupted, options):
    metrics, state, _ = train(*options)
    interrupted(3, *options)
    path = interrupted(6, *options, "--resume")
    saved = read_torch(path)
    write_torch(path, saved | {"seconds": saved["seconds"] + 1e6})
    again, same_state, out = train(*options, "--resume")
    assert "going on after epoch 5" in out
    assert sum(line.startswith("epoch") for line in out.splitlines()) == 1
    assert again == metrics
    assert all(tensor.equal(same_state[name]) for name, tensor in state.items())
    assert json.loads(path.with_name("metrics.json").read_text())["seconds"] > 1e6, "those of all parts"


@pytest.mark.parametrize(("before", "options"), [(False, ["--resume"]), (True, [])])
def test_run_that_starts_anew_says_so(train, interrupted, before, options):
    if before:
        interrupted(3)
    metrics, _, out = train(*options)
    assert "starting anew" in out
    assert "--resume goes on" in out or not before
    assert sum(line.startswith("epoch") for line in out.splitlines()) == len(metrics["epochs"]) == 6


def test_every_generator_of_random_numbers_goes_on(tmp_path):
    def draw():
        return np.random.normal(), torch.randn(1).item(), np.random.rand(), torch.rand(1).item()

    draw()  # numpy's leaves a second number for the next call
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    checkpoint.save([], 1.5)
    expected = draw()
    assert draw() != expected
    assert checkpoint.start(resume=True) == ([], 1.5)
    assert draw() == expected


@pytest.mark.parametrize(("options", "difference"), [
    (["--lr", "0.02"], "lr 0.01 instead of 0.02"),
    (["--seed", "43"], "seed 42 instead of 43"),
    (["--epochs", "7"], "epochs 6 instead of 7"),
    (["--preset", "bonus"], "ngrams None instead of labels"),
    (["--data-dir"], r"data \w+ instead of \w+\)")])
def test_checkpoint_of_another_run_is_refused_and_stays(train, interrupted, monkeypatch, tmp_path, options, difference):
    path = interrupted(3)
    before = path.read_bytes()
    if options == ["--data-dir"]:
        options = ["--data-dir", tmp_path]
        write_archive_folder(tmp_path / "aclImdb", films_per_list=10, seed=1)
        monkeypatch.setattr(reviews, "CONTENT_SHA256", reviews.read_reviews(tmp_path / "aclImdb").digest)
    with pytest.raises(UserError, match=difference):
        train(*options, "--resume")
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: b"<html>", lambda content: content[:-1000]],
                         ids=["empty", "html", "truncated"])
def test_damaged_checkpoint_is_refused(train, interrupted, damage):
    path = interrupted(3)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="damaged"):
        train("--resume")


@pytest.mark.parametrize(("at_start", "value"), [(True, math.nan), (False, math.inf)], ids=["first step", "last step"])
def test_diverging_run_keeps_the_last_good_checkpoint(train, monkeypatch, at_start, value):
    """Weights spoilt by the last step of an epoch show in the validation alone."""
    def train_epoch(model, *args):
        spoil = args[-1] == "epoch 3"
        if spoil and at_start:
            model.fc.bias.data[:] = value
        loss = original(model, *args)
        if spoil:
            model.fc.bias.data[:] = value
        return loss

    original = sentiment_analysis.train_epoch
    metrics, _, _ = train()
    with monkeypatch.context() as patch:
        patch.setattr(sentiment_analysis, "train_epoch", train_epoch)
        with pytest.raises(UserError, match="loss became (inf|nan) in .*epoch 3.*--lr"):
            train()
    again, _, out = train("--resume")
    assert "going on after epoch 2" in out
    assert again == metrics


# Processes that are killed, and two at once. They are forked from one that has run before, which makes them start fast.


HELPER = """
import os, signal, sys, time
import sentiment_analysis
from helpers import reviews
from helpers.cli import run_command
reviews.CONTENT_SHA256, runs, *options = sys.argv[1:]
options += ["--runs-dir", runs]
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here

def run(*more):
    sys.argv = ["sentiment_analysis.py", *options, *more]
    try:
        run_command(sentiment_analysis.main)
        return 0
    except SystemExit as stop:
        return stop.code

def start(*more, before=None):
    if child := os.fork():
        return child
    changes = iter(range(1, 10_000))
    def kill(event, args):  # called before each change to a file of the runs
        if event in ("open", "os.rename", "os.remove") and runs in str(args[0]) and next(changes) == before:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(kill)
    os._exit(run(*more))

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture
def processes(data, tmp_path):
    """A function that runs Python code after `HELPER` in a process of its own; returns what it printed."""
    def processes(code):
        command = [sys.executable, "-c", HELPER + code, reviews.CONTENT_SHA256, tmp_path / "runs",
                   "--data-dir", data, "--cache-dir", tmp_path / "cache", "--epochs", "3", *QUICK]
        helper = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {
            "PYTHONPATH": str(Path(sentiment_analysis.__file__).parent), "TQDM_DISABLE": "1"})
        assert helper.returncode == 0, helper.stderr
        assert "Traceback" not in helper.stderr
        return helper.stdout, helper.stderr
    return processes


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_run_killed_at_any_moment_goes_on(processes, tmp_path, step):
    """Runs are killed before the first change to their files, before the one `step` later, and so on to the last."""
    out, _ = processes(f"""
assert run("--name", "whole") == 0
before = 1
while end(start("--name", f"killed-{{before}}", before=before)) == -signal.SIGKILL:
    assert end(start("--name", f"killed-{{before}}", "--resume")) == 0
    before += {step}
""")
    runs = [metrics_of(folder) for folder in (tmp_path / "runs").iterdir()]
    assert len(runs) >= 4
    assert all(metrics == runs[0] for metrics in runs)
    assert {f"going on after epoch {number}" for number in (1, 3)} <= set(out.splitlines())


def test_two_processes_at_once_and_ctrl_c(processes, tmp_path):
    """They share a cache that neither finds there; a run that one of them writes is refused to the other."""
    _, err = processes("""
children = start("--name", "one", "--preset", "bonus"), start("--name", "two", "--preset", "bonus")
assert [end(child) for child in children] == [0, 0]
first = start("--name", "mine", "--preset", "bonus", "--epochs", "100000")
while not os.path.exists(runs + "/mine/checkpoint.pt"):
    time.sleep(0.05)
assert end(start("--name", "mine")) == 2
os.kill(first, signal.SIGINT)
assert end(first) == 130
assert os.listdir(runs + "/mine") == ["checkpoint.pt"]
assert end(start("--name", "mine", "--preset", "bonus")) == 0
""")
    assert metrics_of(tmp_path / "runs" / "one") == metrics_of(tmp_path / "runs" / "two")
    assert metrics_of(tmp_path / "runs" / "one") == metrics_of(tmp_path / "runs" / "mine")
    assert len(list((tmp_path / "cache").iterdir())) == 2, "tokens and channels, and nothing half-written"
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        f"error: another process is writing to {tmp_path / 'runs' / 'mine'}; wait for it, or choose another name.",
        "error: stopped by Ctrl-C; nothing was left half-written."]
