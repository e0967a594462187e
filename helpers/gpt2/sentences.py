"""Find the end of a text's first sentence."""

import re

# spaCy is imported inside a function, because that takes a second.

PARAGRAPH_END = re.compile("[\n\r\v\f\x85\u2028\u2029]")
BRACKETS = ["“”", "()", "[]"]
END_MARK = re.compile(r"""([.!?…]+)["'”’)\]]*""")  # the mark, then closing quotation marks and brackets
LAST_WORD = re.compile(r"(?:\b[a-z]\. )*[\w.'’&]*$")  # "i. e" is one word
# White space follows a sentence. It may be missing, as in "the film.It was", but "Ph.D." is one word.
GAP = re.compile(r"\s|$|(?<=[a-z][.!?])[A-Z](?!\.)")

# After these abbreviations, the sentence goes on.
TITLES = {"adm", "capt", "cmdr", "col", "cpl", "det", "dr", "fr", "gen", "gov", "hon", "insp", "lt", "maj", "messrs",
          "mlle", "mme", "mr", "mrs", "ms", "msgr", "pres", "prof", "pvt", "rep", "rev", "sen", "sgt", "supt"}
CONNECTORS = {"a.k.a", "aka", "approx", "ca", "cf", "e.g", "eg", "esp", "i.e", "ie", "incl", "v.s", "viz", "vs"}
# After these and spaCy's abbreviations, the next word tells whether the sentence goes on.
OTHERS = {"al", "ave", "dept", "ed", "ep", "esq", "etc", "vol", "vols"}
LETTERS = re.compile(r"[^\W\d_](\.[^\W\d_])*")  # "U.S", "p.m", initials
NO_VOWEL = re.compile(r"[A-Z]?[b-df-hj-np-tv-xz]+")  # "Jr", "Blvd", "lbs", but not "TV"


def first_sentence(text, start):
    """Return the first sentence of `text` that ends after the index `start`, and whether it is complete.

    If no sentence ends there, return the first paragraph and False. Characters that cannot be printed are removed, and
    the sentence then counts as incomplete.
    """
    paragraph, *others = PARAGRAPH_END.split(text, maxsplit=1)
    end = sentence_end(paragraph, start, final=bool(others))
    sentence = " ".join(paragraph[:end].split())
    printable = "".join(letter for letter in sentence if letter.isprintable() and letter != "\ufffd")  # broken UTF-8
    complete = end is not None and printable == sentence and has_words(sentence[start:])
    return printable, complete


def sentence_end(text, start, final):
    """Return the index after the first sentence of `text` that ends after `start`, or None.

    `final` says that nothing follows `text`. Otherwise its last word may go on, and is ignored: "Ph.D" may become
    "Ph.D.", and "3." may become "3.5".
    """
    text = text.rstrip() if final else text[:text.rfind(" ") + 1]
    for match in END_MARK.finditer(text):
        end, mark = match.end(), match[1]
        if end <= start or not GAP.match(text, end) or has_open_bracket(text[:end]):
            continue
        word = LAST_WORD.search(text[:match.start()])[0].replace(" ", "").lstrip(".'’")
        if mark == "." and word.lower() in TITLES | CONNECTORS:
            continue
        rest = text[end:]
        is_end = starts_sentence(rest, is_doubtful(word, mark)) if has_words(rest) else final
        if is_end:
            return end
    return None


def has_open_bracket(text):
    """Return whether a bracket or a quotation mark is left open in `text`."""
    return text.count('"') % 2 == 1 or any(text.count(left) > text.count(right) for left, right in BRACKETS)


def is_doubtful(word, mark):
    """Return whether a sentence may go on after `word` and `mark`, as after "U.S.", "etc." and "..."."""
    from spacy.lang.en.tokenizer_exceptions import TOKENIZER_EXCEPTIONS

    if mark != ".":
        return "!" not in mark and "?" not in mark
    if f"{word}." in TOKENIZER_EXCEPTIONS or word.lower() in OTHERS:
        return True
    return bool(LETTERS.fullmatch(word) or NO_VOWEL.fullmatch(word))


def starts_sentence(text, is_doubtful):
    """Return whether `text`, which follows a sentence, starts another one.

    It does not if its first letter is lower case, or a digit as in "No. 5". In doubt, its first word decides: "The"
    starts a sentence, "Army" does not.
    """
    from spacy.lang.en.stop_words import STOP_WORDS

    word = re.search(r"[^\W_]+\.?", text)[0]  # with the point of an initial, as in "J. A. Smith"
    if word[0].islower() or word[0].isdigit():
        return False
    return not is_doubtful or (word.istitle() and word.lower() in STOP_WORDS)


def has_words(text):
    """Return whether `text` contains a letter or a digit."""
    return any(letter.isalnum() for letter in text)
