"""Time training, against PyTorch's fused kernels and against the exercise's skeleton, which pads to 500 tokens.

    python -m benchmarks.speed --data-dir .data        about 5 minutes on one core

- training step: our network, and the same network with PyTorch's fused kernels in its layers.
- epoch: 20 batches, ours and those of the skeleton.
- first start: from the archive to the first batch. The skeleton tokenizes twice, with torchtext for the vocabulary and
  with spaCy for the ids. It is rewritten from its description.

Times are CPU seconds of one thread, so that other programs matter less. The two sides take turns, and a time is a
median over rounds. Expect ratios of 1.0 for a step, 0.42 for an epoch and 0.5 for the first start.
"""

import functools
import tempfile
import time
from collections import Counter

import numpy as np
import spacy
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchtext.data.utils import get_tokenizer
from torchtext.vocab import Vocab

from benchmarks.common import data_parser, machine, write_result
from helpers import keep_freed_memory, run
from helpers.batches import BucketLoader, ReviewSet, add_glove
from helpers.imdb import LABELLED, find_source, read_archive, select
from helpers.predictor import Pipeline
from models import MyLayerNorm, MySelfAttention, MyTransformer
from sentiment_analysis import load_imdb_data, parse_args, settings_of, train_epoch

MAX_LEN = 500


class FusedAttention(MySelfAttention):
    """`MySelfAttention` with PyTorch's fused kernel."""

    def forward(self, x, mask):
        return F.scaled_dot_product_attention(self.W_q(x), self.W_k(x), self.W_v(x), attn_mask=mask.unsqueeze(1))


class FusedLayerNorm(MyLayerNorm):
    """`MyLayerNorm` with PyTorch's fused kernel, which has no mask: padding counts."""

    def forward(self, x, mask):
        T = x.shape[1]
        return F.layer_norm(x, x.shape[1:], self.gamma[:T], self.beta[:T], self.eps)


class Skeleton(MyTransformer):
    """The network of the skeleton: padding is a word like any other."""

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean(dim=1))


def with_fused_kernels(vocab):
    """Return our network with PyTorch's fused kernels in its two layers."""
    model, d = MyTransformer(vocab, MAX_LEN, 1), vocab.vectors.shape[1]
    block = model.blocks[0]
    block.attention = FusedAttention(d)
    block.norm1, block.norm2 = FusedLayerNorm((MAX_LEN, d)), FusedLayerNorm((MAX_LEN, d))
    return model


def pad_trim(items, pad_id, device="cpu"):
    """Collate as the skeleton does: items (label, ids) -> ids (B, 500), labels (B,) on the device."""
    ids = [(review.tolist() + [pad_id] * MAX_LEN)[:MAX_LEN] for _, review in items]
    labels = [float(label) for label, _ in items]
    return torch.tensor(ids).to(device), torch.tensor(labels).to(device)


def skeleton_loader(dataset, pad_id, device="cpu"):
    """Return the batches of the skeleton; items of `dataset` are (label, ids)."""
    return DataLoader(dataset, 32, shuffle=True, collate_fn=functools.partial(pad_trim, pad_id=pad_id, device=device))


def trainer(model, loader, fused=True):
    """Return a function that trains for one pass over the loader."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)
    return functools.partial(train_epoch, model, loader, optimizer, LambdaLR(optimizer, lambda step: 1.0), "training")


def compare(what, ours, theirs, rounds):
    """Return a row of the result: the functions `ours` and `theirs` take turns.

    The first of several rounds does not count, because it is slower.
    """
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        ours()
        switched = time.process_time()
        theirs()
        seconds.append((switched - started, time.process_time() - switched))
    a, b = np.median(seconds[1:] or seconds, axis=0)
    return {"what": what, "ours, s": float(a), "theirs, s": float(b), "ours / theirs": float(a / b)}


def compare_steps(data, rounds):
    """Return the row of a few training steps."""
    dataset = ReviewSet(select(data.train_set.reviews, np.arange(8 * 32)), data.vocab, MAX_LEN)
    ours = trainer(MyTransformer(data.vocab, MAX_LEN, 1), BucketLoader(dataset, 32))
    theirs = trainer(with_fused_kernels(data.vocab), BucketLoader(dataset, 32))
    return compare("8 training steps / with PyTorch's fused kernels", ours, theirs, rounds)


def compare_epochs(data, rounds):
    """Return the row of an epoch, over some of the training reviews."""
    reviews = data.train_set.reviews
    chosen = np.random.permutation(len(reviews.labels))[:640]
    dataset = ReviewSet(select(reviews, chosen), data.vocab, MAX_LEN)
    ours = trainer(MyTransformer(data.vocab, MAX_LEN, 1), BucketLoader(dataset, 32))
    theirs = trainer(Skeleton(data.vocab, MAX_LEN, 1), skeleton_loader(dataset, data.pad_id), fused=False)
    return compare("epoch of 640 reviews / of the skeleton", ours, theirs, rounds)


def our_start(data_dir):
    """Return the first batch of a run with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        args = parse_args(["--data-dir", data_dir, "--cache-dir", folder])
        return next(iter(load_imdb_data(args, Pipeline(settings_of(args))).train_loader))


def skeleton_start(data_dir):
    """Return the first batch of the skeleton."""
    basic, nlp = get_tokenizer("basic_english"), spacy.blank("en")
    files = read_archive(find_source(data_dir), LABELLED)
    texts = {name: content.decode() for name, content in files.items() if "urls_" not in name}
    counter = Counter()
    for name, text in texts.items():
        if name.startswith("train/"):
            counter.update(basic(text))
    vocab = Vocab(counter, max_size=25_000, min_freq=10)
    add_glove(vocab, 50, cache_dir=None)
    items = []
    for name, text in texts.items():
        ids = torch.tensor([vocab.stoi[token.text] for token in nlp.tokenizer(text)])
        items.append((float("/pos/" in name), ids))
    return next(iter(skeleton_loader(items, vocab.stoi["<pad>"])))


def main():
    args = data_parser(__doc__).parse_args()
    keep_freed_memory()  # for both sides
    torch.set_num_threads(1)
    ours, theirs = functools.partial(our_start, args.data_dir), functools.partial(skeleton_start, args.data_dir)
    start = compare("first start / of the skeleton", ours, theirs, rounds=1)
    options = parse_args(["--data-dir", args.data_dir, "--cache-dir", args.cache_dir])
    data = load_imdb_data(options, Pipeline(settings_of(options)))
    rows = [compare_steps(data, rounds=15), compare_epochs(data, rounds=8), start]
    write_result("speed", {"rows": rows, "machine": machine()})


if __name__ == "__main__":
    run(main)
