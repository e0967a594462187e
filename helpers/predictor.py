"""A trained network and all that it needs to classify a text: `model.pt`, saved, loaded, and applied to any text."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torchtext.vocab import Vocab

from helpers.batches import BucketLoader, ReviewSet, predict_logits
from helpers.cli import UserError
from helpers.files import read_torch, write_torch
from helpers.ngrams import ORDERS, NgramTable
from helpers.reviews import Reviews
from helpers.tokens import tokenize
from models import MyTransformer

MODEL = Path(__file__).parents[1] / "pretrained" / "sentiment" / "model.pt"


def build_model(vocab, settings):
    """Return a new network; `settings` is a dict as `metrics.json` and `model.pt` hold it."""
    return MyTransformer(vocab, settings["max_len"], settings["blocks"], settings["dropout"], settings["freeze"],
                         settings["channels"], settings["input_dropout"])


def save_model(path, model, vocab, table, metrics):
    """Write weights, settings, vocabulary and n-grams (an `ngrams.NgramTable`, or None): all that a text needs."""
    saved = {"state": {name: tensor.cpu() for name, tensor in model.state_dict().items()}, "words": vocab.itos,
             "settings": metrics["settings"], "data": metrics["data"]}
    if table:
        saved["ngrams"] = {"words": table.words, "keys": [pack(keys) for keys in table.keys],
                           "values": torch.from_numpy(table.values), "scale": torch.from_numpy(table.scale)}
    write_torch(path, saved)


def pack(keys):
    """Return the lower six bytes of int64 keys, (n, 6): they hold three word ids, and a file needs no zeros."""
    lower = keys.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :6]
    if not np.array_equal(unpack(torch.from_numpy(lower)), keys):
        raise ValueError("a key has more than 48 bits")
    return torch.from_numpy(lower.copy())


def unpack(lower):
    """Return the keys that `pack` was given."""
    return np.pad(lower.numpy(), [(0, 0), (0, 2)]).view("<i8").reshape(-1)


def check(saved):
    """Raise an error unless the parts of a `model.pt` are those of one network: it might fill the memory, or lie."""
    if not isinstance(saved, dict):
        raise TypeError("it holds something else")
    state, settings, ngrams = saved["state"], saved["settings"], saved.get("ngrams")
    words, d = state["embedding.weight"].shape
    fits = [len(saved["words"]) == words,
            state["blocks.0.norm1.gamma"].shape == (settings["max_len"], d + settings["channels"]),
            settings["blocks"] <= len(state),
            settings.keys() >= {"both_ends", "ngrams"},
            bool(settings["ngrams"]) == bool(ngrams)]
    if ngrams:
        fits += [len(ngrams["values"]) == sum(map(len, ngrams["keys"])),
                 all(unpack(keys).max(initial=0) < len(ngrams["words"]) ** order
                     for order, keys in zip(ORDERS, ngrams["keys"], strict=True))]
    fits += [tensor.is_contiguous() and bool(tensor.isfinite().all()) for tensor in state.values()]
    if not all(fits):
        raise ValueError("its parts do not fit each other")


class Predictor:
    """The network of a `model.pt` with its vocabulary, n-grams and settings.

    Attributes:
        data: "IMDB" or "SAMPLE", what the network was trained on.

    Raises:
        UserError: the file is absent, damaged, or not one of this program.
    """

    def __init__(self, path=MODEL, device="cpu"):
        self.device = device
        try:
            saved = read_torch(path)
            check(saved)
            self.settings, self.data = saved["settings"], saved["data"]
            self.vocab = Vocab(Counter(), specials=saved["words"])
            self.vocab.vectors = saved["state"]["embedding.weight"]
            self.model = build_model(self.vocab, self.settings).eval()
            self.model.load_state_dict(saved["state"])
            self.table = None
            if "ngrams" in saved:
                parts = saved["ngrams"]
                self.table = NgramTable(parts["words"], [unpack(keys) for keys in parts["keys"]],
                                        parts["values"].numpy(), parts["scale"].numpy())
            self.model.to(device)
            # fails if the parts do not fit each other; a text would need spaCy, which `evaluate` does without
            self.logits(unlabelled(["film"], np.zeros(1, np.int32), np.array([0, 1])))
        except FileNotFoundError as error:
            raise UserError(f"{path} is not there; train first, or name the model of another run.") from error
        except Exception as error:  # a damaged file can fail in many ways, and none of them is of use to the reader
            raise UserError(f"{path} is not a model of this program, or is damaged; train again.") from error

    def review_set(self, reviews):
        """Return a `reviews.Reviews` as the network reads it, a `batches.ReviewSet`."""
        return ReviewSet(reviews, np.ones(len(reviews.labels), bool), self.vocab, self.settings["max_len"],
                         self.settings["both_ends"], self.table and self.table.channels(reviews), device=self.device)

    def logits(self, reviews):
        """Return the logit of each of a `reviews.Reviews`, (reviews,), above 0 for a positive one."""
        return predict_logits(self.model, BucketLoader(self.review_set(reviews)), "predicting").cpu()


def as_reviews(texts):
    """Tokenize texts into a `reviews.Reviews`, whose other fields mean nothing."""
    return unlabelled(*tokenize(texts))


def unlabelled(words, tokens, starts):
    """Return tokens as `tokens.tokenize` gives them as a `reviews.Reviews`, whose other fields mean nothing."""
    nothing = np.zeros(len(starts) - 1, np.int64)
    return Reviews(words, tokens, starts, labels=nothing, movies=nothing, test=nothing.astype(bool),
                   duplicate=nothing.astype(bool), digest="")


def classify(logit):
    """Return the label of a logit, "positive" or "negative", and its probability, from 0.5 to 1."""
    return "positive" if logit > 0 else "negative", torch.sigmoid(logit.abs()).item()
