"""`predict --explain`: effects are what erasing a word does, they are faithful, and pictures and pages show them."""

import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import refused, train_toy

import explain
import imdb
from explain import attention, effects
from predict import Judge, as_reviews, verdict
from sentiment_analysis import SAMPLE_DIR


def read(*texts):
    return as_reviews(*imdb.tokenize(texts))


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """A network with two blocks and n-gram channels trained on the toy data."""
    return train_toy(data, tmp_path_factory.mktemp("runs"), "a", "--preset", "bonus", "--epochs", "2", "--lr", "0.001",
                     "--blocks", "2") / "model.pt"


@pytest.fixture(scope="module")
def judge(model):
    return Judge(model)


# Effects


@pytest.mark.parametrize("text", ["a wonderful film", "the long and boring film was awful .", "film " * 30 + "superb",
                                  "superb", "xyzzy", "superb superb"])
def test_effect_is_what_erasing_the_word_does(judge, text):
    words = text.split()
    whole = judge.logits(read(text))[0]
    others = [judge.logits(read(" ".join(words[:i] + words[i + 1:]), text))[0] for i in range(len(words))]
    np.testing.assert_allclose(effects(judge, read(text)), [(whole - other).item() for other in others], atol=1e-4)


def test_effects_do_not_depend_on_how_many_are_computed_at_once(judge, monkeypatch):
    reviews = read("the long and boring film was a wonderful story of two friends .")
    expected = effects(judge, reviews)
    for at_once in (1, 30, 100):
        monkeypatch.setattr(explain, "TOKENS_AT_ONCE", at_once)
        np.testing.assert_allclose(effects(judge, reviews), expected, atol=1e-5)


def test_effects_include_what_goes_through_the_ngrams(judge):
    """Only the n-grams know a word beyond the cut."""
    text = "the " * 20 + "superb " + "the " * 20
    assert effects(judge, read(text))[20] != pytest.approx(0, abs=1e-3)


def test_attention_is_that_of_the_first_block(judge):
    reviews = read("a wonderful film")
    ids, channels, _ = judge.review_set(reviews).batch(np.array([0]))
    x = torch.cat([judge.model.embedding(ids), channels], dim=2)
    expected = judge.model.blocks[0].attention.weights(x)[0].detach()
    np.testing.assert_allclose(attention(judge, reviews), expected, atol=1e-6)
    assert not judge.model.blocks[0].attention._forward_hooks


# Faithfulness


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
@pytest.mark.parametrize("number", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_erasing_the_strongest_words_changes_more_than_erasing_random_ones(number):
    """The network that comes with the project on the sample reviews, which it has never seen.

    Five words that speak for the verdict, beside five at random: how much does the verdict's probability change?
    """
    judge, chance = Judge(), np.random.default_rng(0)
    paths = sorted(SAMPLE_DIR.glob("*/*/*.txt"))
    strongest, at_random = [], []
    for path in chance.permutation(paths)[:number]:
        reviews = read(path.read_text(encoding="utf-8"))
        tokens, N = reviews.tokens, len(reviews.tokens)
        sign = 1 if judge.logits(reviews)[0] > 0 else -1
        erased = [np.argsort(-sign * effects(judge, reviews))[:5]]
        erased += [chance.choice(N, 5, replace=False) for _ in range(10)]
        variants = np.concatenate([tokens, *(np.delete(tokens, chosen) for chosen in erased)])
        starts = np.cumsum([0, N, *[N - 5] * 11])
        whole, top, *others = torch.sigmoid(sign * judge.logits(as_reviews(reviews.words, variants, starts)))
        strongest.append((whole - top).item())
        at_random.append((whole - torch.stack(others)).abs().mean().item())
    print(f"five strongest words {np.mean(strongest):.1%}, five at random {np.mean(at_random):.1%}")
    assert len(strongest) == number
    assert np.mean(strongest) > 0.1
    assert np.mean(strongest) > 5 * np.mean(at_random)
    assert np.mean(np.array(strongest) > at_random) > 0.95


# The picture and the page


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

    def __init__(self, content):
        super().__init__()
        self.tags, self.styles = [], {}
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "span":
            self.styles.setdefault(data, self.tags[-1][1])


def explained(judge, text, path):
    """The words' effects, and the text is explained in `path`."""
    explain.write(judge, read(text), [path])
    return effects(judge, read(text))


def test_picture_shades_the_words_and_shows_the_attention(judge, tmp_path, drawn):
    text = "a wonderful film , but boring"
    values = explained(judge, text, tmp_path / "why.png")
    content = (tmp_path / "why.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    words, bar, matrix = drawn[0].axes
    title, *shown = words.texts
    assert title.get_text().startswith(("positive, ", "negative, "))
    assert [word.get_text() for word in shown] == text.split()
    for word, value in zip(shown, values, strict=True):
        red, _, blue, _ = word.get_bbox_patch().get_facecolor()
        assert abs(value) < 0.1 * abs(values).max() or (blue > red) == (value > 0)
    assert "logit" in bar.get_xlabel()
    np.testing.assert_allclose(matrix.images[0].get_array(), attention(judge, read(text)), atol=1e-6)
    assert [label.get_text() for label in matrix.get_yticklabels()] == text.split()


def test_long_text_has_no_matrix_and_stays_on_the_picture(judge, tmp_path, drawn):
    explained(judge, "the film was " * 100 + "x" * 500, tmp_path / "why.png")
    words, _ = drawn[0].axes
    drawn[0].canvas.draw()
    extents = [word.get_window_extent() for word in words.texts]
    width, height = drawn[0].canvas.get_width_height()
    assert min(extent.x0 for extent in extents) >= 0
    assert max(extent.x1 for extent in extents) <= width
    assert min(extent.y0 for extent in extents) >= 0
    assert max(extent.y1 for extent in extents) <= height
    starts = [(round(extent.x0), round(extent.y0)) for extent in extents]
    assert len(set(starts)) == len(starts)


def test_words_of_the_picture_do_not_overlap(judge, tmp_path, drawn):
    explained(judge, "a wonderful film " * 20, tmp_path / "why.png")
    words = drawn[0].axes[0].texts[1:]
    drawn[0].canvas.draw()
    extents = [word.get_window_extent() for word in words]
    assert all(a.x1 <= b.x0 or a.y0 >= b.y1 for a, b in zip(extents, extents[1:], strict=False))


def test_page_shades_the_words_and_shows_the_attention(judge, tmp_path):
    text = "a wonderful film , but boring"
    values = explained(judge, text, tmp_path / "why.html")
    page = Page((tmp_path / "why.html").read_text(encoding="utf-8"))
    for word, value in zip(text.split(), values, strict=True):
        style = page.styles[word]
        assert float(style["title"]) == pytest.approx(value, abs=1e-3)
        assert style["style"].startswith(f"background:rgba({explain.BLUE if value > 0 else explain.RED},")
    cells = [float(attributes["title"]) for tag, attributes in page.tags if tag == "td"]
    np.testing.assert_allclose(np.reshape(cells, (6, 6)), attention(judge, read(text)), atol=1e-3)
    explained(judge, "the film " * 30, tmp_path / "long.html")
    assert "<table>" not in (tmp_path / "long.html").read_text(encoding="utf-8")


HOSTILE = ['<script>alert(1)</script> "><img src=x onerror=alert(1)> &lt; {title} {0} %s', "$\\frac{1}$ $x^2 $ \\",
           "日本語 の 映画 👨\u200d👩 e\u0301 \u202egnihton \x1b[31m \x7f \ufeff", "a" * 1000, "'", "ﷺ ﷽",
           "x\u0300" * 50]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.filterwarnings("error")
def test_hostile_text_is_only_text(judge, tmp_path, text):
    explained(judge, text, tmp_path / "why.png")
    explained(judge, text, tmp_path / "why.html")
    content = (tmp_path / "why.html").read_text(encoding="utf-8")
    page = Page(content)
    plain = Page((explained(judge, "film", tmp_path / "plain.html"), tmp_path / "plain.html")[1].read_text())
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert {name for _, attributes in page.tags for name in attributes} <= {
        name for _, attributes in plain.tags for name in attributes}
    assert not re.search("https?:|src=|url[(]|@import", re.sub("<p>.*", "", content, flags=re.S))
    assert "\x1b" not in content
    assert "\u202e" not in content


# The command


def test_command_writes_both_and_answers(call, model, judge, tmp_path):
    text = "A wonderful film."
    paths = tmp_path / "a.png", tmp_path / "new" / "b.html"
    code, out, err = call("predict", "--model", model, text, "--explain", paths[0], "--explain", paths[1])
    label, probability = verdict(judge.logits(read(text))[0])
    assert (code, out) == (0, f"{label}  {probability:6.1%}  {text}\n")
    assert err == "".join(f"note: {path} shows why\n" for path in paths)
    assert paths[0].exists()
    assert f"<h1>{label}, {probability:.1%}</h1>" in (tmp_path / "new" / "b.html").read_text(encoding="utf-8")


def test_folder_that_may_not_be_written_is_refused(call, model, tmp_path):
    (tmp_path / "a.html").mkdir()
    line = refused(*call("predict", "--model", model, "A film", "--explain", tmp_path / "a.html"))
    assert "a.html" in line
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
