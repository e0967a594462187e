"""Where the first sentence of a text ends."""

import re

PARAGRAPH_END = re.compile("[\n\r\v\f\x85\u2028\u2029]")
TITLES = ["Lt.", "Col.", "Sgt.", "Capt.", "Maj.", "Cpl.", "Pvt.", "Cmdr.", "Det.", "Insp.", "Hon.", "Msgr."]
MAY_END = re.compile(r"(?:[A-Za-z]\.){2,}|(?:Jr|Inc|Ltd|Co|Corp|I)\.")  # abbreviations that can also end a sentence


def make_splitter():
    """Return spaCy's English tokenizer, to which "Dr.", "U.S." and "3.5" are one token each, and its sentencizer."""
    import spacy  # takes a second

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    for title in TITLES:  # it does not know them
        nlp.tokenizer.add_special_case(title, [{"ORTH": title}])
    return nlp


def first_sentence(nlp, text, start):
    """Return the first sentence of `text` that ends beyond the prefix's `start`, and whether it is complete.

    Without such an end it is the first paragraph, cut where the text stops. What cannot be shown is left out.
    """
    paragraph, *others = PARAGRAPH_END.split(text, maxsplit=1)
    end = sentence_end(nlp, paragraph, start, final=bool(others))
    sentence = " ".join(paragraph[:end].split())
    shown = "".join(letter for letter in sentence if letter.isprintable() and letter != "\ufffd")  # broken UTF-8
    return shown, end is not None and shown == sentence and has_words(sentence[start:])


def sentence_end(nlp, text, start, final):
    """Return the index after the first sentence of `text` that ends beyond `start`, or None.

    Unless the text is `final`, only its complete words count: "Ph.D" may become "Ph.D.", and "3." may become "3.5".
    """
    text = text.rstrip() if final else text[:text.rfind(" ") + 1]
    doc = nlp(text)
    starts = [token.i for token in doc[1:] if token.is_sent_start or (  # "in the U.S. The"
        token.is_title and token.is_stop and MAY_END.fullmatch(doc[token.i - 1].text))]
    if final:
        starts.append(len(doc))
    for i in starts:
        while i > 1 and doc[i - 2].whitespace_ and doc[i - 1].is_punct and doc[i - 1].text not in ".!?":
            i -= 1  # the sentencizer leaves an opening quotation mark with the sentence before it
        end = len(doc[:i].text)
        follower = next((letter for letter in text[end:] if letter.isalnum()), "")
        if end > start and ends_well(doc[:i]) and not (follower.islower() or follower.isdigit()):  # "No. 5"
            return end
    return None


def ends_well(span):
    """Return whether the tokens stop at a sentence's end, with nothing quoted or bracketed left open."""
    words = [token.text for token in span if not (token.is_quote or token.is_bracket)] or [""]
    ended = words[-1] in {".", "!", "?"} or MAY_END.fullmatch(words[-1])
    return (ended and span.text.count('"') % 2 == 0
            and all(span.text.count(left) <= span.text.count(right) for left, right in ("“”", "()", "[]")))


def has_words(text):
    """Return whether there is a letter or a digit."""
    return any(map(str.isalnum, text))
