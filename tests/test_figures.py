"""Figures depend on their arguments alone and show them; parts of the analysis of a run, compared with plain counts."""

import hashlib
from collections import Counter
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

from helpers import analysis, figures
from helpers.figures import draw_attention, draw_losses, draw_reliability, draw_run, plot_run
from tests.made_up import make_metrics
from tests.toy import ROOT, run_python

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


@pytest.fixture
def axes_of(monkeypatch):
    """A function that returns the axes of a drawing."""
    monkeypatch.setattr(figures, "to_bytes", lambda figure, format: figure.axes)
    return lambda draw, *args: draw(*args)


def test_losses_are_drawn_with_their_names(axes_of):
    (axes,) = axes_of(draw_losses, RUNS)
    lines = {line.get_label(): line.get_xydata().T.tolist() for line in axes.lines}
    for label, name in (("training", "train_loss"), ("validation", "valid_loss")):
        losses = np.array([[epoch[name] for epoch in run["epochs"]] for run in RUNS])
        assert lines[label] == [[1, 2, 3, 4, 5], losses.mean(axis=0).tolist()]
        assert [*losses[1]] in [ys for _, ys in lines.values()], "a thin line for each run"
    assert draw_run(RUNS[0])[0].get_title() == "IMDB: test accuracy 81.2 %"


def test_row_of_a_drawing_of_attention_is_what_the_token_reads(axes_of):
    (axes,) = axes_of(draw_attention, ["a", "b"], [[0.9, 0.1], [0.3, 0.7]])
    assert axes.collections[0].get_array().tolist() == [[0.9, 0.1], [0.3, 0.7]]
    assert axes.get_ylim() == (2, 0), "the first row is at the top"
    assert [[label.get_text() for label in labels] for labels in (axes.get_xticklabels(), axes.get_yticklabels())] == [
        ["a", "b"], ["a", "b"]]


def test_ranges_of_few_texts_are_not_drawn(axes_of):
    before, after = axes_of(draw_reliability, {"before": DIAGRAM, "after": {"all": [[100, 0.7, 0.8]]}})
    assert [axes.get_title() for axes in (before, after)] == ["before", "after"]
    assert [line.get_xydata().tolist() for line in before.lines[1:]] == [[[0.6, 0.55], [0.9, 0.7]], []]
    assert after.lines[1].get_xydata().tolist() == [[0.7, 0.8]]


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
