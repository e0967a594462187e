"""The plain form of texts, and their tokens compared with those of spaCy."""

import itertools
import json
import unicodedata

import numpy as np
import pytest

from helpers.data.reviews import make_reviews
from helpers.data.text import plain_text
from helpers.data.tokens import tokenize
from helpers.inference.predictor import Predictor, as_reviews
from tests.toy import spacy_words, words_of

SAME = {  # from a plain text to other ways to write it
    "It doesn't work.": ["It doesn’t work.", "It doesnʼt work.", "It doesn´t work.", "It doesn`t work.",
                         "It doesn&#39;t work.", "It doesn&#x27;t work.", "It doesn&apos;t work.",
                         "It doesn&rsquo;t work.", "It doesn&amp;#39;t work.", "It doesn\x92t work.",
                         "It does\u00adn't work.", "It\u200b doesn't wo\u2060rk.", "\ufeffIt doesn't work.",
                         "\u202aIt doesn't work.\u202c", "It doesn＇t work.", "Ｉｔ doesn't work."],
    'A "fine" film, so-so.': ["A “fine” film, so-so.", "A „fine‟ film, so–so.", "A «fine» film, so—so.",
                              "A &quot;fine&quot; film, so--so.", "A &ldquo;fine&rdquo; film, so&#8211;so.",
                              "A ″fine″ ﬁlm, so−so.", "A \x93fine\x94 film, so\x96so.", "A ＂fine＂ film, so‑so."],
    "One. Two.": ["One.<br />Two.", "One.<br/>Two.", "One.<BR>Two.", "One.<br clear='all' />Two.", "One.</br>Two.",
                  "One.&lt;br /&gt;Two.", "One.\r\n\r\nTwo.", "One.\u2028Two.", "One.\xa0\u3000Two.", "One.&nbsp;Two.",
                  "One.＜ｂｒ＞Two."],
    "A café...": ["A cafe\u0301…", "A caf&eacute;...", "A café\x85"],
    "A masterpiece!": ["<p>A masterpiece!</p>", "<P CLASS='x'>A <i>master</i>piece!</P>", "A <b>masterpiece</b>!<hr/>",
                       '<a href="http://a.b/c?d=e;f" hidden>A</a> <em>masterpiece!</em>', "<div><h1>A</h1>masterpiece!",
                       "&lt;p&gt;A masterpiece!", "<span style=“color:red”>A masterpiece!</span>"],
    "awful ! boring ! bad!": ["awful!boring!bad!"],
    "great ; 1 superb | wonderful": ["great;1 superb|wonderful", "great;1 <u>superb</u>|wonderful"],
    "don't ... can't ? ! fine\" ... 10/10 ! good": ["don't...can't?!fine\" ... 10/10!good"],
    "U.S. ! me ? www.a.org": ["U.S.!me?www.a.org"],
}



@pytest.mark.parametrize(("text", "other"), [(text, other) for text, others in SAME.items() for other in others])
def test_all_ways_to_write_a_text_have_the_same_plain_form(text, other):
    assert plain_text(other).split() == text.split()


def test_all_ways_to_write_a_text_have_exactly_the_same_logit(call):
    """The shipped network classifies one text at a time and all at once."""
    predictor = Predictor.load()
    for text, others in SAME.items():
        expected = predictor.logits(as_reviews([text]))
        assert all(predictor.logits(as_reviews([other])).equal(expected) for other in others[:3])
    texts = [other for others in SAME.values() for other in others]
    _, out, _ = call("predict", "--json", *texts)
    assert len({json.loads(line)["probability"] for line in out.splitlines()}) == len(SAME)


@pytest.mark.parametrize("text", [
    "naïve café, Straße, İstanbul", "🎬 10/10 😀", "NOT Bad", "a < b > c & d", "R&B, AT&T;", "I <3 it, 2 < 3", "<b",
    "<unknown thing> <spoiler> <brbr> <a real joke> <title of it> </ p> < p>", "3;4 1|2 5!6 3.5 U.S.A. e.g. Ph.D.",
    "http://a.com/b?c=d;e www.a.de/b;c me@x.com;you a.org?b=c imdb.com/title?ref", "great;D fun;p :D ;) :| xD o.O",
    "good;)bad isn't don;t it;s can?t rock'n'roll", "so-so well-made a.k.a. O'Hara", "日本語の映画",
    "&unheardof;"])
def test_meaning_is_kept(text):
    assert plain_text(text) == text


def test_text_that_resembles_html_costs_no_time_and_no_error():
    """A number has more digits than Python reads, and a pattern could divide the white space in many ways."""
    for text in ("&#" + "9" * 5000 + ";", "<" + " " * 200_000 + "x", "<p" + " a" * 100_000, "<p" + " a=b" * 100_000,
                 "<p " + "a" * 200_000, "." * 200_000, "!" * 200_000 + "/", "<a b='" * 50_000):
        assert plain_text(text) == text


def test_plain_form_is_its_own_plain_form():
    chance = np.random.default_rng(0)
    pieces = [*"ab'\"-<>&;#/ ", "&amp;", "&lt;", "br", "&#39;", "&", "\u00ad", "…", "＆", "ﬁ", "\x85", "é", "\u0301",
              "—", "!", "|", "..", "<p>", "</i>", "1", "@"]
    for _ in range(2000):
        text = "".join(chance.choice(pieces, 12))
        plain = plain_text(text)
        assert plain_text(plain) == plain, ascii(text)
        assert not [c for c in plain if unicodedata.category(c) == "Cf"]


TEXTS = [
    "I didn't like it, I LOVED it!",
    "Great.<br /><br />Awful<br />even(!)<br />",
    "see http://www.imdb.com/title/tt0118694/?ref=fn or mail me@example.com",
    "odd  spaces\tand\nlines\r\n\r\nand\u00a0hard ones\u2003 too ",
    "naïve café, ÀÉÎ, Straße, İstanbul, Σίσυφος, 日本語の映画 — “quoted” … ‘it’s’",
    "10/10 😀😀 :-) :( <3 ^_^ xD",
    "U.S.A. vs. Mr. and Mrs. O'Neil's e.g. 3.5km $5m 1990s rock'n'roll well-made, so-so... (sic) y'all would've gonna",
    "<b>bold</b> <BR /> <br/> a/b and/or *** ---- ''' \"\"",
    "word " * 50, "", "   ",
]
MANY = [f"don't{i} x{i}-y ({i})" for i in range(4000)]  # spaCy gets the 12,000 distinct pieces in three blocks


@pytest.mark.parametrize("texts", [TEXTS, [], [""], ["", " ", ""], MANY], ids=["texts", "none", "one", "three", "many"])
def test_tokens_are_those_of_spacy(texts):
    expected = [spacy_words(text) for text in texts]
    words, tokens, starts = tokenize(iter(texts))
    assert words_of(make_reviews(words, tokens, starts)) == expected
    assert sorted(words) == sorted(set(itertools.chain(*expected)))
    assert (tokens.dtype, starts.dtype, starts[-1]) == (np.int32, np.int64, len(tokens))
