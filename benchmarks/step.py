"""Time of one training step of the network, beside PyTorch's encoder, PyTorch's fused kernels and bare matrix products.

    python -m benchmarks.step --data-dir .data        about 6 minutes on 2 cores

All take the same batches of IMDB ids, the same word vectors and d, and take turns; a figure is a median over rounds.
Ratios are the result: ours / theirs, lower is better for us.
"""

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.common import data_parser, print_table, write_result
from helpers.archive import find_source
from helpers.cli import run_command
from helpers.runtime import keep_freed_memory
from models import MyLayerNorm, MySelfAttention, MyTransformer
from sentiment_analysis import load_imdb_data

MAX_LEN = 500


class FusedAttention(MySelfAttention):
    """`MySelfAttention` through PyTorch's fused kernel."""

    def forward(self, x, mask):
        return F.scaled_dot_product_attention(self.W_q(x), self.W_k(x), self.W_v(x), attn_mask=mask.unsqueeze(1))


class FusedLayerNorm(MyLayerNorm):
    """`MyLayerNorm` through PyTorch's fused kernel, which knows no mask: padding counts."""

    def forward(self, x, mask):
        T = x.shape[1]
        return F.layer_norm(x, x.shape[1:], self.gamma[:T], self.beta[:T], self.eps)


def fused_limit(vocab):
    """Return our network with the fused kernels in place of its two layers."""
    model = MyTransformer(vocab, MAX_LEN, 1)
    block, d = model.blocks[0], vocab.vectors.shape[1]
    block.attention = FusedAttention(d)
    block.norm1, block.norm2 = FusedLayerNorm((MAX_LEN, d)), FusedLayerNorm((MAX_LEN, d))
    return model


class PyTorchBlock(nn.TransformerEncoderLayer):
    """PyTorch's block, called as `MyTransformerBlock` is."""

    def forward(self, x, mask):
        return super().forward(x, src_key_padding_mask=~mask)


def pytorch_encoder(vocab):
    """Return our network with PyTorch's block in place of ours."""
    model, d = MyTransformer(vocab, MAX_LEN, 1), vocab.vectors.shape[1]
    model.blocks[0] = PyTorchBlock(d, nhead=1, dim_feedforward=d, batch_first=True)
    return model


def products(B, T, d, backward):
    """Return a function that does the matrix products of one step, and nothing else."""
    x, w = torch.randn(B * T, d), torch.randn(d, d)
    q, k, v = (torch.randn(B, T, d) for _ in range(3))
    a = torch.randn(B, T, T)
    b = torch.randn(d)

    def run():
        for _ in range(5):  # W_q, W_k, W_v, fc1, fc2
            torch.addmm(b, x, w)
            if backward:
                torch.mm(x, w)  # gradient of the input
                torch.mm(x.t(), x)  # gradient of the weights
        torch.bmm(q, k.transpose(1, 2))
        torch.bmm(a, v)
        if backward:
            torch.bmm(a, k)  # of the queries
            torch.bmm(a.transpose(1, 2), q)  # of the keys
            torch.bmm(q, v.transpose(1, 2))  # of the weights of attention
            torch.bmm(a.transpose(1, 2), v)  # of the values
    return run


def step_of(model, backward):
    """Return a training step (or a forward pass in evaluation) as a function of ids and labels."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def run(ids, labels):
        if not backward:
            with torch.no_grad():
                return model(ids)
        loss = F.binary_cross_entropy_with_logits(model(ids).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        return optimizer.step()
    model.train(backward)
    return run


def measure(vocab, batches, backward, rounds):
    """Return the seconds for all batches, the median over rounds, of each of the four."""
    runs = {"ours": step_of(MyTransformer(vocab, MAX_LEN, 1), backward),
            "encoder": step_of(pytorch_encoder(vocab), backward),
            "fused": step_of(fused_limit(vocab), backward)}
    bare = [products(*ids.shape, vocab.vectors.shape[1], backward) for ids, _ in batches]
    seconds = {name: [] for name in (*runs, "products")}
    for _ in tqdm(range(rounds + 1), desc="rounds", leave=False):
        total = dict.fromkeys(seconds, 0.0)
        for (ids, labels), product in zip(batches, bare, strict=True):
            for name, run in runs.items():
                started = time.perf_counter()
                run(ids, labels)
                total[name] += time.perf_counter() - started
            started = time.perf_counter()
            product()
            total["products"] += time.perf_counter() - started
        for name in seconds:
            seconds[name].append(total[name])
    return {name: float(np.median(times[1:])) for name, times in seconds.items()}  # the first round warms up


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batches", type=int, default=8)
    args = parser.parse_args()
    keep_freed_memory()  # for all
    _, _, _, loader, _, _, vocab, _ = load_imdb_data(source=find_source(args.data_dir))
    chosen = set(np.linspace(0, len(loader) - 1, args.batches).astype(int))
    batches = [batch for i, batch in enumerate(loader) if i in chosen]
    rows = []
    for d in (50, 300):
        torch.manual_seed(0)
        if d != 50:  # what the vectors hold does not matter for the time
            vocab.vectors = torch.randn(len(vocab), d)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for backward in (False, True):
                times = measure(vocab, batches, backward, args.rounds)
                rows.append({"d": d, "threads": threads, "pass": "training step" if backward else "forward",
                             "ms": 1000 * times["ours"] / len(batches),
                             "ours / encoder (b)": times["ours"] / times["encoder"],
                             "ours / fused (c)": times["ours"] / times["fused"],
                             "products (d) / ours": times["products"] / times["ours"]})
                print_table(rows[-1:], header=len(rows) == 1)
    write_result("step", {"batch": 32, "batches": [list(ids.shape) for ids, _ in batches], "rows": rows})


if __name__ == "__main__":
    run_command(main)
