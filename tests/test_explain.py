"""`predict --explain`: effects are what erasing a word does, they are faithful, and pictures and pages show them."""

import re
from html.parser import HTMLParser
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from helpers import explain
from helpers.archive import SAMPLE_DIR
from helpers.explain import attention_weights, word_effects, write_explanations
from helpers.predictor import Predictor, as_reviews, classify, make_reviews
from tests.toy import train_toy

TEXT = "a wonderful film , but boring"


@pytest.fixture(scope="module")
def predictor(data, tmp_path_factory):
    """A network with two blocks and n-gram channels, trained on the toy data."""
    options = "--preset", "bonus", "--epochs", "2", "--lr", "0.001", "--blocks", "2"
    folder = train_toy(data, tmp_path_factory.mktemp("runs"), "a", *options)
    return Predictor.load(folder / "model.pt")


@pytest.mark.parametrize("at_once", [1, 30])
@pytest.mark.parametrize("text", [TEXT, "the " * 20 + "superb " + "the " * 20, "superb", "xyzzy", "superb superb"])
def test_effect_is_what_erasing_the_word_does(predictor, monkeypatch, text, at_once):
    """However many are computed at once; beyond the cut only the n-grams know a word."""
    monkeypatch.setattr(explain, "AT_ONCE", at_once)
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
    x = torch.cat([predictor.model.embedding(ids) + predictor.model.regions(ids), channels], dim=2)
    expected = predictor.model.blocks[0].attention.weights(x)[0].detach()
    np.testing.assert_allclose(attention_weights(predictor, reviews), expected, atol=1e-6)
    assert not predictor.model.blocks[0].attention._forward_hooks


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
@pytest.mark.parametrize("number", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_erasing_the_strongest_words_changes_more_than_erasing_random_ones(number):
    """Erase five words from sample reviews, which the network that comes with the project has never seen."""
    predictor, chance = Predictor.load(), np.random.default_rng(0)
    strongest, at_random = [], []
    for path in chance.permutation(sorted(SAMPLE_DIR.glob("*/*/*.txt")))[:number]:
        reviews = as_reviews([path.read_text(encoding="utf-8")])
        tokens, N = reviews.tokens, len(reviews.tokens)
        sign = 1 if predictor.logits(reviews)[0] > 0 else -1
        erased = [np.argsort(-sign * word_effects(predictor, reviews))[:5]]
        erased += [chance.choice(N, 5, replace=False) for _ in range(10)]
        variants = np.concatenate([tokens, *(np.delete(tokens, chosen) for chosen in erased)])
        logits = predictor.logits(make_reviews(reviews.words, variants, np.cumsum([0, N, *[N - 5] * 11])))
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
    """Explain a text in a picture and a page; return the figure, the page's content and its elements."""
    with patch.object(plt, "close", wraps=plt.close) as close:
        write_explanations(predictor, as_reviews([text]), [folder / "why.png", folder / "why.html"])
    content = (folder / "why.html").read_text(encoding="utf-8")
    return close.call_args.args[0], content, Page(content).elements


def shaded(figure):
    return [text for text in figure.findobj(Text) if text.get_bbox_patch()]


def test_picture_and_page_shade_the_words_and_show_the_attention(predictor, tmp_path):
    effects, weights = word_effects(predictor, as_reviews([TEXT])), attention_weights(predictor, as_reviews([TEXT]))
    figure, content, elements = explained(predictor, TEXT, tmp_path)
    words, texts = shaded(figure), " ".join(text.get_text() for text in figure.findobj(Text))
    spans = [(text.strip(), attributes) for tag, attributes, text in elements if tag == "span"]
    assert [word.get_text() for word in words] == [word for word, _ in spans] == TEXT.split()
    for word, (_, attributes), effect in zip(words, spans, effects, strict=True):
        red, _, blue, _ = word.get_bbox_patch().get_facecolor()
        assert abs(effect) < 0.1 * abs(effects).max() or (blue > red) == (effect > 0)
        assert float(attributes["title"]) == pytest.approx(effect, abs=1e-3)
        assert attributes["style"].startswith(f"background:rgba({explain.BLUE if effect > 0 else explain.RED},")
    assert f"logit by {abs(effects).max():.2f}." in texts
    assert re.search("<h1>(.*)</h1>", content)[1] in texts
    (matrix,) = figure.axes
    assert [label.get_text() for label in matrix.get_yticklabels()] == TEXT.split()
    np.testing.assert_allclose(matrix.images[0].get_array(), weights, atol=1e-6)
    cells = [float(attributes["title"]) for tag, attributes, _ in elements if tag == "td"]
    np.testing.assert_allclose(np.reshape(cells, weights.shape), weights, atol=1e-3)


@pytest.mark.parametrize("text", ["a wonderful film " * 20, "the film was " * 100 + "x" * 500])
def test_words_of_a_long_text_stay_on_the_picture_and_apart_and_there_is_no_matrix(predictor, tmp_path, text):
    figure, _, elements = explained(predictor, text, tmp_path)
    FigureCanvasAgg(figure).draw()
    x0, y0, x1, y1 = np.transpose([word.get_window_extent().extents for word in shaded(figure)])
    assert ((x1[:-1] <= x0[1:]) | (y0[:-1] >= y1[1:])).all()
    height, width, _ = np.array(plt.imread(tmp_path / "why.png").shape) * figure.dpi / 150
    assert (x1.max() - x0.min() < width, y1.max() - y0.min() < height) == (True, True)
    assert not figure.axes
    assert "table" not in {tag for tag, *_ in elements}


@pytest.mark.parametrize("text", [
    "http://a.b/?<img/src=x> http://a.b/<b>", '<script>alert(1)</script> "><img src=x> &amp;lt;b&gt; {title} $title',
    "http://a.b/$\\frac{$ $x^2 $ \\", "日本語 の 映画 👨\u200d👩 e\u0301 \u202egnihton \x1b[31m \x7f \ufeff", "ﷺ ﷽",
    "a" * 1000, "'", "x\u0300" * 50])
@pytest.mark.filterwarnings("error")
def test_hostile_text_is_only_text(predictor, tmp_path, text):
    (_, content, elements), (_, _, plain) = (explained(predictor, each, tmp_path) for each in (text, "film"))
    kinds, plain_kinds = ({(tag, *attributes) for tag, attributes, _ in each} for each in (elements, plain))
    assert kinds <= plain_kinds
    assert not re.search("https?:|src=|url[(]|@import", content.partition("<p>")[0])
    assert not re.search("[\x1b\x7f\u202e\ufeff]", content)


def test_command_writes_both_and_answers(call, tmp_path):
    text, paths = "A wonderful film.", (tmp_path / "a.png", tmp_path / "new" / "b.html")
    code, out, err = call("predict", text, "--explain", paths[0], "--explain", paths[1])
    label, probability = classify(Predictor.load().logits(as_reviews([text]))[0])
    assert (code, out, paths[0].exists()) == (0, f"{label}  {probability:6.1%}  {text}\n", True)
    assert err == "".join(f"note: {path} shows why\n" for path in paths)
    assert f"<h1>{label}, {probability:.1%}</h1>" in paths[1].read_text(encoding="utf-8")
