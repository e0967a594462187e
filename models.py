"""The network of the exercise: self-attention, layer normalisation, the transformer block and the classifier.

Letters in the equations and comments: B reviews in a batch, T tokens in the longest of them, d features of a token.
A mask (B, T) is True where there is a token and False where there is padding; `mask=None` means no padding at all.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class MySelfAttention(nn.Module):
    """Scaled dot-product self-attention with one head (Vaswani et al. 2017, "Attention Is All You Need", equation 1).

        Q = x W_q,  K = x W_k,  V = x W_v,  attention(x) = softmax(Q Kᵀ / √d) V

    The softmax runs over the keys: row i of its (T, T) matrix holds the weights with which token i reads all tokens.

    Args:
        input_dim: d, the number of features of a token.
    """

    def __init__(self, input_dim):
        super().__init__()
        self.W_q = nn.Linear(input_dim, input_dim, bias=False)
        self.W_k = nn.Linear(input_dim, input_dim, bias=False)
        self.W_v = nn.Linear(input_dim, input_dim, bias=False)

    def forward(self, x, mask=None):
        """x (B, T, d), mask (B, T) or None -> (B, T, d); rows that are padding themselves mean nothing."""
        v = self.W_v(x)
        return torch.bmm(self.weights(x, mask), v)  # (B, T, T) (B, T, d) -> (B, T, d)

    def weights(self, x, mask=None):
        """x (B, T, d), mask (B, T) or None -> softmax(Q Kᵀ / √d), (B, T, T): rows sum to 1, padding has weight 0."""
        q, k = self.W_q(x), self.W_k(x)
        bias = q.new_zeros(x.shape[0], 1, x.shape[1])  # (B, 1, T), the same for every query
        if mask is not None:
            # So low that the softmax gives exactly 0, yet finite: a row of nothing but padding must not become NaN.
            bias = bias.masked_fill(~mask.unsqueeze(1), torch.finfo(q.dtype).min / 2)
        # bias + Q Kᵀ / √d in one pass over the (B, T, T) scores, which are most of the layer's memory traffic
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=1 / math.sqrt(x.shape[2]))
        return F.softmax(scores, dim=2)


class MyLayerNorm(nn.Module):
    """Layer normalisation over all tokens and features of a sample (Ba et al. 2016, "Layer Normalization").

        y = gamma ⊙ (x - mean) / √(var + 1e-8) + beta

    with the mean and the biased variance of a sample's T·d elements; only its real tokens count if there is a mask.

    Args:
        input_dim: (T, d), the shape of the longest sample, of `gamma` and of `beta`.
    """

    def __init__(self, input_dim):
        super().__init__()
        self.eps = 1e-8
        self.gamma = nn.Parameter(torch.ones(input_dim))
        self.beta = nn.Parameter(torch.zeros(input_dim))

    def forward(self, x, mask=None):
        """x (B, T, d), mask (B, T) or None -> (B, T, d); T may be shorter than that of `input_dim`, never longer."""
        T, d = x.shape[1:]
        if mask is None:
            mask = x.new_ones(x.shape[:2], dtype=torch.bool)
        real = mask.unsqueeze(2)  # (B, T, 1)
        n = d * real.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1, 1), elements that count
        mean = (x * real).sum(dim=(1, 2), keepdim=True) / n  # (B, 1, 1)
        centred = (x - mean) * real  # (B, T, d)
        var = centred.square().sum(dim=(1, 2), keepdim=True) / n  # (B, 1, 1)
        return self.gamma[:T] * centred / torch.sqrt(var + self.eps) + self.beta[:T]


class MyTransformerBlock(nn.Module):
    """One block of the exercise's encoder.

        x = norm1(dropout(attention(x)) + x)
        x = norm2(fc2(relu(fc1(x))) + x)

    Args:
        max_len: T of the longest review.
        input_dim: d; both linear layers go from d to d.
        dropout: probability with which a feature of the attention's output is dropped in training.
    """

    def __init__(self, max_len, input_dim, dropout=0.1):
        super().__init__()
        self.attention = MySelfAttention(input_dim)
        self.norm1 = MyLayerNorm((max_len, input_dim))
        self.fc1 = nn.Linear(input_dim, input_dim)
        self.fc2 = nn.Linear(input_dim, input_dim)
        self.norm2 = MyLayerNorm((max_len, input_dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        """x (B, T, d), mask (B, T) or None -> (B, T, d)."""
        x = self.norm1(self.dropout(self.attention(x, mask)) + x, mask)
        return self.norm2(self.fc2(F.relu(self.fc1(x))) + x, mask)


class MyTransformer(nn.Module):
    """Word vectors, blocks, the mean over the tokens, and one linear layer to a logit: positive if above 0.

    Padding is never seen: a review has the same logit whatever it is padded to and whoever shares its batch.

    Args:
        vocab: a `torchtext.vocab.Vocab` with `.vectors` (V, d) and a "<pad>" token.
        max_len: T of the longest review that the network takes.
        num_of_blocks: how many blocks stand one after the other.
        dropout: the blocks' dropout.
        freeze: whether the word vectors stay as they are in training.
        channels: C, how many numbers go with each token beside its word vector (a bonus; the exercise has none).
        input_dropout: probability with which a feature of a word vector is dropped in training.
        regions: a module from ids (B, T) to (B, T, d), which are added to the word vectors (a bonus).
    """

    def __init__(self, vocab, max_len, num_of_blocks, dropout=0.1, freeze=False, channels=0, input_dropout=0.0,
                 regions=None):
        super().__init__()
        self.max_len = max_len
        self.pad_id = vocab.stoi["<pad>"]
        self.embedding = nn.Embedding.from_pretrained(vocab.vectors.clone(), freeze=freeze, padding_idx=self.pad_id)
        self.input_dropout = nn.Dropout(input_dropout)
        self.regions = regions
        d = self.embedding.embedding_dim + channels
        self.blocks = nn.ModuleList(MyTransformerBlock(max_len, d, dropout) for _ in range(num_of_blocks))
        self.fc = nn.Linear(d, 1)

    def forward(self, ids, channels=None):
        """ids (B, T), channels (B, T, C) if any -> logits (B, 1). Raises ValueError if T is longer than `max_len`."""
        if ids.shape[1] > self.max_len:
            raise ValueError(f"the batch has {ids.shape[1]} tokens a review; the network takes at most {self.max_len}")
        mask = ids != self.pad_id  # (B, T)
        x = self.input_dropout(self.embedding(ids))  # (B, T, d)
        if self.regions is not None:
            x = x + self.regions(ids)
        if channels is not None:
            x = torch.cat([x, channels], dim=2)  # (B, T, d), d now counts the channels
        for block in self.blocks:
            x = block(x, mask)
        real = mask.unsqueeze(2)  # (B, T, 1)
        mean = (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)  # (B, d)
        return self.fc(mean)
