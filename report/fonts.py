"""Which characters the report's fonts can show: a name must not appear as boxes."""

import re
import unicodedata

import typst

from helpers.cli import UserError

FAMILIES = '("Libertinus Serif", "New Computer Modern")'
NO_CHARACTER = "\uf8ff"  # for private use; without a glyph in common fonts
FONT_OF_SCRIPT = {"CJK": "Noto Sans CJK", "HIRAGANA": "Noto Sans CJK", "KATAKANA": "Noto Sans CJK",
                  "HANGUL": "Noto Sans CJK"}


def glyphs(characters, ignore_system_fonts):
    """Return, for each character, the ids of the glyphs that stand for it, a list of sets."""
    pages = "\n#pagebreak()\n".join(f"#str.from-unicode({ord(character)})" for character in characters)
    source = f"#set text(font: {FAMILIES})\n{pages}"
    svgs = typst.compile(source.encode(), format="svg", ignore_system_fonts=ignore_system_fonts)
    return [set(re.findall(r'xlink:href="#(\w+)"', svg.decode())) for svg in svgs]


def missing_characters(text, ignore_system_fonts):
    """Return the characters of `text` that no font can show. Each of them would appear as a box."""
    characters = sorted({character for character in text if not character.isascii() and character.isprintable()})
    if not characters:
        return []
    box, *others = glyphs([NO_CHARACTER, *characters], ignore_system_fonts)
    return [character for character, found in zip(characters, others, strict=True) if found == box]


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
    if missing:
        raise UserError(f"no font on this machine has {' '.join(missing)}, which is in {what}; install the font "
                        f"{suggest_font(missing[0])}, or write it in other letters.")
    return True
