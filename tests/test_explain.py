"""`predict --explain`: effects are what removing a word does, and a page shows them and the attention."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from helpers.cli import UserError
from helpers.data.archive import SAMPLE_DIR
from helpers.data.reviews import make_reviews
from helpers.data.text import plain_text
from helpers.inference import explain
from helpers.inference.explain import attention_weights, explanation_page, original_words, word_effects
from helpers.inference.page import Explanation, Network, render, shade
from helpers.inference.page_template import BLACK, GREY, READ, STYLE
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


def test_attention_weights_of_each_block(predictor):
    reviews = as_reviews([TEXT])
    ids = torch.tensor([[predictor.vocab.stoi[word] for word in TEXT.split()]])
    channels = torch.from_numpy(predictor.pipeline.table.channels(reviews)).float().unsqueeze(0)
    x = torch.cat([predictor.model.embedding(ids) + predictor.model.regions(ids), channels], dim=2)
    for number, block in enumerate(predictor.model.blocks):
        expected = block.attention.weights(x)[0].detach()
        np.testing.assert_allclose(attention_weights(predictor, reviews, number), expected, atol=1e-6)
        x = block(x)
        assert not block.attention._forward_hooks


@pytest.mark.parametrize("text", [
    "Not BAD at all: I didn't like Mr. O'Neill's :-) U.S.A. film...It's 10/10!!",
    "\u0130stanbul \u1e9e Stra\u00dfe \u01c5",
    "&lt;B&gt; <b>I</b>t  \n\t was<br/>so-so\u2014Really", "HTTP://A.B/?x=<Y> a@B.com ( ಠ _ ಠ ) :( :\n)", "!", ""])
def test_original_words_are_the_tokens_in_their_case(text):
    words, follows_space = original_words(text)
    reviews = as_reviews([text])
    assert [word.lower() for word in words] == [reviews.words[token] for token in reviews.tokens]
    shown = [" " * space + word for word, space in zip(words, follows_space, strict=True)]
    assert "".join(shown) == " ".join(plain_text(text).split())


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

    def handle_endtag(self, tag):
        self.elements.append(["", {}, ""])  # for the text that follows

    def handle_data(self, data):
        self.elements[-1][2] += data

    def find(self, tag, **attributes):
        """Return attributes and text of the elements with this tag and these attributes."""
        return [(found, text) for name, found, text in self.elements
                if name == tag and attributes.items() <= found.items()]

    def script_data(self):
        """Return what the script of the page reads."""
        ((_, text),) = self.find("script", type="application/json")
        return json.loads(text)


def number(text):
    return float(text.replace("\u2212", "-"))


def made_up(words, **changes):
    """Return an `Explanation` of a list of words by a network with one block."""
    N, nothing = len(words), np.zeros(len(words), bool)
    network = Network("required", "IMDB", {"blocks": 1, "epochs": 5, "lr": 1e-4}, "first 5 tokens")
    explanation = Explanation(words, [True] * N, torch.tensor(2.0), np.zeros(N), nothing, nothing, {}, np.arange(N),
                              [np.full((N, N), 1 / N)], network)
    return replace(explanation, **changes)


def test_page_shades_each_word_by_its_effect(predictor):
    text = "A Wonderful film, but Boring"
    effects, label = word_effects(predictor, as_reviews([text])), classify(predictor.logits(as_reviews([text]))[0])
    page = Page(explanation_page(predictor, text))
    assert page.find("title") == [({}, "{}, {:.1%}".format(*label))]
    words = page.find("span", role="button")
    assert [word for _, word in words] == ["A", "Wonderful", "film", ",", "but", "Boring"]
    for (attributes, word), effect in zip(words, effects, strict=True):
        assert number(attributes["data-v"]) == pytest.approx(effect, abs=0.00501)
        assert attributes["aria-label"].startswith(f"{word}, {attributes['data-v']}")
        red, _, blue = bytes.fromhex(attributes["style"].removeprefix("--effect:#"))
        assert (blue > red) == (effect > 0)
    strongest = max(words, key=lambda element: abs(number(element[0]["data-v"])))
    assert strongest[0]["style"] in ("--effect:" + shade(1), "--effect:" + shade(-1))


def test_page_has_the_attention_of_each_block_and_the_answer_without_each_word(predictor):
    reviews = as_reviews([TEXT])
    data = Page(explanation_page(predictor, TEXT)).script_data()
    assert data["read"] == [*range(6)]
    for block, (code, largest) in enumerate(zip(data["weights"], data["largest"], strict=True)):
        shares = np.frombuffer(base64.b64decode(code), np.uint8).reshape(6, 6) / 255
        expected = attention_weights(predictor, reviews, block)
        np.testing.assert_allclose(shares * np.reshape(largest, (6, 1)), expected, atol=0.003)
    words = TEXT.split()
    for i, answer in enumerate(data["without"]):
        logit = predictor.logits(as_reviews([" ".join(words[:i] + words[i + 1:])]))[0]
        assert answer == "{}, {:.1%}".format(*classify(logit))


def test_attention_of_a_long_text_is_that_of_the_tokens_that_are_read(predictor):
    """The toy network reads 12 tokens at the beginning and 13 at the end."""
    page = Page(explanation_page(predictor, "a film " * 20))
    small = ["cut" in attributes["class"].split() for attributes, _ in page.find("span", role="button")]
    assert small == [False] * 12 + [True] * 15 + [False] * 13
    data = page.script_data()
    assert data["read"] == [*range(12), *range(27, 40)]
    assert {len(base64.b64decode(code)) for code in data["weights"]} == {25**2}
    ((_, warning),) = page.find("p", **{"class": "warning"})
    assert warning == "Only the first 12 and last 13 tokens, and the n-grams of the whole text, were read."


@pytest.mark.parametrize(("most", "blocks", "message"), [
    (72, 2, "2</label></fieldset>"), (71, 1, " of 2</fieldset>"), (35, 0, "too long to show")])
def test_page_has_as_many_blocks_as_fit(predictor, monkeypatch, most, blocks, message):
    monkeypatch.setattr(explain, "MOST_WEIGHTS", most)
    content = explanation_page(predictor, TEXT)
    page = Page(content)
    assert len(page.script_data()["weights"]) == len(page.find("input")) == blocks
    assert message in content.partition('<div id="panel"')[2].partition("<h2>")[0]


@pytest.mark.parametrize("read", [500, math.isqrt(explain.MOST_WEIGHTS)])
def test_page_of_the_longest_text_takes_at_most_2_mb(read):
    weights = [np.random.default_rng(0).random((read, read))] * (explain.MOST_WEIGHTS // read**2)
    page = render(made_up(["unlikely"] * explain.LONGEST, read=np.arange(read), weights=weights))
    assert len(weights) in (4, 1)
    assert 1_300_000 < len(page.encode()) <= 2_000_000


def test_page_says_what_there_is_to_doubt():
    network = Network("required", "the SAMPLE", {"blocks": 1, "epochs": 5, "lr": 1e-4}, "first 5 tokens")
    doubtful = made_up(["film"], logit=torch.tensor(-0.1), network=network)
    page = Page(render(doubtful))
    assert [text.partition(" ")[0] for _, text in page.find("p", **{"class": "warning"})] == ["Hard", "The"]
    assert not Page(render(made_up(["film"]))).find("p", **{"class": "warning"})


def test_page_marks_negated_and_unknown_words(predictor):
    page = Page(explanation_page(predictor, "It is not a Xyzzy film, and boring"))
    marks = {text: attributes["class"] for attributes, text in page.find("span", role="button")}
    assert {word for word, classes in marks.items() if "neg" in classes} == {"a", "Xyzzy", "film"}
    assert {word for word, classes in marks.items() if "unk" in classes} == {"not", "Xyzzy"}  # "not" is in no review
    assert [text for _, text in page.find("bdi")][-2:] == ["not", "Xyzzy"]
    (attributes,) = [attributes for attributes, text in page.find("span", role="button") if text == "film"]
    assert attributes["aria-label"].endswith(", negated")
    assert page.find("span", **{"class": "neg"}) == [({"class": "neg"}, "Dotted underline")]
    assert page.find("span", **{"class": "unk"}) == [({"class": "unk"}, "Dashed box")]


def test_page_lists_the_five_strongest_ngrams_on_either_side():
    ngrams = {f"word{i}": i / 10 for i in range(-3, 9)} | {"weak": 0.004}
    page = Page(render(made_up(["film"], ngrams=ngrams)))
    names = [text for _, text in page.find("bdi") if text]
    values = [number(text) for _, text in page.find("td")]
    assert names == ["word-3", "word-2", "word-1", "word8", "word7", "word6", "word5", "word4"]
    assert values == pytest.approx([-0.3, -0.2, -0.1, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert "13 n-grams of this text is +3.00" in " ".join(page.find("p", **{"class": "small"})[1][1].split())
    assert not Page(render(made_up(["film"]))).find("table")


def test_values_of_ngrams_add_up_to_what_the_network_reads(predictor):
    table = predictor.pipeline.table
    reviews = as_reviews(["not a boring film , a boring film"])
    values = predictor.pipeline.ngram_values(reviews)
    channels = table.channels(reviews).astype(float) * table.scale
    kinds = table.values.shape[1]
    assert sum(values.values()) == pytest.approx(channels[0, 3 * kinds], abs=0.02)
    assert {1, 2} <= {len(name.split()) for name in values if "(" not in name}
    assert {"boring", "boring (negated)"} <= set(values)
    negated = predictor.pipeline.ngram_values(as_reviews(["not a boring"]))
    assert "boring (negated)" in negated
    assert "boring" not in negated


def luminance(colour):
    """Return the relative luminance of red, green and blue from 0 to 255 (WCAG 2.2)."""
    shares = np.array(colour) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def test_text_has_enough_contrast_on_all_shades():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    shades = [bytes.fromhex(shade(strength)[1:]) for strength in np.linspace(-1, 1, 81)]
    shades += [255 + share * (np.array(READ) - 255) for share in np.linspace(0, 1, 41)]
    assert min(contrast(BLACK, list(colour)) for colour in shades) >= 4.5
    panel, warning = (250, 250, 250), (255, 246, 214)
    assert "background: #fafafa" in STYLE
    assert "background: #fff6d6" in STYLE
    assert min(contrast(BLACK, panel), contrast(BLACK, warning), contrast(GREY, (255, 255, 255))) >= 4.5
    for code in re.findall("[{;] color: #(.{6});", STYLE):  # the label, on white
        assert contrast(list(bytes.fromhex(code)), (255, 255, 255)) >= 4.5


def test_page_runs_only_its_own_script(predictor):
    content = explanation_page(predictor, TEXT)
    page = Page(content)
    (script,) = [text for attributes, text in page.find("script") if not attributes]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    ((policy, _),) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    assert {"default-src 'none'", f"script-src 'sha256-{digest}'"} <= set(policy["content"].split("; "))
    assert "innerHTML" not in script
    assert not re.search("https?:|src=|url[(]|@import", content)


@pytest.mark.parametrize("text", [
    "http://a.b/?<img/src=x> http://a.b/<b>", '<script>alert(1)</script> "><img src=x> &amp;lt;b&gt; {title} $title',
    "</script><script>alert(1)</script> <!-- <script> ]]>", "x\" onmouseover=alert(1) style='y'",
    "日本語 の 映画 👨\u200d👩 e\u0301 \u202egnihton \x1b[31m \x7f \ufeff", "'", "a" * 1000])
def test_text_is_not_markup(predictor, text):
    content = explanation_page(predictor, text)
    elements, plain = Page(content).elements, Page(explanation_page(predictor, "It is not a film, xyzzy")).elements
    kinds = {(tag, *attributes) for tag, attributes, _ in elements}
    assert kinds <= {(tag, *attributes) for tag, attributes, _ in plain}
    once = ("html", "head", "meta", "title", "style", "body", "main", "h1", "dl", "script")
    assert [tag for tag, *_ in elements if tag in once] == [tag for tag, *_ in plain if tag in once]
    assert not re.search("[\x1b\x7f\u202e\ufeff]", content)


def test_letters_from_right_to_left_do_not_turn_the_page(predictor):
    """The text takes the direction of its first letter. Its words in lists are isolated from the words around them."""
    page = Page(explanation_page(predictor, "שלום a film"))
    assert [attributes["dir"] for attributes, _ in page.find("div", id="text")] == ["auto"]
    places = [tag for tag, _, text in page.elements if "שלום" in text]
    assert places == ["span", "bdi"]


def test_command_writes_the_page_and_answers(call, tmp_path):
    text, path = "A wonderful film.", tmp_path / "new" / "why.html"
    code, out, err = call("predict", text, "--explain", path)
    label, probability = classify(Predictor.load().logits(as_reviews([text]))[0])
    assert (code, out) == (0, f"{label}  {probability:6.1%}  {text}\n")
    assert err == f"note: explanation written to {path}\n"
    assert f"<title>{label}, {probability:.1%}</title>" in path.read_text(encoding="utf-8")


def test_too_long_text_is_refused(call, tmp_path):
    path = tmp_path / "why.html"
    assert "at most 3,000" in refused(*call("predict", "a " * 3001, "--explain", path))
    assert not path.exists()


@pytest.mark.parametrize("text", ["", " \n", "<br>"])
def test_empty_text_is_refused(predictor, text):
    with pytest.raises(UserError, match="the text is empty"):
        explanation_page(predictor, text)
