"""`predict --explain`: effects are what erasing a word does, they are faithful, and pictures and pages show them."""

import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from helpers import explain
from helpers.archive import SAMPLE_DIR
from helpers.explain import attention_weights, word_effects, write_explanations
from helpers.predictor import Predictor, as_reviews, classify, unlabelled
from tests.toy import refused, train_toy

TEXT = "a wonderful film , but boring"


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """A network with two blocks and n-gram channels, trained on the toy data."""
    return train_toy(data, tmp_path_factory.mktemp("runs"), "a", "--preset", "bonus", "--epochs", "2", "--lr", "0.001",
                     "--blocks", "2") / "model.pt"


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model)


@pytest.mark.parametrize("at_once", [1, 30, 200_000])
@pytest.mark.parametrize("text", [TEXT, "the " * 20 + "superb " + "the " * 20, "superb", "xyzzy", "superb superb"])
def test_effect_is_what_erasing_the_word_does(predictor, monkeypatch, text, at_once):
    """However many are computed at once; beyond the cut only the n-grams know a word."""
    monkeypatch.setattr(explain, "TOKENS_AT_ONCE", at_once)
    words = text.split()
    whole = predictor.logits(as_reviews([text]))[0]
    expected = [whole - predictor.logits(as_reviews([" ".join(words[:i] + words[i + 1:]), text]))[0]
                for i in range(len(words))]
    np.testing.assert_allclose(word_effects(predictor, as_reviews([text])), expected, atol=1e-4)
    assert len(words) < 41 or abs(expected[20]) > 1e-3


def test_attention_is_that_of_the_first_block(predictor):
    reviews = as_reviews([TEXT])
    ids = torch.tensor([[predictor.vocab.stoi[word] for word in TEXT.split()]])
    channels = torch.from_numpy(predictor.table.channels(reviews)).float().unsqueeze(0)
    x = torch.cat([predictor.model.embedding(ids), channels], dim=2)
    expected = predictor.model.blocks[0].attention.weights(x)[0].detach()
    np.testing.assert_allclose(attention_weights(predictor, reviews), expected, atol=1e-6)
    assert not predictor.model.blocks[0].attention._forward_hooks


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
@pytest.mark.parametrize("number", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_erasing_the_strongest_words_changes_more_than_erasing_random_ones(number):
    """The network that comes with the project on the sample reviews, which it has never seen.

    How much do the five words that speak most for the label change its probability, and how much five at random?
    """
    predictor, chance = Predictor(), np.random.default_rng(0)
    strongest, at_random = [], []
    for path in chance.permutation(sorted(SAMPLE_DIR.glob("*/*/*.txt")))[:number]:
        reviews = as_reviews([path.read_text(encoding="utf-8")])
        tokens, N = reviews.tokens, len(reviews.tokens)
        sign = 1 if predictor.logits(reviews)[0] > 0 else -1
        erased = [np.argsort(-sign * word_effects(predictor, reviews))[:5]]
        erased += [chance.choice(N, 5, replace=False) for _ in range(10)]
        variants = np.concatenate([tokens, *(np.delete(tokens, chosen) for chosen in erased)])
        logits = predictor.logits(unlabelled(reviews.words, variants, np.cumsum([0, N, *[N - 5] * 11])))
        whole, without_strongest, *others = torch.sigmoid(sign * logits)
        strongest.append((whole - without_strongest).item())
        at_random.append((whole - torch.stack(others)).abs().mean().item())
    assert len(strongest) == number
    assert np.mean(strongest) > max(0.1, 5 * np.mean(at_random))
    assert np.mean(np.array(strongest) > at_random) > 0.95


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn from now on."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    plt.close("all")


class Page(HTMLParser):
    """The tags of a page with their attributes, and the attributes of each shaded word."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.styles = [], {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "span":
            self.styles.setdefault(data, self.tags[-1][1])

    def names(self):
        return {tag for tag, _ in self.tags}, {name for _, attributes in self.tags for name in attributes}


def write(predictor, text, path):
    """Explain a text in a file, and return the file's path."""
    write_explanations(predictor, as_reviews([text]), [path])
    return path


def test_picture_and_page_shade_the_words_and_show_the_attention(predictor, tmp_path, drawn):
    effects, weights = word_effects(predictor, as_reviews([TEXT])), attention_weights(predictor, as_reviews([TEXT]))
    assert write(predictor, TEXT, tmp_path / "why.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    words, bar, matrix = drawn[0].axes
    title, *shown = words.texts
    assert title.get_text().startswith(("positive, ", "negative, "))
    assert [word.get_text() for word in shown] == TEXT.split()
    page = Page(write(predictor, TEXT, tmp_path / "why.html"))
    for word, effect in zip(shown, effects, strict=True):
        red, _, blue, _ = word.get_bbox_patch().get_facecolor()
        assert abs(effect) < 0.1 * abs(effects).max() or (blue > red) == (effect > 0)
        attributes = page.styles[word.get_text()]
        assert float(attributes["title"]) == pytest.approx(effect, abs=1e-3)
        assert attributes["style"].startswith(f"background:rgba({explain.BLUE if effect > 0 else explain.RED},")
    assert "logit" in bar.get_xlabel()
    assert [label.get_text() for label in matrix.get_yticklabels()] == TEXT.split()
    np.testing.assert_allclose(matrix.images[0].get_array(), weights, atol=1e-6)
    cells = [float(attributes["title"]) for tag, attributes in page.tags if tag == "td"]
    np.testing.assert_allclose(np.reshape(cells, weights.shape), weights, atol=1e-3)


@pytest.mark.parametrize("text", ["a wonderful film " * 20, "the film was " * 100 + "x" * 500])
def test_words_of_a_long_text_stay_on_the_picture_and_apart_and_there_is_no_matrix(predictor, tmp_path, drawn, text):
    write(predictor, text, tmp_path / "why.png")
    words, _ = drawn[0].axes
    drawn[0].canvas.draw()
    extents = [word.get_window_extent() for word in words.texts]
    width, height = drawn[0].canvas.get_width_height()
    assert all(each.x0 >= 0 and each.x1 <= width and each.y0 >= 0 and each.y1 <= height for each in extents)
    assert all(a.x1 <= b.x0 or a.y0 >= b.y1 for a, b in zip(extents[1:], extents[2:], strict=False))
    assert "table" not in Page(write(predictor, text, tmp_path / "why.html")).names()[0]


@pytest.mark.parametrize("text", [
    '<script>alert(1)</script> "><img src=x onerror=alert(1)> &lt; &amp;lt;b&gt; {title} $title %s', "a" * 1000, "'",
    "$\\frac{1}$ $x^2 $ \\", "日本語 の 映画 👨\u200d👩 e\u0301 \u202egnihton \x1b[31m \x7f \ufeff", "ﷺ ﷽",
    "x\u0300" * 50])
@pytest.mark.filterwarnings("error")
def test_hostile_text_is_only_text(predictor, tmp_path, text):
    write(predictor, text, tmp_path / "why.png")
    path = write(predictor, text, tmp_path / "why.html")
    plain = Page(write(predictor, "film", tmp_path / "plain.html"))
    assert all(found <= usual for found, usual in zip(Page(path).names(), plain.names(), strict=True))
    content = path.read_text(encoding="utf-8")
    assert not re.search("https?:|src=|url[(]|@import", content.partition("<p>")[0])
    assert not re.search("[\x1b\x7f\u202e\ufeff]", content)


def test_command_writes_both_and_answers(call, model, predictor, tmp_path):
    text = "A wonderful film."
    paths = tmp_path / "a.png", tmp_path / "new" / "b.html"
    code, out, err = call("predict", "--model", model, text, "--explain", paths[0], "--explain", paths[1])
    label, probability = classify(predictor.logits(as_reviews([text]))[0])
    assert (code, out) == (0, f"{label}  {probability:6.1%}  {text}\n")
    assert err == "".join(f"note: {path} shows why\n" for path in paths)
    assert paths[0].exists()
    assert f"<h1>{label}, {probability:.1%}</h1>" in paths[1].read_text(encoding="utf-8")


def test_path_that_cannot_be_written_is_refused(call, model, tmp_path):
    (tmp_path / "a.html").mkdir()
    assert "a.html" in refused(*call("predict", "--model", model, "A film", "--explain", tmp_path / "a.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
