"""Time a training step of our network, and of the same network with PyTorch's encoder block or its fused kernels.

    python -m benchmarks.step --data-dir .data        about 4 minutes on 2 cores

All three take the same batches of IMDB and the same word vectors, and take turns. A time is a median over rounds. The
results are ratios, ours / theirs: a lower one is better for us.
"""

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.common import data_parser, print_table, seconds_of, write_result
from helpers.cli import run_command
from helpers.data.archive import find_source
from helpers.runtime import keep_freed_memory
from models import MyLayerNorm, MySelfAttention, MyTransformer
from sentiment_analysis import load_imdb_data

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


class PyTorchBlock(nn.TransformerEncoderLayer):
    """PyTorch's block with the arguments of `MyTransformerBlock.forward`."""

    def forward(self, x, mask):
        return super().forward(x, src_key_padding_mask=~mask)


def with_fused_kernels(vocab):
    """Return our network with PyTorch's fused kernels in its two layers."""
    model, d = MyTransformer(vocab, MAX_LEN, 1), vocab.vectors.shape[1]
    block = model.blocks[0]
    block.attention = FusedAttention(d)
    block.norm1, block.norm2 = FusedLayerNorm((MAX_LEN, d)), FusedLayerNorm((MAX_LEN, d))
    return model


def with_pytorch_block(vocab):
    """Return our network with PyTorch's block instead of ours."""
    model, d = MyTransformer(vocab, MAX_LEN, 1), vocab.vectors.shape[1]
    model.blocks[0] = PyTorchBlock(d, nhead=1, dim_feedforward=d, batch_first=True)
    return model


def step_of(model):
    """Return a training step as a function of ids and labels."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def step(ids, labels):
        loss = F.binary_cross_entropy_with_logits(model(ids).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return step


def measure(vocab, batches, rounds):
    """Return the seconds that each network takes for all batches, medians over the rounds: a dict."""
    steps = {"ours": step_of(MyTransformer(vocab, MAX_LEN, 1)), "encoder": step_of(with_pytorch_block(vocab)),
             "fused": step_of(with_fused_kernels(vocab))}
    seconds = {name: np.zeros(rounds + 1) for name in steps}
    for number in tqdm(range(rounds + 1), desc="rounds", leave=False):
        for ids, labels in batches:
            for name, step in steps.items():
                seconds[name][number] += seconds_of(step, ids, labels)
    return {name: float(np.median(times[1:])) for name, times in seconds.items()}  # the first round is slower


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="timed passes over the batches (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=8, help="number of batches (default: %(default)s)")
    args = parser.parse_args()
    keep_freed_memory()  # for all
    data = load_imdb_data(source=find_source(args.data_dir), cache_dir=args.cache_dir)
    loader, vocab = data.train_loader, data.vocab
    chosen = set(np.linspace(0, len(loader) - 1, args.batches).astype(int))
    batches = [batch for i, batch in enumerate(loader) if i in chosen]
    rows = []
    for d, threads in itertools.product((50, 300), (1, 2)):
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        if vocab.vectors.shape[1] != d:  # the values of the vectors do not matter for the time
            vocab.vectors = torch.randn(len(vocab), d)
        times = measure(vocab, batches, args.rounds)
        rows.append({"d": d, "threads": threads, "ms": 1000 * times["ours"] / len(batches),
                     "ours / encoder": times["ours"] / times["encoder"],
                     "ours / fused": times["ours"] / times["fused"]})
        print_table(rows[-1:], header=len(rows) == 1)
    write_result("step", {"batch": 32, "batches": [list(ids.shape) for ids, _ in batches], "rows": rows})


if __name__ == "__main__":
    run_command(main)
