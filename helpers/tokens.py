"""From a text to its tokens: one plain form for all ways to write it, then spaCy's rules for English."""

import functools
import html
import itertools
import pickle
import re
import subprocess
import sys
import unicodedata
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

# What people type on a phone, in a word processor or in HTML where a keyboard has one character.
QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u2036\u301d\u301e\u301f"
APOSTROPHES = "\u2018\u2019\u201a\u201b\u02bb\u02bc\u02b9\u2032\u2035\u2039\u203a\u00b4\u055a\ua78c"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043"
# The elements of HTML, obsolete ones included. The first may stand inside a word; the others separate words.
INLINE_TAGS = (
    "a|abbr|acronym|b|bdi|bdo|big|cite|code|data|del|dfn|em|font|i|ins|kbd|label|mark|q|s|"
    "samp|small|span|strike|strong|sub|sup|time|tt|u|var|wbr"
)
OTHER_TAGS = (
    "address|area|article|aside|audio|base|blockquote|body|br|button|canvas|caption|center|col|"
    "colgroup|datalist|dd|details|dialog|dir|div|dl|dt|embed|fieldset|figcaption|figure|footer|"
    "form|frame|frameset|h1|h2|h3|h4|h5|h6|head|header|hgroup|hr|html|iframe|img|input|legend|"
    "li|link|main|map|marquee|menu|meta|meter|nav|noscript|object|ol|optgroup|option|output|p|"
    "param|picture|pre|progress|script|section|select|source|style|summary|svg|table|tbody|td|"
    "template|textarea|tfoot|th|thead|title|tr|track|ul|video"
)
BOOLEAN = "checked|compact|controls|disabled|hidden|loop|muted|nowrap|open|readonly|required|selected"  # have no value
ATTRIBUTE = rf"""\s+(?:(?:{BOOLEAN})(?![\w:-])|[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=]+))"""
TAG = re.compile(rf"</?(?:({INLINE_TAGS})|{OTHER_TAGS})(?:{ATTRIBUTE})*\s*/?>", re.IGNORECASE)
LINE_BREAK = re.compile(r"<\s*(?:/\s*)?br\b[^<>]*>", re.IGNORECASE)  # people write it in more ways than HTML knows
# Punctuation between two words without a space, as in "awful!boring" and "great;superb".
GLUE = re.compile(r"""
    [!?;|.] (?<= [\w"')\],] . )  # the first mark, after a word or a closing quote or bracket
    [!?;|.]*+                    # all that follow it
    (?= [^\W\d_] | (?<= [^\W\d_] . ) \d )  # before a word, or between a word and a number
    (?! (?i: [dmpst] | ll | re | ve ) \b )  # not in an emoticon as ";D", nor for an apostrophe as in "don;t"
""", re.VERBOSE)
MARK = re.compile(r"\.\.+|[!?;|]")  # what is a token of its own; a single dot may belong to an abbreviation
# What comes before such a mark in a web or mail address.
ADDRESS = re.compile(r"://|\bwww\.|\w@\w|\.[a-z]{2,}/|\.(?:com|edu|gov|net|org)\b", re.IGNORECASE)
LONGEST_ADDRESS = 200  # characters
ENTITY = re.compile(r"&#?\w{1,32};")
MANY = 10_000  # texts, from which on a second process saves more time than its start takes
BLOCK, HERE = 1000, 350  # texts that are dealt out at a time, and how many of these are for this process


class Characters(dict):
    """A table for `str.translate`: quotes, apostrophes and dashes as on a keyboard, nothing for what is invisible."""

    def __missing__(self, code):
        # 0x80 to 0x9f stand in text that was decoded wrongly, such as IMDB's, and are meant as in Windows-1252
        meant = bytes([code]).decode("cp1252", "ignore") if 0x80 <= code < 0xa0 else chr(code)
        for kind, plain in ((QUOTES, '"'), (APOSTROPHES, "'"), (DASHES, "-")):
            if meant and meant in kind:
                meant = plain
        self[code] = "" if unicodedata.category(chr(code)) == "Cf" else meant
        return self[code]


CHARACTERS = Characters()


def plain_text(text):
    """Return one form for all writings of a text: what differs in looks alone is the same afterwards.

    HTML entities are resolved, and HTML tags are removed. Typographic quotes, apostrophes and dashes become
    those of a keyboard, and runs of dashes a single one. Compatibility forms of letters become the letters (Unicode's
    NFKC), and invisible characters (category Cf) vanish. Punctuation between two words is set off by
    spaces. Accents, emoji and case stay.
    """
    before = None
    while text != before:  # one step may leave work for another: "&amp;quot;", or a tag of wide letters
        before = text
        text = ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
        text = TAG.sub(replace_tag, LINE_BREAK.sub(" ", text))
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text.translate(CHARACTERS))
    text = re.sub("--+", "-", text.replace("`", "'"))
    return GLUE.sub(separate, text)


def replace_tag(tag):
    """Return what stands for a match of TAG: nothing for an inline element, which may be part of a word, or a space."""
    return "" if tag[1] else " "


def separate(marks):
    """Return what stands for a match of GLUE: its marks between spaces, or as they are inside an address."""
    before = marks.string[max(marks.start() - LONGEST_ADDRESS, 0):marks.start()]
    piece = re.split(r"\s", before)[-1]
    return marks[0] if ADDRESS.search(piece) else MARK.sub(r" \g<0> ", marks[0])


@functools.cache
def english_tokenizer():
    """Return spaCy's tokenizer for English: the tokens are those of its pipeline `en_core_web_sm`, in half the time.

    Of a new word it computes the lower case alone, and a word of ASCII letters is not searched for affixes, infixes
    and addresses, for each of spaCy's rules about these asks for another character.
    """
    import spacy  # here, because it takes a second, and only a first start needs it
    from spacy.attrs import LOWER

    def unless_letters(search, nothing=None):
        return lambda text: nothing if text.isalpha() and text.isascii() else search(text)

    tokenizer = spacy.blank("en").tokenizer
    tokenizer.vocab.lex_attr_getters = {LOWER: str.lower}
    tokenizer.prefix_search = unless_letters(tokenizer.prefix_search)
    tokenizer.suffix_search = unless_letters(tokenizer.suffix_search)
    tokenizer.infix_finditer = unless_letters(tokenizer.infix_finditer, ())
    tokenizer.url_match = unless_letters(tokenizer.url_match)
    return tokenizer


def tokenize(texts):
    """Split the plain form of texts into spaCy's tokens, in lower case; any run of white space counts as one space.

    spaCy's rules work inside a piece of text between two spaces: each distinct piece is tokenized once and its tokens
    are copied to wherever it stands. 5 of IMDB's 50,000 reviews come out otherwise when spaCy is given them whole: it
    then looks for emoticons and the like across a space, and "''" in "talkin' 'bout?!" keeps it from seeing "'bout".

    Args:
        texts: iterable of str. Where they are many, a second process tokenizes most of them.

    Returns:
        words (list of the distinct tokens), tokens (int32) and starts (int64) as in `Reviews`.
    """
    texts = iter(texts)
    begin = list(itertools.islice(texts, MANY))
    if len(begin) < MANY:
        parts, order = [tokenize_part(begin)], slice(None)
    else:
        parts, order = tokenize_by_two(itertools.chain(begin, texts))
    hashes, words, tokens, lengths = zip(*parts, strict=True)
    _, first, numbers = np.unique(np.concatenate(hashes), return_index=True, return_inverse=True)
    words = list(itertools.chain(*words))
    numbers = np.split(numbers.astype(np.int32), np.cumsum([len(part) for part in hashes])[:-1])
    tokens = np.concatenate([number[part] for number, part in zip(numbers, tokens, strict=True)])
    lengths = np.concatenate(lengths)
    tokens = tokens[ranges((np.cumsum(lengths) - lengths)[order], lengths[order])]
    return [words[i] for i in first], tokens, np.concatenate([[0], np.cumsum(lengths[order])])


def tokenize_part(texts):
    """Tokenize texts as `tokenize` does.

    Returns:
        hashes (uint64, sorted) and words (list) of the distinct tokens, tokens (int32), and the length of each text in
        tokens (int64).
    """
    tokenizer = english_tokenizer()
    numbers = defaultdict(itertools.count().__next__)  # a new piece gets the next number, without a call of Python
    pieces = [np.fromiter(map(numbers.__getitem__, plain_text(text).split()), np.int32)
              for text in tqdm(texts, desc="splitting", unit=" reviews", leave=False, delay=1)]
    distinct = list(numbers)

    # A line break between pieces is a token of its own: it keeps the pieces apart and says where each one ends.
    newline = tokenizer.vocab.strings.add("\n")
    lower = [np.zeros(0, np.uint64)]
    for first in tqdm(range(0, len(distinct), 5000), desc="tokenizing", unit_scale=5000, unit=" pieces", leave=False,
                      delay=1):
        text = "".join(piece + "\n" for piece in distinct[first:first + 5000])
        lower.append(tokenizer(text).to_array("LOWER"))
    lower = np.concatenate(lower)
    is_end = lower == newline
    ends = np.flatnonzero(is_end) - np.arange(len(distinct))  # where each piece's tokens end once the breaks are out
    hashes, tokens = np.unique(lower[~is_end], return_inverse=True)
    tokens = tokens.astype(np.int32)
    words = [tokenizer.vocab.strings[int(code)] for code in hashes]

    # Each piece of each text replaced by its tokens; in blocks, so that their memory is used again and again.
    piece_starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    piece_lengths = ends - piece_starts
    of_texts, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for first in range(0, len(pieces), 2000):
        block = pieces[first:first + 2000]
        flat = np.concatenate(block)
        of_texts.append(tokens[ranges(piece_starts[flat], piece_lengths[flat])])
        token_ends = np.concatenate([[0], np.cumsum(piece_lengths[flat])])
        lengths.append(np.diff(token_ends[np.cumsum([0, *map(len, block)])]))
    return hashes, words, np.concatenate(of_texts), np.concatenate(lengths)


def tokenize_by_two(texts):
    """Tokenize some texts here and the others in a second process, which begins while texts are still to come.

    The process runs this file and not, as those of `multiprocessing` do, the program that imports it: it starts at
    once, from a notebook too, on any system, and inherits neither locks of torch's threads nor a GPU. Where it cannot
    be started, or dies, its work is done here.

    Returns:
        a list of results of `tokenize_part`, and the order (texts,) in which the texts of all of them are those given.
    """
    try:
        process = subprocess.Popen([sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, bufsize=2**20)  # few writes: each waits for the GIL
    except OSError:
        return [tokenize_part(list(texts))], slice(None)
    here, there, block = [], [], True
    with process, ThreadPoolExecutor(1) as sender:  # a thread, which waits while the pipe is full
        try:
            while block:  # the last one is empty, and says so
                block = list(itertools.islice(texts, BLOCK))
                here += block[:HERE]
                there += block[HERE:]
                sender.submit(pickle.dump, block[HERE:], process.stdin)
            sender.submit(process.stdin.flush)
            parts = [tokenize_part(here)]
            try:
                parts.append(pickle.load(process.stdout))
            except (EOFError, pickle.UnpicklingError):
                parts.append(tokenize_part(there))
        finally:
            process.kill()
            sender.submit(process.stdin.close)  # by the thread that writes to it, whose errors nobody asks for
    is_here = np.arange(len(here) + len(there)) % BLOCK < HERE
    return parts, np.argsort(np.concatenate([np.flatnonzero(is_here), np.flatnonzero(~is_here)]))


def ranges(starts, lengths):
    """Return starts[0], starts[0] + 1, ... (lengths[0] integers), then those of starts[1], and so on."""
    ends = np.cumsum(lengths)
    result = np.repeat(starts - (ends - lengths), lengths)
    result += np.arange(len(result))
    return result


def text_of_tokens(starts):
    """Return the number of the text that each token belongs to; starts (texts + 1) is where each text begins."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


if __name__ == "__main__":  # the second process
    sys.modules["torch"] = None  # which spaCy would import, in a second or two
    blocks = iter(lambda: pickle.load(sys.stdin.buffer), [])
    pickle.dump(tokenize_part(itertools.chain.from_iterable(blocks)), sys.stdout.buffer)
