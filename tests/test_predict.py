"""`predict`: answers, notes and refusals."""

import io
import json
import math
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from helpers.inference import tables
from helpers.inference.predictor import Predictor
from tests.toy import ROOT, refused, run_python, train_toy

TEXTS = ["A wonderful and superb film.", "Dreadful , boring & awful<br /><br />AWFUL!", "the the the film"]


@pytest.fixture(scope="module", params=["required", "bonus"])
def model(request, data, tmp_path_factory):
    """A network trained on the toy data, without and with the bonus, which reads both ends of a text."""
    return train_toy(data, tmp_path_factory.mktemp("runs"), request.param, "--preset", request.param, "--epochs",
                     "6") / "model.pt"


@pytest.fixture
def ask(call, model, monkeypatch):
    """A function that runs `predict` with the toy network, and with bytes on standard input."""
    def ask(*options, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return call("predict", "--model", model, *options)
    return ask


def answers(out):
    """Return label, probability in per cent, and text of each line."""
    pattern = r"(positive|negative)  ( *[\d.]+)%  (?:hard to say: )?(.*)"
    return [re.fullmatch(pattern, line).groups() for line in out.splitlines()]


def test_one_aligned_line_for_each_text_from_any_source(ask, tmp_path):
    code, out, err = ask(*TEXTS)
    assert (code, err) == (0, "")
    labels, percents, texts = zip(*answers(out), strict=True)
    assert (labels[:2], texts) == (("positive", "negative"), tuple(TEXTS))
    assert all(50 <= float(percent) <= 100 for percent in percents)
    assert [line.index("%") for line in out.splitlines()] == [15] * 3
    (tmp_path / "texts").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode() + b"\n")
    assert ask("--file", tmp_path / "texts") == (0, out, "")
    for options in ([], ["--file", "-"]):
        assert ask(*options, stdin="\n".join(TEXTS).encode()) == (0, out, "")


def test_json_holds_text_label_and_probability(ask):
    texts = [*TEXTS, 'Größe "quoted" \x1b[31m\u202e {} \\ \t']
    code, out, _ = ask("--json", *texts)
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, out.isascii(), "\x1b" in out) == (0, True, False)
    assert [list(answer)[:5] for answer in found] == [["text", "label", "probability", "sure", "known"]] * 4
    assert [answer["text"] for answer in found] == texts
    assert [(answer["label"], f"{answer['probability']:6.1%}") for answer in found] == [
        (label, f"{percent}%") for label, percent, _ in answers(ask(*texts)[1])]


@pytest.mark.parametrize(("probability", "sure"), [(0.5, False), (0.549, False), (0.551, True), (0.99, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_hard_to_say_below_55_per_cent(ask, monkeypatch, probability, sure, sign):
    logit = sign * math.log(probability / (1 - probability))
    monkeypatch.setattr(Predictor, "logits", lambda predictor, reviews: torch.full((len(reviews.labels),), logit))
    _, out, _ = ask("A film")
    assert ("hard to say: A film" in out, "A film" in out) == (not sure, True)
    assert json.loads(ask("--json", "A film")[1])["sure"] == sure


def test_notes_on_cut_texts_unknown_words_and_blank_lines(ask, model):
    long = "wonderful " * 20 + "the " * 30
    part = "first 25 tokens"
    if "bonus" in str(model):
        part = "first 12 and last 13 tokens, and the n-grams of the whole text,"
    lines = ["", "  ", "a film", long, "a " * 25, "日本語 の 映画", long, "xyzzy"]
    code, out, err = ask(stdin="\n".join(lines).encode())
    assert (code, len(answers(out))) == (0, 6)
    assert err == ("note: skipped blank texts: 2\n"
                   f"note: only the {part} were read: text 4, 7\n"
                   "note: the network knows fewer than half of the words: text 6, 8\n")


@pytest.mark.parametrize(("ends", "blank"), [
    ("\r", 0), ("\r\n", 0), ("\n", 0), ("\x0b", 0), ("\x0c", 0), ("\x1e", 0), ("\x85", 0), ("\u2028", 0), ("\n\r", 3)])
def test_lines_end_as_in_editors(ask, tmp_path, ends, blank):
    content = "".join(text + ends for text in TEXTS).encode()
    (tmp_path / "texts.txt").write_bytes(content)
    _, expected, _ = ask(*TEXTS)
    note = f"note: skipped blank texts: {blank}\n" * bool(blank)
    assert ask("--file", tmp_path / "texts.txt") == ask(stdin=content) == (0, expected, note)


BAD_TEXTS = {"x" * 1001: "has more than 1,000 characters without a space", "a\0film": "is binary data",
             "<b></b>": "is empty"}


@pytest.mark.parametrize(("bad", "reason"), BAD_TEXTS.items(), ids=BAD_TEXTS.values())
def test_text_without_an_answer_leaves_the_others(ask, bad, reason):
    texts = [*TEXTS, bad, "a film"]
    _, expected, notes = ask(*TEXTS, "a film")
    code, out, err = ask(*texts)
    assert (code, err) == (0, notes + f"note: no answer, because the text {reason}: text 4\n")
    lines = out.splitlines()
    assert lines[:3] + lines[4:] == expected.splitlines()
    assert (lines[3][:18].strip(), lines[3][18:19]) == ("", bad[0])
    code, out, err = ask("--json", *texts)
    empty = dict.fromkeys(["label", "probability", "known"])
    assert json.loads(out.splitlines()[3]) == {"text": bad, "sure": False, **empty,
                                               "note": f"no answer, because the text {reason}"}


def test_hint_at_file_for_the_name_of_a_file(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("A film\n", encoding="utf-8")
    code, out, err = ask("A film", "a.txt", "b.txt", ".")
    assert (code, out.count("\n"), err.count("--file")) == (0, 4, 1)
    assert "for the content, use --file a.txt\n" in err


@pytest.mark.parametrize(("step", "words"), [("logits", "split the input"), ("from_saved", "not enough memory")])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=type)
def test_full_memory_is_refused(ask, monkeypatch, model, error, step, words):
    def fail(*arguments):
        raise error
    loaded = Predictor.load(model)
    if step == "logits":
        monkeypatch.setattr(Predictor, "load", lambda path: loaded)
    monkeypatch.setattr(Predictor, step, fail)
    assert words in refused(*ask("A film"))


def test_note_on_a_network_trained_on_the_sample(call, model, tmp_path):
    torch.save(torch.load(model) | {"data": "SAMPLE"}, tmp_path / "model.pt")
    code, _, err = call("predict", "--model", tmp_path / "model.pt", "A film")
    assert (code, "SAMPLE" in err) == (0, True)


def test_shown_text_is_short_and_cannot_move_the_cursor(ask):
    _, out, _ = ask("--", "--a film", "The\x1b[2J film\r\n was \u202ewonderful\x07 " + "x " * 100)
    (_, _, dash), (_, _, shown) = answers(out)
    assert dash == "--a film"
    assert shown.startswith("The [2J film was wonderful x x")
    assert (len(shown), shown[-1]) == (60, "…")


def test_million_words(ask):
    code, out, err = ask(stdin=b"wonderful film " * 500_000)
    assert (code, [label for label, *_ in answers(out)], "only the" in err) == (0, ["positive"], True)


@pytest.mark.parametrize(("options", "stdin", "word"), [
    ([""], b"", "text 1 is empty"), ([" \n ", "\0"], b"", "text 1 is empty"),
    (["<br /><br />"], b"", "text 1 is empty"), ([], b"", "no text"), ([], b"\n \n", "no text"),
    ([], b"a film\n\xff\xfe\x00\n", "line 2 is not UTF-8"), ([], b"a\0film", "text 1 is binary data"),
    (["caf\udce9"], b"", "text 1 is binary data"),
    (["x" * 1001], b"", "text 1 has more than 1,000 characters without a space"),
    ([], b"\xff\r\r\x85", "line 1 is not UTF-8"), ([], "a\r\u2028b\x85".encode() + b"\xff", "line 4 is not UTF-8"),
    (["--file", "a.txt", "--file", "b.txt"], b"", "--file is given twice"), (["--file="], b"", "the path is empty"),
    (["a film", "--file", __file__], b"", "TEXT and --file cannot be combined"),
    (["--out", "o.csv", "--json", "a film"], b"", "--out and --json cannot be combined"),
    (["--file", "nowhere"], b"", "cannot open nowhere: No such file"),
    (["--file", "/"], b"", "Is a directory"), (["--file", sys.executable], b"", "not UTF-8"),
    (["--file", "/dev/zero"], b"", "more than 10,000,000 bytes"), (["--colour", "x"], b"", "--colour"),
    (["x", "--model", "nowhere/model.pt"], b"", "train first"),
    (["--explain", "why.png", "x"], b"", "a name that ends in .html"),
    (["--explain", "why.html", "a film", "another"], b"", "one text, not 2")])
def test_bad_input_is_refused(call, monkeypatch, options, stdin, word):
    monkeypatch.setattr(tables, "LARGEST_INPUT", 10_000_000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    assert word in refused(*call("predict", *options))


@pytest.mark.parametrize("stdin", [SimpleNamespace(isatty=lambda: True), None], ids=["terminal", "none"])
def test_no_input_from_a_terminal(call, monkeypatch, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    assert "no text" in refused(*call("predict"))


def test_whole_command_from_any_folder(tmp_path):
    """The bundled network answers, and no module is imported that it does not need."""
    _, out, err = run_python("-X", "importtime", ROOT / "sentiment_analysis.py", "predict", "A superb film.",
                             cwd=tmp_path)
    assert re.fullmatch(r"positive   \d\d\.\d%  A superb film\.\n", out)
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert {"torch", "spacy"} <= imported
    assert not imported & {"matplotlib", "sklearn", "transformers"}
    assert not list(tmp_path.iterdir())
