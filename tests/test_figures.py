"""Figures depend on their arguments alone; the analysis of a run holds what the report shows."""

import hashlib
import json
from collections import Counter
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

from helpers import analysis, figures
from helpers.figures import draw_attention, draw_losses, draw_reliability, plot_run
from tests.made_up import make_metrics
from tests.toy import ROOT, read_json, run_python, train_toy

RUNS = [make_metrics(42), make_metrics(43, valid_losses=[0.6, 0.5, 0.4, 0.5, 0.6])]
DIAGRAM = {"5": [[200, 0.6, 0.55], [150, 0.9, 0.7], [99, 0.95, 0.1]], "all": [[50, 0.6, 0.5]]}
DRAWINGS = {
    "one run": lambda format: draw_losses(RUNS[:1], format),
    "two runs": lambda format: draw_losses(RUNS, format, "$title_"),
    "attention": lambda format: draw_attention(["a", "$b", "_c$"], np.eye(3), format),
    "reliability": lambda format: draw_reliability({"before": DIAGRAM, "after": DIAGRAM}, format)}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_is_the_same_whatever_the_settings_of_matplotlib(name):
    draw = DRAWINGS[name]
    svg, png = draw("svg"), draw("png")
    assert svg.startswith(b"<?xml")
    assert png.startswith(b"\x89PNG")
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None, "savefig.dpi": 20,
                                "text.usetex": True, "font.family": "no such font", "savefig.bbox": "tight"}):
        assert (draw("svg"), draw("png")) == (svg, png)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("backend", "matplotlibrc"), [
    ("tkagg", b"text.usetex: True"), ("module://no_such_module", b"no colon"), ("no_such_backend", b"\xff\xfe")])
def test_drawing_needs_no_pyplot_and_no_settings(tmp_path, backend, matplotlibrc):
    (tmp_path / "matplotlibrc").write_bytes(matplotlibrc)
    code = ("from helpers.figures import draw_attention; import sys; figure = draw_attention(['a'], [[1]]); "
            "print(hashlib.sha256(figure).hexdigest(), 'matplotlib.pyplot' in sys.modules, os.environ['MPLBACKEND'])")
    found = run_python("-c", "import hashlib, os; " + code, cwd=tmp_path, PYTHONPATH=str(ROOT), MPLBACKEND=backend)
    expected = hashlib.sha256(draw_attention(["a"], [[1]])).hexdigest()
    assert found[:2] == (0, f"{expected} False {backend}\n")


def test_plot_of_a_run_is_a_png(tmp_path):
    plot_run(RUNS[0], tmp_path / "loss.png")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]
    assert (tmp_path / "loss.png").stat().st_size > 1000


@pytest.mark.parametrize("error", [
    ImportError("no display"), RuntimeError("latex\nwas not found"), KeyError(), OSError()])
def test_plot_that_cannot_be_drawn_is_a_note(tmp_path, monkeypatch, capsys, error):
    def fail(*args, **options):
        raise error

    (tmp_path / "loss.png").write_text("of an earlier run")
    monkeypatch.setattr(figures, "draw_losses", fail)
    plot_run(RUNS[0], tmp_path / "loss.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {tmp_path / 'loss.png'} could not be drawn (")
    assert not list(tmp_path.iterdir())


def test_plot_that_cannot_be_written_is_a_note(tmp_path, capsys):
    (tmp_path / "loss.png").mkdir()
    plot_run(RUNS[0], tmp_path / "loss.png")
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_errors_by_stars_and_by_length():
    wrong = np.array([True, False, True, True])
    by_length = analysis.error_by_length(wrong, np.array([50, 150, 90, 700]))
    assert [(row["to"], row["reviews"], row["error"]) for row in by_length] == [(100, 2, 1), (200, 1, 0), (10**6, 1, 1)]
    by_stars = analysis.error_by_stars(wrong, np.array([1, 1, 10, 10]))
    assert [(row["stars"], row["reviews"], row["error"]) for row in by_stars] == [(1, 2, 0.5), (10, 2, 1)]


def test_most_confident_errors_are_short_and_cut():
    wrong, lengths = np.array([True, False, True, True]), np.array([50, 150, 90, 700])
    texts = ["so good<br /><br />it hurts", "", "word " * 90, "too long"]
    examples = analysis.confident_errors(texts, wrong, lengths, np.array([1, 1, 10, 10]), np.array([0, 0, 1, 1]),
                                         np.array([0.9, 0.2, 0.1, 0.0]))
    assert [(one["label"], one["stars"], one["tokens"]) for one in examples] == [(0, 1, 50), (1, 10, 90)]
    assert [one["text"] for one in examples] == ["so good it hurts", "word " * analysis.EXAMPLE_WORDS + "…"]


def test_reading_stops_after_the_last_test_review(monkeypatch):
    def read_files(source, parts):
        yield "test/urls_pos.txt", b"http"
        yield "test/pos/1_9.txt", b"good"
        yield "test/neg/0_2.txt", b"bad"
        raise AssertionError("read on")

    monkeypatch.setattr(analysis, "read_files", read_files)
    names, texts = analysis.read_test_reviews("source", 2)
    assert dict(zip(names, texts, strict=True)) == {"test/neg/0_2.txt": "bad", "test/pos/1_9.txt": "good"}
    assert names == sorted(names)


def test_figures_of_the_data():
    def reviews(lengths, movies):
        return SimpleNamespace(labels=np.zeros(len(lengths)), starts=np.cumsum([0, *lengths]), movies=np.array(movies))

    vocab = Vocab(Counter(), specials=["<unk>", "<pad>"])
    vocab.vectors = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    found = analysis.describe_data(reviews([1, 2, 3], [0, 0, 1]), reviews([4], [2]), reviews([5], [1]), vocab)
    assert found == {"train": 3, "valid": 1, "test": 1, "words": 2, "in_glove": 0.5, "movies": 3,
                     "most_reviews_of_a_movie": 2, "movies_in_both": 1, "median_tokens": 3, "p95_tokens": 4}


@pytest.mark.parametrize("preset", ["required", "bonus"])
def test_analysis_of_a_training(data, tmp_path, preset):
    run = train_toy(data, tmp_path, "it", "--preset", preset, "--epochs", 1)
    found, metrics = read_json(run / "analysis.json"), read_json(run / "metrics.json")
    assert sum(found["data"][name] for name in ("train", "valid", "test")) == 120
    assert sum(row["reviews"] for row in found["error_by_stars"]) == 60
    errors = sum(row["error"] * row["reviews"] for row in found["error_by_length"])
    assert errors == pytest.approx(60 * (1 - metrics["test"]["accuracy"]))
    for one in found["attention"]:
        np.testing.assert_allclose(np.sum(one["weights"], axis=1), 1, atol=1e-3)
        assert len(one["words"]) == len(one["weights"])
    json.dumps(found, allow_nan=False)
