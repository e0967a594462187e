"""The bonus: everything that raises the test accuracy from 85 % to over 93 %.

- `ngrams`: the channels of a token, sentiment values of the n-grams that end there, and of the whole text.
- `regions`: embeddings of the words around each token, learned by predicting nearby words.
- `short_texts`: excerpts, sentences and negated sentences to train on, in addition to whole reviews.
- here: the network that reads these inputs, and how the parts fit together.
"""

import functools

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from helpers.batches import ReviewSet
from helpers.bonus.ngrams import NgramTable, channels_by_fold, load_tables
from helpers.bonus.regions import WIDTHS, RegionEmbedding, load_regions
from helpers.bonus.short_texts import ShortTextLoader
from helpers.imdb import LABELLED, UNLABELLED
from helpers.predictor import Pipeline, network_class
from helpers.text import concat_ranges


class Regions(nn.Module):
    """Compute the region embeddings of each token, and project their features to the size of a word vector.

    Args:
        embeddings: list of `RegionEmbedding`.
        d: features of a word vector.
    """

    def __init__(self, embeddings, d):
        super().__init__()
        self.embeddings = nn.ModuleList(embeddings)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(sum(len(embedding.scale) for embedding in embeddings), d, bias=False)

    def forward(self, ids):
        """Return the projected features: ids (B, T) -> (B, T, d)."""
        return self.fc(self.dropout(torch.cat([embedding(ids) for embedding in self.embeddings], dim=2)))


class BonusTransformer(nn.Module):
    """Classify reviews by word vectors, region embeddings and the channels of n-grams, with the blocks of `models.py`.

        x_t = [dropout(word vector of token t) + projected region features at t ; channels of token t]

    Args:
        vocab: a `torchtext.vocab.Vocab` with `.vectors` (V, d).
        make_block: a function that returns a transformer block for the number of features d + C.
        num_of_blocks: number of transformer blocks.
        freeze: whether the word vectors stay fixed during training.
        masks_padding: whether the blocks take a mask (B, T), which is True for tokens. Without it, padding counts as
            tokens everywhere, as in the hand-out.
        num_channels: C, the channels of a token.
        embeddings: the `RegionEmbedding`s.
    """

    def __init__(self, vocab, make_block, num_of_blocks, freeze, masks_padding, num_channels, embeddings):
        super().__init__()
        d = vocab.vectors.shape[1]
        self.masks_padding, self.pad_id = masks_padding, vocab.stoi["<pad>"]
        self.regions = Regions(embeddings, d)
        self.embedding = nn.Embedding.from_pretrained(vocab.vectors.clone(), freeze=freeze, padding_idx=self.pad_id)
        self.input_dropout = nn.Dropout(0.6)
        self.blocks = nn.ModuleList(make_block(d + num_channels) for _ in range(num_of_blocks))
        self.fc = nn.Linear(d + num_channels, 1)

    def forward(self, ids, channels):
        """Return the logits of reviews: ids (B, T), channels (B, T, C) -> (B, 1)."""
        x = self.input_dropout(self.embedding(ids)) + self.regions(ids)  # (B, T, d)
        x = torch.cat([x, channels], dim=2)  # (B, T, d + C)
        if not self.masks_padding:
            for block in self.blocks:
                x = block(x)
            return self.fc(x.mean(dim=1))
        mask = ids != self.pad_id  # (B, T)
        for block in self.blocks:
            x = block(x, mask)
        is_token = mask.unsqueeze(2)  # (B, T, 1)
        num_tokens = is_token.sum(dim=1).clamp(min=1)  # (B, 1)
        return self.fc((x * is_token).sum(dim=1) / num_tokens)


class BonusReviewSet(ReviewSet):
    """Reviews with channels. Of a review with more than `max_len` tokens, the first and last `max_len` / 2 are kept.

    Args:
        reviews, vocab, max_len, device, pad_to_max_len: as in `ReviewSet`.
        channels: (tokens of `reviews`, C), float16.
    """

    def __init__(self, reviews, vocab, max_len, device, pad_to_max_len, channels):
        super().__init__(reviews, vocab, max_len, device, pad_to_max_len)
        channels = np.pad(channels[self.positions], [(0, 1), (0, 0)])  # one row more, as in `ids`
        self.channels = torch.from_numpy(channels).to(device)

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
        channels = self.channels[positions].float()
        if self.pad_to_max_len:  # otherwise, the mask of the network keeps out what is read at padding
            channels = channels.masked_fill(is_padding.unsqueeze(2), 0)
        return ids, channels, self.labels[chosen]


class BonusPipeline(Pipeline):
    """The steps of the bonus. `settings["bonus"]["unlabelled"]` tells whether it reads the unlabelled reviews too."""

    network = "MyTransformerBlock"
    optional = ("dropout",)

    def __init__(self, settings):
        super().__init__(settings)
        self.unlabelled = settings["bonus"]["unlabelled"]
        self.parts = LABELLED | UNLABELLED if self.unlabelled else LABELLED
        self.table = None  # the `NgramTable` for texts that are not training reviews
        self.fold_tables, self.folds = None, None  # an `NgramTable` for each fold, the fold of each training review
        self.embeddings = None  # the `RegionEmbedding`s

    def fit(self, reviews, is_train, vocab, seed, cache_dir):
        """Learn the values of n-grams and the region embeddings."""
        min_reviews = 5 if self.unlabelled else 2
        self.fold_tables, self.table, self.folds = load_tables(reviews, is_train, min_reviews, seed, cache_dir)
        self.embeddings = load_regions(reviews, is_train, vocab, seed, cache_dir)

    def make_set(self, reviews, vocab, device, channels):
        """Return a `BonusReviewSet` of reviews with these channels."""
        return BonusReviewSet(reviews, vocab, self.settings["max_len"], device, not self.masks_padding, channels)

    def review_set(self, reviews, vocab, device):
        """Return a `BonusReviewSet` of reviews that `table` was not learned from."""
        return self.make_set(reviews, vocab, device, self.table.channels(reviews))

    def train_set(self, reviews, vocab, device):
        """Return the training reviews, each with channels from the table that has not seen its movie."""
        return self.set_by_fold(reviews, self.folds, vocab, device)

    def set_by_fold(self, reviews, folds, vocab, device):
        """Return texts from training reviews, each with channels from the table of its fold: folds (texts,)."""
        return self.make_set(reviews, vocab, device, channels_by_fold(reviews, folds, self.fold_tables))

    def train_loader(self, train_set):
        """Return the batches to train on: whole reviews and short texts."""
        return ShortTextLoader(train_set, self.folds, self.fold_tables, self.settings["batch_size"], self.set_by_fold)

    def build_model(self, vocab):
        """Return a new network."""
        make_block = functools.partial(network_class(self.network), self.settings["max_len"], **self.arguments)
        return BonusTransformer(vocab, make_block, self.settings["blocks"], self.settings["freeze"],
                                self.masks_padding, len(self.table.scale), self.embeddings)

    def make_scheduler(self, optimizer, steps):
        """Return a one-cycle learning rate and momentum (Smith & Topin 2019)."""
        return OneCycleLR(optimizer, self.settings["lr"], total_steps=steps)

    def state(self):
        """Return the n-gram table. The region embeddings are part of the network."""
        return {"ngrams": self.table.state()}

    def load_state(self, state, vocab):
        """Restore the n-gram table. The region embeddings are filled later, with the weights of the network."""
        self.table = NgramTable.from_state(state["ngrams"])
        self.embeddings = [RegionEmbedding(len(vocab), width) for width in WIDTHS]
