"""One plain form for all ways to write a text."""

import json
import re
import string
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import spacy

import helpers.tokens
from helpers.cli import UserError
from helpers.predictor import Predictor, as_reviews
from helpers.tokens import plain_text, tokenize, tokenize_part

PYTHON = sys.executable

SAME = {  # a text as it stands in a plain file: other ways to write it
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
def test_other_writings_have_the_same_plain_form(text, other):
    assert plain_text(other).split() == text.split()


def test_other_writings_have_the_same_logit_to_the_last_bit(call):
    """By the network that comes with the project, one text at a time and all at once."""
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
def test_what_is_meaning_stays(text):
    assert plain_text(text) == text


def test_what_only_looks_like_html_costs_no_time_and_no_error():
    """A number of more digits than Python reads; white space that a pattern could divide in many ways."""
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


def test_no_rule_of_spacys_concerns_letters_alone():
    """As `english_tokenizer` takes for granted: not units, which follow a digit, nor exceptions, looked up before."""
    rules = spacy.blank("en").tokenizer
    chance = np.random.default_rng(0)
    words = [word for key in rules.rules for word in re.findall("[A-Za-z]+", key)] + ["km", "USD", "http", "www", "com"]
    words += ["".join(chance.choice([*string.ascii_letters], length)) for length in range(1, 30) for _ in range(100)]
    for word in words:
        assert not rules.prefix_search(word), word
        assert not rules.suffix_search(word), word
        assert not list(rules.infix_finditer(word)), word
        assert not rules.url_match(word), word
    assert rules.suffix_search("5km")
    assert rules.token_match is None


@pytest.mark.parametrize("program", [PYTHON, "false", "not-there", ""])
def test_many_texts_are_tokenized_by_two_processes_or_by_one_where_the_second_fails(monkeypatch, program):
    """With the same result to the last byte."""
    texts = [f"{text} {i}" for i, text in enumerate([other for others in SAME.values() for other in others] * 3)]
    monkeypatch.setattr(subprocess, "Popen", None)
    words, *arrays = tokenize(texts)  # few texts start no process
    monkeypatch.undo()
    for name, value in {"MANY": 50, "BLOCK": 10, "HERE": 4}.items():
        monkeypatch.setattr(helpers.tokens, name, value)
    monkeypatch.setattr(sys, "executable", program)
    calls = []
    monkeypatch.setattr(helpers.tokens, "tokenize_part", lambda part: calls.append(len(part)) or tokenize_part(part))
    many_words, *many_arrays = tokenize(iter(texts))
    assert many_words == words
    assert [(a.dtype, a.tobytes()) for a in many_arrays] == [(a.dtype, a.tobytes()) for a in arrays]
    here = sum(i % 10 < 4 for i in range(len(texts)))
    assert calls == {PYTHON: [here], "false": [here, len(texts) - here]}.get(program, [len(texts)])


def test_error_among_many_texts_ends_the_second_process(monkeypatch):
    """At once, though it has been sent more than it can have read."""
    def texts():
        yield from ["some text " * 100] * 20_000
        raise UserError("damaged")

    processes, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: processes.append(start(*args, **options)) or
                        processes[-1])
    with pytest.raises(UserError, match="damaged"):
        tokenize(texts())
    assert processes[0].returncode
    assert processes[0].stdin.closed
