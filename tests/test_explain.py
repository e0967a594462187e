"""`predict --explain`: effects are what erasing a word does, they are faithful, and pictures and pages show them."""

import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from helpers import explain
from helpers.explain import attention_weights, word_effects, write_explanations
from helpers.predictor import Predictor, as_reviews, classify, unlabelled
from helpers.reviews import SAMPLE_DIR
from tests.toy import refused, train_toy

SHORT = "a wonderful film , but boring"


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """A network with two blocks and n-gram channels trained on the toy data."""
    return train_toy(data, tmp_path_factory.mktemp("runs"), "a", "--preset", "bonus", "--epochs", "2", "--lr", "0.001",
                     "--blocks", "2") / "model.pt"


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model)


@pytest.fixture
def explained(predictor, tmp_path, monkeypatch):
    """A function that explains a text in a file of that name; returns the file, and the figure if it is a picture."""
    def explained(text, name):
        write_explanations(predictor, as_reviews([text]), [tmp_path / name])
        return tmp_path / name, plt.gcf() if name.endswith("png") else None
    monkeypatch.setattr(plt, "close", lambda figure: None)
    yield explained
    monkeypatch.undo()
    plt.close("all")


@pytest.mark.parametrize("at_once", [1, 30, 200_000])
@pytest.mark.parametrize("text", [SHORT, "film " * 30 + "superb", "the " * 20 + "superb " + "the " * 20, "superb",
                                  "xyzzy", "superb superb"])
def test_effect_is_what_erasing_the_word_does(predictor, monkeypatch, text, at_once):
    """However many are computed at once; beyond the cut only the n-grams know a word."""
    words = text.split()
    without = [predictor.logits(as_reviews([" ".join(words[:i] + words[i + 1:]), text])) for i in range(len(words))]
    monkeypatch.setattr(explain, "TOKENS_AT_ONCE", at_once)
    effects = word_effects(predictor, as_reviews([text]))
    np.testing.assert_allclose(effects, [(whole - other).item() for other, whole in without], atol=1e-4)
    assert len(words) != 41 or abs(effects[20]) > 1e-3


def test_attention_is_that_of_the_first_block(predictor):
    reviews = as_reviews([SHORT])
    ids = torch.tensor([[predictor.vocab.stoi[word] for word in SHORT.split()]])
    channels = torch.from_numpy(predictor.table.channels(reviews)).float().unsqueeze(0)
    layer = predictor.model.blocks[0].attention
    expected = layer.weights(torch.cat([predictor.model.embedding(ids), channels], dim=2))[0].detach()
    np.testing.assert_allclose(attention_weights(predictor, reviews), expected, atol=1e-6)
    assert not layer._forward_hooks


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
@pytest.mark.parametrize("number", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_erasing_the_strongest_words_changes_more_than_erasing_random_ones(number):
    """The network that comes with the project on the sample reviews, which it has never seen.

    Five words that speak for the answer, beside five at random: how much does the answer's probability change?
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
        whole, top, *others = torch.sigmoid(sign * logits)
        strongest.append((whole - top).item())
        at_random.append((whole - torch.stack(others)).abs().mean().item())
    print(f"five strongest words {np.mean(strongest):.1%}, five at random {np.mean(at_random):.1%}")
    assert len(strongest) == number
    assert np.mean(strongest) > max(0.1, 5 * np.mean(at_random))
    assert np.mean(np.array(strongest) > at_random) > 0.95


def test_picture_shades_the_words_and_shows_the_attention(predictor, explained):
    path, figure = explained(SHORT, "why.png")
    assert plt.imread(path).shape[1] > 500
    words, bar, matrix = figure.axes
    title, *shown = words.texts
    assert title.get_text().startswith(("positive, ", "negative, "))
    assert [word.get_text() for word in shown] == SHORT.split()
    effects = word_effects(predictor, as_reviews([SHORT]))
    for word, effect in zip(shown, effects, strict=True):
        red, _, blue, _ = word.get_bbox_patch().get_facecolor()
        assert abs(effect) < 0.1 * abs(effects).max() or (blue > red) == (effect > 0)
    assert "logit" in bar.get_xlabel()
    np.testing.assert_allclose(matrix.images[0].get_array(), attention_weights(predictor, as_reviews([SHORT])), atol=1e-6)
    assert [label.get_text() for label in matrix.get_yticklabels()] == SHORT.split()


@pytest.mark.parametrize("text", ["the film was " * 100 + "x" * 500, "a wonderful film " * 20])
def test_words_of_a_long_text_neither_overlap_nor_leave_the_picture(explained, text):
    _, figure = explained(text, "why.png")
    words, _ = figure.axes  # no matrix
    figure.canvas.draw()
    extents = [word.get_window_extent() for word in words.texts]
    width, height = figure.canvas.get_width_height()
    assert all(0 <= one.x0 <= one.x1 <= width and 0 <= one.y0 <= one.y1 <= height for one in extents)
    assert all(a.x1 <= b.x0 or a.y0 >= b.y1 for a, b in zip(extents[1:], extents[2:], strict=False))


class Page(HTMLParser):
    """The tags of a page with their attributes, and the attributes of each shaded word."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.styles, self.content = [], {}, path.read_text(encoding="utf-8")
        self.feed(self.content)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "span":
            self.styles.setdefault(data, self.tags[-1][1])


def test_page_shades_the_words_and_shows_the_attention(predictor, explained):
    page = Page(explained(SHORT, "why.html")[0])
    for word, effect in zip(SHORT.split(), word_effects(predictor, as_reviews([SHORT])), strict=True):
        assert float(page.styles[word]["title"]) == pytest.approx(effect, abs=1e-3)
        colour = explain.BLUE if effect > 0 else explain.RED
        assert page.styles[word]["style"].startswith(f"background:rgba({colour},")
    cells = [float(attributes["title"]) for tag, attributes in page.tags if tag == "td"]
    np.testing.assert_allclose(np.reshape(cells, (6, 6)), attention_weights(predictor, as_reviews([SHORT])), atol=1e-3)
    assert "<table>" not in Page(explained("the film " * 30, "long.html")[0]).content


@pytest.mark.parametrize("text", [
    '<script>alert(1)</script> "><img src=x onerror=alert(1)> &lt; {title} {0} %s', "$\\frac{1}$ $x^2 $ \\",
    "日本語 の 映画 👨\u200d👩 e\u0301 \u202egnihton \x1b[31m \x7f \ufeff", "a" * 1000, "'", "ﷺ ﷽", "x\u0300" * 50])
@pytest.mark.filterwarnings("error")
def test_hostile_text_is_only_text(explained, text):
    explained(text, "why.png")
    page, plain = Page(explained(text, "why.html")[0]), Page(explained("film", "plain.html")[0])
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert {name for _, attributes in page.tags for name in attributes} <= {
        name for _, attributes in plain.tags for name in attributes}
    assert not re.search("https?:|src=|url[(]|@import", re.sub("<p>.*", "", page.content, flags=re.S))
    assert not {"\x1b", "\u202e"} & set(page.content)


def test_command_writes_both_and_answers(call, model, predictor, tmp_path):
    text, paths = "A wonderful film.", (tmp_path / "a.png", tmp_path / "new" / "b.html")
    code, out, err = call("predict", "--model", model, text, "--explain", paths[0], "--explain", paths[1])
    label, probability = classify(predictor.logits(as_reviews([text]))[0])
    assert (code, out) == (0, f"{label}  {probability:6.1%}  {text}\n")
    assert err == "".join(f"note: {path} shows why\n" for path in paths)
    assert paths[0].exists()
    assert f"<h1>{label}, {probability:.1%}</h1>" in paths[1].read_text(encoding="utf-8")


def test_folder_in_the_place_of_the_page_is_refused(call, model, tmp_path):
    (tmp_path / "a.html").mkdir()
    assert "a.html" in refused(*call("predict", "--model", model, "A film", "--explain", tmp_path / "a.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
