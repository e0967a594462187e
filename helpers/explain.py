"""Explain a result: each word of a text shaded by how much it moved the logit, as a picture or a page.

A word's effect is found by erasing it: the logit of the text minus that of the text without the word (Li, Monroe &
Jurafsky 2016, "Understanding Neural Networks through Representation Erasure"). The text without it goes the whole way
again, so the n-grams that the word is part of are erased with it. Effects need not add up to the logit.
"""

if __name__ == "__main__":
    raise SystemExit("error: this file is not run; the command is: python sentiment_analysis.py predict --explain")

import html
import unicodedata
import warnings
from pathlib import Path
from string import Template

import numpy as np
import torch

from helpers.cli import UserError, note
from helpers.files import whole_file, write_text
from helpers.predictor import classify, unlabelled

LONGEST = 3000  # tokens: erasing each takes half a minute; the longest review of IMDB has 2,800
ATTENTION = 40  # tokens at most, or the words at the matrix's sides cannot be read
TOKENS_AT_ONCE = 200_000  # of erased texts, which bounds the memory
COLUMNS = 72  # characters in a line of the picture
CHARACTER, LINE = 0.092, 0.27  # inches that one takes in a picture, at 11 points
BLUE, RED, BLACK = "33,102,172", "178,24,43", "0,0,0"
PAGE = Path(__file__).with_suffix(".html")


def word_effects(predictor, reviews):
    """Return what each token adds to the logit of the one text in `reviews`: (tokens), above 0 if towards positive."""
    tokens = reviews.tokens
    N = len(tokens)
    if N > LONGEST:
        raise UserError(f"the text has {N:,} tokens; --explain takes at most {LONGEST:,}.")
    without = []
    for first in range(0, N, max(TOKENS_AT_ONCE // N, 1)):
        erased = np.arange(first, min(first + max(TOKENS_AT_ONCE // N, 1), N))
        kept = np.arange(N) != erased[:, np.newaxis]  # (erased, N)
        texts = np.broadcast_to(tokens, kept.shape)[kept]
        starts = np.arange(len(erased) + 1) * (N - 1)
        # the whole text stands among them, so that there is a token even if the one token was erased
        variants = unlabelled(reviews.words, np.append(texts, tokens), np.append(starts, starts[-1] + N))
        logits = predictor.logits(variants)
        without.append(logits[-1] - logits[:-1])
    return torch.cat(without).numpy()


@torch.no_grad()
def attention_weights(predictor, reviews):
    """Return the first block's weights for the one text in `reviews`: (T, T), row i is what token i reads."""
    weights = []
    layer = predictor.model.blocks[0].attention
    hook = layer.register_forward_hook(lambda layer, inputs, output: weights.append(layer.weights(*inputs)[0]))
    predictor.logits(reviews)
    hook.remove()
    return weights[0].cpu().numpy()


def write_explanations(predictor, reviews, paths):
    """Explain the one text in `reviews` in pictures (.png) and pages (.html)."""
    words = ["".join(c if c.isprintable() else "\ufffd" for c in reviews.words[i]) for i in reviews.tokens]
    effects = word_effects(predictor, reviews)
    label, probability = classify(predictor.logits(reviews)[0])
    title = f"{label}, {probability:.1%}"
    if predictor.data == "SAMPLE":
        title += " (trained on the SAMPLE)"
    weights = None
    if len(words) <= min(ATTENTION, predictor.settings["max_len"]):
        weights = attention_weights(predictor, reviews)
    for path in paths:
        if Path(path).suffix.lower() == ".html":
            write_text(path, make_page(words, effects, weights, title))
        else:
            draw_picture(path, words, effects, weights, title)
        note(f"{path} shows why")


def shades(effects):
    """Scale effects (tokens) to -1 ... 1."""
    return effects / max(np.abs(effects).max(), 1e-9)


def layout(words):
    """Return the words of a picture, shortened if very long, and the (column, line) where each begins."""
    shown, places, column, line = [], [], 0, 0
    for word in words:
        word = word if len(word) <= COLUMNS // 2 else word[:COLUMNS // 2 - 1] + "…"
        width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in word)
        if column and column + width > COLUMNS:
            column, line = 0, line + 1
        shown.append(word)
        places.append((column, line))
        column += width + 1
    return shown, places


def draw_picture(path, words, effects, weights, title):
    """Draw the shaded words, and the attention matrix beside them if there is one."""
    import matplotlib.pyplot as plt  # here, because a page does without it

    words, places = layout(words)
    lines = places[-1][1] + 1
    side = 0 if weights is None else max(3.5, 0.2 * len(words) + 1.5)  # inches
    left, height = CHARACTER * COLUMNS, max(LINE * lines + 1.6, side)
    figure = plt.figure(figsize=(left + side + 0.6, height))
    colours = plt.get_cmap("RdBu")

    width = left + side + 0.6
    text = figure.add_axes([0.2 / width, 0, left / width, 1], xlim=(0, COLUMNS), ylim=(0, height))
    text.axis("off")
    text.text(0, height - 0.4, title, size=14, weight="bold", parse_math=False)
    top = height - 0.9
    for word, shade, (column, line) in zip(words, shades(effects), places, strict=True):
        text.text(column, top - LINE * line, word, size=11, family="monospace", parse_math=False, va="baseline",
                  bbox={"facecolor": colours(0.5 + 0.3 * shade), "edgecolor": "none", "pad": 1.5})
    strongest = np.abs(effects).max()
    bar = figure.add_axes([0.2 / width, (top - LINE * lines - 0.1) / height, left / width / 2, 0.12 / height])
    bar.imshow(np.linspace(0.2, 0.8, 200)[np.newaxis], cmap=colours, vmin=0, vmax=1, aspect="auto",
               extent=(-strongest, strongest, 0, 1))
    bar.set_yticks([])
    bar.set_xlabel("what the word adds to the logit: red to negative, blue to positive", loc="left", size=9)

    if weights is not None:
        T = len(words)
        inner = side - 1.5
        axes = figure.add_axes([(left + 1.5) / width, (height - 1.3 - inner) / height, inner / width, inner / height])
        axes.imshow(weights, cmap="Greys", vmin=0)
        short = [word if len(word) <= 12 else word[:11] + "…" for word in words]
        axes.set_xticks(range(T), short, rotation=90, size=8, parse_math=False)
        axes.set_yticks(range(T), short, size=8, parse_math=False)
        axes.xaxis.tick_top()
        axes.set_xlabel("attention: how much a row's word reads of each column's", size=9, loc="right")
    with whole_file(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the font has no Chinese, say
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def make_page(words, effects, weights, title):
    """Return an HTML page that needs nothing from elsewhere, and in which nothing of the text is markup."""
    def coloured(tag, colour, opacity, value, word=""):
        style = f"background:rgba({colour},{opacity:.3f})"
        return f'<{tag} style="{style}" title="{value:+.3f}">{html.escape(word)}</{tag}>'

    shown = " ".join(coloured("span", BLUE if value > 0 else RED, 0.7 * abs(shade), value, word)
                     for word, value, shade in zip(words, effects, shades(effects), strict=True))
    table = ""
    if weights is not None:
        names = [html.escape(word) for word in words]
        cells = ["".join(coloured("td", BLACK, weight / weights.max(), weight) for weight in row) for row in weights]
        table = ("<h2>Attention</h2>\n<p>How much the word of a row reads of each column's.</p>\n<table>\n<tr><th></th>"
                 + "".join(f'<th class="up">{name}</th>' for name in names) + "</tr>\n"
                 + "".join(f"<tr><th>{name}</th>{row}</tr>\n" for name, row in zip(names, cells, strict=True))
                 + "</table>\n")
    return Template(PAGE.read_text(encoding="utf-8")).substitute(title=title, words=shown, table=table)
