"""`python -m predict`: answers, tables, the choice of the network, and the page that explains an answer."""

import gzip
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import UserError
from helpers.imdb import make_reviews
from helpers.predictor import Predictor
from helpers.text import tokenize
from predict import __main__ as command
from predict import explain
from predict.answers import classify
from predict.explain import attention_weights, explanation_page, word_effects
from predict.tables import read_table, write_table
from tests.toy import ROOT

TEXTS = ["A superb film.", "The plot is dull, and I was bored.", "xyzzy qwertz film", "!", "the film " * 300]
AWKWARD = ['He said "no", twice;\tthen\r\nleft.', "a\u2028b\x85c\x0cd", "back\\slash \\n", " ", "'", "A film."]


@pytest.fixture(params=["toy_run", "toy_bonus_run"])
def predictor(request):
    return Predictor.load(request.getfixturevalue(request.param) / "model.pt")


def as_reviews(*texts):
    return make_reviews(*tokenize(texts))


def test_answer_is_what_the_network_computes_for_the_text_alone(predictor):
    logits = [predictor.logits(as_reviews(text)).item() for text in TEXTS]
    for answer, logit in zip(classify(predictor, TEXTS), logits, strict=True):
        assert answer.label == ("positive" if logit > 0 else "negative")
        assert answer.probability == pytest.approx(1 / (1 + np.exp(-abs(logit))), abs=1e-5)


def test_notes_and_known_words(predictor):
    answers = classify(predictor, [*TEXTS, "", " <br /> "])
    vocab = set(predictor.vocab.itos)
    for text, answer in zip(TEXTS, answers, strict=False):
        words = re.findall("[a-z]+", text.lower())
        known = np.mean([word in vocab for word in words]) if words else 0
        assert answer.known == pytest.approx(known)
        assert ("fewer than half" in str(answer.note)) == (known < 0.5)
        assert ("tokens of the text are read" in str(answer.note)) == (len(words) == 600)
    assert answers[5:] == [(None, None, False, None, None)] * 2


@pytest.mark.parametrize("text", ["it is not a superb film , and dull", "superb", "superb " + "the plot " * 255])
def test_effect_is_what_removing_the_word_does(predictor, monkeypatch, text):
    monkeypatch.setattr(explain, "AT_ONCE", 7)
    words, effects = text.split(), word_effects(predictor, as_reviews(text))
    for i in (0, len(words) // 2, len(words) - 1):
        without = " ".join(words[:i] + words[i + 1:])
        logits = predictor.logits(as_reviews(text, without))
        assert effects[i] == pytest.approx((logits[0] - logits[1]).item(), abs=1e-4)


@pytest.mark.our_models
def test_attention_is_that_of_the_first_block(toy_run):
    predictor = Predictor.load(toy_run / "model.pt")
    words = ["a", "superb", "film"]
    x = predictor.model.embedding(torch.tensor([predictor.vocab.stoi[word] for word in words]))
    attention = predictor.model.blocks[0].attention
    expected = torch.softmax(attention.W_q(x) @ attention.W_k(x).T / x.shape[1] ** 0.5, dim=1)
    found = attention_weights(predictor, as_reviews(" ".join(words)), 3)
    np.testing.assert_allclose(found, expected.detach(), atol=1e-4)


class Page(HTMLParser):
    """What a page shows: pairs of word and attributes, and what its script reads."""

    def __init__(self, content):
        super().__init__()
        self.words, self.tags, self.attributes, self.content = [], [], {}, content
        self.feed(content)
        self.data = json.loads(re.search("const data = (.*);", content)[1])

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes = dict(attributes)

    def handle_data(self, data):
        if "data-effect" in self.attributes:
            self.words.append((data, self.attributes))
        self.attributes = {}


@pytest.mark.our_models
def test_page_shows_words_effects_and_attention(predictor):
    text = "It is not a Xyzzy film, and dull."
    page, effects = Page(explanation_page(predictor, text)), word_effects(predictor, as_reviews(text))
    assert [word for word, _ in page.words] == ["it", "is", "not", "a", "xyzzy", "film", ",", "and", "dull", "."]
    for (word, attributes), effect in zip(page.words, effects, strict=True):
        marks = ["positive" if effect > 0 else "negative"] + ["unknown"] * (word not in predictor.vocab.itos)
        assert (attributes["class"].split(), attributes["tabindex"]) == (marks, "0")
        assert float(attributes["data-effect"]) == pytest.approx(effect, abs=0.00501)
    shades = [float(attributes["style"].removeprefix("--shade: ")) for _, attributes in page.words]
    np.testing.assert_allclose(shades, np.abs(effects) / max(np.abs(effects).max(), 0.1), atol=0.00501)
    assert page.data["read"] == list(range(10))
    np.testing.assert_allclose(np.sum(page.data["weights"], axis=1), 10_000, atol=10)


@pytest.mark.our_models
def test_page_of_a_long_text_marks_what_is_not_read(predictor):
    max_len = predictor.pipeline.settings["max_len"]
    page = Page(explanation_page(predictor, "the film " * 255))
    cut = [i for i, (_, attributes) in enumerate(page.words) if "cut" in attributes["class"]]
    assert sorted(cut + page.data["read"]) == list(range(510))
    assert (np.shape(page.data["weights"]), len(page.content) < 1_500_000) == ((max_len, max_len), True)
    with pytest.raises(UserError, match="3,001 tokens"):
        word_effects(predictor, as_reviews("film " * 3001))


def test_text_is_not_markup_and_the_page_loads_nothing(toy_run):
    predictor = Predictor.load(toy_run / "model.pt")
    text = '</script><script>alert(1)</script> $title ${x} x" onmouseover="alert(1) &lt;svg onload=alert(1)&gt;'
    page, plain = Page(explanation_page(predictor, text)), Page(explanation_page(predictor, "film"))
    reviews = as_reviews(text)
    assert [word for word, _ in page.words] == [reviews.words[token] for token in reviews.tokens]
    assert sorted(page.tags) == sorted(plain.tags + ["span"] * (len(page.words) - 1))
    assert not re.search(r"https?:|\ssrc=|url\(|@import|fetch\(", plain.content)


WRITERS = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "csv.gz": lambda table, path: table.to_csv(path),
    "tsv.gz": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "CSV": lambda table, path: table.to_csv(path, index=False, sep=";", encoding="utf-8-sig"),
    "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, force_ascii=False)}


@pytest.mark.parametrize("kind", WRITERS)
def test_tables_are_read_from_pandas_and_by_pandas(tmp_path, kind):
    WRITERS[kind](pd.DataFrame({"review": AWKWARD, "label": "1"}), tmp_path / f"in.{kind}")
    rows = read_table(tmp_path / f"in.{kind}")
    assert [(row["review"], row["label"]) for row in rows] == [(text, "1") for text in AWKWARD]
    write_table(tmp_path / f"out.{kind}", [row | {"predicted_label": None} for row in rows])
    read = {"jsonl": pd.read_json, "tsv": pd.read_table}.get(kind.removesuffix(".gz"), pd.read_csv)
    found = read(tmp_path / f"out.{kind}", **({"lines": True} if kind == "jsonl" else {}))
    assert (found["review"].tolist(), found["predicted_label"].isna().all()) == (AWKWARD, True)


def test_lines_and_quotes_that_are_characters(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\x85one\u2028one\x0cone\r\n\rtwo\nthree".encode())
    assert [row["text"] for row in read_table(tmp_path / "a.txt")] == ["one\x85one\u2028one\x0cone", "", "two", "three"]
    (tmp_path / "a.tsv").write_text('id\treview\n"1_8"\t"A \\"fine\\" film."\n"2_3"\t"Dull\n', encoding="utf-8")
    assert [row["review"] for row in read_table(tmp_path / "a.tsv")] == ['"A \\"fine\\" film."', '"Dull']


DAMAGED = {"a.csv": b'review,label\n"A film" is,1\n', "b.csv": b"review,label\nA film, a good one,1\n",
           "c.csv": b"review\ncaf\xe9\n", "d.csv": b"words\nA film\n", "a.txt": b" \n\n", "a.xlsx": b"PK",
           "a.csv.gz": gzip.compress(b"review\nfilm\n" * 99)[:-12], "a.jsonl": b'["a film"]\n'}


@pytest.mark.parametrize("name", [*DAMAGED, "missing.csv"])
def test_damaged_table_is_refused_in_one_sentence(call, tmp_path, toy_run, name):
    if name in DAMAGED:
        (tmp_path / name).write_bytes(DAMAGED[name])
    out = tmp_path / "out.csv"
    code, _, err = call(command.main, "--file", tmp_path / name, "--model", toy_run, "--out", out)
    assert (code, err.count("error: "), err.count("\n"), out.exists()) == (2, 1, 1, False)


def test_table_gets_two_columns_and_an_accuracy(call, toy_run, tmp_path):
    table = pd.DataFrame({"Text": [TEXTS[0], None, TEXTS[1]], "stars": [1, 2, 3], "label": ["POS", "neg", "0.0"]})
    table.to_csv(tmp_path / "in.csv", index=False)
    options = "--file", tmp_path / "in.csv", "--model", toy_run, "--out", tmp_path / "new" / "out.csv"
    code, out, _ = call(command.main, *options)
    expected = classify(Predictor.load(toy_run / "model.pt"), TEXTS[:2])
    found = pd.read_csv(tmp_path / "new" / "out.csv", keep_default_na=False)
    assert found["predicted_label"].tolist() == [expected[0].label, "", expected[1].label]
    assert float(found["predicted_probability"][2]) == pytest.approx(expected[1].probability)
    right = [expected[0].label == "positive", expected[1].label == "negative"]
    assert (code, out) == (0, f"accuracy {np.mean(right):.2%} on 2 labelled texts\n")
    assert "unknown" in call(command.main, *options, "--label-column", "Stars")[1]
    assert "no column reviews" in call(command.main, *options, "--column", "reviews")[2]


def test_answers_as_lines_and_as_json(call, toy_run, monkeypatch):
    torch.save(torch.load(toy_run / "model.pt") | {"data": "SAMPLE"}, "model.pt")
    monkeypatch.setattr(Predictor, "logits", lambda predictor, reviews: torch.tensor([-3.0, 0.1]))
    code, out, err = call(command.main, "--model", "model.pt", "A film\nto  sleep", "a film " * 20, "")
    assert out.splitlines()[0] == "negative   95.3%  A film to sleep"
    assert out.splitlines()[1] == "positive   52.5%  hard to say: " + ("a film " * 20)[:59] + "…"
    assert (code, out.splitlines()[2].strip(), err.count("SAMPLE")) == (0, "no text", 1)
    first, second = call(command.main, "--model", "model.pt", "--json", "A film", "qwertz xyzzy")[1].splitlines()
    assert json.loads(first) == {"text": "A film", "label": "negative", "probability": pytest.approx(0.9526, abs=1e-4),
                                 "sure": True, "known": 1.0, "note": None}
    assert (json.loads(second)["sure"], json.loads(second)["known"]) == (False, 0.0)


def test_bundled_network_only_with_its_own_models_py(call, toy_run, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "BUNDLED", tmp_path / "bundled.pt")
    saved = torch.load(toy_run / "model.pt")
    torch.save(saved | {"models": "# of my own\n" + saved["models"]}, command.BUNDLED)
    assert command.find_model() == command.BUNDLED
    torch.save(saved | {"models": saved["models"] + "\nx = 1\n"}, command.BUNDLED)
    assert call(command.main, "A film")[0] == 2
    for age, name in enumerate(["new", "old"]):
        path = tmp_path / "runs" / name / "model.pt"
        path.parent.mkdir(parents=True)
        torch.save(saved, path)
        os.utime(path, (1e9 - age, 1e9 - age))
    code, _, err = call(command.main, "A film")
    assert (code, "runs/new/model.pt" in err) == (0, True)


@pytest.mark.parametrize("options", [
    [], ["film", "--file", "a.csv"], ["film", "--out", "a.xlsx"], ["film", "--json", "--out", "a.csv"],
    ["film", "--explain", "a.png"], ["one", "two", "--explain", "a.html"], ["film", "--model", "nowhere"], ["", " "]])
def test_wrong_options_are_refused(call, toy_run, options):
    code, out, err = call(command.main, "--model", toy_run, *options)
    assert (code, out, err.count("error: ")) == (2, "", 1)


def test_whole_command(toy_run, tmp_path):
    """The module runs, writes the page, and does not import what would make the start slower."""
    options = ["A superb film.", "--model", toy_run, "--explain", tmp_path / "why.html"]
    process = subprocess.run([sys.executable, "-X", "importtime", "-m", "predict", *options], cwd=ROOT,
                             capture_output=True, text=True, encoding="utf-8", check=True)
    assert re.fullmatch(r"(positive|negative)   \d\d\.\d%  (hard to say: )?A superb film\.\n", process.stdout)
    assert Page((tmp_path / "why.html").read_text(encoding="utf-8")).words[1][0] == "superb"
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert {"torch", "spacy"} <= imported
    assert not imported & {"matplotlib", "sklearn", "transformers"}
