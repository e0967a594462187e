"""Normalise text: different ways of typing the same text get one plain form."""

import html
import re
import unicodedata

# Characters that phones, word processors and HTML use instead of a keyboard's quote, apostrophe or dash.
QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u2036\u301d\u301e\u301f"
APOSTROPHES = "\u2018\u2019\u201a\u201b\u02bb\u02bc\u02b9\u2032\u2035\u2039\u203a\u00b4\u055a\ua78c"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043"
# The elements of HTML, obsolete ones included. INLINE_TAGS can be part of a word; OTHER_TAGS separate words.
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
# Attributes without a value.
BOOLEAN = "checked|compact|controls|disabled|hidden|loop|muted|nowrap|open|readonly|required|selected"
ATTRIBUTE = rf"""\s+(?:(?:{BOOLEAN})(?![\w:-])|[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=]+))"""
TAG = re.compile(rf"</?(?:({INLINE_TAGS})|{OTHER_TAGS})(?:{ATTRIBUTE})*\s*/?>", re.IGNORECASE)
LINE_BREAK = re.compile(r"<\s*(?:/\s*)?br\b[^<>]*>", re.IGNORECASE)  # in more forms than HTML allows
# Punctuation between two words without a space: the marks of "awful!boring", "great;superb", "so-so...superb" and
# "great;10/10", but not those of "3;4", "U.S.A.", "great;D" and "don;t".
GLUE = re.compile(r"""
    [!?;|.] (?<= [\w"')\],] . )  # the first mark, after a word or a closing quote or bracket
    [!?;|.]*+                    # all that follow it
    (?= [^\W\d_] | (?<= [^\W\d_] . ) \d )  # before a word, or between a word and a number
    (?! (?i: [dmpst] | ll | re | ve ) \b )  # not in an emoticon (";D"), nor in place of an apostrophe ("don;t")
""", re.VERBOSE)
MARK = re.compile(r"\.\.+|[!?;|]")  # what is a token of its own; a single dot may belong to an abbreviation
# What comes before such a mark in a web or mail address.
ADDRESS = re.compile(r"://|\bwww\.|\w@\w|\.[a-z]{2,}/|\.(?:com|edu|gov|net|org)\b", re.IGNORECASE)
LONGEST_ADDRESS = 200  # characters
ENTITY = re.compile(r"&#?\w{1,32};")


class Characters(dict):
    """A table for `str.translate` that maps typographic characters to a keyboard's and deletes invisible ones."""

    def __missing__(self, code):
        character = chr(code)
        if 0x80 <= code < 0xa0:  # Windows-1252 that was decoded as Latin-1, as in some reviews of IMDB
            character = bytes([code]).decode("cp1252", "ignore")
        for kind, plain in ((QUOTES, '"'), (APOSTROPHES, "'"), (DASHES, "-")):
            if character and character in kind:
                character = plain
        if unicodedata.category(chr(code)) == "Cf":
            character = ""
        self[code] = character
        return character


CHARACTERS = Characters()


def plain_text(text):
    """Return the plain form of a text. Texts that differ only in how they are typed have the same plain form.

    - HTML entities are resolved, and HTML tags are removed.
    - Typographic quotes, apostrophes and dashes become those of the keyboard; a run of dashes becomes one dash.
    - Compatibility forms of letters become the letters (Unicode's NFKC), and invisible characters (category Cf) vanish.
    - Punctuation between two words is set off by spaces.

    Accents, emoji and case stay.
    """
    before = None
    while text != before:  # one step can enable another, for example "&amp;quot;" or a tag in wide letters
        before = text
        text = ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
        text = TAG.sub(replace_tag, LINE_BREAK.sub(" ", text))
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text.translate(CHARACTERS))
    text = re.sub("--+", "-", text.replace("`", "'"))
    return GLUE.sub(separate, text)


def replace_tag(tag):
    """Return what replaces a match of TAG: nothing for an inline element, which may be in a word, else a space."""
    return "" if tag[1] else " "


def separate(marks):
    """Return what replaces a match of GLUE: its marks between spaces, or unchanged if they are in an address."""
    before = marks.string[max(marks.start() - LONGEST_ADDRESS, 0):marks.start()]
    piece = re.split(r"\s", before)[-1]
    return marks[0] if ADDRESS.search(piece) else MARK.sub(r" \g<0> ", marks[0])
