"""One training epoch, beside the skeleton: every review padded or cut to 500 tokens, no mask, lists of lists.

    python -m benchmarks.epoch --data-dir .data        about 2 minutes on 2 cores

Both train the same network from the same word vectors on the same tenth of the training reviews, data step included,
and take turns.
"""

import time

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.common import data_parser, print_table, write_result
from helpers.archive import CONTENT_SHA256, find_source
from helpers.batches import BucketLoader, ReviewSet, add_glove, build_vocab
from helpers.cli import run_command
from helpers.reviews import keep, load_reviews
from helpers.runtime import keep_freed_memory
from models import MyTransformer

MAX_LEN = 500


class Skeleton(MyTransformer):
    """The skeleton's network: padding is a word like any other."""

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean(dim=1))


def pad_trim(pad_id, device="cpu"):
    """Return the skeleton's `collate_fn`: lists of exactly 500 ids, then a tensor, which is copied to the device."""
    def collate(batch):
        ids = [(review.tolist() + [pad_id] * MAX_LEN)[:MAX_LEN] for review, _ in batch]
        return torch.tensor(ids).to(device), torch.tensor([float(label) for _, label in batch]).to(device)
    return collate


def epoch(model, loader):
    """Return the seconds of one pass."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=isinstance(loader, BucketLoader))
    model.train()
    started = time.perf_counter()
    for ids, labels in loader:
        loss = F.binary_cross_entropy_with_logits(model(ids).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    keep_freed_memory()  # for both
    reviews = load_reviews(find_source(args.data_dir), ".cache", digest=CONTENT_SHA256)
    vocab = build_vocab(reviews, ~reviews.test)
    add_glove(vocab, 50, ".cache")
    np.random.seed(42)
    part = ReviewSet(keep(reviews, ~reviews.test & (np.random.rand(len(reviews.test)) < 0.1)), vocab, MAX_LEN)
    ours = BucketLoader(part, 32)
    theirs = DataLoader(part, 32, shuffle=True, collate_fn=pad_trim(part.pad_id))
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        seconds = [(epoch(MyTransformer(vocab, MAX_LEN, 1), ours), epoch(Skeleton(vocab, MAX_LEN, 1), theirs))
                   for _ in range(args.rounds)]
        a, b = np.median(seconds, axis=0)
        rows.append({"threads": threads, "ours, s": float(a), "skeleton (a), s": float(b), "ours / (a)": float(a / b)})
    print_table(rows)
    write_result("epoch", {"reviews": len(part), "rows": rows})


if __name__ == "__main__":
    run_command(main)
