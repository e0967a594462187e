"""The settings of the bonus, and how its parts fit together."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR

from helpers.bonus.negation import is_negated
from helpers.bonus.network import BonusTransformer
from helpers.bonus.ngram_values import load_tables
from helpers.bonus.ngrams import NgramTable, channels_by_fold
from helpers.bonus.regions import WIDTHS, RegionEmbedding, load_regions
from helpers.bonus.short_texts import ShortTextLoader
from helpers.data.batches import BucketLoader, ReviewSet
from helpers.data.reviews import LABELLED, UNLABELLED
from helpers.data.tokens import concat_ranges
from helpers.pipeline import Pipeline


@dataclass(frozen=True)
class BonusSettings:
    """Settings of the bonus."""

    unlabelled: bool = False  # learn from the 50,000 unlabelled reviews too
    short_texts: bool = True  # train on excerpts, sentences and negated sentences as well
    regions: bool = True  # add region embeddings to the word vectors
    input_dropout: float = 0.6  # dropout of the word vectors
    one_cycle: bool = True  # one-cycle learning rate and momentum (Smith & Topin 2019) instead of constant ones


# All settings have been chosen, so a small validation set is enough. This leaves more reviews to train on.
SHARED = {"lr": 1e-3, "max_len": 400, "dropout": 0.3, "valid_share": 0.05}
PRESETS = {
    "bonus": SHARED | {"epochs": 5, "bonus": BonusSettings()},
    "bonus-unsup": SHARED | {"epochs": 8, "bonus": BonusSettings(unlabelled=True)},
}


class BonusReviewSet(ReviewSet):
    """Reviews with channels. Of a review with more than `max_len` tokens, the first and last `max_len` / 2 are kept.

    Args:
        reviews, vocab, max_len, device: as in `ReviewSet`.
        channels: (tokens of `reviews`, C), float16.
    """

    def __init__(self, reviews, vocab, max_len, channels, device="cpu"):
        super().__init__(reviews, vocab, max_len, device)
        self.channels = torch.from_numpy(channels[self.positions]).to(device)

    def choose_positions(self, starts, lengths, max_len):
        """Return the positions in `reviews.tokens` of the tokens to keep of each review, one review after the other."""
        kept = np.minimum(lengths, max_len)
        place = concat_ranges(np.zeros_like(kept), kept)  # of a kept token among those of its review
        is_second_half = place >= max_len // 2
        skipped = np.repeat(lengths - kept, kept)  # number of tokens that its review loses in the middle
        return concat_ranges(starts, kept) + np.where(is_second_half, skipped, 0)

    def batch(self, chosen, T):
        """Return the reviews `chosen` (B indices), cut or padded to T tokens.

        Returns:
            ids (B, T), channels (B, T, C), labels (B,).
        """
        positions, is_padding = self.batch_positions(chosen, T)
        ids = self.ids[positions].long().masked_fill(is_padding, self.pad_id)
        # At padding, the channels are those of other tokens. The mask of the network keeps them out of the result.
        return ids, self.channels[positions].float(), self.labels[chosen]


class BonusPipeline(Pipeline):
    """The steps of the bonus.

    Args:
        settings: a dict; `settings["bonus"]` holds the fields of `BonusSettings`.
    """

    def __init__(self, settings):
        super().__init__(settings)
        self.bonus = BonusSettings(**settings["bonus"])
        self.parts = LABELLED | UNLABELLED if self.bonus.unlabelled else LABELLED
        self.table = None  # the `NgramTable` for texts that are not training reviews
        self.fold_tables, self.folds = None, None  # an `NgramTable` for each fold, the fold of each training review
        self.embeddings = None  # the `RegionEmbedding`s

    def fit(self, reviews, is_train, vocab, seed, cache_dir):
        """Learn the values of n-grams and the region embeddings; see `Pipeline.fit` for the arguments."""
        min_reviews = 5 if self.bonus.unlabelled else 2
        self.fold_tables, self.table, self.folds = load_tables(reviews, is_train, min_reviews, seed, cache_dir)
        if self.bonus.regions:
            self.embeddings = load_regions(reviews, is_train, vocab, seed, cache_dir)

    def review_set(self, reviews, vocab, device):
        """Return a `BonusReviewSet` of reviews that `table` was not learned from."""
        return BonusReviewSet(reviews, vocab, self.settings["max_len"], self.table.channels(reviews), device)

    def train_set(self, reviews, vocab, device):
        """Return the training reviews, each with channels from the table that has not seen its movie."""
        return self.set_by_fold(reviews, self.folds, vocab, device)

    def set_by_fold(self, reviews, folds, vocab, device):
        """Return texts from training reviews, each with channels from the table of its fold: folds (texts,)."""
        channels = channels_by_fold(reviews, folds, self.fold_tables)
        return BonusReviewSet(reviews, vocab, self.settings["max_len"], channels, device)

    def train_loader(self, train_set):
        """Return the batches to train on."""
        if self.bonus.short_texts:
            return ShortTextLoader(train_set, self.folds, self.fold_tables, self.settings["batch_size"],
                                   self.set_by_fold)
        return BucketLoader(train_set, self.settings["batch_size"])

    def build_model(self, vocab):
        """Return a new network."""
        return BonusTransformer(vocab, self.settings["max_len"], self.settings["blocks"], self.settings["dropout"],
                                self.settings["freeze"], len(self.table.scale), self.bonus.input_dropout,
                                self.embeddings)

    def make_scheduler(self, optimizer, steps):
        """Return the schedule of the learning rate over `steps` training steps."""
        if self.bonus.one_cycle:
            return OneCycleLR(optimizer, self.settings["lr"], total_steps=steps)
        return super().make_scheduler(optimizer, steps)

    def what_is_read(self):
        """Return which part of a long text the network reads, as a noun phrase."""
        max_len = self.settings["max_len"]
        return f"first {max_len // 2} and last {max_len - max_len // 2} tokens, and the n-grams of the whole text,"

    def network_name(self):
        """Return the kind of the network, which is the name of a preset."""
        return "bonus-unsup" if self.bonus.unlabelled else "bonus"

    def is_negated(self, reviews):
        """Return which tokens of `reviews.Reviews` are in the scope of a negation: (tokens,) bool."""
        return is_negated(reviews)

    def ngram_values(self, reviews):
        """Return the n-grams of one text, each once, with their linear values: a dict from str to float."""
        return self.table.named_values(reviews)

    def state(self):
        """Return the n-gram table. The region embeddings are part of the network."""
        return {"ngrams": self.table.state()}

    def load_state(self, state, vocab):
        """Restore the n-gram table. The region embeddings are filled later, with the weights of the network."""
        self.table = NgramTable.from_state(state["ngrams"])
        if self.bonus.regions:
            self.embeddings = [RegionEmbedding(len(vocab), width) for width in WIDTHS]
