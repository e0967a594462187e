"""Batches, logits and an epoch of training, compared with plain lists, one review at a time, and a plain loop."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import ExponentialLR
from torchtext.vocab import Vocab

from helpers.bonus.pipeline import BonusReviewSet
from helpers.data import batches
from helpers.data.batches import BucketLoader, ReviewSet, predict_logits
from helpers.data.reviews import make_reviews, select
from models import MyTransformer
from sentiment_analysis import set_seed, train_epoch


def random_reviews(lengths, labels, words=8):
    """Return `Reviews` with so many random tokens each."""
    tokens = np.random.default_rng(0).integers(0, words, sum(lengths)).astype(np.int32)
    return make_reviews([f"w{i}" for i in range(words)], tokens, np.cumsum([0, *lengths]), np.array(labels))


def kept_positions(start, end, max_len, both_ends):
    """Return the positions in `tokens` of what the network reads of a review."""
    positions = list(range(start, end))
    if len(positions) <= max_len:
        return positions
    if not both_ends:
        return positions[:max_len]
    return positions[:max_len // 2] + positions[-(max_len - max_len // 2):]


@pytest.mark.parametrize("max_len", [4, 5, 9, 500])
@pytest.mark.parametrize("is_bonus", [False, True])
def test_batch_holds_the_padded_lists(max_len, is_bonus):
    reviews = random_reviews([3, 0, 9, 5, 1, 9], [1, 0, 1, 0, 0, 1])
    reviews.duplicate = np.array([True, False, False, True, True, False])
    reviews = select(reviews, [0, 1, 2, 4, 5])
    vocab = Vocab(Counter({f"w{i}": 20 - i for i in range(5)}))  # w5, w6 and w7 are unknown
    channels = np.arange(2 * len(reviews.tokens), dtype=np.float16).reshape(-1, 2)
    review_set = ReviewSet(reviews, vocab, max_len)
    if is_bonus:
        review_set = BonusReviewSet(reviews, vocab, max_len, channels)
    positions, ids = [], []
    for start, end in zip(reviews.starts[:-1], reviews.starts[1:], strict=True):
        positions.append(kept_positions(start, end, max_len, is_bonus))
        ids.append([vocab.stoi.get(reviews.words[reviews.tokens[i]], 0) for i in positions[-1]])
    labels = [1, 0, 1, 0, 1]

    assert len(review_set) == 5
    assert review_set.duplicate.tolist() == [True, False, False, True, False]
    for i in range(5):
        label, ids_of_review = review_set[i]
        assert (label.item(), ids_of_review.tolist()) == (labels[i], ids[i])
    for chosen in ([0, 1, 2, 3, 4], [4, 0], [2], [1], [3, 3]):
        longest = max([1, *(len(ids[i]) for i in chosen)])
        for T in (longest, longest + 2, 2):
            batch, *inputs, targets = review_set.batch(torch.tensor(chosen), T)
            assert (batch.dtype, targets.dtype, len(inputs)) == (torch.int64, torch.float32, is_bonus)
            assert batch.tolist() == [(ids[i] + [1] * T)[:T] for i in chosen]
            assert targets.tolist() == [labels[i] for i in chosen]
            for of_batch in inputs:
                for row, i in enumerate(chosen):
                    assert of_batch[row, :len(ids[i])].tolist() == channels[positions[i]][:T].tolist()


@pytest.fixture(scope="module")
def review_set():
    """201 reviews of 0 to 199 tokens. The label of review i is i, which identifies it."""
    reviews = random_reviews(np.random.default_rng(0).integers(0, 200, 201), np.arange(201))
    return ReviewSet(reviews, Vocab(Counter(reviews.words)), 500)


def numbers_of_pass(loader):
    """Return the numbers of the reviews in each batch of a pass."""
    return [labels.int().tolist() for _, labels in loader]


def check_plan(review_set, loader, numbers):
    """Check that a plan has these batches, contains every review once, and pads to the longest review."""
    plan = loader.plan()
    assert [chosen.tolist() for chosen, _ in plan] == numbers
    assert [T for _, T in plan] == [max([1, *review_set.lengths[batch]]) for batch in numbers]
    assert len(plan) == len(loader)
    assert sorted(sum(numbers, [])) == list(range(201))


@pytest.mark.parametrize("batch_size", [1, 32, 300])
def test_training_sees_every_review_once_and_follows_numpys_seed(review_set, batch_size):
    loader = BucketLoader(review_set, batch_size)
    np.random.seed(5)
    first, second = numbers_of_pass(loader), numbers_of_pass(loader)
    np.random.seed(5)
    check_plan(review_set, loader, first)
    check_plan(review_set, loader, second)
    for numbers in (first, second):
        assert sorted(map(len, numbers))[1:] == [batch_size] * (len(loader) - 1)
    assert first != second


@pytest.mark.parametrize("tokens", [1, 1000, 100_000])
def test_evaluation_fills_its_batches_with_tokens_and_is_deterministic(review_set, monkeypatch, tokens):
    monkeypatch.setitem(batches.EVALUATION_TOKENS, "cpu", tokens)
    loader = BucketLoader(review_set)
    np.random.seed(5)
    numbers = numbers_of_pass(loader)
    check_plan(review_set, loader, numbers)
    for i, batch in enumerate(numbers):
        longest = max([1, *review_set.lengths[batch]])
        assert len(batch) == 1 or len(batch) * longest <= tokens
        assert (len(batch) + 1) * longest > tokens or i == len(numbers) - 1
    after = np.random.rand()
    np.random.seed(5)
    assert np.random.rand() == after, "evaluation draws no random numbers"


def test_batches_hold_reviews_of_similar_length(review_set):
    loader = BucketLoader(review_set, 16)
    np.random.seed(5)
    first, second = loader.plan(), loader.plan()
    longest = [T for _, T in first]
    in_file_order = [max(review_set.lengths[i:i + 16]) for i in range(0, 192, 16)]
    assert 16 * sum(longest) < 1.2 * review_set.lengths.sum() < 0.75 * 16 * sum(in_file_order)
    assert longest != sorted(longest)
    members_of_first = {frozenset(chosen.tolist()) for chosen, _ in first}
    members_of_second = {frozenset(chosen.tolist()) for chosen, _ in second}
    assert members_of_first != members_of_second, "not only the order differs"


@pytest.mark.parametrize("batch_size", [None, 16])
def test_logits_are_in_the_order_of_the_set(review_set, batch_size):
    model = torch.nn.Sequential(torch.nn.Embedding(10, 1, padding_idx=1), torch.nn.Dropout(0.5))
    model.forward = lambda ids: torch.nn.Sequential.forward(model, ids).sum(dim=1)
    logits = predict_logits(model, BucketLoader(review_set, batch_size), "")
    expected = [model[0].weight[review_set[i][1]].sum().item() for i in range(201)]
    assert logits.tolist() == pytest.approx(expected, abs=1e-4)


def test_epoch_of_training_is_the_plain_loop():
    """The loss of an epoch is the mean over its reviews. The learning rate changes with every step."""
    set_seed(0)
    reviews = random_reviews([5, 9, 2, 7, 8], [1, 0, 1, 0, 0])
    vocab = Vocab(Counter(reviews.words))
    vocab.vectors = torch.randn(len(vocab), 4)
    model = MyTransformer(vocab, 9, 1, dropout=0.5).eval()
    expected, losses = copy.deepcopy(model).train(), []
    loader = BucketLoader(ReviewSet(reviews, vocab, 9), 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    set_seed(0)
    mean = train_epoch(model, loader, optimizer, ExponentialLR(optimizer, 0.1), "")
    set_seed(0)
    for step, (ids, labels) in enumerate(loader):
        losses.append(F.binary_cross_entropy_with_logits(expected(ids).squeeze(1), labels, reduction="none"))
        gradients = torch.autograd.grad(losses[-1].mean(), list(expected.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(expected.parameters(), gradients, strict=True):
                parameter -= 0.5 * 0.1**step * gradient
    assert mean == pytest.approx(torch.cat(losses).mean().item())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name))
