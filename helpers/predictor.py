"""A trained network and all that it needs to classify a text: `model.pt`, saved, loaded, and applied to any text."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from helpers.batches import BucketLoader, ReviewSet, Vocabulary, predict_logits
from helpers.calibration import calibration_error, fit, parts_of, sharpness
from helpers.cli import UserError
from helpers.files import read_torch, write_torch
from helpers.ngrams import NgramTable
from helpers.regions import WIDTHS, RegionEmbedding, Regions
from helpers.reviews import make_reviews
from helpers.tokens import tokenize
from models import MyTransformer

VERSION = 2  # of `model.pt`; a change of tokens or channels needs a new one, since old networks would answer wrongly
DRAWS = 4  # how often each review is cut for the calibration
MODEL = Path(__file__).parents[1] / "pretrained" / "sentiment" / "model.pt"


def build_model(vocab, settings):
    """Return a new network; `settings` is a dict as `metrics.json` and `model.pt` hold it."""
    return MyTransformer(vocab, settings["max_len"], settings["blocks"], settings["dropout"], settings["freeze"],
                         settings["channels"], settings["input_dropout"],
                         Regions(vocab.regions, vocab.vectors.shape[1]) if settings["regions"] else None)


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
            len(saved["calibration"]) == 3 and np.isfinite(saved["calibration"]).all(),
            bool(settings["ngrams"]) == bool(ngrams)]
    if ngrams:
        fits += [len(ngrams["values"]) == 2 * len(ngrams["words"]) + sum(map(len, ngrams["keys"])),
                 all(unpack(keys).max(initial=0) < len(ngrams["words"]) ** order
                     for order, keys in zip((2, 3), ngrams["keys"], strict=True))]
    fits += [tensor.is_contiguous() and bool(tensor.isfinite().all()) for tensor in state.values()]
    if not all(fits):
        raise ValueError("its parts do not fit each other")


class Predictor:
    """A trained network with its vocabulary, n-grams and settings: what makes a probability of any text.

    Args:
        model: the network.
        vocab: its words and n-grams, a `batches.Vocabulary`.
        settings: a dict as `metrics.json` holds it.
        data: "IMDB" or "SAMPLE", what the network was trained on.
        calibration: see `calibration`; as it is here, logits are left as they are.
    """

    def __init__(self, model, vocab, settings, data, calibration=(0.0, 0.0, 0.0)):
        self.model, self.vocab, self.settings, self.data = model.eval(), vocab, settings, data
        self.table, self.calibration, self.device = vocab.table, calibration, model.fc.weight.device

    @classmethod
    def load(cls, path=MODEL, device="cpu"):
        """Return what `save` wrote. Raises UserError if the file is absent, damaged, or not one of this program."""
        try:
            saved = read_torch(path)
            is_model = isinstance(saved, dict) and saved.keys() >= {"state", "words", "settings"}
            if is_model and saved.get("version") != VERSION:
                raise UserError(f"{path} was written by another version of this program; train again.")
            check(saved)
            vocab = Vocabulary(Counter(), specials=saved["words"])
            vocab.vectors = saved["state"]["embedding.weight"]
            vocab.regions = [RegionEmbedding(len(vocab), width) for width in WIDTHS]  # the state fills them
            model = build_model(vocab, saved["settings"])
            model.load_state_dict(saved["state"])
            if "ngrams" in saved:
                parts = saved["ngrams"]
                vocab.table = NgramTable(parts["words"], [unpack(keys) for keys in parts["keys"]],
                                         parts["values"].numpy(), parts["scale"].numpy())
            predictor = cls(model.to(device), vocab, saved["settings"], saved["data"], saved["calibration"])
            # fails if the parts do not fit each other; a text would need spaCy, which `evaluate` does without
            predictor.logits(make_reviews(["film"], np.zeros(1, np.int32), np.array([0, 1])))
            return predictor
        except FileNotFoundError as error:
            raise UserError(f"{path} is not there; train first, or name the model of another run.") from error
        except UserError:
            raise
        except Exception as error:  # a damaged file can fail in many ways, and none of them is of use to the reader
            raise UserError(f"{path} is not a model of this program, or is damaged; train again.") from error

    def save(self, path):
        """Write all that a text needs, on the CPU."""
        saved = {"version": VERSION, "state": {name: tensor.cpu() for name, tensor in self.model.state_dict().items()},
                 "words": self.vocab.itos, "settings": self.settings, "data": self.data,
                 "calibration": list(self.calibration)}
        if self.table:
            values, scale = torch.from_numpy(self.table.values), torch.from_numpy(self.table.scale)
            saved["ngrams"] = {"words": self.table.words, "keys": [pack(keys) for keys in self.table.keys],
                               "values": values, "scale": scale}
        write_torch(path, saved)

    def review_set(self, reviews):
        """Return a `reviews.Reviews` as the network reads it, a `batches.ReviewSet`."""
        return ReviewSet(reviews, self.vocab, self.settings["max_len"], self.settings["both_ends"],
                         self.table and self.table.channels(reviews), self.device)

    def logits(self, reviews):
        """Return the calibrated logit of each of a `reviews.Reviews`, (reviews,), above 0 for a positive one."""
        logits = predict_logits(self.model, BucketLoader(self.review_set(reviews)), "predicting")
        return self.calibrated(logits, reviews)

    def calibrated(self, logits, reviews):
        """Return the network's own logits of reviews, calibrated, on the CPU."""
        return (logits.cpu() * sharpness(self.calibration, np.diff(reviews.starts))).float()

    def calibrate(self, reviews):
        """Fit the calibration on parts of reviews that the network was not trained on."""
        self.calibration = 0.0, 0.0, 0.0
        whole = self.logits(reviews)  # once, though each of the cuts holds them
        parts = [part for seed in range(DRAWS) for part in parts_of(reviews, seed).values()]
        self.calibration = fit(torch.cat([whole if part is reviews else self.logits(part) for part in parts]),
                               np.concatenate([np.diff(part.starts) for part in parts]),
                               torch.cat([torch.from_numpy(part.labels) for part in parts]))

    def certainty(self, reviews, whole):
        """Return share right and calibration error on each of `calibration.parts_of` reviews.

        Args:
            whole: the calibrated logits of the reviews as they are, (reviews,).
        """
        found = {}
        for length, part in parts_of(reviews).items():
            logits = whole if part is reviews else self.logits(part)
            labels = torch.from_numpy(part.labels)
            found[length] = {"accuracy": ((logits > 0) == labels).float().mean().item(),
                             "calibration_error": calibration_error(logits, labels)}
        return found


def as_reviews(texts):
    """Tokenize texts into a `reviews.Reviews` without labels."""
    return make_reviews(*tokenize(texts))


def classify(logit):
    """Return the label of a logit, "positive" or "negative", and its probability, from 0.5 to 1."""
    return "positive" if logit > 0 else "negative", torch.sigmoid(logit.abs()).item()
