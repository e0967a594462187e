"""Which characters the report's fonts can show: nothing in the report may appear as boxes."""

import re
import unicodedata

import typst

from helpers.cli import UserError

FAMILIES = '("Libertinus Serif", "New Computer Modern")'
NO_CHARACTER = "\ufdd0"  # not a character, so no font has it
REPLACEMENT = "\ufffd"  # stands for a character that cannot be shown
FONT_OF_SCRIPT = {"CJK": "Noto Sans CJK", "HIRAGANA": "Noto Sans CJK", "KATAKANA": "Noto Sans CJK",
                  "HANGUL": "Noto Sans CJK"}
CONTROL_CODES = range(0x80, 0xa0)  # in some reviews of IMDB: Windows-1252 that was decoded as Latin-1
LONG_WORD = re.compile(r"\S{50}(?=\S)")
MAY_BREAK = "\u200b"  # a space without width, where a line may end


def glyphs(characters, ignore_system_fonts):
    """Return, for each character, the ids of the glyphs that stand for it, a list of sets."""
    pages = "\n#pagebreak()\n".join(f"#str.from-unicode({ord(character)})" for character in characters)
    source = f"#set text(font: {FAMILIES})\n{pages}"
    svgs = typst.compile(source.encode(), format="svg", ignore_system_fonts=ignore_system_fonts)
    return [set(re.findall(r'xlink:href="#(\w+)"', svg.decode())) for svg in svgs]


def missing_characters(text, ignore_system_fonts):
    """Return the characters of `text` that no font can show. Each of them would appear as a box."""
    special = {character for character in text if not (character.isascii() and character.isprintable())}
    special -= set("\n\r\t")
    broken = sorted(character for character in special if unicodedata.category(character) == "Cs")
    characters = sorted(special.difference(broken))
    if not characters:
        return broken
    box, *others = glyphs([NO_CHARACTER, *characters], ignore_system_fonts)
    found = zip(characters, others, strict=True)
    return broken + [character for character, its_glyphs in found if its_glyphs == box]


def suggest_font(character):
    """Return the name of a free font that has a character."""
    if unicodedata.category(character) == "So":
        return "Noto Emoji"
    script = unicodedata.name(character, "?").split()[0]
    return FONT_OF_SCRIPT.get(script, f"Noto Sans {script.title()}")


def needs_system_fonts(text, what):
    """Return whether `text` needs fonts of this machine. Raises UserError, which names a font, if those lack it too."""
    if not missing_characters(text, ignore_system_fonts=True):
        return False
    missing = missing_characters(text, ignore_system_fonts=False)
    for character in missing:
        if not character.isprintable():
            raise UserError(f"the character U+{ord(character):04X} in {what} cannot be printed; remove it.")
    if missing:
        raise UserError(f"no font on this machine has {' '.join(missing)}, which is in {what}; install the font "
                        f"{suggest_font(missing[0])}, or write it in other letters.")
    return True


def map_texts(function, content):
    """Return JSON content with `function` applied to each text in it."""
    if isinstance(content, str):
        return function(content)
    if isinstance(content, list):
        return [map_texts(function, one) for one in content]
    if isinstance(content, dict):
        return {key: map_texts(function, one) for key, one in content.items()}
    return content


def make_printable(content):
    """Return JSON content that can be shown, and whether it needs system fonts.

    Characters that no font has are replaced, and lines may break inside long words. Nothing is refused, because the
    reviews and sentences are other people's texts.
    """
    texts = []
    map_texts(texts.append, content)
    text = "".join(texts)
    needs_more = bool(missing_characters(text, ignore_system_fonts=True))
    missing = missing_characters(text, ignore_system_fonts=False) if needs_more else []
    table = {code: bytes([code]).decode("cp1252", "replace") for code in CONTROL_CODES}
    table |= {ord(character): REPLACEMENT for character in missing if ord(character) not in table}
    return map_texts(lambda one: break_words(one.translate(table)), content), needs_more


def break_words(text):
    """Return `text` with MAY_BREAK in long words, which would otherwise reach into the margin."""
    return LONG_WORD.sub(rf"\g<0>{MAY_BREAK}", text)
