"""From texts to tokens: the tokenizer of spaCy for English, in lower case.

The tokens of all texts are in one flat array: text i has the tokens `tokens[starts[i]:starts[i + 1]]`.
"""

import functools
import itertools
from collections import defaultdict

import numpy as np
from tqdm import tqdm

from helpers.data.text import plain_text

BLOCK = 5000  # pieces that spaCy is given at a time


@functools.cache
def english_tokenizer():
    """Return the tokenizer of spaCy for English. Its tokens are those of the pipeline `en_core_web_sm`."""
    import spacy  # here, because it takes a second, and cached runs do not need it
    from spacy.attrs import LOWER

    tokenizer = spacy.blank("en").tokenizer
    tokenizer.vocab.lex_attr_getters = {LOWER: str.lower}  # compute only the lower-case form of a new word
    return tokenizer


def tokenize(texts):
    """Split the plain form of texts into the tokens of spaCy, in lower case. Any run of white space is one space.

    spaCy's rules apply inside a piece, the text between two spaces. So each distinct piece is tokenized once, and its
    tokens are copied to all its places. 5 of the 50,000 reviews of IMDB get other tokens when spaCy reads them whole,
    because it then looks for emoticons across a space.

    Args:
        texts: iterable of str.

    Returns:
        words (list of the distinct tokens), tokens (int32, indices of words), starts (int64, texts + 1).
    """
    number_of = defaultdict(itertools.count().__next__)  # from piece to number; a new piece gets the next number
    numbered_texts = []  # for each text, the numbers of its pieces
    for text in tqdm(texts, desc="splitting", unit=" reviews", leave=False, delay=1):
        pieces = plain_text(text).split()
        numbered_texts.append(np.fromiter(map(number_of.__getitem__, pieces), np.int32))
    words, tokens, piece_starts = tokenize_pieces(list(number_of))
    piece_lengths = np.diff(piece_starts)  # tokens of each distinct piece

    flat = np.concatenate([np.zeros(0, np.int32), *numbered_texts])
    text_starts = np.cumsum([0, *map(len, numbered_texts)])  # where each text begins in `flat`
    token_starts = np.append(0, np.cumsum(piece_lengths[flat]))  # where each piece of `flat` begins in the result
    return words, tokens[concat_ranges(piece_starts[flat], piece_lengths[flat])], token_starts[text_starts]


def tokenize_pieces(pieces):
    """Tokenize pieces, texts without spaces. The result is as in `tokenize`."""
    tokenizer = english_tokenizer()
    newline = tokenizer.vocab.strings.add("\n")
    lower = [np.zeros(0, np.uint64)]
    for first in tqdm(range(0, len(pieces), BLOCK), desc="tokenizing", unit=" blocks", leave=False, delay=1):
        # A line break is a token of its own. After each piece, it shows where the piece ends.
        text = "".join(piece + "\n" for piece in pieces[first:first + BLOCK])
        lower.append(tokenizer(text).to_array("LOWER"))
    lower = np.concatenate(lower)
    is_break = lower == newline
    ends = np.flatnonzero(is_break) - np.arange(len(pieces))  # where the pieces end once the breaks are removed
    hashes, tokens = np.unique(lower[~is_break], return_inverse=True)
    words = [tokenizer.vocab.strings[int(code)] for code in hashes]
    return words, tokens.astype(np.int32), np.append(0, ends)


def concat_ranges(starts, lengths):
    """Return starts[0], starts[0] + 1, ... (lengths[0] integers), then those of starts[1], and so on."""
    ends = np.cumsum(lengths)
    result = np.repeat(starts - (ends - lengths), lengths)
    result += np.arange(len(result))
    return result


def text_of_tokens(starts):
    """Return the number of the text that each token belongs to: starts (texts + 1) -> (tokens,)."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))
