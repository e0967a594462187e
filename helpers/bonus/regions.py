"""Region embeddings: vectors of the words around a token, learned from text by predicting nearby words.

The region of token t, the words t - W to t + W, predicts each of the five words before and after it (Johnson & Zhang
2015, "Semi-supervised convolutional neural networks for text categorization via region embedding"). The objective is
negative sampling as in word2vec (Mikolov et al. 2013); the negative words are drawn once for a block of tokens. A word
that distinguishes positive from negative training reviews is predicted more often, because that is the final task.
"""

import functools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from helpers.data.reviews import identity_of, select
from helpers.data.tokens import text_of_tokens
from helpers.files import cached_arrays

FEATURES = 100  # R, features of a region
WIDTHS = (2, 10)  # W, words of a region on each side of its token; one embedding for each W
AHEAD = 5  # words to predict on each side
PASSES = 2  # over the text
LEARNING_RATE = 2e-3
BLOCK = 8192  # tokens in a training step
NEGATIVES = 128  # negative words for a block
FREQUENT = 1e-4  # words with a larger share of the text are predicted less often, as in word2vec
DEVIATION = 0.3  # of the features that the network reads; with 1, they dominate the first epochs
STATISTICS_BLOCKS = 100  # blocks from which mean and deviation of the features are computed
VERSION = 2  # raise it with every change to the result of `learn`


class RegionEmbedding(nn.Module):
    """Describe each token by the words around it, with fixed vectors.

        h_t = tanh(s ⊙ (E[word t - W] + ... + E[word t + W]) + b)
        y_t = (h_t - mean) / deviation

    as in Johnson & Zhang 2015, with the region as a bag of words. E holds 8-bit integers, which keep `model.pt` small,
    and s is their scale.

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
        """Return y: ids (B, T) -> (B, T, R)."""
        h = torch.tanh(self.scale * sum_regions(F.embedding(ids, self.vectors).float(), self.width) + self.bias)
        return (h - self.mean) / self.deviation


def sum_regions(x, width):
    """Return the sum of x[..., t - width:t + width + 1, :] for each t: x (..., T, R) -> (..., T, R)."""
    sums = F.pad(x, (0, 0, width + 1, width)).cumsum(dim=-2)  # (..., T + 2 width + 1, R)
    return sums[..., 2 * width + 1:, :] - sums[..., :-2 * width - 1, :]


def polarity(reviews, vocab_size, ids):
    """Return how clearly each word distinguishes the labels: (V,), from 0.02 (not) to 1 (four standard errors or more).

    Args:
        reviews: the training reviews, a `reviews.Reviews`.
        vocab_size: V.
        ids: (tokens,) the words of the reviews.
    """
    pairs = np.unique(text_of_tokens(reviews.starts) * np.int64(vocab_size) + ids)
    review, word = np.divmod(pairs, vocab_size)
    positive = np.bincount(word, reviews.labels[review], vocab_size)
    total = np.bincount(word, minlength=vocab_size)
    standard_errors = np.abs(2 * positive - total) / np.sqrt(total + 4)
    return np.clip(standard_errors / 4, 0.02, 1)


def separate_texts(ids, starts, gap):
    """Return the words of all texts with `gap` zeros before, between and after the texts, as a tensor (T,)."""
    words = np.zeros(len(ids) + len(starts) * gap, np.int64)
    words[np.arange(len(ids)) + (text_of_tokens(starts) + 1) * gap] = ids
    return torch.from_numpy(words)


class Learner(nn.Module):
    """The parameters that are learned, and the loss.

    Args:
        share: (V,) how frequent each word is; 0 for word 0, which is padding and unknown words.
        weights: (V,) how important it is to predict each word.
        width: W.
    """

    def __init__(self, share, weights, width):
        super().__init__()
        V, self.width = len(share), width
        self.negative_weights = torch.from_numpy(share**0.75 + 1e-12)
        keep_chance = np.minimum(1, np.sqrt(FREQUENT / np.maximum(share, 1e-12)))
        self.target_chance = torch.from_numpy(weights * keep_chance).float()
        self.target_chance[0] = 0
        self.embedding = nn.Embedding(V, FEATURES, padding_idx=0, sparse=True)
        nn.init.normal_(self.embedding.weight, 0, 0.1)
        self.before, self.after = (nn.Embedding(V, FEATURES, sparse=True) for _ in range(2))
        for table in (self.before, self.after):
            nn.init.zeros_(table.weight)
        self.bias = nn.Parameter(torch.zeros(FEATURES))
        with torch.no_grad():  # words that do not occur, padding among them, must not contribute to a region
            self.embedding.weight[torch.from_numpy(share == 0)] = 0

    def loss(self, words):
        """Return the loss of a block of words: (T,) -> ()."""
        h = torch.tanh(sum_regions(self.embedding(words), self.width) + self.bias)  # (T, R)
        is_word = words > 0
        targets = torch.nonzero(torch.rand(len(words)) < self.target_chance[words]).squeeze(1)
        negatives = torch.multinomial(self.negative_weights, NEGATIVES, replacement=True)
        return sum(self.loss_of_side(h, words, is_word, targets, negatives, side) for side in (-1, 1))

    def loss_of_side(self, h, words, is_word, targets, negatives, side):
        """Return the loss of the words before (`side` = -1) or after (1) the regions.

        Args:
            h: (T, R) features of the regions.
            words, is_word: (T,) words, and which are not padding.
            targets: (n,) places of the words to predict.
            negatives: (NEGATIVES,) random words, whose scores should be low.
        """
        output = self.before if side == -1 else self.after
        vectors = output(words[targets])  # (n, R)
        scores = []  # of true pairs of a region and a word, for each offset between them
        for offset in range(self.width + 1, self.width + 1 + AHEAD):
            centre = targets - side * offset  # of the region that predicts the target
            is_inside = (centre >= 0) & (centre < len(words))
            is_inside &= is_word[centre.clamp(0, len(words) - 1)]
            scores.append((h[centre[is_inside]] * vectors[is_inside]).sum(1))
        true_pairs = F.softplus(-torch.cat(scores)).sum() / max(sum(map(len, scores)), 1)
        false_pairs = F.softplus(h @ output(negatives).T).mean(1)  # (T,)
        return true_pairs + AHEAD * (false_pairs * is_word).sum() / is_word.sum().clamp(min=1)


def learn(ids, starts, weights, width, seed):
    """Learn the embedding of regions of 2 `width` + 1 words; return a `RegionEmbedding`.

    Args:
        ids: (tokens,) words of all texts, one text after the other. 0 stands for no word.
        starts: (texts + 1,) where each text begins.
        weights: (V,) how important it is to predict each word.
        width: W.
        seed: of all random choices.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    words = separate_texts(ids, starts, width + AHEAD + 1)  # so that no region or target crosses into another text
    share = np.bincount(ids, minlength=len(weights)) / max(np.count_nonzero(ids), 1)
    share[0] = 0
    learner = Learner(share, weights, width)
    tables = [learner.embedding.weight, learner.before.weight, learner.after.weight]
    sparse = torch.optim.SparseAdam(tables, lr=LEARNING_RATE)
    dense = torch.optim.Adam([learner.bias], lr=LEARNING_RATE / 2)
    num_blocks = -(-len(words) // BLOCK)
    blocks = np.concatenate([np.random.permutation(num_blocks) for _ in range(PASSES)])
    for step, block in enumerate(tqdm(blocks, desc=f"regions of {2 * width + 1} words", unit=" blocks", leave=False)):
        loss = learner.loss(words[block * BLOCK:(block + 1) * BLOCK])
        sparse.zero_grad()
        dense.zero_grad()
        loss.backward()
        sparse.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / len(blocks))
        sparse.step()
        dense.step()
    return quantize(learner, words[:STATISTICS_BLOCKS * BLOCK])


@torch.no_grad()
def quantize(learner, words):
    """Return the `RegionEmbedding` of a learner, with mean and deviation of the features on `words` (T,)."""
    learned = RegionEmbedding(len(learner.embedding.weight), learner.width)
    learned.scale[:] = learner.embedding.weight.abs().amax(dim=0) / 127
    learned.vectors[:] = (learner.embedding.weight / learned.scale).round()
    learned.bias[:] = learner.bias
    h = learned(words)[words > 0]
    learned.mean[:] = h.mean(dim=0)
    learned.deviation[:] = (h.std(dim=0) + 1e-6) / DEVIATION
    return learned


def load_regions(reviews, train, vocab, seed, cache_dir):
    """Return a `RegionEmbedding` for each of WIDTHS, from `cache_dir` if an earlier call left them there.

    Args:
        reviews: a `reviews.Reviews`. The embeddings are learned from its training and unlabelled reviews.
        train: (reviews,) bool, the reviews whose labels may be seen.
        vocab: the words that regions are made of.
        seed: of all random choices.
        cache_dir: folder for cached results.
    """
    id_of = np.array([vocab.stoi[word] for word in reviews.words])
    id_of[id_of <= vocab.stoi["<pad>"]] = 0  # unknown words and padding carry no information
    key = [identity_of(reviews, train), len(vocab), seed, FEATURES, AHEAD, PASSES, LEARNING_RATE, BLOCK, NEGATIVES,
           FREQUENT, DEVIATION, VERSION]

    def make(width):
        texts, labelled = select(reviews, train | (reviews.labels < 0)), select(reviews, train)
        weights = polarity(labelled, len(vocab), id_of[labelled.tokens])
        learned = learn(id_of[texts.tokens], texts.starts, weights, width, seed)
        return {name: tensor.numpy() for name, tensor in learned.state_dict().items()}

    embeddings = []
    for width in WIDTHS:
        embedding = RegionEmbedding(len(vocab), width)
        names = list(embedding.state_dict())
        arrays = cached_arrays(cache_dir, "regions", [*key, width], names, functools.partial(make, width))
        embedding.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        embeddings.append(embedding)
    return embeddings
