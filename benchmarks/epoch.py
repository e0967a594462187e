"""Time an epoch of ours and of the exercise's skeleton, which pads or cuts all reviews to 500 tokens, without a mask.

    python -m benchmarks.epoch --data-dir .data        about 2 minutes on 2 cores

Both train the same network with the same word vectors on the same tenth of the training reviews, and take turns. The
times include making the batches; the skeleton makes them from lists of lists.
"""

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.common import data_parser, print_table, seconds_of, write_result
from helpers.cli import run_command
from helpers.data.archive import CONTENT_SHA256, find_source
from helpers.data.batches import BucketLoader, ReviewSet
from helpers.data.reviews import load_reviews, select
from helpers.data.vocab import add_glove, build_vocab
from helpers.runtime import keep_freed_memory
from models import MyTransformer

MAX_LEN = 500


class Skeleton(MyTransformer):
    """The network of the skeleton: padding is a word like any other."""

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean(dim=1))


def pad_trim(pad_id, device="cpu"):
    """Return the `collate_fn` of the skeleton: items (label, ids) -> ids (B, 500), labels (B,) on the device."""
    def collate(batch):
        ids = [(review.tolist() + [pad_id] * MAX_LEN)[:MAX_LEN] for _, review in batch]
        return torch.tensor(ids).to(device), torch.tensor([float(label) for label, _ in batch]).to(device)
    return collate


def train(model, loader):
    """Train for one epoch, with fused Adam for our loader only."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=isinstance(loader, BucketLoader))
    model.train()
    for ids, labels in loader:
        loss = F.binary_cross_entropy_with_logits(model(ids).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each kind (default: %(default)s)")
    args = parser.parse_args()
    keep_freed_memory()  # for both
    reviews = load_reviews(find_source(args.data_dir), args.cache_dir, digest=CONTENT_SHA256)
    vocab = build_vocab(reviews, ~reviews.test)
    add_glove(vocab, 50, args.cache_dir)
    np.random.seed(42)
    chosen = ~reviews.test & (np.random.rand(len(reviews.test)) < 0.1)
    dataset = ReviewSet(select(reviews, chosen), vocab, MAX_LEN)
    ours = BucketLoader(dataset, 32)
    theirs = DataLoader(dataset, 32, shuffle=True, collate_fn=pad_trim(dataset.pad_id))
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        times = []
        for _ in range(args.rounds):
            times.append((seconds_of(train, MyTransformer(vocab, MAX_LEN, 1), ours),
                          seconds_of(train, Skeleton(vocab, MAX_LEN, 1), theirs)))
        a, b = np.median(times, axis=0)
        rows.append({"threads": threads, "ours, s": float(a), "skeleton, s": float(b), "ours / skeleton": float(a / b)})
    print_table(rows)
    write_result("epoch", {"reviews": len(dataset), "rows": rows})


if __name__ == "__main__":
    run_command(main)
