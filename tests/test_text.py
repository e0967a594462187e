"""The plain form of texts, and their tokens compared with those of spaCy for one text at a time."""

import itertools

import numpy as np
import pytest
import spacy

from helpers.text import concat_ranges, plain_text, text_of_tokens, tokenize

SAME = {  # from a text to other ways to type it
    "They aren't funny.": ["They aren’t funny.", "They aren`t funny.", "They aren&#39;t funny.",
                           "They aren&rsquo;t funny.", "They aren\x92t funny.", "They are\u00adn't fun\u200bny.",
                           "\ufeffThey aren't funny.", "Ｔｈｅｙ aren＇t funny.", r"They aren\\u2019t funny.",
                           r"They aren\'t funny.", r"They\u00A0aren't\tfunny.\ud83d"],
    'A "dull" plot, so-so.': ["A “dull” plot, so–so.", "A «dull» plot, so—so.", "A &quot;dull&quot; plot, so--so.",
                              "A \x93dull\x94 plot, so\x96so.", r"A \"dull\" plot, so\u2014so.",
                              '**A** "_dull_" *plot*, so-so.'],
    "Slow. Weak.": ["Slow.<br />Weak.", "Slow.<BR>Weak.", "Slow.&lt;br /&gt;Weak.",
                    "<p>Slow.</p><p class='x'>Weak.</p>", "Slow.\r\n\r\nWeak.", "Slow.\u2028Weak.", "Slow.&nbsp;Weak.",
                    r"\tSlow.\\nWeak.\n"],
    "Hardly a classic!": ["Hardly a <i>class</i>ic!", "<b>Hardly</b> a <a href='http://a.b/c?d'>classic</a>!",
                          "__Hardly__ a ***classic***!", "_Hardly a\nclassic_!"],
    "A café... 10/10 🎬": ["A cafe\u0301… 10/10 🎬", "A caf&eacute;... **10/10** 🎬", "A café\x85 10/10 🎬",
                          r"A caf\u00e9\u2026 10\/10 \ud83c\udfac"],
    "clumsy ! hollow ; 1 hour": ["clumsy!hollow;1 hour"],
}
KEPT = [
    "***1/2 out of ****", "Rating: **1/2 (out of four)", "* * *", "2*3*4", "____", "snake_case and is_it_good",
    "f**k this s**t, sh*t", "a 10* film, an 8* cast", "* one * two", "^_^ -_- *_* o_o", r":-\ and =\ and \o/ and \m/",
    "a < b > c & d", "I <3 it, 2 < 3", "<spoiler> <a real joke> <brbr>", "R&B, AT&T;", "&unheardof;",
    "3;4 1|2 5!6 3.5 U.S.A. e.g. Ph.D.", "http://a.com/b?c=d;e www.a.de/b;c me@x.com;you", "great;D fun;p :D ;) xD",
    "don;t rock'n'roll", "naïve Straße 日本語 😀",
]
TEXTS = [
    "I didn't like it, I LOVED it!", "Great.<br /><br />Awful<br />even(!)<br />", "word " * 50, "", "   ",
    "see http://www.imdb.com/title/tt0118694/?ref=fn or mail me@example.com", "***1/2 and f**k", "10/10 😀😀 :-) xD",
    "U.S.A. vs. Mr. O'Neil's e.g. 3.5km $5m 1990s rock'n'roll well-made, so-so... (sic) y'all would've gonna",
    "naïve café, Straße, İstanbul, Σίσυφος, 日本語の映画 — “quoted” … ‘it’s’", "it isnt, they shouldnt",
]


def words_of(texts):
    words, tokens, starts = tokenize(texts)
    return [[words[token] for token in tokens[first:last]] for first, last in itertools.pairwise(starts)]


@pytest.mark.parametrize(("text", "other"), [(text, other) for text, others in SAME.items() for other in others])
def test_all_ways_to_type_a_text_have_the_same_plain_form_and_tokens(text, other):
    assert plain_text(other).split() == plain_text(text).split() == text.split()
    assert words_of([other]) == words_of([text])


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_like_markup_or_an_escape_stays(text):
    assert plain_text(text) == text


def test_emphasis_ends_at_its_own_marks():
    assert plain_text("*Up* is **not** *that* _bad_, (*Cars* is)") == "Up is not that bad, (Cars is)"
    assert plain_text("A ***1/2 film with *heart* and f**king _style_") == "A ***1/2 film with heart and f**king style"
    assert plain_text("*open **mixed* marks_ and_ _ here _") == "*open **mixed* marks_ and_ _ here _"


@pytest.mark.parametrize("verb", ["could", "does", "had", "has", "is", "must", "need", "was", "were", "ca", "wo"])
def test_a_contraction_without_apostrophe_has_the_tokens_of_one_with_it(verb):
    for pattern in ("They {} work.", "{} it?", "... ({}!)"):
        with_it, without = (pattern.format(verb + end) for end in ("n't", "nt"))
        expected, found = words_of([with_it, without])
        assert found == expected
        assert "n't" in found


@pytest.mark.parametrize("texts", [TEXTS, KEPT, [], [""], ["", " ", ""]], ids=["texts", "kept", "none", "one", "three"])
def test_tokens_are_those_of_spacy(texts):
    tokenizer = spacy.blank("en").tokenizer
    expected = []
    for text in texts:
        pieces = plain_text(text).split()
        words = [token.text.lower() for piece in pieces for token in tokenizer(piece)]
        expected.append(["n't" if word == "nt" else word for word in words])
    words, tokens, starts = tokenize(iter(texts))
    assert words_of(texts) == expected
    assert sorted(words) == sorted(set(itertools.chain(*expected)))
    assert (tokens.dtype, starts.dtype, starts[-1]) == (np.int32, np.int64, len(tokens))


@pytest.mark.timeout(30)  # all together take 1 s; in quadratic time, one alone takes minutes
def test_a_long_text_that_resembles_markup_takes_linear_time():
    n = 200_000
    for text in ("&#" + "9" * 5000 + ";", "<" + " " * n + "x", "</" + " " * n, "<b" + " " * n, "<b a=" + " " * n,
                 "<p" + " a=b" * n, "<a b='" * n, "." * n, "!" * n + "/", "*" * n, "_" * n, "*_" * n, "*a " * n,
                 "_a *b " * n, "a* " * n, "**a" * n, "\\u" * n, "&" * n, "<" * n, "< " * n):
        assert plain_text(text) == text
    assert plain_text("\\" * n) == "\\"
    assert plain_text(r"\ud83d" * n + r"\n" * n).split() == []


@pytest.mark.parametrize("text", [*SAME, *itertools.chain(*SAME.values()), *KEPT, *TEXTS])
def test_plain_form_is_its_own_plain_form(text):
    plain = plain_text(text)
    assert plain_text(plain) == plain


def test_ranges_and_text_numbers_equal_loops():
    chance = np.random.default_rng(0)
    for count in (0, 1, 7, 100):
        lengths = chance.integers(0, 5, count)
        firsts = chance.integers(0, 1000, count)
        ranges, numbers = [], []
        for number in range(count):
            ranges += range(firsts[number], firsts[number] + lengths[number])
            numbers += [number] * lengths[number]
        assert concat_ranges(firsts, lengths).tolist() == ranges
        assert text_of_tokens(np.append(0, np.cumsum(lengths))).tolist() == numbers
