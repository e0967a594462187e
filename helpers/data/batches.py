"""From tokenized reviews to batches of ids, and from batches to the logits of all reviews."""

import itertools

import numpy as np
import torch
from tqdm import tqdm

from helpers.data.tokens import concat_ranges

# Tokens in a batch of evaluation, padding included. More would not fit into the cache of a CPU; fewer leave a GPU idle.
EVALUATION_TOKENS = {"cpu": 8_000, "cuda": 64_000}


class ReviewSet:
    """Reviews as ids of the vocabulary, at most `max_len` tokens each. Item i is a pair: label (a scalar) and ids (T,).

    Args:
        reviews: a `reviews.Reviews`.
        vocab: a `torchtext.vocab.Vocab`.
        max_len: longer reviews are cut.
        device: where the tensors are.
    """

    def __init__(self, reviews, vocab, max_len, device="cpu"):
        lengths = np.diff(reviews.starts)
        self.lengths = np.minimum(lengths, max_len)
        self.positions = self.choose_positions(reviews.starts[:-1], lengths, max_len)  # in `reviews.tokens`
        self.reviews, self.vocab, self.pad_id = reviews, vocab, vocab.stoi["<pad>"]
        self.ends = torch.from_numpy(np.cumsum(self.lengths)).to(device)
        self.starts = self.ends - torch.from_numpy(self.lengths).to(device)
        id_of = np.array([vocab.stoi[word] for word in reviews.words], np.int32)
        self.ids = torch.from_numpy(id_of[reviews.tokens[self.positions]]).to(device)
        self.labels = torch.from_numpy(reviews.labels).float().to(device)
        self.duplicate = torch.from_numpy(reviews.duplicate).to(device)

    def choose_positions(self, starts, lengths, max_len):
        """Return the positions in `reviews.tokens` of the first `max_len` tokens of each review, one after the other.

        Args:
            starts, lengths: (reviews,) first position and number of tokens of each review.
            max_len: tokens to keep of a review.
        """
        return concat_ranges(starts, np.minimum(lengths, max_len))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.labels[i], self.ids[self.starts[i]:self.ends[i]].long()

    def batch(self, chosen, T):
        """Return the reviews `chosen` (B indices), cut or padded to T tokens: ids (B, T), labels (B,)."""
        positions, is_padding = self.batch_positions(chosen, T)
        ids = self.ids[positions].long().masked_fill(is_padding, self.pad_id)
        return ids, self.labels[chosen]

    def batch_positions(self, chosen, T):
        """Return the positions in `ids` of T tokens of each chosen review, and which are padding: both (B, T)."""
        positions = self.starts[chosen].unsqueeze(1) + torch.arange(T, device=self.ids.device)  # (B, T)
        is_padding = positions >= self.ends[chosen].unsqueeze(1)
        # Positions of padding point to tokens of other reviews. Those after the last token are clamped.
        return positions.clamp(max=len(self.ids) - 1), is_padding


class BucketLoader:
    """Batches of reviews of similar length, each padded to its own longest review.

    Args:
        dataset: a `ReviewSet`.
        batch_size: reviews in a batch of training. Which reviews share a batch changes with each pass (numpy's seed).
            None is for evaluation: the longest reviews first, and as many in a batch as EVALUATION_TOKENS allows.
    """

    def __init__(self, dataset, batch_size=None):
        self.dataset, self.batch_size = dataset, batch_size

    def __len__(self):
        if self.batch_size is None:
            return len(self.plan())
        return -(-len(self.dataset) // self.batch_size)  # rounded up

    def __iter__(self):
        plan = self.plan()  # first, because a subclass replaces `self.dataset` here
        return itertools.starmap(self.dataset.batch, plan)

    def plan(self):
        """Return, for each batch of a pass, the indices of its reviews and the length of the longest, at least 1."""
        lengths = self.dataset.lengths
        batches = self.evaluation_batches(lengths) if self.batch_size is None else self.training_batches(lengths)
        # All indices go to the device at once. A copy for each batch would make a GPU wait.
        indices = torch.from_numpy(np.concatenate(batches)).to(self.dataset.ids.device)
        longest = [max(lengths[batch].max(), 1) for batch in batches]
        return list(zip(indices.split([len(batch) for batch in batches]), longest, strict=True))

    def training_batches(self, lengths):
        """Return indices of reviews, batch by batch, in random order.

        Sorting by length puts reviews of similar length into a batch. Before sorting, each length is multiplied by a
        random factor from 0.9 to 1.1, so that the batches differ from pass to pass.
        """
        order = np.argsort(lengths * np.random.uniform(0.9, 1.1, len(lengths)), kind="stable")
        batches = [order[first:first + self.batch_size] for first in range(0, len(order), self.batch_size)]
        np.random.shuffle(batches)
        return batches

    def evaluation_batches(self, lengths):
        """Return indices of reviews, batch by batch, the longest reviews first."""
        order = np.argsort(-lengths, kind="stable")
        batches = []
        while len(order):
            longest = max(lengths[order[0]], 1)
            size = max(EVALUATION_TOKENS[self.dataset.ids.device.type] // longest, 1)
            batches.append(order[:size])
            order = order[size:]
        return batches


@torch.no_grad()
def predict_logits(model, loader, title):
    """Return the logit of each review of `loader.dataset`, in the order of the dataset: (reviews,)."""
    model.eval()
    dataset = loader.dataset
    logits = torch.empty_like(dataset.labels)
    for chosen, T in tqdm(loader.plan(), desc=title, unit=" batches", leave=False, delay=1):
        *inputs, _ = dataset.batch(chosen, T)
        logits[chosen] = model(*inputs).squeeze(1)
    return logits
