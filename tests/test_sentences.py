"""The end of a sentence."""

import pytest

from helpers.gpt2.sentences import first_sentence


@pytest.mark.parametrize(("text", "sentence"), [
    ("He met Dr. Smith and Lt. Col. Ray in St. Louis. Then he", "He met Dr. Smith and Lt. Col. Ray in St. Louis."),
    ("He came at 5 p.m. to see us. Then he", "He came at 5 p.m. to see us."),
    ("He left the U.S. Army in May. It was", "He left the U.S. Army in May."),
    ("He left the U.S. The army was", "He left the U.S."),
    ("He left with J. K. Rowling and J.R.R. Tolkien. They were", "He left with J. K. Rowling and J.R.R. Tolkien."),
    ("He paid $3.50, or 3.5 percent. That is", "He paid $3.50, or 3.5 percent."),
    ("He was No. 5 of vol. two, etc. and lost! But he", "He was No. 5 of vol. two, etc. and lost!"),
    ("He asked, \"Why me?\" and left. She was", "He asked, \"Why me?\" and left."),
    ("He said, \"I go. I do.\" She was", "He said, \"I go. I do.\""),
    ("He said, “I go. I do.” She was", "He said, “I go. I do.”"),
    ("He left. \"Why?\" she asked", "He left."),
    ("He left (so they said.) The man", "He left (so they said.)"),
    ("He left... and came?! The man", "He left... and came?!"),
    ("He got a Ph.D. in law. The man", "He got a Ph.D. in law."),
    ("He saw the film.It was long", "He saw the film."),
    ("He left.  The man", "He left."),
    ("He left.\nThe man", "He left."),
    ("He left in the U.S.\n", "He left in the U.S."),
    ("He said \"no.\"\u2028The man", "He said \"no.\""),
    ("He, a.k.a. The Twins, or i. e. The man, died. The man", "He, a.k.a. The Twins, or i. e. The man, died."),
    ("He saw e.g. He-Man vs. The Thing at approx. Ten. The man", "He saw e.g. He-Man vs. The Thing at approx. Ten."),
    ("He met J. A. Smith of Warner Bros. Pictures. The man", "He met J. A. Smith of Warner Bros. Pictures."),
    ("He ate, slept, etc. The man", "He ate, slept, etc."),
    ("He lives in Main St. The man", "He lives in Main St."),
    ("He saw... Batman, then... The man", "He saw... Batman, then..."),
    ("He watched TV. Batman is", "He watched TV."),
    ("He is at AT&T. Batman is", "He is at AT&T."),
    ("He took John's. Batman is", "He took John's."),
])
def test_sentence_ends(text, sentence):
    assert first_sentence(text, len("He")) == (sentence, True)


@pytest.mark.parametrize("text", ["He met Dr. Smith", "He paid 3.", "He has a Ph.D", "He left.", "He left. The", "He",
                                  "", "He said, \"I left. I am the man", "He is No. 5 of them", "Yahoo! is big and"])
def test_incomplete_sentence(text):
    assert first_sentence(text, len("He")) == (text, False)


@pytest.mark.parametrize(("text", "shown"), [
    ("He\nThe man", "He"), ("He is\nIt is. The", "He is"), ("He is Dr.\n", "He is Dr."), ("He. The man", "He."),
    ("He is \ufffd. The man", "He is ."), ("He is B\x07ob. The man", "He is Bob."), ("He a\u200bb is\n", "He ab is")])
def test_text_without_a_shown_sentence(text, shown):
    assert first_sentence(text, len("He")) == (shown, False)
