"""Render an explanation as a page: one HTML file that loads nothing from elsewhere. A text can never become markup."""

import base64
import hashlib
import html
import json
from dataclasses import dataclass

import numpy as np
import torch

from helpers.inference.page_template import NEGATIVE, NGRAMS, PAGE, POSITIVE, READ, SCRIPT, STYLE
from helpers.inference.predictor import SURE, classify

STRONGEST_NGRAMS = 5  # that are shown on each side
SMALLEST = 0.005  # smaller numbers are shown as 0.00
FAINTEST = 0.1  # logit; the darkest shade stands for at least this much
SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


@dataclass
class Network:
    """What a page says about the network."""

    name: str
    trained_on: str  # its training data
    settings: dict  # of its run
    what_is_read: str  # the part of a long text that the network reads, a noun phrase


@dataclass
class Explanation:
    """What a page shows about a text of N tokens, of which the network reads T."""

    words: list  # the tokens in their original case
    follows_space: list  # whether a space precedes each token
    logit: torch.Tensor  # scalar, calibrated
    effects: np.ndarray  # (N,) logit minus the logit without the token
    is_unknown: np.ndarray  # (N,) bool, not in the vocabulary
    is_negated: np.ndarray  # (N,) bool
    ngrams: dict  # from n-gram to value; empty if the network reads no n-grams
    read: np.ndarray  # (T,) places of the tokens that the network reads
    weights: list  # attention of the first blocks, each (T, T)
    network: Network


def render(explanation):
    """Return the page of an `Explanation`."""
    label, probability = classify(explanation.logit)
    strongest = max(np.abs(explanation.effects).max(), FAINTEST)
    answer = {"label": label, "probability": f"{probability:.1%}", "logit": signed(explanation.logit.item()),
              "positive": f"{explanation.logit.sigmoid():.1%}", "strongest": f"{strongest:.2f}"}
    content = {"warnings": "\n".join(warnings(explanation, probability)), "marks": describe_marks(explanation),
               "words": marked_words(explanation, strongest), "blocks": block_chooser(explanation),
               "ngrams": ngram_tables(explanation.ngrams), "facts": facts(explanation)}
    script = {"data": data_of_script(explanation), "script": SCRIPT, "script_hash": SCRIPT_HASH}
    return PAGE.substitute(answer | content | script, style=STYLE)


def warnings(explanation, probability):
    """Return HTML with a paragraph for each reason to doubt the prediction."""
    reasons = []
    if probability < SURE:
        reasons.append(f"Hard to say: the probability is below {SURE:.0%}.")
    if "SAMPLE" in explanation.network.trained_on:
        reasons.append("The network was trained on the SAMPLE and has a small vocabulary.")
    if is_cut(explanation):
        reasons.append(f"Only the {explanation.network.what_is_read} were read.")
    return [f'<p class="warning">{reason}</p>' for reason in reasons]


def is_cut(explanation):
    """Return whether the network reads only a part of the text."""
    return len(explanation.read) < len(explanation.words)


def describe_marks(explanation):
    """Return HTML that explains those marks of words that occur in the text."""
    marks = []
    if explanation.is_negated.any():
        marks.append('<span class="neg">Dotted underline</span>: negated, for example by “not”.')
    if explanation.is_unknown.any():
        marks.append('<span class="unk">Dashed box</span>: not in the vocabulary.')
    if is_cut(explanation):
        marks.append('<span class="cut">Small</span>: not read by the attention, because the text is too long.')
    return "".join(f" {mark}" for mark in marks)


def marked_words(explanation, strongest):
    """Return HTML with a <span> for each word, shaded by its effect; the effect `strongest` gets the darkest shade."""
    is_read = np.isin(np.arange(len(explanation.words)), explanation.read)
    marks = {"neg": explanation.is_negated, "unk": explanation.is_unknown, "cut": ~is_read}
    spans = []
    for i, word in enumerate(explanation.words):
        effect = explanation.effects[i]
        classes = ["w", *(name for name, is_marked in marks.items() if is_marked[i])]
        space = " " if explanation.follows_space[i] else ""
        spans.append(space + span(word, effect, shade(effect / strongest), classes))
    return "".join(spans)


def span(word, effect, colour, classes):
    """Return HTML for a word: its effect is read aloud by a screen reader, and shown where a user points."""
    shown, value = html.escape(printable(word)), signed(effect)
    spoken = f"{shown}, {value}" + (", negated" if "neg" in classes else "")
    return (f'<span class="{" ".join(classes)}" style="--effect:{colour}" role="button" tabindex="0" '
            f'data-v="{value}" aria-label="{spoken}">{shown}</span>')


def shade(strength):
    """Return the colour of an effect as CSS: strength -1 is the darkest negative shade, 0 white, 1 darkest positive."""
    darkest = np.array(POSITIVE if strength > 0 else NEGATIVE)
    mixed = 255 + abs(strength) * (darkest - 255)
    return "#{:02x}{:02x}{:02x}".format(*mixed.round().astype(int))


def signed(value):
    """Return a number with its sign and two decimals, for example "−0.50"; 0 has no sign."""
    if abs(value) < SMALLEST:
        return "0.00"
    return f"{value:+.2f}".replace("-", "−")


def printable(word):
    """Return a word in which U+FFFD stands for each character that cannot be printed."""
    return "".join(character if character.isprintable() else "\ufffd" for character in word)


def block_chooser(explanation):
    """Return HTML to choose one of several blocks, which the script makes visible; empty for one block."""
    number, blocks = len(explanation.weights), explanation.network.settings["blocks"]
    if number == 0:
        return "<p>The text is too long to show what its words read.</p>"
    if blocks == 1:
        return ""
    choices = []
    for i in range(number):
        checked = " checked" if i == 0 else ""
        choices.append(f'<label><input type="radio" name="block" value="{i}"{checked}> {i + 1}</label>')
    of_all = "" if number == blocks else f" of {blocks}"
    return f"<fieldset hidden>Attention of block {' '.join(choices)}{of_all}</fieldset>\n"


def ngram_tables(ngrams):
    """Return HTML with the strongest n-grams on either side; empty if the network reads no n-grams."""
    if not ngrams:
        return ""
    strongest = max(*map(abs, ngrams.values()), FAINTEST)
    ordered = sorted(ngrams, key=ngrams.get)  # the most negative one first
    sides = {"negative": ordered[:STRONGEST_NGRAMS], "positive": ordered[::-1][:STRONGEST_NGRAMS]}
    tables = {}
    for side, names in sides.items():
        sign = 1 if side == "positive" else -1
        rows = [ngram_row(name, ngrams[name], strongest) for name in names if sign * ngrams[name] >= SMALLEST]
        tables[side] = "\n".join(rows) or "<tr><th>none</th></tr>"
    return NGRAMS.substitute(tables, number=len(ngrams), total=signed(sum(ngrams.values())))


def ngram_row(name, value, strongest):
    """Return HTML with a row of a table of n-grams."""
    shown, colour = html.escape(printable(name)), shade(value / strongest)
    return (f'<tr><th scope="row"><bdi>{shown}</bdi></th>'
            f'<td dir="ltr" style="background:{colour}">{signed(value)}</td></tr>')


def facts(explanation):
    """Return HTML with facts about the network and about what it reads of the text."""
    network, settings = explanation.network, explanation.network.settings
    count, num_read = len(explanation.words), len(explanation.read)
    training = f"blocks {settings['blocks']}, epochs {settings['epochs']}, learning rate {settings['lr']:g}"
    tokens = f"{num_read:,} of {count:,} read" if is_cut(explanation) else f"all {count:,} read"
    lines = {"Network": f"{network.name}: {training}", "Trained on": network.trained_on, "Tokens": tokens,
             "Unknown words": unknown_words(explanation)}
    return "\n".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in lines.items())


def unknown_words(explanation):
    """Return HTML with the distinct words of the text that are not in the vocabulary."""
    words = dict.fromkeys(np.array(explanation.words, object)[explanation.is_unknown])
    return ", ".join(f"<bdi>{html.escape(printable(word))}</bdi>" for word in words) or "none"


def data_of_script(explanation):
    """Return what the script of the page needs, as JSON. It contains no part of the text."""
    largest, coded = [], []
    for weights in explanation.weights:
        of_row = weights.max(axis=1, keepdims=True)
        shares = (255 * weights / of_row).round().astype(np.uint8)  # of the largest weight of the row
        largest.append(of_row[:, 0].astype(float).round(6).tolist())
        coded.append(base64.b64encode(shares.tobytes()).decode())
    logits_without = explanation.logit - torch.tensor(explanation.effects)  # (N,), of the text without each word
    without = ["{}, {:.1%}".format(*classify(logit)) for logit in logits_without]
    return json.dumps({"read": explanation.read.tolist(), "weights": coded, "largest": largest, "without": without,
                       "colour": "{}, {}, {}".format(*READ)}, separators=(",", ":"))
