"""Region embeddings: what a few words in a row tell about the words around them, learned without labels.

Two views (Johnson & Zhang 2015, "Semi-supervised convolutional neural networks for text categorization via region
embedding"): the words t-W to t+W, the region, predict each of the five words on either side of it. The objective is
that of word2vec (Mikolov et al. 2013), with the negative words drawn once for a block of tokens. A word is predicted
the more often the more surely it tells positive training reviews from negative ones: the network is to do the same.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from helpers.files import cached_arrays
from helpers.reviews import identity_of, keep
from helpers.tokens import text_of_tokens

FEATURES = 100  # R
WIDTHS = (2, 10)  # W
AHEAD = 5  # words to predict on either side
PASSES, LEARNING_RATE, BLOCK, NEGATIVES = 2, 2e-3, 8192, 128
FREQUENT = 1e-4  # share above which a word is predicted less often, as in word2vec
DEVIATION = 0.3  # of a feature as the network is given it; with 1 it first runs after the new features
VERSION = 2  # to be raised with every change of what `learn` gives


class RegionEmbedding(nn.Module):
    """Describe each token by the words around it, with vectors that were learned beforehand and stay.

        h_t = tanh(s ⊙ (E[word t - W] + ... + E[word t + W]) + b)

    and of it each feature less its mean, divided by its deviation (Johnson & Zhang 2015, with the words as a bag). E
    holds whole numbers, which a file has room for, and s says what a feature's 1 is worth.

    Args:
        num_words: V.
        width: W.
    """

    def __init__(self, num_words, width):
        super().__init__()
        self.width = width
        self.register_buffer("vectors", torch.zeros(num_words, FEATURES, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.register_buffer("bias", torch.zeros(FEATURES))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))

    def forward(self, ids):
        """ids (B, T) -> (B, T, R)."""
        h = torch.tanh(self.scale * sum_regions(F.embedding(ids, self.vectors).float(), self.width) + self.bias)
        return (h - self.mean) / self.deviation


def sum_regions(x, width):
    """x (..., T, R) -> the sums of x[..., t - width:t + width + 1, :] for all t, (..., T, R), as far as there is x."""
    sums = F.pad(x, (0, 0, width + 1, width)).cumsum(dim=-2)
    return sums[..., 2 * width + 1:, :] - sums[..., :-2 * width - 1, :]


class Regions(nn.Module):
    """Project the features of region embeddings to the width of the word vectors.

    Args:
        embeddings: a `RegionEmbedding` for each of WIDTHS.
        d: features of a word vector.
    """

    def __init__(self, embeddings, d):
        super().__init__()
        self.embeddings = nn.ModuleList(embeddings)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(FEATURES * len(embeddings), d, bias=False)

    def forward(self, ids):
        """ids (B, T) -> (B, T, d)."""
        return self.fc(self.dropout(torch.cat([embedding(ids) for embedding in self.embeddings], dim=2)))


def polarity(reviews, vocab_size, ids):
    """Return how surely each word tells the labels apart, from 0.02 to 1 for four standard errors or more."""
    review = text_of_tokens(reviews.starts)
    review, word = np.divmod(np.unique(review * np.int64(vocab_size) + ids), vocab_size)
    positive = np.bincount(word, reviews.labels[review], vocab_size)
    total = np.bincount(word, minlength=vocab_size)
    return np.clip(np.abs(2 * positive - total) / np.sqrt(total + 4) / 4, 0.02, 1)


def learn(ids, starts, weights, width, seed):
    """Learn the embedding of regions of 2 `width` + 1 words.

    Args:
        ids: (tokens) words of all texts one after the other; 0 is none.
        starts: (texts + 1) where each text begins.
        weights: (V) of each word as one to predict.

    Returns:
        a `RegionEmbedding`.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    V, gap = len(weights), width + AHEAD + 1  # between two texts, so that no region sees both
    words = np.zeros(len(ids) + len(starts) * gap, np.int64)
    words[np.arange(len(ids)) + (text_of_tokens(starts) + 1) * gap] = ids
    words = torch.from_numpy(words)
    share = np.bincount(ids, minlength=V) / max(np.count_nonzero(ids), 1)
    share[0] = 0
    drawn_as_negative = torch.from_numpy(share**0.75 + 1e-12)
    drawn = torch.from_numpy(weights * np.minimum(1, np.sqrt(FREQUENT / np.maximum(share, 1e-12)))).float()
    drawn[0] = 0
    embedding = nn.Embedding(V, FEATURES, padding_idx=0, sparse=True)
    nn.init.normal_(embedding.weight, 0, 0.1)
    before, after = (nn.Embedding(V, FEATURES, sparse=True) for _ in range(2))
    for table in (before, after):
        nn.init.zeros_(table.weight)
    bias = nn.Parameter(torch.zeros(FEATURES))
    with torch.no_grad():
        embedding.weight[torch.from_numpy(share == 0)] = 0  # padding among them: it must add nothing to a region
    sparse = torch.optim.SparseAdam([embedding.weight, before.weight, after.weight], lr=LEARNING_RATE)
    dense = torch.optim.Adam([bias], lr=LEARNING_RATE / 2)
    blocks = [block for _ in range(PASSES) for block in np.random.permutation(-(-len(words) // BLOCK))]
    for step, block in enumerate(tqdm(blocks, desc=f"regions of {2 * width + 1} words", unit=" blocks", leave=False)):
        part = words[block * BLOCK:(block + 1) * BLOCK]
        h = torch.tanh(sum_regions(embedding(part), width) + bias)
        live, target = part > 0, torch.nonzero(torch.rand(len(part)) < drawn[part]).squeeze(1)
        negatives = torch.multinomial(drawn_as_negative, NEGATIVES, replacement=True)
        loss = 0
        for sign, output in ((-1, before), (1, after)):
            score, hits = output(part[target]), []
            for off in range(width + 1, width + 1 + AHEAD):
                here = target - sign * off  # the middle of the region that predicts
                ok = (here >= 0) & (here < len(part))
                ok &= live[here.clamp(0, len(part) - 1)]
                hits.append((h[here[ok]] * score[ok]).sum(1))
            missed = F.softplus(h @ output(negatives).T).mean(1)
            loss = loss + F.softplus(-torch.cat(hits)).sum() / max(sum(map(len, hits)), 1)
            loss = loss + AHEAD * (missed * live).sum() / live.sum().clamp(min=1)
        sparse.zero_grad()
        dense.zero_grad()
        loss.backward()
        sparse.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / len(blocks))
        sparse.step()
        dense.step()
    with torch.no_grad():
        learned = RegionEmbedding(V, width)
        learned.scale[:] = embedding.weight.abs().amax(dim=0) / 127
        learned.vectors[:] = (embedding.weight / learned.scale).round()
        learned.bias[:] = bias
        sample = words[:100 * BLOCK]
        h = learned(sample)[sample > 0]
        learned.mean[:], learned.deviation[:] = h.mean(dim=0), (h.std(dim=0) + 1e-6) / DEVIATION
    return learned


def load_regions(reviews, train, vocab, seed, cache_dir):
    """Learn the regions of WIDTHS from the training and the unlabelled reviews, or take them from `cache_dir`.

    Args:
        reviews: a `reviews.Reviews`; unlabelled ones in it are used.
        train: (number of reviews) bool, the reviews whose labels may be seen.
        vocab: the words that regions are made of.

    Returns:
        a `RegionEmbedding` for each width.
    """
    id_of = np.array([vocab.stoi[word] for word in reviews.words])
    id_of[id_of <= vocab.stoi["<pad>"]] = 0  # neither unknown words nor padding tell anything
    key = [identity_of(reviews, train), len(vocab), seed, FEATURES, AHEAD, PASSES, LEARNING_RATE, BLOCK, NEGATIVES,
           FREQUENT, DEVIATION, VERSION]
    embeddings = [RegionEmbedding(len(vocab), width) for width in WIDTHS]
    for embedding in embeddings:
        def make(width=embedding.width):
            texts, labelled = keep(reviews, train | (reviews.labels < 0)), keep(reviews, train)
            weights = polarity(labelled, len(vocab), id_of[labelled.tokens])
            learned = learn(id_of[texts.tokens], texts.starts, weights, width, seed)
            return {name: tensor.numpy() for name, tensor in learned.state_dict().items()}

        arrays = cached_arrays(cache_dir, "regions", [*key, embedding.width], list(embedding.state_dict()), make)
        embedding.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return embeddings
