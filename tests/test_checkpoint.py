"""Interrupted runs go on as if nothing had happened; checkpoints of other runs are refused."""

import contextlib
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
from helpers import archive, reviews
from helpers.checkpoint import Checkpoint
from helpers.cli import UserError
from helpers.files import read_torch, write_torch
from tests.toy import QUICK, train_toy, without_times, write_archive_folder


def metrics_of(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["loss.png", "metrics.json", "model.pt"]
    return without_times(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


@pytest.fixture
def train(data, tmp_path, capsys):
    """A function that trains run "mine" with the given options: metrics without times, weights, standard output."""
    def train(*options):
        capsys.readouterr()
        folder = train_toy(data, tmp_path, "mine", "--epochs", "6", *options)
        return metrics_of(folder), torch.load(folder / "model.pt")["state"], capsys.readouterr().out
    return train


@contextlib.contextmanager
def disturbance(epoch, step, action):
    """Call `action(model)` in a step of an epoch of six steps, after the forward pass."""
    def train_epoch(model, *args):
        steps = itertools.count(1)
        if args[-1] == f"epoch {epoch}":
            model.register_forward_hook(lambda *args: action(model) if next(steps) == step else None)
        return original(model, *args)

    original = sentiment_analysis.train_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment_analysis, "train_epoch", train_epoch)
        yield


@pytest.fixture
def interrupted(train, tmp_path):
    """A function that trains likewise and is stopped by Ctrl-C in the middle of an epoch; returns the checkpoint."""
    def interrupted(epoch, *options):
        def stop(model):
            raise KeyboardInterrupt
        with disturbance(epoch, 3, stop), pytest.raises(KeyboardInterrupt):
            train(*options)
        return tmp_path / "mine" / "checkpoint.pt"
    return interrupted


@pytest.mark.parametrize("options", [["--resume"], ["--resume", "--preset", "bonus", "--blocks", "2"]])
def test_resumed_run_ends_as_the_uninterrupted_one(train, interrupted, options):
    metrics, state, out = train(*options)
    assert "starting anew" in out, "there is nothing to resume"
    interrupted(3, *options)
    path = interrupted(6, *options)
    saved = read_torch(path)
    write_torch(path, saved | {"seconds": saved["seconds"] + 1e6})
    again, same_state, out = train(*options)
    assert "going on after epoch 5" in out
    assert sum(line.startswith("epoch") for line in out.splitlines()) == 1
    assert again == metrics
    assert all(tensor.equal(same_state[name]) for name, tensor in state.items())
    assert json.loads(path.with_name("metrics.json").read_text())["seconds"] > 1e6, "those of all parts"


def test_run_without_resume_says_what_it_could_go_on_with(train, interrupted):
    interrupted(3)
    _, _, out = train()
    assert "--resume goes on" in out
    assert sum(line.startswith("epoch") for line in out.splitlines()) == 6


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
    (["--lr", "0.02"], "lr 0.01 instead of 0.02"), (["--seed", "43"], "seed 42 instead of 43"),
    (["--epochs", "7"], "epochs 6 instead of 7"), (["--preset", "bonus"], "ngrams None instead of labels"),
    (["--data-dir", "other"], r"data \w+ instead of \w+\)")])
def test_checkpoint_of_another_run_is_refused_and_stays(train, interrupted, monkeypatch, tmp_path, options, difference):
    path = interrupted(3)
    before = path.read_bytes()
    if "--data-dir" in options:
        monkeypatch.chdir(tmp_path)
        write_archive_folder(Path("other", "aclImdb"), films_per_list=10, seed=1)
        monkeypatch.setattr(archive, "CONTENT_SHA256", reviews.read_reviews("other/aclImdb").digest)
    with pytest.raises(UserError, match=difference):
        train(*options, "--resume")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"<html>", None], ids=["empty", "html", "truncated"])
def test_damaged_checkpoint_is_refused(train, interrupted, content):
    path = interrupted(3)
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(UserError, match="damaged"):
        train("--resume")


@pytest.mark.parametrize(("step", "value"), [(1, math.nan), (6, math.inf)])
def test_diverging_run_keeps_the_last_good_checkpoint(train, step, value):
    """Weights spoilt by the last step of an epoch show in the validation alone."""
    def spoil(model):
        model.fc.bias.data[:] = value

    metrics, _, _ = train()
    with disturbance(3, step, spoil), pytest.raises(UserError, match="loss became (inf|nan) in .*epoch 3.*--lr"):
        train()
    again, _, out = train("--resume")
    assert "going on after epoch 2" in out
    assert again == metrics


# Processes that are killed, and two at once. They are forked from one that has run before, which makes them start fast.
HELPER = """
import os, signal, sys, time
import sentiment_analysis
from helpers import archive
from helpers.cli import run_command
archive.CONTENT_SHA256, runs, *options = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here

def run(*more):
    run_command(lambda: sentiment_analysis.main(["--runs-dir", runs, *options, *more]))

def start(*more, before=None):
    if child := os.fork():
        return child
    changes = iter(range(1, 1000))
    def kill(event, args):
        if event in ("open", "os.rename", "os.remove") and runs in str(args[0]) and next(changes) == before:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(kill)  # it is called before each change to the files of the runs
    try:
        run(*more)
        os._exit(0)
    except SystemExit as stop:
        os._exit(stop.code)

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

run("--name", "whole", "--cache-dir", "cache-of-its-own")
"""


def run_processes(code, data, tmp_path):
    """Run Python code after `HELPER` in a process of its own; return the folder of the runs, and what was printed."""
    helper = subprocess.run(
        [sys.executable, "-c", HELPER + code, archive.CONTENT_SHA256, tmp_path / "runs", "--data-dir", data,
         "--cache-dir", tmp_path / "cache", "--preset", "bonus", *QUICK], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(sentiment_analysis.__file__).parent), "PYTHONUNBUFFERED": "1",
                          "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""})  # CUDA does not outlive a fork
    assert (helper.returncode, "Traceback" in helper.stderr) == (0, False), helper.stderr
    return tmp_path / "runs", helper.stdout, helper.stderr


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_run_killed_at_any_moment_goes_on(data, tmp_path, step):
    """Runs are killed before the first change to their files, before the one `step` later, and so on to the last."""
    runs, out, _ = run_processes(f"""
before = 1
while end(start("--name", f"{{before}}", before=before)) == -signal.SIGKILL:
    assert end(start("--name", f"{{before}}", "--resume")) == 0
    before += {step}
""", data, tmp_path)
    assert {f"going on after epoch {number}" for number in (2, 3)} <= set(out.splitlines())
    metrics = [metrics_of(folder) for folder in runs.iterdir()]
    assert len(metrics) > 18 / step
    assert all(one == metrics[0] for one in metrics)


def test_two_processes_at_once_and_ctrl_c(data, tmp_path):
    """They share a cache that neither finds there; a run that one of them writes is refused to the other."""
    runs, _, err = run_processes("""
children = start("--name", "one"), start("--name", "two")
assert [end(child) for child in children] == [0, 0]
first = start("--name", "mine", "--epochs", "100000")
while not os.path.exists(runs + "/mine/checkpoint.pt"):
    time.sleep(0.05)
assert end(start("--name", "mine")) == 2
os.kill(first, signal.SIGINT)
assert end(first) == 130
assert os.listdir(runs + "/mine") == ["checkpoint.pt"]
assert end(start("--name", "mine")) == 0
""", data, tmp_path)
    whole, *others = (metrics_of(runs / name) for name in ("whole", "one", "two", "mine"))
    assert others == [whole] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 2, "tokens and channels, and nothing half-written"
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        f"error: another process is writing to {runs / 'mine'}; wait for it, or choose another name.",
        "error: stopped by Ctrl-C; nothing was left half-written."]
