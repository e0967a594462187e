"""The training script from end to end: what it writes, says and refuses, on toy data and on the sample."""

import contextlib
import io
import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
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
from helpers import evaluate, reviews
from helpers.batches import add_glove
from helpers.predictor import MODEL
from helpers.reviews import SAMPLE_DIR
from sentiment_analysis import BONUS, PRESETS, REQUIRED, load_imdb_data, parse_args, set_seed
from tests.toy import QUICK, refused, train_toy, without_times, write_archive_folder

ROOT = Path(sentiment_analysis.__file__).parent
RESULTS = ["loss.png", "metrics.json", "model.pt"]


@pytest.fixture(scope="module")
def train(data):
    """A function that trains on the toy data and returns the metrics."""
    def train(runs, name, *options):
        folder = train_toy(data, runs, name, "--epochs", "8", *options)
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return train


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A finished run: folder, metrics, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        metrics = train(runs, "first")
    return SimpleNamespace(folder=runs / "first", metrics=metrics, out=out.getvalue())


@pytest.fixture
def started(monkeypatch):
    """The trainings that the command line starts from now on, (settings, source, folder, args); none of them runs."""
    started = []
    monkeypatch.setattr(sentiment_analysis, "train", lambda *args: started.append(args))
    return started


def start(*command, **options):
    """Start a process of its own."""
    return subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1",
                                                         "PYTHONUNBUFFERED": "1"}, **options)


def files_in(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


# What a run writes and says


def test_run_writes_three_files_and_the_plot_is_fit_for_print(run):
    assert files_in(run.folder.parent) == RESULTS
    plot = (run.folder / "loss.png").read_bytes()
    assert plot.startswith(b"\x89PNG\r\n\x1a\n")
    assert plot.endswith(b"IEND\xaeB`\x82")
    assert int.from_bytes(plot[16:20], "big") >= 1000, "pixels in a row"


def test_metrics_hold_settings_versions_and_results(run, data):
    metrics = run.metrics
    expected = replace(REQUIRED, epochs=8, lr=0.01, batch_size=8, min_freq=2, max_len=25)
    assert metrics["settings"] == asdict(expected) | {"channels": 0}
    assert (metrics["data"], metrics["seed"]) == ("IMDB", 42)
    assert metrics["content_digest"] == reviews.read_reviews(data / "aclImdb").digest
    assert metrics["versions"] == {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "torchtext", "spacy", "numpy")}
    assert isinstance(metrics["device"], str)
    assert metrics["device"]
    assert metrics["threads"] == torch.get_num_threads()
    assert len(metrics["epochs"]) == 8
    for epoch in metrics["epochs"]:
        assert set(epoch) == {"train_loss", "valid_loss", "valid_accuracy", "seconds", "tokens_per_second"}
        assert all(math.isfinite(value) and value > 0 for value in epoch.values())
    assert metrics["seconds"] >= sum(epoch["seconds"] for epoch in metrics["epochs"])


def test_training_learns_the_toy_data(run):
    assert run.metrics["epochs"][-1]["train_loss"] < 0.5 * run.metrics["epochs"][0]["train_loss"]
    test = run.metrics["test"]
    (negative, false_positive), (false_negative, positive) = test["confusion"]
    assert negative + false_positive == false_negative + positive == 30
    assert test["accuracy"] == (negative + positive) / 60 > 0.9


def test_one_aligned_line_an_epoch(run):
    lines = [line for line in run.out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 8
    assert len(set(map(len, lines))) == 1
    assert all(word in lines[0] for word in ("train loss", "valid loss", "valid accuracy", " s ", "tokens/s"))
    assert "SAMPLE" not in run.out


@pytest.mark.parametrize("data_name", ["IMDB", "SAMPLE"])
def test_plot_shows_both_losses_over_whole_epochs(tmp_path, monkeypatch, data_name):
    metrics = {"data": data_name, "test": {"accuracy": 0.8531},
               "epochs": [{"train_loss": 0.7, "valid_loss": 0.6}, {"train_loss": 0.5, "valid_loss": 0.55}]}
    drawn = []
    with monkeypatch.context() as patch:
        patch.setattr(plt, "close", drawn.append)
        sentiment_analysis.plot_losses(metrics, tmp_path / "loss.png")
    (axes,) = drawn[0].axes
    assert [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()] == [
        ("training", [1, 2], [0.7, 0.5]), ("validation", [1, 2], [0.6, 0.55])]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "binary cross-entropy")
    assert axes.get_title() == f"{data_name}: test accuracy 85.31%"
    assert axes.get_legend() is not None
    assert all(tick == int(tick) for tick in axes.get_xticks())
    plt.close(drawn[0])


def test_two_runs_give_identical_metrics_and_another_seed_others(train, run, tmp_path):
    assert without_times(train(tmp_path, "again")) == without_times(run.metrics)
    other = train(tmp_path, "other", "--seed", "43")
    assert other["seed"] == 43
    for loss in ("train_loss", "valid_loss"):
        assert other["epochs"][0][loss] != run.metrics["epochs"][0][loss]


def test_frozen_vectors_stay_glove(train, tmp_path):
    metrics = train(tmp_path, "frozen", "--freeze", "--epochs", "1", "--dropout", "0.3", "--blocks", "2")
    assert {"freeze": True, "dropout": 0.3, "blocks": 2}.items() <= metrics["settings"].items()
    saved = torch.load(tmp_path / "frozen" / "model.pt", weights_only=True)
    vocab = Vocab(Counter(), specials=saved["words"])
    add_glove(vocab, 50, tmp_path)
    assert saved["state"]["embedding.weight"].equal(vocab.vectors)


# The skeleton's view


def test_load_imdb_data_is_the_skeletons(data, capsys):
    settings = replace(REQUIRED, min_freq=2, max_len=25)
    train_set, valid_set, test_set, train_loader, valid_loader, test_loader, vocab, pad_id = load_imdb_data(
        settings, data / "aclImdb", data / "cache")
    assert "in GloVe" in capsys.readouterr().out
    assert (len(train_set), len(valid_set), len(test_set)) == (48, 12, 60)
    assert len(vocab) == vocab.vectors.shape[0]
    assert vocab.itos[pad_id] == "<pad>"
    for loader, dataset in ((train_loader, train_set), (valid_loader, valid_set), (test_loader, test_set)):
        count = 0
        for ids, labels in loader:
            assert (ids.dtype, labels.dtype) == (torch.int64, torch.float32)
            assert ids.shape[0] == labels.shape[0] <= 32
            assert ids.shape[1] <= 25
            assert set(labels.tolist()) <= {0.0, 1.0}
            assert ids.max() < len(vocab)
            count += len(labels)
        assert count == len(dataset)


def test_vocabulary_and_films_of_training_are_its_own(data):
    """The last token of a toy review names its film: it is `<unk>`, 0, unless a review to train on has it."""
    train_set, valid_set, test_set, *_, vocab, _ = load_imdb_data(replace(REQUIRED, min_freq=1), data / "aclImdb",
                                                                  data / "cache")
    assert set(train_set.ids.tolist()) == set(range(2, len(vocab)))
    for dataset, seen in ((train_set, True), (valid_set, False), (test_set, False)):
        assert {bool(ids[-1] > 0) for ids, _ in map(dataset.__getitem__, range(len(dataset)))} == {seen}


def test_seed_is_42_unless_given():
    set_seed()
    drawn = np.random.rand(), torch.rand(1).item()
    np.random.seed(42)
    torch.manual_seed(42)
    assert drawn == (np.random.rand(), torch.rand(1).item())
    set_seed(7)
    assert drawn != (np.random.rand(), torch.rand(1).item())


# Options


def test_required_setting_is_the_default():
    args, given = parse_args([])
    assert (args.preset, given) == ("required", {})
    settings = PRESETS["required"]
    assert (settings.blocks, settings.epochs, settings.lr, settings.batch_size, settings.max_len) == (1, 5, 1e-4, 32, 500)
    assert (settings.dropout, settings.freeze, settings.glove_dim, settings.ngrams) == (0.1, False, 50, None)
    assert (args.seed, args.device, args.data_dir, args.runs_dir, args.name) == (42, "auto", None, "runs", None)


@pytest.mark.parametrize(("options", "settings", "name"), [
    ([], REQUIRED, "required"),
    (["--preset", "bonus"], BONUS, "bonus"),
    (["--preset", "bonus-unsup", "--name", "mine"], replace(BONUS, ngrams="unsup"), "mine"),
    (["--sample", "--blocks", "3"], replace(PRESETS["sample"], blocks=3), "sample"),
    (["--epochs", "7", "--lr", "0.5", "--batch-size", "9", "--max-len", "30", "--dropout", "0.2", "--freeze",
      "--min-freq", "4", "--glove-dim", "100", "--preset", "bonus"],
     replace(BONUS, epochs=7, lr=0.5, batch_size=9, max_len=30, dropout=0.2, freeze=True, min_freq=4, glove_dim=100),
     "bonus")])
def test_given_options_come_before_presets(call, started, data, tmp_path, options, settings, name):
    assert call("--data-dir", data, "--runs-dir", tmp_path, *options) == (0, "", "") or "--sample" in options
    ((used, source, folder, _),) = started
    assert used == settings
    assert source == (SAMPLE_DIR if "--sample" in options else data / "aclImdb")
    assert folder == tmp_path / name


def test_help_shows_every_option_and_default(call):
    code, out, _ = call("--help")
    assert (code, "evaluate, predict" in out) == (0, True)
    text = " ".join(out.split("\noptions:")[1].split())
    args = vars(parse_args([])[0])
    defaults = {name: args[name] for name in ("seed", "device", "cache_dir", "runs_dir", "preset")} | {
        name: getattr(REQUIRED, name) for name in ("epochs", "blocks", "lr", "batch_size", "max_len", "dropout",
                                                   "freeze", "min_freq", "glove_dim")}
    for name, default in defaults.items():
        help = text.partition(f" --{name.replace('_', '-')} ")[2].partition(")")[0]
        assert help.endswith(f"(default: {default}"), name
    for command, option in (("evaluate", "--run"), ("predict", "--explain")):
        code, out, _ = call(command, "--help")
        assert code == 0
        assert option in out
        assert "--lr" not in out


def test_import_trains_nothing_and_prints_nothing(tmp_path):
    process = start("-c", "import sentiment_analysis", cwd=tmp_path)
    assert (*process.communicate(), process.returncode) == ("", "", 0)
    assert not files_in(tmp_path)


# Bad input


@pytest.mark.parametrize("options", [
    "--blocks 0", "--blocks -1", "--blocks 1.5", "--blocks many", "--epochs 0", "--batch-size 0", "--max-len 0",
    "--min-freq 0", "--lr 0", "--lr=-1e-4", "--lr nan", "--lr inf", "--lr fast", "--dropout 1", "--dropout=-0.1",
    "--dropout nan", "--glove-dim 51", "--glove-dim fifty", "--device abacus", "--preset best", "--seed x", "--seed=-1",
    "--seed 4294967296", "--no-such-option", "stray", "evaluate", "evaluate --run r --lr 1", "--lr 1 predict x",
    "--data-dir foo evaluate --run r", "--sample evaluate --run r", "predict x --data-dir foo"])
def test_bad_option_is_refused_before_anything_is_read(call, started, monkeypatch, tmp_path, options):
    def read(*args):
        raise AssertionError("went on")
    for module, name in ((sentiment_analysis, "find_source"), (evaluate, "Predictor")):
        monkeypatch.setattr(module, name, read)
    monkeypatch.chdir(tmp_path)
    line = refused(*call(*options.split()))
    assert "--help" in line
    assert "--glove-dim" not in options or "50, 100, 200, 300" in line
    assert not started
    assert not files_in(tmp_path)


def test_refusal_is_one_line_as_the_shell_sees_it(tmp_path):
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(b"<html><title>404 Not Found</title></html>")
    process = start(ROOT / "sentiment_analysis.py", "--data-dir", ".", cwd=tmp_path)
    out, err = process.communicate()
    assert "aclImdb_v1.tar.gz is damaged" in refused(process.returncode, out, err)
    assert (out, len(err.splitlines())) == ("", 1)
    assert files_in(tmp_path) == ["aclImdb_v1.tar.gz"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", [["--sample"], ["evaluate", "--run", MODEL.parent]], ids=["train", "evaluate"])
def test_missing_gpu_is_refused(call, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    assert "CUDA" in refused(*call(*command, "--device", "cuda"))
    assert not files_in(tmp_path)


@pytest.mark.parametrize("command", [[], ["evaluate", "--run", MODEL.parent]], ids=["train", "evaluate"])
def test_data_that_is_not_imdb_is_refused(call, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    write_archive_folder(tmp_path / "data" / "aclImdb", seed=1)
    before = files_in(tmp_path)
    assert "18 in test/neg" in refused(*call(*command, "--data-dir", tmp_path / "data"))
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("name", ["new", "mine"])
def test_failed_run_leaves_the_results_of_the_last_one(call, train, data, tmp_path, name):
    train(tmp_path, "mine", "--epochs", "1")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    line = refused(*call("--data-dir", data, "--cache-dir", data / "cache", "--runs-dir", tmp_path, "--name", name,
                         *QUICK, "--lr", "1e30"))
    assert "loss became" in line
    assert "--lr" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def on_a_full_disk(write):
    """Return the same function where the system refuses files of more than 100 bytes."""
    def refused_write(*args, **options):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            return write(*args, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return refused_write


@pytest.mark.parametrize(("module", "name", "finished"), [
    (Path, "write_bytes", []),
    (np, "savez", []),
    (plt.Figure, "savefig", ["checkpoint.pt", "model.pt"]),
    (Path, "write_text", ["checkpoint.pt", "loss.png", "model.pt"])])
def test_full_disk_leaves_no_half_written_file(call, data, tmp_path, monkeypatch, module, name, finished):
    monkeypatch.setattr(module, name, on_a_full_disk(getattr(module, name)))
    line = refused(*call("--data-dir", data, "--cache-dir", tmp_path / "cache", "--runs-dir", tmp_path / "runs",
                         *QUICK, "--epochs", "1"))
    assert "File too large" in line
    assert files_in(tmp_path / "runs") == finished
    assert not [file for file in files_in(tmp_path / "cache") if file.startswith(".")]


def test_ctrl_c_in_training(train, data, tmp_path):
    """Stop a process of its own in the middle of training; the next run works."""
    code = ("import sentiment_analysis; from helpers import cli, reviews; "
            f"reviews.CONTENT_SHA256 = '{reviews.CONTENT_SHA256}'; cli.run_command(sentiment_analysis.main)")
    process = start("-c", code, "--data-dir", data, "--cache-dir", tmp_path / "cache", "--runs-dir", tmp_path / "runs",
                    "--name", "mine", *QUICK, "--epochs", "100000",
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # it may be ignored here
    for line in process.stdout:
        if "epoch  2" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert err.splitlines()[-1].startswith("error: stopped by Ctrl-C")
    assert files_in(tmp_path / "runs") == ["checkpoint.pt"]
    assert [name for name in files_in(tmp_path / "cache") if not name.startswith("tokens-")] == []
    train(tmp_path / "runs", "mine", "--epochs", "1")
    assert files_in(tmp_path / "runs") == RESULTS


# The sample


@pytest.fixture
def unreachable(monkeypatch, data, tmp_path):
    """IMDB's server does not answer, and the toy data stands for the sample."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reviews, "ARCHIVE_URL", "http://127.0.0.1:9/aclImdb_v1.tar.gz")
    for module in (sentiment_analysis, reviews):
        monkeypatch.setattr(module, "SAMPLE_DIR", data / "aclImdb")


def test_unreachable_server_makes_the_sample_serve(call, unreachable, data, tmp_path):
    code, out, _ = call("--cache-dir", data / "cache")
    assert code == 0
    reason, banner, *_, test, confusion, _ = out.splitlines()
    assert "cannot be reached" in reason
    assert banner.startswith("SAMPLE: ")
    assert test.startswith("SAMPLE test loss")
    assert "IMDB test" not in out
    assert files_in(tmp_path) == RESULTS
    metrics = json.loads((tmp_path / "runs" / "sample" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["data"], metrics["content_digest"]) == ("SAMPLE", None)
    assert metrics["settings"] == asdict(PRESETS["sample"]) | {"channels": 0}
    evaluated = call("evaluate", "--run", tmp_path / "runs" / "sample", "--cache-dir", data / "cache")
    assert evaluated == (0, f"{test}\n{confusion}\n", "")


def test_given_options_hold_when_the_sample_serves(call, unreachable, started):
    assert call("--name", "mine", "--epochs", "2")[0] == 0
    ((settings, source, folder, _),) = started
    assert settings == replace(PRESETS["sample"], epochs=2)
    assert (source, folder.name) == (sentiment_analysis.SAMPLE_DIR, "mine")


@pytest.mark.parametrize(("options", "sample", "word"), [
    (["--data-dir", "nowhere"], True, "cannot be reached"), ([], False, "cannot be reached"),
    (["--sample"], False, "is not beside the program")])
def test_sample_does_not_serve(call, unreachable, started, monkeypatch, tmp_path, options, sample, word):
    """Not in place of a folder that was named, nor where it is missing."""
    if not sample:
        for module in (sentiment_analysis, reviews):
            monkeypatch.setattr(module, "SAMPLE_DIR", tmp_path / "missing")
    assert word in refused(*call(*options))
    assert not started
    assert not files_in(tmp_path)


with_sample = pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")


@with_sample
def test_sample_has_300_distinct_reviews_and_test_has_films_of_its_own():
    texts, films = [], {"train": set(), "test": set()}
    for part in films:
        for kind, ratings in (("neg", range(1, 5)), ("pos", range(7, 11))):
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


@with_sample
def test_sample_run_learns(tmp_path):
    process = start(ROOT / "sentiment_analysis.py", "--sample", cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.startswith("SAMPLE: ")
    metrics = json.loads((tmp_path / "runs" / "sample" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["data"] == "SAMPLE"
    assert metrics["test"]["accuracy"] >= 0.75
