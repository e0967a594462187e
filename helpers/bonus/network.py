"""The network of the bonus: the transformer of the exercise with more inputs for each token."""

import torch
from torch import nn

from models import MyTransformer


class Regions(nn.Module):
    """Compute the region embeddings of each token, and project their features to the size of a word vector.

    Args:
        embeddings: list of `regions.RegionEmbedding`.
        d: features of a word vector.
    """

    def __init__(self, embeddings, d):
        super().__init__()
        self.embeddings = nn.ModuleList(embeddings)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(sum(len(embedding.scale) for embedding in embeddings), d, bias=False)

    def forward(self, ids):
        """Return the projected features: ids (B, T) -> (B, T, d)."""
        return self.fc(self.dropout(torch.cat([embedding(ids) for embedding in self.embeddings], dim=2)))


class BonusTransformer(MyTransformer):
    """A `MyTransformer` whose blocks read word vectors, region embeddings and the channels of n-grams.

        x_t = [dropout(word vector of token t) + projected region features at t ; channels of token t]

    Args:
        vocab, max_len, num_of_blocks, dropout, freeze: as in `MyTransformer`.
        num_channels: C, the channels of a token.
        input_dropout: dropout of the word vectors.
        embeddings: the `regions.RegionEmbedding`s, or None.
    """

    def __init__(self, vocab, max_len, num_of_blocks, dropout, freeze, num_channels, input_dropout, embeddings):
        d = vocab.vectors.shape[1]
        # A module can be assigned only after super().__init__().
        regions = Regions(embeddings, d) if embeddings else None
        super().__init__(vocab, max_len, num_of_blocks, dropout, freeze, input_dim=d + num_channels)
        self.input_dropout = nn.Dropout(input_dropout)
        self.regions = regions

    def embed(self, ids, channels):
        """Return what the first block reads: ids (B, T), channels (B, T, C) -> (B, T, d + C)."""
        x = self.input_dropout(self.embedding(ids))  # (B, T, d)
        if self.regions is not None:
            x = x + self.regions(ids)
        return torch.cat([x, channels], dim=2)
