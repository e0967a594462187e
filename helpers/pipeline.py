"""From tokenized reviews to a network: the steps of the exercise, which the bonus overrides in `bonus/pipeline.py`."""

from typing import NamedTuple

import numpy as np
from torch.optim.lr_scheduler import LambdaLR
from torchtext.vocab import Vocab

from helpers.data.batches import BucketLoader, ReviewSet
from helpers.data.reviews import LABELLED
from models import MyTransformer


class ImdbData(NamedTuple):
    """The result of the exercise's `load_imdb_data`: its eight values, which can also be unpacked in this order."""

    train_set: ReviewSet  # items are (label, ids)
    valid_set: ReviewSet
    test_set: ReviewSet
    train_loader: BucketLoader  # batches of ids (B, T), inputs of the bonus, if any, and float labels (B,)
    valid_loader: BucketLoader
    test_loader: BucketLoader
    vocab: Vocab
    pad_id: int


class Pipeline:
    """The steps of the exercise.

    Args:
        settings: the settings of a run, a dict as in `metrics.json` and `model.pt`.
    """

    parts = LABELLED  # the folders that are read from the archive

    def __init__(self, settings):
        self.settings = settings
        self.data_digest = None  # the `checkpoint.data_digest` of the reviews that the pipeline was fitted on

    def fit(self, reviews, is_train, vocab, seed, cache_dir):
        """Learn what the network needs besides the vocabulary. In the exercise, that is nothing.

        Args:
            reviews: all reviews in the folders `parts`, a `reviews.Reviews`.
            is_train: (reviews,) bool, the reviews whose labels may be seen.
            vocab: the `torchtext.vocab.Vocab` of the run.
            seed: seed of all random choices.
            cache_dir: folder for results that take long to compute.
        """

    def review_set(self, reviews, vocab, device):
        """Convert `reviews.Reviews` to a `batches.ReviewSet`, the form in which the network reads them."""
        return ReviewSet(reviews, vocab, self.settings["max_len"], device)

    def train_set(self, reviews, vocab, device):
        """Convert the training reviews to a `batches.ReviewSet`."""
        return self.review_set(reviews, vocab, device)

    def train_loader(self, train_set):
        """Return the batches to train on."""
        return BucketLoader(train_set, self.settings["batch_size"])

    def build_model(self, vocab):
        """Return a new network."""
        return MyTransformer(vocab, self.settings["max_len"], self.settings["blocks"], self.settings["dropout"],
                             self.settings["freeze"])

    def make_scheduler(self, optimizer, steps):
        """Return the schedule for a training of `steps` steps. In the exercise, the learning rate is constant."""
        return LambdaLR(optimizer, lambda step: 1.0)

    def what_is_read(self):
        """Return which part of a long text the network reads, as a noun phrase."""
        return f"first {self.settings['max_len']} tokens"

    def network_name(self):
        """Return the kind of the network, which is the name of a preset."""
        return "handout" if self.settings["handout_data"] else "required"

    def is_negated(self, reviews):
        """Return which tokens of `reviews.Reviews` the network reads as negated: (tokens,) bool. Here, none."""
        return np.zeros(len(reviews.tokens), bool)

    def ngram_values(self, reviews):
        """Return the n-grams of one text with their values: a dict, empty for a network that reads no n-grams."""
        return {}

    def state(self):
        """Return what `fit` learned beyond the weights of the network, for `model.pt`: a dict of lists and tensors."""
        return {}

    def load_state(self, state, vocab):
        """Restore what `state` returned, so that `build_model` can build a network of the right size."""
