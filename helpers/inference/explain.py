"""Explain a prediction: a page on which each word of a text is coloured by how much it changes the logit.

The effect of a word is the logit of the text minus the logit of the text without the word (Li, Monroe & Jurafsky 2016,
"Understanding Neural Networks through Representation Erasure"). The text without the word is processed from the start,
so the n-grams with the word are removed too. The effects need not add up to the logit.
"""

import html
from string import Template

import numpy as np
import torch

from helpers.cli import UserError, note
from helpers.data.reviews import make_reviews
from helpers.files import write_text
from helpers.inference.predictor import classify

LONGEST = 3000  # tokens, which take half a minute; the longest review of IMDB has 2,800
AT_ONCE = 64  # texts without a word that are classified together, which limits the memory
ATTENTION = 40  # tokens of the longest text whose attention is shown; a larger table is hard to read
BLUE, RED, BLACK = "33,102,172", "178,24,43", "0,0,0"
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title>
<style>
body { font: 18px/1.8 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; }
span { padding: 0.1em 0.2em; border-radius: 0.2em; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 13px; line-height: 1.2; }
th { font-weight: normal; text-align: right; padding: 0 0.4em; }
th.up { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: 0.4em 0; }
td { width: 1.3em; height: 1.3em; border: 1px solid #ddd; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$words</p>
<p><small>Blue words make the result more positive, red words more negative. Point at a word to see how much it changes
the logit.</small></p>
$attention</body>
</html>
""")
ATTENTION_TABLE = Template("""<h2>Attention</h2>
<p>Each row shows how much its word reads of every word, in the first block. Darker cells have larger weights.</p>
<table>
$rows
</table>
""")


def word_effects(predictor, reviews):
    """Return the effect of each token of the one text in `reviews`: (tokens,), above 0 if it makes it more positive."""
    tokens, N = reviews.tokens, len(reviews.tokens)
    if N > LONGEST:
        raise UserError(f"the text has {N:,} tokens; --explain takes at most {LONGEST:,}.")
    effects = []
    for first in range(0, N, AT_ONCE):
        texts = [np.delete(tokens, i) for i in range(first, min(first + AT_ONCE, N))]
        texts.append(tokens)  # last, because a text without its only token is empty, and some token is needed
        starts = np.cumsum([0, *map(len, texts)])
        logits = predictor.logits(make_reviews(reviews.words, np.concatenate(texts), starts))
        effects.append(logits[-1] - logits[:-1])
    return torch.cat(effects).numpy()


@torch.no_grad()
def attention_weights(predictor, reviews):
    """Return the attention of the first block for the one text in `reviews`: (T, T), row i is what token i reads."""
    weights = []
    attention = predictor.model.blocks[0].attention
    hook = attention.register_forward_hook(lambda layer, inputs, output: weights.append(layer.weights(*inputs)[0]))
    predictor.logits(reviews)
    hook.remove()
    return weights[0].cpu().numpy()


def write_explanation(predictor, reviews, path):
    """Write a page that explains the prediction for the one text in `reviews`."""
    words = [replace_unprintable(reviews.words[token]) for token in reviews.tokens]
    effects = word_effects(predictor, reviews)
    label, probability = classify(predictor.logits(reviews)[0])
    title = f"{label}, {probability:.1%}"
    if predictor.data == "SAMPLE":
        title += " (trained on the SAMPLE)"
    attention = ""
    if len(words) <= min(ATTENTION, predictor.settings["max_len"]):
        attention = attention_table(words, attention_weights(predictor, reviews))
    page = PAGE.substitute(title=title, words=coloured_words(words, effects), attention=attention)
    write_text(path, page)
    note(f"explanation written to {path}")


def replace_unprintable(word):
    """Return a word in which U+FFFD stands for each character that cannot be printed."""
    return "".join(character if character.isprintable() else "\ufffd" for character in word)


def coloured_words(words, effects):
    """Return HTML with a coloured <span> for each word: words (list of str), effects (tokens,)."""
    strongest = max(np.abs(effects).max(), 1e-9)
    spans = []
    for word, effect in zip(words, effects, strict=True):
        colour = BLUE if effect > 0 else RED
        spans.append(element("span", colour, 0.7 * abs(effect) / strongest, effect, word))
    return " ".join(spans)


def attention_table(words, weights):
    """Return HTML with a table of attention weights: words (list of T str), weights (T, T)."""
    names = [html.escape(word) for word in words]
    columns = "".join(f'<th class="up">{name}</th>' for name in names)
    rows = [f"<tr><th></th>{columns}</tr>"]
    largest = weights.max()
    for name, row in zip(names, weights, strict=True):
        cells = "".join(element("td", BLACK, weight / largest, weight) for weight in row)
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    return ATTENTION_TABLE.substitute(rows="\n".join(rows))


def element(tag, colour, opacity, value, text=""):
    """Return an HTML element with a background colour, and with a value that is shown when a user points at it."""
    style = f"background:rgba({colour},{opacity:.3f})"
    return f'<{tag} style="{style}" title="{value:+.3f}">{html.escape(text)}</{tag}>'
