"""The network of the exercise: self-attention, layer normalisation, the transformer block and the classifier.

Letters in equations and comments: B reviews in a batch, T tokens in the longest of them, d features of a token.
A mask (B, T) is True for tokens and False for padding. `mask=None` stands for a batch without padding.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class MySelfAttention(nn.Module):
    """Scaled dot-product self-attention with one head (Vaswani et al. 2017, "Attention Is All You Need", equation 1).

        Q = x W_q,  K = x W_k,  V = x W_v,  attention(x) = softmax(Q Kᵀ / √d) V

    The softmax runs over the keys: row i of its (T, T) result says how much token i reads of each token.

    Args:
        input_dim: d, the number of features of a token.
    """

    def __init__(self, input_dim):
        super().__init__()
        self.W_q = nn.Linear(input_dim, input_dim, bias=False)
        self.W_k = nn.Linear(input_dim, input_dim, bias=False)
        self.W_v = nn.Linear(input_dim, input_dim, bias=False)

    def forward(self, x, mask=None):
        """Return softmax(Q Kᵀ / √d) V: x (B, T, d), mask (B, T) or None -> (B, T, d).

        The output at padding positions has no meaning.
        """
        v = self.W_v(x)
        return torch.bmm(self.weights(x, mask), v)  # (B, T, T) (B, T, d) -> (B, T, d)

    def weights(self, x, mask=None):
        """Return softmax(Q Kᵀ / √d), whose rows sum to 1: x (B, T, d), mask (B, T) or None -> (B, T, T)."""
        q, k = self.W_q(x), self.W_k(x)  # (B, T, d)
        bias = q.new_zeros(x.shape[0], 1, x.shape[1])  # (B, 1, T), added to the scores of every query
        if mask is not None:
            # So low that the softmax gives padding a weight of exactly 0. With -inf, a review of nothing but padding
            # would become NaN. With the whole minimum instead of half, minimum + negative score could be -inf.
            bias = bias.masked_fill(~mask.unsqueeze(1), torch.finfo(q.dtype).min / 2)
        # The formula is
        #     scores = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(d) + bias
        # baddbmm computes it in one pass over the (B, T, T) scores, which cause most of the layer's memory traffic.
        d = x.shape[2]
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=1 / math.sqrt(d))
        return F.softmax(scores, dim=2)


class MyLayerNorm(nn.Module):
    """Layer normalisation over all tokens and features of a sample (Ba et al. 2016, "Layer Normalization").

        y = gamma ⊙ (x - mean) / √(var + 1e-8) + beta

    mean and var are the mean and the biased variance of the T·d elements of a sample, without padding. gamma and beta
    have their own values for each position. Nothing else tells the network where a token is.

    Args:
        input_dim: (T, d), the shape of `gamma` and `beta`, where T is the length of the longest sample.
    """

    def __init__(self, input_dim):
        super().__init__()
        self.eps = 1e-8
        self.gamma = nn.Parameter(torch.ones(input_dim))
        self.beta = nn.Parameter(torch.zeros(input_dim))

    def forward(self, x, mask=None):
        """Normalise each sample: x (B, T, d), mask (B, T) or None -> (B, T, d).

        T may be smaller than in `input_dim`, but not larger. The output at padding positions has no meaning.
        """
        T, d = x.shape[1:]
        if mask is None:
            mask = x.new_ones(x.shape[:2], dtype=torch.bool)
        is_token = mask.unsqueeze(2)  # (B, T, 1)
        n = d * is_token.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1, 1), number of elements that count
        mean = (x * is_token).sum(dim=(1, 2), keepdim=True) / n  # (B, 1, 1)
        centred = (x - mean) * is_token  # (B, T, d), 0 for padding
        var = centred.square().sum(dim=(1, 2), keepdim=True) / n  # (B, 1, 1)
        return self.gamma[:T] * centred / torch.sqrt(var + self.eps) + self.beta[:T]


class MyTransformerBlock(nn.Module):
    """One block of the exercise's encoder.

        x = norm1(dropout(attention(x)) + x)
        x = norm2(fc2(relu(fc1(x))) + x)

    Args:
        max_len: T of the longest review.
        input_dim: d. Both linear layers map d features to d features.
        dropout: dropout of the attention's output.
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
        """Apply the block: x (B, T, d), mask (B, T) or None -> (B, T, d)."""
        x = self.norm1(self.dropout(self.attention(x, mask)) + x, mask)
        return self.norm2(self.fc2(F.relu(self.fc1(x))) + x, mask)


class MyTransformer(nn.Module):
    """Classify reviews: word vectors, transformer blocks, the mean over the tokens, and one linear layer to a logit.

    A positive logit means a positive review. Padding is masked everywhere: the logit of a review depends neither on
    the amount of padding nor on the other reviews of its batch.

    Args:
        vocab: a `torchtext.vocab.Vocab` with `.vectors` (V, d) and a "<pad>" token.
        max_len: T of the longest review that the network takes.
        num_of_blocks: number of transformer blocks.
        dropout: dropout of the blocks.
        freeze: whether the word vectors stay fixed during training.
    """

    masks_padding = True  # so that the scripts pad each batch to its longest review instead of max_len

    def __init__(self, vocab, max_len, num_of_blocks, dropout=0.1, freeze=False):
        super().__init__()
        self.max_len = max_len
        self.pad_id = vocab.stoi["<pad>"]
        self.embedding = nn.Embedding.from_pretrained(vocab.vectors.clone(), freeze=freeze, padding_idx=self.pad_id)
        input_dim = self.embedding.embedding_dim
        self.blocks = nn.ModuleList(MyTransformerBlock(max_len, input_dim, dropout) for _ in range(num_of_blocks))
        self.fc = nn.Linear(input_dim, 1)

    def forward(self, ids):
        """Return the logits of reviews: ids (B, T) -> (B, 1).

        Raises:
            ValueError: T is longer than `max_len`.
        """
        if ids.shape[1] > self.max_len:
            raise ValueError(f"the batch has {ids.shape[1]} tokens a review; the network takes at most {self.max_len}")
        mask = ids != self.pad_id  # (B, T), True for tokens
        x = self.embedding(ids)  # (B, T, d)
        for block in self.blocks:
            x = block(x, mask)
        is_token = mask.unsqueeze(2)  # (B, T, 1)
        num_tokens = is_token.sum(dim=1).clamp(min=1)  # (B, 1)
        mean = (x * is_token).sum(dim=1) / num_tokens  # (B, d)
        return self.fc(mean)
