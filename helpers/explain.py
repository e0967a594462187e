"""Explain a result: each word of a text shaded by how much it moved the logit, as a picture or a page.

A word's effect is found by erasing it: the logit of the text minus that of the text without the word (Li, Monroe &
Jurafsky 2016, "Understanding Neural Networks through Representation Erasure"). The text without it goes the whole way
again, so the n-grams that the word is part of are erased with it. Effects need not add up to the logit.
"""

import html
import warnings
from pathlib import Path
from string import Template

import numpy as np
import torch

from helpers.cli import UserError, note
from helpers.files import whole_file, write_text
from helpers.predictor import classify
from helpers.reviews import make_reviews

LONGEST = 3000  # tokens: erasing each takes half a minute; the longest review of IMDB has 2,800
AT_ONCE = 64  # erased texts, which bounds the memory
ATTENTION = 40  # tokens at most, or the words at the matrix's sides cannot be read
LINE, WORD = 72, 20  # characters in a line of the picture, and at most in a word there
BLUE, RED, BLACK = "33,102,172", "178,24,43", "0,0,0"
PAGE = Path(__file__).with_suffix(".html")


def word_effects(predictor, reviews):
    """Return what each token adds to the logit of the one text in `reviews`: (tokens), above 0 if towards positive."""
    tokens, N = reviews.tokens, len(reviews.tokens)
    if N > LONGEST:
        raise UserError(f"the text has {N:,} tokens; --explain takes at most {LONGEST:,}.")
    effects = []
    for first in range(0, N, AT_ONCE):
        texts = [np.delete(tokens, i) for i in range(first, min(first + AT_ONCE, N))]
        texts.append(tokens)  # so that there is a token even if the one token was erased
        logits = predictor.logits(make_reviews(reviews.words, np.concatenate(texts), np.cumsum([0, *map(len, texts)])))
        effects.append(logits[-1] - logits[:-1])
    return torch.cat(effects).numpy()


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


def draw_picture(path, words, effects, weights, title):
    """Draw the shaded words, and the attention matrix below them if there is one."""
    import matplotlib.pyplot as plt  # here, because a page does without it
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker

    def write(text, **style):
        return TextArea(text, textprops={"parse_math": False, **style})

    words = [word if len(word) <= WORD else word[:WORD - 1] + "…" for word in words]
    lines, room = [], 0
    for word, shade in zip(words, shades(effects), strict=True):
        if len(word) > room:
            lines.append([])
            room = LINE
        room -= len(word) + 1
        colour = plt.get_cmap("RdBu")(0.5 + 0.3 * shade)
        lines[-1].append(write(word, size=11, bbox={"facecolor": colour, "edgecolor": "none", "pad": 2}))
    rows = [write(title, size=14, weight="bold"), *(HPacker(children=line, sep=7) for line in lines),
            write("Blue words move the result to positive, red ones to negative; the strongest changes the logit by "
                  f"{np.abs(effects).max():.2f}.", size=9)]

    side = 1 if weights is None else 0.2 * len(words) + 2  # inches
    figure = plt.figure(figsize=(side, side), layout="constrained")
    figure.add_artist(AnchoredOffsetbox("lower left", child=VPacker(children=rows, sep=8), frameon=False,
                                        bbox_to_anchor=(0, 1), bbox_transform=figure.transFigure))
    if weights is not None:
        axes = figure.add_subplot()
        axes.set_title("attention: how much a row's word reads of each column's", size=9)
        axes.imshow(weights, cmap="Greys", vmin=0)
        axes.set_xticks(range(len(words)), words, rotation=90, size=8, parse_math=False)
        axes.set_yticks(range(len(words)), words, size=8, parse_math=False)
    with whole_file(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the font has no Chinese, say
        figure.savefig(temporary, dpi=150, bbox_inches="tight")  # as large as what is drawn
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
