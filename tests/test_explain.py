"""`predict --explain`: effects are what removing a word does, and a page shows them."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from helpers.data.archive import SAMPLE_DIR
from helpers.data.reviews import make_reviews
from helpers.inference import explain
from helpers.inference.explain import attention_weights, word_effects, write_explanation
from helpers.inference.predictor import Predictor, as_reviews, classify
from tests.toy import refused, train_toy

TEXT = "a wonderful film , but boring"


@pytest.fixture(scope="module")
def predictor(data, tmp_path_factory):
    """A network with two blocks and the bonus, trained on the toy data."""
    options = "--preset", "bonus", "--epochs", "2", "--lr", "0.001", "--blocks", "2"
    folder = train_toy(data, tmp_path_factory.mktemp("runs"), "a", *options)
    return Predictor.load(folder / "model.pt")


@pytest.mark.parametrize("at_once", [1, 30])
@pytest.mark.parametrize("text", [TEXT, "the " * 20 + "superb " + "the " * 20, "superb", "xyzzy", "superb superb"])
def test_effect_is_what_removing_the_word_does(predictor, monkeypatch, text, at_once):
    """The number of texts that are classified together does not matter. Only n-grams read a word beyond the cut."""
    monkeypatch.setattr(explain, "AT_ONCE", at_once)
    words = text.split()
    whole = predictor.logits(as_reviews([text]))[0]
    expected = []
    for i in range(len(words)):
        without = " ".join(words[:i] + words[i + 1:])
        expected.append(whole - predictor.logits(as_reviews([without, text]))[0])
    np.testing.assert_allclose(word_effects(predictor, as_reviews([text])), expected, atol=1e-4)
    if len(words) > 40:
        assert abs(expected[20]) > 1e-3


def test_attention_weights_of_the_first_block(predictor):
    reviews = as_reviews([TEXT])
    ids = torch.tensor([[predictor.vocab.stoi[word] for word in TEXT.split()]])
    channels = torch.from_numpy(predictor.pipeline.table.channels(reviews)).float().unsqueeze(0)
    x = torch.cat([predictor.model.embedding(ids) + predictor.model.regions(ids), channels], dim=2)
    expected = predictor.model.blocks[0].attention.weights(x)[0].detach()
    np.testing.assert_allclose(attention_weights(predictor, reviews), expected, atol=1e-6)
    assert not predictor.model.blocks[0].attention._forward_hooks


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
@pytest.mark.parametrize("number", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_removing_the_strongest_words_changes_more_than_removing_random_words(number):
    """Remove five words from sample reviews, which the bundled network has not seen in training."""
    predictor, chance = Predictor.load(), np.random.default_rng(0)
    strongest, at_random = [], []
    for path in chance.permutation(sorted(SAMPLE_DIR.glob("*/*/*.txt")))[:number]:
        reviews = as_reviews([path.read_text(encoding="utf-8")])
        tokens, N = reviews.tokens, len(reviews.tokens)
        sign = 1 if predictor.logits(reviews)[0] > 0 else -1
        removed = [np.argsort(-sign * word_effects(predictor, reviews))[:5]]
        removed += [chance.choice(N, 5, replace=False) for _ in range(10)]
        variants = [tokens] + [np.delete(tokens, places) for places in removed]
        starts = np.cumsum([0, *map(len, variants)])
        logits = predictor.logits(make_reviews(reviews.words, np.concatenate(variants), starts))
        whole, without_strongest, *others = torch.sigmoid(sign * logits)
        strongest.append((whole - without_strongest).item())
        at_random.append((whole - torch.stack(others)).abs().mean().item())
    assert len(strongest) == number
    assert np.mean(strongest) > max(0.1, 5 * np.mean(at_random))
    assert np.mean(np.array(strongest) > at_random) > 0.95


class Page(HTMLParser):
    """The elements of a page as [tag, attributes, text]."""

    def __init__(self, content):
        super().__init__()
        self.elements = [["", {}, ""]]
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])

    def handle_data(self, data):
        self.elements[-1][2] += data


def explained(predictor, text, folder):
    """Explain a text; return the content of the page and its elements."""
    write_explanation(predictor, as_reviews([text]), folder / "why.html")
    content = (folder / "why.html").read_text(encoding="utf-8")
    return content, Page(content).elements


def test_page_colours_the_words_and_shows_the_attention(predictor, tmp_path):
    effects, weights = word_effects(predictor, as_reviews([TEXT])), attention_weights(predictor, as_reviews([TEXT]))
    _, elements = explained(predictor, TEXT, tmp_path)
    spans = [(text.strip(), attributes) for tag, attributes, text in elements if tag == "span"]
    assert [word for word, _ in spans] == TEXT.split()
    for (_, attributes), effect in zip(spans, effects, strict=True):
        colour, opacity = re.fullmatch(r"background:rgba\((.*),([\d.]+)\)", attributes["style"]).groups()
        assert colour == (explain.BLUE if effect > 0 else explain.RED)
        assert float(opacity) == pytest.approx(0.7 * abs(effect) / abs(effects).max(), abs=1e-3)
        assert float(attributes["title"]) == pytest.approx(effect, abs=1e-3)
    cells = [float(attributes["title"]) for tag, attributes, _ in elements if tag == "td"]
    np.testing.assert_allclose(np.reshape(cells, weights.shape), weights, atol=1e-3)
    names = [text.strip() for tag, _, text in elements if tag == "th"]
    assert names == ["", *TEXT.split(), *TEXT.split()]


def test_attention_of_a_long_text_is_not_shown(predictor, tmp_path):
    _, elements = explained(predictor, "a wonderful film " * 20, tmp_path)
    assert "table" not in {tag for tag, *_ in elements}


@pytest.mark.parametrize("text", [
    "http://a.b/?<img/src=x> http://a.b/<b>", '<script>alert(1)</script> "><img src=x> &amp;lt;b&gt; {title} $title',
    "日本語 の 映画 👨\u200d👩 e\u0301 \u202egnihton \x1b[31m \x7f \ufeff", "'", "a" * 1000])
def test_text_is_not_markup(predictor, tmp_path, text):
    content, elements = explained(predictor, text, tmp_path)
    _, plain = explained(predictor, "film", tmp_path)
    kinds = {(tag, *attributes) for tag, attributes, _ in elements}
    plain_kinds = {(tag, *attributes) for tag, attributes, _ in plain}
    assert kinds <= plain_kinds
    assert not re.search("https?:|src=|url[(]|@import", content.partition("<p>")[0])
    assert not re.search("[\x1b\x7f\u202e\ufeff]", content)


def test_command_writes_the_page_and_answers(call, tmp_path):
    text, path = "A wonderful film.", tmp_path / "new" / "why.html"
    code, out, err = call("predict", text, "--explain", path)
    label, probability = classify(Predictor.load().logits(as_reviews([text]))[0])
    assert (code, out) == (0, f"{label}  {probability:6.1%}  {text}\n")
    assert err == f"note: explanation written to {path}\n"
    assert f"<h1>{label}, {probability:.1%}</h1>" in path.read_text(encoding="utf-8")


def test_too_long_text_is_refused(call, tmp_path):
    path = tmp_path / "why.html"
    assert "at most 3,000" in refused(*call("predict", "a " * 3001, "--explain", path))
    assert not path.exists()
