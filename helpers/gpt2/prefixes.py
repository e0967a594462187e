"""Prefixes: two words each, and short enough for the network."""

import argparse
import unicodedata

from helpers.cli import UserError
from helpers.gpt2.sentences import has_words


def two_words(text):
    """Return a prefix of two words, with composed accents: an argparse type."""
    words = unicodedata.normalize("NFC", text).split()
    if len(words) != 2 or not all(is_word(word) for word in words):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not two words")
    return " ".join(words)


def is_word(text):
    """Return whether `text` contains a letter or a digit, and otherwise only the marks and the punctuation of words."""
    others = [letter for letter in text if not letter.isalnum() and letter not in "_'’.,&-"]
    are_marks = all(unicodedata.category(letter) in ("Mn", "Mc") for letter in others)  # accents, signs of vowels
    return has_words(text) and are_marks


def shown(text):
    """Return `text` in quotation marks for a message, without the end of a long text."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


def check_length(language_model, prompts, max_new_tokens):
    """Raise UserError if the longest prompt leaves too few positions for the new tokens.

    Args:
        language_model: a `LanguageModel`.
        prompts: a dict from prefix to ids.
        max_new_tokens: how many tokens will be added.
    """
    prefix, ids = max(prompts.items(), key=lambda item: len(item[1]))
    positions = language_model.max_positions
    name = language_model.facts["model"]
    room = positions - len(ids)
    if room < 1:
        raise UserError(f"the prefix {shown(prefix)} is too long: it has {len(ids):,} tokens, but {name} reads at most "
                        f"{positions:,}, new tokens included; use a shorter prefix.")
    if max_new_tokens > room:
        raise UserError(f"{name} has room for {room:,} new tokens after the prefix {shown(prefix)}; lower "
                        "--max-new-tokens.")
