"""`model.pt`: a trained network with all that it needs to classify any text, and calibrated probabilities."""

import ast
import inspect
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from torchtext.vocab import Vocab

import models
from helpers import UserError
from helpers.batches import BucketLoader, ReviewSet, predict_logits
from helpers.calibration import fit, sharpness
from helpers.files import reading, whole_file
from helpers.imdb import LABELLED, cut_spans

VERSION = 4  # of `model.pt`; raise it when tokens or inputs of the network change
EXCERPTS = (5, 10, 20, 50)  # tokens
DRAWS = 4  # sets of excerpts from which the calibration is learned


def network_class(name):
    """Return a class of `models.py`. Raises UserError if it has no class of this name."""
    if not hasattr(models, name):
        raise UserError(f"models.py has no class {name}; give your class this name, as in the exercise.")
    return getattr(models, name)


def models_text():
    """Return the text of `models.py`."""
    return Path(models.__file__).read_text(encoding="utf-8")


def same_code(text, other):
    """Return whether two texts of Python modules differ at most in comments, docstrings and layout."""
    trees = ast.parse(text), ast.parse(other)
    for node in [*ast.walk(trees[0]), *ast.walk(trees[1])]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(trees[0]) == ast.dump(trees[1])


class Pipeline:
    """From tokenized reviews to a network: the steps of the exercise, which the bonus overrides.

    `settings` is a dict as in `metrics.json`. An optional setting that the network does not take becomes None.
    """

    parts = LABELLED  # the folders that are read from the archive
    network = "MyTransformer"  # the class of `models.py` that is trained
    optional = ("dropout", "freeze")  # settings that its constructor may take

    def __init__(self, settings):
        taken = inspect.signature(network_class(self.network)).parameters
        self.arguments = {name: settings[name] for name in self.optional if name in taken}
        self.settings = settings | {name: None for name in self.optional if name not in taken}
        # A network without this attribute does not know which tokens are padding.
        self.masks_padding = getattr(network_class("MyTransformer"), "masks_padding", False)

    def fit(self, reviews, is_train, vocab, seed, cache_dir):
        """Learn what the network needs besides the vocabulary. In the exercise, that is nothing."""

    def review_set(self, reviews, vocab, device):
        """Convert `imdb.Reviews` to a `batches.ReviewSet`, the form in which the network reads them."""
        return ReviewSet(reviews, vocab, self.settings["max_len"], device, pad_to_max_len=not self.masks_padding)

    def train_set(self, reviews, vocab, device):
        """Convert the training reviews, which in the bonus need other inputs than other texts."""
        return self.review_set(reviews, vocab, device)

    def train_loader(self, train_set):
        """Return the batches to train on."""
        return BucketLoader(train_set, self.settings["batch_size"])

    def build_model(self, vocab):
        """Return a new network."""
        network = network_class(self.network)
        return network(vocab=vocab, max_len=self.settings["max_len"], num_of_blocks=self.settings["blocks"],
                       **self.arguments)

    def make_scheduler(self, optimizer, steps):
        """Return the schedule for a training of `steps` steps. In the exercise, the learning rate is constant."""
        return LambdaLR(optimizer, lambda step: 1.0)

    def state(self):
        """Return what `fit` learned beyond the weights of the network, for `model.pt`: a dict of lists and tensors."""
        return {}

    def load_state(self, state, vocab):
        """Restore what `state` returned, so that `build_model` can build a network of the right size."""


def make_pipeline(settings):
    """Return the pipeline of a run. This is the only place that imports the bonus."""
    if not settings["bonus"]:
        return Pipeline(settings)
    try:
        from helpers.bonus import BonusPipeline
    except ImportError as error:
        raise UserError("the bonus needs the folder helpers/bonus/; copy it from the repository.") from error
    return BonusPipeline(settings)


class Predictor:
    """A network that classifies texts, with the vocabulary and the `Pipeline` that were fitted to its training reviews.

    `data` is "IMDB" or "SAMPLE". The default of `calibration`, a, b and c, does not change the logits.
    """

    def __init__(self, model, vocab, pipeline, data, calibration=(0.0, 0.0, 0.0)):
        self.model, self.vocab, self.pipeline = model.eval(), vocab, pipeline
        self.data, self.calibration = data, calibration
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, path, device="cpu"):
        """Return what `save` wrote. Raises UserError if the file is damaged or its weights do not fit `models.py`."""
        saved = read_model(path, device)
        changed = not same_code(saved["models"], models_text())
        vocab = Vocab(Counter(), specials=saved["words"].split("\n"))
        vocab.vectors = torch.zeros(len(vocab), saved["features"])  # the weights replace them
        pipeline = make_pipeline(saved["settings"])
        pipeline.load_state(saved["bonus"], vocab)
        try:
            model = pipeline.build_model(vocab).to(device)
            model.load_state_dict(saved["weights"])
        except Exception as error:  # the constructor may be anybody's
            raise UserError(f"the weights in {path} do not fit models.py, which has changed since they were trained; "
                            "train again, or put the old models.py back.") from error
        if changed:
            print(f"note: models.py has changed since {path} was trained, but the weights fit", file=sys.stderr)
        return cls(model, vocab, pipeline, saved["data"], saved["calibration"])

    def save(self, path):
        """Write everything that `load` needs. It assumes no name of a weight. One text of words is read in no time."""
        words = "\n".join(self.vocab.itos)
        features = self.vocab.vectors.shape[1]
        content = {"version": VERSION, "models": models_text(), "data": self.data, "words": words, "features": features,
                   "settings": self.pipeline.settings, "bonus": self.pipeline.state(),
                   "weights": self.model.state_dict(), "calibration": list(self.calibration)}
        with whole_file(path) as temporary:
            torch.save(content, temporary)

    def logits(self, reviews):
        """Return the calibrated logit of each of `imdb.Reviews`: (reviews,). A positive logit means positive."""
        review_set = self.pipeline.review_set(reviews, self.vocab, self.device)
        logits = predict_logits(self.model, BucketLoader(review_set), "predicting").cpu()
        return (logits * sharpness(self.calibration, np.diff(reviews.starts))).float()

    def calibrate(self, reviews):
        """Fit the calibration on excerpts of validation reviews."""
        self.calibration = 0.0, 0.0, 0.0
        logits_of_all = self.logits(reviews)  # computed once, although every draw contains the whole reviews
        draws = []
        for seed in range(DRAWS):
            generator = np.random.default_rng(seed)
            draws += [cut_spans(reviews, length, generator) for length in EXCERPTS] + [reviews]
        draws = [texts for texts in draws if len(texts.labels)]  # no review may be long enough
        logits = [logits_of_all if texts is reviews else self.logits(texts) for texts in draws]
        lengths = [np.diff(texts.starts) for texts in draws]
        labels = [torch.from_numpy(texts.labels) for texts in draws]
        self.calibration = fit(torch.cat(logits), np.concatenate(lengths), torch.cat(labels))


def read_model(path, device="cpu"):
    """Return the content of a `model.pt` as a dict. Raises UserError if it is damaged or of another version."""
    with reading(path, "give a model.pt of this program, or train again."):
        saved = torch.load(path, map_location=device, weights_only=True)
        if saved["version"] != VERSION:
            raise UserError(f"{path} is of another version of this program; train again.")
    return saved
