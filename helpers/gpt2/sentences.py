"""Find the end of a text's first sentence."""

import re

PARAGRAPH_END = re.compile("[\n\r\v\f\x85\u2028\u2029]")
TITLES = ["Lt.", "Col.", "Sgt.", "Capt.", "Maj.", "Cpl.", "Pvt.", "Cmdr.", "Det.", "Insp.", "Hon.", "Msgr."]
# Abbreviations that can also end a sentence: "U.S.", "Inc."
MAY_END = re.compile(r"(?:[A-Za-z]\.){2,}|(?:Jr|Inc|Ltd|Co|Corp|I)\.")
BRACKETS = ["“”", "()", "[]"]


def make_splitter():
    """Return spaCy's English tokenizer with a sentencizer; "Dr.", "U.S." and "3.5" are single tokens."""
    import spacy  # takes a second

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    for title in TITLES:  # spaCy does not know these abbreviations
        nlp.tokenizer.add_special_case(title, [{"ORTH": title}])
    return nlp


def first_sentence(nlp, text, start):
    """Return the first sentence of `text` that ends after the index `start`, and whether it is complete.

    If no sentence ends there, return the first paragraph and False. Characters that cannot be printed are removed, and
    the sentence then counts as incomplete.
    """
    paragraph, *others = PARAGRAPH_END.split(text, maxsplit=1)
    end = sentence_end(nlp, paragraph, start, final=bool(others))
    sentence = " ".join(paragraph[:end].split())
    printable = "".join(letter for letter in sentence if letter.isprintable() and letter != "\ufffd")  # broken UTF-8
    complete = end is not None and printable == sentence and has_words(sentence[start:])
    return printable, complete


def sentence_end(nlp, text, start, final):
    """Return the index after the first sentence of `text` that ends after `start`, or None.

    `final` says that nothing follows `text`. Otherwise its last word may go on, and is ignored: "Ph.D" may become
    "Ph.D.", and "3." may become "3.5".
    """
    text = text.rstrip() if final else text[:text.rfind(" ") + 1]
    doc = nlp(text)
    boundaries = [token.i for token in doc[1:] if token.is_sent_start or starts_after_abbreviation(doc, token)]
    if final:
        boundaries.append(len(doc))
    for boundary in boundaries:
        span = doc[:before_opening_quote(doc, boundary)]
        end = len(span.text)
        if end > start and ends_well(span) and not goes_on(text[end:]):
            return end
    return None


def starts_after_abbreviation(doc, token):
    """Return whether `token` starts a sentence after an abbreviation, as "The" does in "in the U.S. The"."""
    return token.is_title and token.is_stop and bool(MAY_END.fullmatch(doc[token.i - 1].text))


def before_opening_quote(doc, i):
    """Return the boundary `i` moved before an opening quotation mark, which spaCy adds to the previous sentence."""
    while i > 1 and doc[i - 2].whitespace_ and doc[i - 1].is_punct and doc[i - 1].text not in ".!?":
        i -= 1
    return i


def ends_well(span):
    """Return whether the tokens end like a sentence, with no quotation or bracket left open."""
    words = [token.text for token in span if not (token.is_quote or token.is_bracket)]
    last = words[-1] if words else ""
    if last not in {".", "!", "?"} and not MAY_END.fullmatch(last):
        return False
    if span.text.count('"') % 2 == 1:
        return False
    return all(span.text.count(left) <= span.text.count(right) for left, right in BRACKETS)


def goes_on(text):
    """Return whether `text` continues a sentence: its first letter is lower case, or a digit as in "No. 5"."""
    first = next((letter for letter in text if letter.isalnum()), "")
    return first.islower() or first.isdigit()


def has_words(text):
    """Return whether `text` contains a letter or a digit."""
    return any(letter.isalnum() for letter in text)
