# ---- The sentence: where it ends, and whether it may be shown

OVER = re.compile("<\\|endoftext\\|>|[\n\r\v\f\x85\u2028\u2029]")  # the text, or its paragraph, is over
TITLES = ["Lt.", "Col.", "Sgt.", "Capt.", "Maj.", "Cpl.", "Pvt.", "Cmdr.", "Det.", "Insp.", "Hon.", "Msgr."]
MAY_END = re.compile(r"(?:[A-Za-z]\.){2,}|(?:Jr|Inc|Ltd|Co|Corp|I)\.")  # abbreviations that can also end a sentence


def make_splitter():
    """spaCy's English tokenizer, to which "Dr.", "U.S." and "3.5" are one token each, and its sentencizer."""
    import spacy
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    for title in TITLES:  # it does not know them
        nlp.tokenizer.add_special_case(title, [{"ORTH": title}])
    return nlp


def sentence_end(nlp, text, start, final=False):
    """Index after the first sentence of `text` that ends beyond `start`; None if none is known to end.

    Until the text is `final`, only its complete words count: "Ph.D" may become "Ph.D.", and "3." may become "3.5".
    """
    text = text.rstrip() if final else text[:text.rfind(" ") + 1]
    if not re.search("[.!?]", text[start:]):
        return None
    doc = nlp(text)
    starts = [token.i for token in doc[1:] if token.is_sent_start or (  # "in the U.S. The"
        token.is_title and token.is_stop and MAY_END.fullmatch(doc[token.i - 1].text))]
    for i in starts + [len(doc)] * final:
        while i > 1 and doc[i - 2].whitespace_ and doc[i - 1].is_punct and doc[i - 1].text not in ".!?":
            i -= 1  # the sentencizer leaves an opening quotation mark with the sentence before it
        end = doc[i - 1].idx + len(doc[i - 1])
        follower = next((letter for letter in text[end:] if letter.isalnum()), "")
        if end > start and ends_well(doc[:i]) and not (follower.islower() or follower.isdigit()):  # "No. 5"
            return end
    return None


def ends_well(span):
    """Whether the tokens stop at a sentence's end, with nothing quoted or bracketed left open."""
    words = [token.text for token in span if not (token.is_quote or token.is_bracket)] or [""]
    ended = words[-1] in {".", "!", "?"} or MAY_END.fullmatch(words[-1])
    return (ended and span.text.count('"') % 2 == 0
            and all(span.text.count(left) <= span.text.count(right) for left, right in ("“”", "()", "[]")))


def read_sample(nlp, text, start):
    """(whether the sample is over, its text so far, whether that is a complete sentence beyond the prefix's `start`)"""
    over = OVER.search(text)
    text = text[:over.start()] if over else text
    end = sentence_end(nlp, text, start, final=over is not None)
    text = " ".join(text[:end].split())
    complete = end is not None and has_words(text[start:]) and text == clean(text)
    return over is not None or end is not None, text, complete


def has_words(text):
    """Whether there is a letter or a digit."""
    return any(map(str.isalnum, text))


def clean(text):
    """`text` without control characters and without the replacement character of broken UTF-8."""
    return "".join(letter for letter in text if letter.isprintable() and letter != "\ufffd")


