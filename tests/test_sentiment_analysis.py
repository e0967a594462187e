"""The training script from end to end: what it writes, says and refuses, on a toy data set and on the sample."""

import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import spacy
import torch
from conftest import QUICK, refused, train_toy, without_times, write_archive_folder
from torchtext.vocab import Vocab

import imdb
import sentiment_analysis
from files import Unreachable
from models import MyTransformer
from sentiment_analysis import BONUS, REQUIRED, SAMPLE, SAMPLE_DIR, figures, load_imdb_data, parse_args, set_seed

ROOT = Path(sentiment_analysis.__file__).parent
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def train(data):
    """A function that trains on the toy data with the given options and returns the metrics."""
    def train(runs, name, *options):
        folder = train_toy(data, runs, name, "--epochs", "8", *options)
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return train


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """The folder of a finished run."""
    runs = tmp_path_factory.mktemp("runs")
    train(runs, "first")
    return runs / "first"


def start(*command, **options):
    """A process of its own, in which the data set's server cannot be reached."""
    return subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=os.environ | NO_NETWORK | {"PYTHONPATH": str(ROOT)}, **options)


def files_in(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def lines_of_the_test(out):
    """The lines of the test figures, which training and `evaluate` have in common."""
    return [line for line in out.splitlines() if "test accuracy" in line or "reviews: " in line]


# What a run writes


def test_run_writes_three_files(run):
    assert files_in(run.parent) == ["loss.png", "metrics.json", "model.pt"]


def test_metrics_hold_settings_versions_and_figures(run, data):
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["data"] == "IMDB"
    assert metrics["seed"] == 42
    assert metrics["content_digest"] == imdb.read_reviews(data / "aclImdb").digest
    expected = REQUIRED | {"epochs": 8, "lr": 0.01, "batch_size": 8, "min_freq": 2, "max_len": 25}
    assert metrics["settings"] == {name: value for name, value in expected.items() if name != "name"} | {"channels": 0}
    assert metrics["versions"] == {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "torchtext", "spacy", "numpy")}
    assert isinstance(metrics["device"], str)
    assert metrics["device"]
    assert metrics["threads"] == torch.get_num_threads()
    assert len(metrics["epochs"]) == 8
    for epoch in metrics["epochs"]:
        assert set(epoch) == {"train_loss", "valid_loss", "valid_accuracy", "seconds", "tokens_per_second"}
        assert all(math.isfinite(value) and value > 0 for value in epoch.values())
    assert metrics["seconds"] >= sum(epoch["seconds"] for epoch in metrics["epochs"]) > 0


def test_training_learns_the_toy_data(run):
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["epochs"][-1]["train_loss"] < 0.5 * metrics["epochs"][0]["train_loss"]
    assert metrics["test"]["accuracy"] > 0.9
    (negative, false_positive), (false_negative, positive) = metrics["test"]["confusion"]
    assert negative + false_positive == false_negative + positive == 30
    assert metrics["test"]["accuracy"] == (negative + positive) / 60


def test_plot_is_a_png_fit_for_print(run):
    content = (run / "loss.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert int.from_bytes(content[16:20], "big") >= 1000


def test_plot_shows_both_losses_over_whole_epochs(tmp_path, monkeypatch):
    metrics = {"data": "IMDB", "test": {"accuracy": 0.8531},
               "epochs": [{"train_loss": 0.7, "valid_loss": 0.6}, {"train_loss": 0.5, "valid_loss": 0.55}]}
    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    sentiment_analysis.plot_losses(metrics, tmp_path / "loss.png")
    monkeypatch.undo()
    (axes,) = drawn[0].axes
    assert [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()] == [
        ("training", [1, 2], [0.7, 0.5]), ("validation", [1, 2], [0.6, 0.55])]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "binary cross-entropy")
    assert "85.31%" in axes.get_title()
    assert axes.get_legend() is not None
    assert all(tick == int(tick) for tick in axes.get_xticks())
    plt.close(drawn[0])


def test_model_judges_texts_without_the_data(run, data):
    """What `model.pt` holds, spaCy and MyTransformer give the test figures again, one review at a time."""
    saved = torch.load(run / "model.pt", weights_only=True)
    vocab = Vocab(Counter(), specials=saved["words"])
    vocab.vectors = saved["state"]["embedding.weight"]
    model = MyTransformer(vocab, saved["settings"]["max_len"], saved["settings"]["blocks"])
    model.load_state_dict(saved["state"])
    model.eval()
    tokenizer = spacy.blank("en").tokenizer
    losses, confusion = [], [[0, 0], [0, 0]]
    for label, kind in enumerate(("neg", "pos")):
        for path in (data / "aclImdb" / "test" / kind).iterdir():
            text = " ".join(path.read_text(encoding="utf-8").replace("<br />", " ").split())
            ids = [saved["words"].index(word) if word in saved["words"] else 0
                   for word in (token.text.lower() for token in tokenizer(text))]
            logit = model(torch.tensor([ids[:saved["settings"]["max_len"]]])).item()
            losses.append(math.log1p(math.exp(-logit if label else logit)))
            confusion[label][logit > 0] += 1
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["confusion"] == confusion
    assert metrics["test"]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_evaluate_prints_the_same_figures(train, call, data, tmp_path, capsys):
    capsys.readouterr()
    train(tmp_path, "run", "--blocks", "2", "--epochs", "2")
    trained = lines_of_the_test(capsys.readouterr().out)
    code, out, _ = call("evaluate", "--run", tmp_path / "run", "--data-dir", data, "--cache-dir", data / "cache")
    assert (code, lines_of_the_test(out)) == (0, trained)
    assert len(trained) == 2


@pytest.mark.parametrize("preset", ["bonus", "bonus-unsup"])
def test_bonus_runs_and_evaluates_alike(train, call, data, tmp_path, capsys, preset):
    capsys.readouterr()
    metrics = train(tmp_path, "run", "--preset", preset)
    trained = lines_of_the_test(capsys.readouterr().out)
    assert metrics["settings"]["ngrams"] == {"bonus": "labels", "bonus-unsup": "unsup"}[preset]
    assert metrics["settings"]["channels"] > 0
    assert metrics["test"]["accuracy"] > 0.9
    code, out, _ = call("evaluate", "--run", tmp_path / "run", "--data-dir", data, "--cache-dir", data / "cache")
    assert (code, lines_of_the_test(out)) == (0, trained)


def test_two_runs_give_identical_metrics_and_another_seed_others(train, run, tmp_path):
    first = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert without_times(train(tmp_path, "again")) == without_times(first)
    other = train(tmp_path, "other", "--seed", "43")
    assert other["seed"] == 43
    assert other["epochs"][0]["train_loss"] != first["epochs"][0]["train_loss"]
    assert other["epochs"][0]["valid_loss"] != first["epochs"][0]["valid_loss"]


def test_frozen_vectors_stay_glove(train, tmp_path):
    metrics = train(tmp_path, "frozen", "--freeze", "--epochs", "1", "--dropout", "0.3", "--blocks", "2")
    assert {name: metrics["settings"][name] for name in ("freeze", "dropout", "blocks")} == {
        "freeze": True, "dropout": 0.3, "blocks": 2}
    saved = torch.load(tmp_path / "frozen" / "model.pt", weights_only=True)
    vocab = Vocab(Counter(), specials=saved["words"])
    imdb.add_glove(vocab, 50, tmp_path)
    assert saved["state"]["embedding.weight"].equal(vocab.vectors)


def test_one_line_an_epoch(train, tmp_path, capsys):
    capsys.readouterr()
    train(tmp_path, "run", "--epochs", "3")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3
    assert len(set(map(len, lines))) == 1, "the lines are aligned"
    assert all(word in lines[0] for word in ("train loss", "valid loss", "valid accuracy", " s ", "tokens/s"))


# The skeleton's view


def test_load_imdb_data_is_the_skeletons(data, capsys):
    source = data / "aclImdb"
    train_set, valid_set, test_set, train_loader, valid_loader, test_loader, vocab, pad_id = load_imdb_data(
        source, data / "cache", min_freq=2, max_len=25)
    assert "in GloVe" in capsys.readouterr().out
    assert (len(train_set) + len(valid_set), len(test_set)) == (60, 60)
    assert 6 <= len(valid_set) <= 12
    assert len(vocab) == vocab.vectors.shape[0]
    assert vocab.itos[pad_id] == "<pad>"
    for loader, reviews in ((train_loader, train_set), (valid_loader, valid_set), (test_loader, test_set)):
        count = 0
        for ids, labels in loader:
            assert (ids.dtype, labels.dtype) == (torch.int64, torch.float32)
            assert ids.shape[0] == labels.shape[0] <= 32
            assert ids.shape[1] <= 25
            assert set(labels.tolist()) <= {0.0, 1.0}
            assert ids.max() < len(vocab)
            count += len(labels)
        assert count == len(reviews)


def test_vocabulary_knows_the_training_reviews_only(data):
    """Every id but those of "<unk>" and "<pad>" occurs in them, and "<unk>" does not."""
    train_set, *_, vocab, _ = load_imdb_data(data / "aclImdb", data / "cache", min_freq=1)
    assert set(train_set.ids.tolist()) == set(range(2, len(vocab)))


def test_film_of_validation_is_not_trained_on(data, monkeypatch):
    seen = {}
    split = imdb.split_by_movie

    def spy(movies, share):
        seen["movies"], seen["share"], seen["chosen"] = movies, share, split(movies, share)
        return seen["chosen"]
    monkeypatch.setattr(imdb, "split_by_movie", spy)
    train_set, valid_set, *_ = load_imdb_data(data / "aclImdb", data / "cache")
    assert seen["share"] == 0.2
    assert len(seen["movies"]) == 60, "neither test nor unlabelled reviews take part"
    assert (len(train_set), len(valid_set)) == ((~seen["chosen"]).sum(), seen["chosen"].sum())


def test_seed_is_42_unless_given():
    set_seed()
    drawn = np.random.rand(), torch.rand(1).item()
    np.random.seed(42)
    torch.manual_seed(42)
    assert drawn == (np.random.rand(), torch.rand(1).item())
    set_seed(7)
    assert drawn != (np.random.rand(), torch.rand(1).item())


def test_figures_are_plain_counts():
    logits, labels = [2.0, -1.0, 0.5, -3.0, 0.0], [1, 1, 0, 0, 0]
    losses = [math.log1p(math.exp(-x if y else x)) for x, y in zip(logits, labels, strict=True)]
    result = figures(torch.tensor(logits), torch.tensor(labels, dtype=torch.float32))
    assert result["loss"] == pytest.approx(sum(losses) / 5)
    assert result["accuracy"] == 3 / 5
    assert result["confusion"] == [[2, 1], [1, 1]]


def test_predictions_stand_in_the_order_of_the_set(data):
    _, _, test_set, *_, test_loader, vocab, _ = load_imdb_data(data / "aclImdb", data / "cache", min_freq=2)
    model = MyTransformer(vocab, 500, 1)
    logits = sentiment_analysis.predict_logits(model, test_loader, torch.device("cpu"), "test")
    assert not model.training
    expected = torch.tensor([model(test_set[i][0].unsqueeze(0)).item() for i in range(len(test_set))])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_accuracy_without_known_reviews_leaves_them_out(data):
    _, _, test_set, *_, test_loader, vocab, _ = load_imdb_data(data / "aclImdb", data / "cache", min_freq=2)
    model = MyTransformer(vocab, 500, 1)
    test_set.known = np.arange(60) % 3 == 0
    result = sentiment_analysis.test(model, test_loader, torch.device("cpu"))
    right = [(model(test_set[i][0].unsqueeze(0)).item() > 0) == test_set[i][1].item() for i in range(60)]
    assert result["known_reviews"] == 20
    assert result["accuracy"] == pytest.approx(sum(right) / 60)
    assert result["accuracy_without_known"] == pytest.approx(sum(r for i, r in enumerate(right) if i % 3) / 40)


# Options


def test_required_setting_is_the_default():
    args = parse_args([])
    assert (args.blocks, args.epochs, args.lr, args.batch_size, args.max_len) == (1, 5, 1e-4, 32, 500)
    assert (args.dropout, args.freeze, args.glove_dim, args.seed) == (0.1, False, 50, 42)
    assert (args.device, args.data_dir, args.runs_dir, args.name) == ("auto", None, "runs", "required")


@pytest.mark.parametrize(("options", "settings"), [(["--preset", "bonus"], BONUS), (["--sample"], SAMPLE)])
def test_given_options_come_before_presets(options, settings):
    args = parse_args([*options, "--blocks", "3", "--name", "mine"])
    assert {name: getattr(args, name) for name in REQUIRED} == settings | {"blocks": 3, "name": "mine"}


def test_help_shows_every_default(call):
    code, out, _ = call("--help")
    assert code == 0
    text = " ".join(out.split())
    for name in ("epochs", "blocks", "lr", "batch-size", "max-len", "dropout", "min-freq", "glove-dim", "seed",
                 "device", "cache-dir", "runs-dir", "name"):
        default = getattr(parse_args([]), name.replace("-", "_"))
        option = text[text.index(f"--{name} ", text.index("options:")):]
        assert f"(default: {default})" in option[:option.index(")") + 1], name


def test_import_trains_nothing_and_prints_nothing(tmp_path):
    process = start("-c", "import sentiment_analysis", cwd=tmp_path)
    assert process.communicate(timeout=100) == ("", "")
    assert process.returncode == 0
    assert not files_in(tmp_path)


# Bad input


@pytest.mark.parametrize(("options", "word"), [
    (["--blocks", "0"], "--blocks"),
    (["--lr=-1e-4"], "--lr"),
    (["--glove-dim", "51"], "50, 100, 200, 300"),
    (["--device", "cuda", "--sample"], "CUDA"),
    (["--data-dir", "nowhere"], "cannot be reached"),
    (["--data-dir", "."], "aclImdb_v1.tar.gz is damaged"),
])
def test_bad_input_as_the_shell_sees_it(tmp_path, options, word):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(b"<html><title>404 Not Found</title></html>")
    process = start(ROOT / "sentiment_analysis.py", *options, cwd=tmp_path)
    out, err = process.communicate(timeout=100)
    assert word in refused(process.returncode, out, err)
    assert len(err.splitlines()) == 1
    assert files_in(tmp_path) == ["aclImdb_v1.tar.gz"]


@pytest.mark.parametrize("options", [
    ["--blocks", "-1"], ["--blocks", "1.5"], ["--blocks", "many"], ["--epochs", "0"], ["--batch-size", "0"],
    ["--max-len", "0"], ["--min-freq", "0"], ["--lr", "0"], ["--lr", "nan"], ["--lr", "inf"], ["--lr", "fast"],
    ["--dropout", "1"], ["--dropout=-0.1"], ["--dropout", "nan"], ["--glove-dim", "fifty"], ["--device", "abacus"],
    ["--preset", "best"], ["--seed", "x"], ["--no-such-option"], ["stray"], ["evaluate"],
    ["--seed=-1"], ["--seed", "4294967296"],
])
def test_bad_option_is_refused_before_anything_is_read(call, monkeypatch, tmp_path, options):
    def read(*args, **kwargs):
        raise AssertionError("went on")
    for name in ("find_source", "load_reviews"):
        monkeypatch.setattr(imdb, name, read)
    monkeypatch.chdir(tmp_path)
    refused(*call(*options))
    assert not files_in(tmp_path)


def test_data_that_is_not_imdb_is_refused(call, tmp_path):
    write_archive_folder(tmp_path / "aclImdb", seed=1)
    line = refused(*call("--data-dir", tmp_path, "--cache-dir", tmp_path / "cache", "--runs-dir", tmp_path / "runs"))
    assert "18 in test/neg" in line
    assert not files_in(tmp_path / "cache")
    assert not files_in(tmp_path / "runs")


def test_loss_that_is_not_a_number_stops_the_run(call, data, tmp_path):
    line = refused(*call("--data-dir", data, "--cache-dir", data / "cache", "--runs-dir", tmp_path, *QUICK,
                         "--lr", "1e30"))
    assert "loss became" in line
    assert "--lr" in line
    assert not files_in(tmp_path)


def on_a_full_disk(write):
    """The same function where the system refuses files of more than 100 bytes."""
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
    (Path, "write_text", ["checkpoint.pt", "loss.png", "model.pt"]),
])
def test_full_disk_leaves_no_half_written_file(call, data, tmp_path, monkeypatch, module, name, finished):
    monkeypatch.setattr(module, name, on_a_full_disk(getattr(module, name)))
    line = refused(*call("--data-dir", data, "--cache-dir", tmp_path / "cache", "--runs-dir", tmp_path / "runs",
                         *QUICK, "--epochs", "1"))
    assert "File too large" in line
    assert files_in(tmp_path / "runs") == finished
    assert not [file for file in files_in(tmp_path / "cache") if file.startswith(".")]


@pytest.mark.parametrize("damage", ["missing", "truncated", "html", "other"])
def test_damaged_model_is_refused(call, run, data, tmp_path, damage):
    path = tmp_path / "model.pt"
    if damage == "truncated":
        path.write_bytes((run / "model.pt").read_bytes()[:-2000])
    elif damage == "html":
        path.write_bytes(b"<html>")
    elif damage == "other":
        torch.save({"state": {}, "words": ["a"]}, path)
    line = refused(*call("evaluate", "--run", tmp_path, "--data-dir", data, "--cache-dir", data / "cache"))
    assert str(path) in line


def test_ctrl_c_in_training(data, tmp_path):
    """A process of its own, stopped in the middle of training; the next run works."""
    options = ["--data-dir", data, "--cache-dir", tmp_path / "cache", "--runs-dir", tmp_path / "runs", *QUICK]
    code = ("import imdb, sentiment_analysis, files; "
            f"imdb.CONTENT_SHA256 = '{imdb.CONTENT_SHA256}'; files.run_command(sentiment_analysis.main)")
    process = start("-c", code, *options, "--epochs", "100000",
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # it may be ignored here
    for line in process.stdout:
        if "epoch  2" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert err.splitlines()[-1].startswith("error: stopped by Ctrl-C")
    assert files_in(tmp_path / "runs") == ["checkpoint.pt"]
    assert [name for name in files_in(tmp_path / "cache") if not name.startswith("tokens-")] == []
    process = start("-c", code, *options, "--epochs", "1")
    process.communicate(timeout=100)
    assert process.returncode == 0
    assert files_in(tmp_path / "runs") == ["loss.png", "metrics.json", "model.pt"]


def test_failed_run_leaves_the_results_of_the_last_one(call, train, data, tmp_path):
    train(tmp_path, "mine", "--epochs", "1")
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    refused(*call("--data-dir", data, "--cache-dir", data / "cache", "--runs-dir", tmp_path, "--name", "mine", *QUICK,
                  "--lr", "1e30"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before


# The sample


@pytest.fixture
def unreachable(monkeypatch, data):
    """IMDB cannot be had, and the toy data stands for the sample."""
    def find_source(*args, **options):
        raise Unreachable("the server cannot be reached.")
    monkeypatch.setattr(imdb, "find_source", find_source)
    monkeypatch.setattr(sentiment_analysis, "SAMPLE_DIR", data / "aclImdb")


def test_unreachable_server_stops_a_run_with_a_data_dir(call, unreachable, tmp_path):
    assert "cannot be reached" in refused(*call("--data-dir", tmp_path, "--runs-dir", tmp_path / "runs"))
    assert not files_in(tmp_path)


def test_unreachable_server_makes_the_sample_serve(call, unreachable, data, tmp_path):
    options = "--cache-dir", data / "cache", "--runs-dir", tmp_path
    code, out, _ = call(*options)
    assert code == 0
    assert "cannot be reached" in out
    assert files_in(tmp_path / "sample") == ["loss.png", "metrics.json", "model.pt"]
    metrics = json.loads((tmp_path / "sample" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["data"] == "SAMPLE"
    assert metrics["content_digest"] is None
    assert {name: metrics["settings"][name] for name in ("epochs", "lr", "batch_size")} == {
        name: SAMPLE[name] for name in ("epochs", "lr", "batch_size")}
    figures_printed = [line for line in out.splitlines() if "loss" in line or "wrong" in line]
    assert len(figures_printed) >= SAMPLE["epochs"] + 2
    assert all("SAMPLE" in line for line in figures_printed)
    code, again, _ = call("evaluate", "--run", tmp_path / "sample", "--cache-dir", data / "cache")
    assert (code, lines_of_the_test(again)) == (0, lines_of_the_test(out))


def test_plot_of_the_sample_says_so(tmp_path, monkeypatch):
    metrics = {"data": "SAMPLE", "test": {"accuracy": 0.8}, "epochs": [{"train_loss": 0.7, "valid_loss": 0.6}]}
    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    sentiment_analysis.plot_losses(metrics, tmp_path / "loss.png")
    monkeypatch.undo()
    assert "SAMPLE" in drawn[0].axes[0].get_title()
    plt.close(drawn[0])


def test_every_line_about_the_sample_says_so(call, unreachable, data, tmp_path):
    _, out, _ = call("--sample", "--epochs", "1", "--cache-dir", data / "cache", "--runs-dir", tmp_path)
    assert [line for line in out.splitlines() if "SAMPLE" not in line] == []


def test_given_options_hold_when_the_sample_serves(call, unreachable, data, tmp_path):
    code, _, _ = call("--cache-dir", data / "cache", "--runs-dir", tmp_path, "--name", "mine", "--epochs", "2")
    assert code == 0
    metrics = json.loads((tmp_path / "mine" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["settings"]["epochs"] == 2


with_sample = pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")


@with_sample
def test_sample_has_300_distinct_reviews_and_test_has_films_of_its_own():
    texts, films = [], {"train": set(), "test": set()}
    for part in films:
        for kind in ("neg", "pos"):
            urls = (SAMPLE_DIR / part / f"urls_{kind}.txt").read_text(encoding="utf-8").splitlines()
            paths = sorted((SAMPLE_DIR / part / kind).iterdir())
            assert len(paths) >= 30
            for path in paths:
                number, rating = map(int, path.stem.split("_"))
                assert rating in (range(1, 5) if kind == "neg" else range(7, 11))
                texts.append(" ".join(path.read_text(encoding="utf-8").lower().split()))
                films[part].add(urls[number])
    assert len(texts) >= 300
    assert len(set(texts)) == len(texts)
    assert all(texts)
    assert not films["train"] & films["test"]


@with_sample
def test_sample_run_is_quick_and_learns(tmp_path):
    started = time.time()
    process = start(ROOT / "sentiment_analysis.py", "--sample", cwd=tmp_path)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    assert time.time() - started < 60
    metrics = json.loads((tmp_path / "runs" / "sample" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["data"] == "SAMPLE"
    assert metrics["test"]["accuracy"] >= 0.75
    assert all("SAMPLE" in line for line in out.splitlines() if "loss" in line or "accuracy" in line)
    assert not [line for line in out.splitlines() if "IMDB" in line]
