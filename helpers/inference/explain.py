"""Explain a prediction: the effect of each word of a text, its attention, and its n-grams in the bonus.

The effect of a word is the logit of the text minus the logit of the text without the word (Li, Monroe & Jurafsky 2016,
"Understanding Neural Networks through Representation Erasure"). The text without the word is processed from the start,
so the n-grams with the word are removed too. The effects need not add up to the logit.

A notebook shows the page in a frame:

    page = html.escape(explanation_page(predictor, "Not bad at all."))
    IPython.display.HTML(f'<iframe srcdoc="{page}" width="100%" height="700"></iframe>')
"""

import numpy as np
import torch

from helpers.cli import UserError, note
from helpers.data.reviews import LABELLED, make_reviews
from helpers.data.text import plain_text
from helpers.data.tokens import english_tokenizer
from helpers.files import write_text
from helpers.inference.page import Explanation, Network, render
from helpers.inference.predictor import as_reviews

LONGEST = 3000  # tokens: about half a minute; the longest review of IMDB has 2,800
AT_ONCE = 128  # texts, each without one word, that are classified together; this limits the memory
MOST_WEIGHTS = 1_000_000  # attention weights on a page, which take 1.3 MB; a block of 500 tokens has 250,000


def write_explanation(predictor, text, path):
    """Write a page that explains the prediction for a text."""
    write_text(path, explanation_page(predictor, text))
    note(f"explanation written to {path}")


def explanation_page(predictor, text):
    """Return a page that explains the prediction for a text, as HTML that loads nothing from elsewhere.

    Raises UserError if the text has no tokens or more than LONGEST.
    """
    return render(explain(predictor, text))


def explain(predictor, text):
    """Return the `Explanation` of the prediction for a text; see `explanation_page` for the errors."""
    reviews = as_reviews([text])
    words, follows_space = original_words(text)
    pipeline, stoi = predictor.pipeline, predictor.vocab.stoi
    effects = word_effects(predictor, reviews)
    is_in_vocab = np.array([stoi[reviews.words[token]] != stoi["<unk>"] for token in reviews.tokens])
    read = pipeline.review_set(reviews, predictor.vocab, predictor.device).positions
    num_shown = min(len(predictor.model.blocks), MOST_WEIGHTS // len(read)**2)
    weights = [attention_weights(predictor, reviews, block) for block in range(num_shown)]
    network = Network(pipeline.network_name(), training_data(predictor), pipeline.settings, pipeline.what_is_read())
    return Explanation(words, follows_space, logit=predictor.logits(reviews)[0], effects=effects,
                       is_unknown=~is_in_vocab, is_negated=pipeline.is_negated(reviews),
                       ngrams=pipeline.ngram_values(reviews), read=read, weights=weights, network=network)


def training_data(predictor):
    """Return what a network was trained on, as a noun phrase."""
    if predictor.data == "SAMPLE":
        return "the SAMPLE: 312 invented film reviews"
    kinds = "labelled and unlabelled" if predictor.pipeline.parts > LABELLED else "labelled"
    return f"{predictor.data}: {kinds} film reviews"


def original_words(text):
    """Return the tokens of `as_reviews([text])` in their original case (list), and whether a space precedes each."""
    pieces = plain_text(text).split()
    words, follows_space = [], []
    after_break = False
    for token in english_tokenizer()("".join(piece + "\n" for piece in pieces)):  # as in `tokens.tokenize_pieces`
        if token.text != "\n":
            words.append(token.text)
            follows_space.append(after_break)
        after_break = token.text == "\n"
    return words, follows_space


def word_effects(predictor, reviews):
    """Return the effect of each token of the one text in `reviews`: (tokens,), above 0 if it raises the logit.

    Raises UserError if the text has no tokens or more than LONGEST.
    """
    tokens, N = reviews.tokens, len(reviews.tokens)
    if N == 0:
        raise UserError("the text is empty; give a film review in English.")
    if N > LONGEST:
        raise UserError(f"the text has {N:,} tokens; --explain takes at most {LONGEST:,}.")
    effects = []
    for first in range(0, N, AT_ONCE):
        texts = [np.delete(tokens, i) for i in range(first, min(first + AT_ONCE, N))]
        texts.append(tokens)  # to compare with; also, without it, a text of one token would leave no token at all
        starts = np.cumsum([0, *map(len, texts)])
        logits = predictor.logits(make_reviews(reviews.words, np.concatenate(texts), starts))
        effects.append(logits[-1] - logits[:-1])
    return torch.cat(effects).numpy()


@torch.no_grad()
def attention_weights(predictor, reviews, block=0):
    """Return the attention of a block for the one text in `reviews`: (T, T), row i is what token i reads.

    T is the number of tokens that the network reads; see `Pipeline.what_is_read`.
    """
    weights = []
    attention = predictor.model.blocks[block].attention
    # The output of the layer does not contain the weights, so the hook computes them again.
    hook = attention.register_forward_hook(lambda layer, inputs, output: weights.append(layer.weights(*inputs)[0]))
    predictor.logits(reviews)
    hook.remove()
    return weights[0].cpu().numpy()
