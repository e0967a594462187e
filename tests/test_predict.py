"""`predict`: what it answers, says and refuses, and that a text goes the way of the reviews in training."""

import io
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import refused, train_toy

import imdb
import predict
from predict import Judge, as_reviews

TEXTS = ["A wonderful and superb film.", "Dreadful , boring & awful<br /><br />AWFUL!", "the the the film"]


@pytest.fixture(scope="module", params=["required", "bonus"])
def model(request, data, tmp_path_factory):
    """A network trained on the toy data, without and with n-gram channels; the latter reads both ends of a text."""
    return train_toy(data, tmp_path_factory.mktemp("runs"), "a", "--preset", request.param, "--epochs",
                     "6") / "model.pt"


@pytest.fixture
def ask(call, model, monkeypatch):
    """A function that runs `predict` with the toy network, and with bytes on standard input."""
    def ask(*options, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return call("predict", "--model", model, *options)
    return ask


def answers(out):
    """Label, probability in per cent, and text of each line."""
    return [re.fullmatch(r"(positive|negative)  ( *[\d.]+)%  (.*)", line).groups() for line in out.splitlines()]


# Answers


def test_one_aligned_line_a_text(ask):
    code, out, err = ask(*TEXTS)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line[:8] for line in lines[:2]] == ["positive", "negative"]
    assert [line.index("%") for line in lines] == [15] * 3
    assert [text for _, _, text in answers(out)] == TEXTS
    assert all(50 <= float(percent) <= 100 for _, percent, _ in answers(out))


def test_texts_lines_of_a_file_and_of_standard_input_are_answered_alike(ask, tmp_path):
    code, expected, _ = ask(*TEXTS)
    (tmp_path / "texts").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode() + b"\n")
    assert ask("--file", tmp_path / "texts") == (0, expected, "")
    assert ask(stdin="\n".join(TEXTS).encode()) == (0, expected, "")


def test_json_holds_text_label_and_probability(ask):
    hostile = 'Größe "quoted" \x1b[31m\u202e {} \\ \t'
    code, out, _ = ask("--json", *TEXTS, hostile)
    found = [json.loads(line) for line in out.splitlines()]
    assert [set(answer) for answer in found] == [{"text", "label", "probability"}] * 4
    assert [answer["text"] for answer in found] == [*TEXTS, hostile]
    assert out.isascii()
    assert "\x1b" not in out
    plain = answers(ask(*TEXTS, hostile)[1])
    assert [(answer["label"], f"{answer['probability']:6.1%}") for answer in found] == [
        (label, f"{percent}%") for label, percent, _ in plain]


def test_answers_are_the_networks_on_the_test_reviews(model, data, ask, tmp_path):
    """The reviews as texts get the logits that the evaluation gives them, cut ones and short ones."""
    reviews = imdb.load_reviews(data / "aclImdb", data / "cache", expected_digest=imdb.CONTENT_SHA256)
    judge = Judge(model)
    evaluated = imdb.keep(reviews, reviews.test)
    channels = judge.table.channels(judge.table.ids(evaluated), evaluated.starts) if judge.table else None
    test_set = imdb.ReviewSet(evaluated, evaluated.test, judge.vocab, 25, both_ends=judge.settings["both_ends"],
                              channels=channels)
    expected = predict.predict_logits(judge.model, imdb.BucketLoader(test_set, 8), torch.device("cpu"), "")
    texts = [path.read_text() for kind in ("neg", "pos") for path in sorted((data / "aclImdb/test" / kind).iterdir())]
    assert any(np.diff(evaluated.starts) > 25)
    torch.testing.assert_close(judge.logits(as_reviews(*imdb.tokenize(texts))), expected, atol=1e-5, rtol=1e-5)
    (tmp_path / "texts").write_text("\n".join(texts))
    _, out, _ = ask("--json", "--file", tmp_path / "texts")
    probabilities = [json.loads(line)["probability"] for line in out.splitlines()]
    np.testing.assert_allclose(probabilities, torch.sigmoid(expected.abs()), atol=1e-5)


def test_cut_text_is_said_to_be_cut(ask, model):
    long = "wonderful " * 20 + "the " * 30
    code, _, err = ask("a film", long, "a " * 25, long)
    both_ends = Judge(model).settings["both_ends"]
    part = "first 12 and last 13 tokens, and the n-grams of all," if both_ends else "first 25 tokens"
    assert (code, err) == (0, f"note: only the {part} were read: text 2, 4\n")


def test_middle_of_a_long_text_counts_only_through_ngrams(model):
    """Without channels, what is cut away has no effect; the ends have."""
    judge = Judge(model)
    middle = ["wonderful " * 30 + word * 40 + "dreadful " * 30 for word in ("film ", "boring ")]
    both = judge.logits(as_reviews(*imdb.tokenize(middle)))
    assert torch.isclose(*both, atol=1e-5).item() == (judge.table is None)


def test_unknown_words_are_said_to_be_unknown(ask):
    code, out, err = ask("a film", "日本語 の 映画", "xyzzy")
    assert code == 0
    assert len(answers(out)) == 3
    assert err == "note: the network knows none of the words: text 2, 3\n"


def test_sample_is_said_to_be_one(ask, model, tmp_path, call):
    saved = torch.load(model) | {"data": "SAMPLE"}
    torch.save(saved, tmp_path / "model.pt")
    code, _, err = call("predict", "--model", tmp_path / "model.pt", "A film")
    assert code == 0
    assert "SAMPLE" in err


def test_shown_text_is_short_and_cannot_move_the_cursor(ask):
    code, out, _ = ask("The\x1b[2J film\r\n was \u202ewonderful\x07 " + "x " * 100)
    ((_, _, shown),) = answers(out)
    assert shown.startswith("The [2J film was wonderful x x")
    assert len(shown) == 60
    assert shown.endswith("…")


def test_terminal_that_knows_ascii_alone(ask, monkeypatch):
    plain = io.TextIOWrapper(io.BytesIO(), "ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", plain)
        assert predict.shorten("Größe … " * 100).isascii()


def test_blank_lines_are_left_out_and_numbers_are_those_of_lines(ask):
    code, out, err = ask(stdin=b"\n  \na film\n\nxyzzy\n")
    assert (code, len(out.splitlines())) == (0, 2)
    assert err == "note: 3 blank lines were left out\nnote: the network knows none of the words: text 5\n"


def test_text_that_begins_with_a_dash(ask):
    code, out, _ = ask("--", "--a film", "-5")
    assert (code, [text for *_, text in answers(out)]) == (0, ["--a film", "-5"])


def test_million_words(ask):
    code, out, err = ask(stdin=b"wonderful film " * 500_000)
    assert (code, len(out.splitlines())) == (0, 1)
    assert out.startswith("positive")
    assert "only the" in err


# Refusals


@pytest.mark.parametrize(("options", "stdin", "word"), [
    ([""], b"", "text 1 is empty"),
    (["a film", " \n "], b"", "text 2 is empty"),
    (["<br /><br />"], b"", "text 1 is empty"),
    ([], b"", "no text"),
    ([], b"\n \n", "no text"),
    ([], b"a film\n\xff\xfe\x00\n", "line 2 is not UTF-8"),
    ([], b"a\0film", "text 1 is not text but bytes"),
    (["caf\udce9"], b"", "text 1 is not text but bytes"),
    (["x" * 1001], b"", "text 1 holds 1,001 characters without a space"),
    (["a film", "--file", __file__], b"", "one or the other"),
    (["--file", "nowhere"], b"", "nowhere: No such file"),
    (["--file", str(Path(__file__).parent)], b"", "Is a directory"),
    (["--file", sys.executable], b"", "not UTF-8"),
    (["--colour", "x"], b"", "--colour"),
    (["--explain", "why.pdf", "x"], b"", "--explain"),
    (["--explain", "why.png", "a film", "another"], b"", "one text, not 2"),
    (["a " * 3001, "--explain", "why.png"], b"", "at most 3,000"),
])
def test_bad_input_is_refused(call, monkeypatch, options, stdin, word):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    assert word in refused(*call("predict", *options))


def test_endless_file_is_refused(call, monkeypatch):
    monkeypatch.setattr(predict, "LARGEST_INPUT", 1000)
    assert "more than 1,000 bytes" in refused(*call("predict", "--file", "/dev/zero"))


@pytest.mark.parametrize("stdin", [SimpleNamespace(isatty=lambda: True), None], ids=["terminal", "none"])
def test_terminal_is_not_waited_for(call, monkeypatch, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    assert "no text" in refused(*call("predict"))


def test_missing_model_is_refused(call, tmp_path):
    line = refused(*call("predict", "--model", tmp_path / "model.pt", "A film"))
    assert str(tmp_path / "model.pt") in line
    assert "train first" in line


# The whole command


def test_answer_comes_in_time_from_any_folder(tmp_path):
    """With the network that comes with the project: 5 seconds from the start of the process, here in processor time."""
    script = Path(predict.__file__).with_name("sentiment_analysis.py")
    started, before = time.time(), sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    process = subprocess.run([sys.executable, "-X", "importtime", script, "predict", "A superb film."],
                             cwd=tmp_path, capture_output=True, text=True)
    assert re.fullmatch(r"positive   \d\d\.\d%  A superb film\.\n", process.stdout)
    assert sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before < 5
    assert time.time() - started < 30
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert {"torch", "spacy"} <= imported
    assert not imported & {"matplotlib", "sklearn", "transformers"}
    assert not list(tmp_path.iterdir())
