"""Vocabulary, word vectors, batches and logits, compared with plain lists and with one review at a time."""

import hashlib
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

from helpers import batches
from helpers.batches import BucketLoader, ReviewSet, add_glove, build_vocab, load_glove, predict_logits
from helpers.bonus import BonusReviewSet
from tests.toy import random_reviews, toy_vocab, words_of


@pytest.mark.parametrize("options", [{}, {"max_size": 5, "min_freq": 2}, {"min_freq": 1}, {"min_freq": 1000}])
def test_vocabulary_is_torchtexts_of_the_chosen_reviews(options):
    """The exercise takes the 25,000 most frequent words that occur at least 10 times."""
    reviews, chosen = random_reviews([9, 0, 30, 5, 1, 12] * 3, num_words=16), np.arange(18) % 4 > 0
    counter = Counter()
    for words, is_chosen in zip(words_of(reviews), chosen, strict=True):
        counter.update(words if is_chosen else [])
    assert min(counter.values()) < 10 < max(counter.values())
    expected = Vocab(counter, **{"max_size": 25_000, "min_freq": 10} | options)
    vocab = build_vocab(reviews, chosen, **options)
    assert (vocab.itos, vocab.stoi) == (expected.itos, expected.stoi)


def test_glove_of_50_features_is_the_published_one(tmp_path):
    vocab = Vocab(Counter(["the", "film", "qqqzzzxx", "n't"]))
    assert add_glove(vocab, 50, tmp_path) == pytest.approx(3 / 6)
    published = [0.418, 0.24968, -0.41242, 0.1217, 0.34527, -0.044457, -0.49688, -0.17862]  # glove.6B.50d.txt, line 1
    assert vocab.vectors[vocab.stoi["the"]][:8].tolist() == pytest.approx(published, abs=1e-6)
    assert vocab.vectors[vocab.stoi["n't"]].any()
    assert not vocab.vectors[[vocab.stoi[word] for word in ("qqqzzzxx", "<unk>", "<pad>")]].any()
    assert vocab.vectors.shape == (6, 50)


def test_glove_of_100_features_is_read_from_stanfords_archive(tmp_path, monkeypatch):
    words = ["the", "été", '"', "film", "null", "nan", "#"]  # some look like quotes or gaps
    values = np.random.default_rng(0).normal(size=(len(words), 100)).astype(np.float32)
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, values, strict=True)]
    with zipfile.ZipFile(tmp_path / "served.zip", "w") as archive:
        archive.writestr("glove.6B.100d.txt", "".join(lines))
    content = (tmp_path / "served.zip").read_bytes()
    monkeypatch.setattr(batches, "GLOVE_URL", (tmp_path / "served.zip").as_uri())
    monkeypatch.setattr(batches, "GLOVE_SHA256", hashlib.sha256(content).hexdigest())
    found, vectors = load_glove(100, tmp_path / "cache")
    assert (list(found), vectors.tolist()) == (words, values.tolist())
    (tmp_path / "cache" / "glove.6B.zip").unlink()
    assert list(load_glove(100, tmp_path / "cache")[0]) == words, "words and vectors are cached too"


def kept_places(length, max_len, is_bonus):
    """Return the places of the tokens that the network reads of a review: the first ones; in the bonus, both ends."""
    places = list(range(length))
    if length <= max_len:
        return places
    return places[:max_len // 2] + places[length - max_len + max_len // 2:] if is_bonus else places[:max_len]


@pytest.mark.parametrize("max_len", [4, 5, 9, 500])
@pytest.mark.parametrize("is_bonus", [False, True])
@pytest.mark.parametrize("pad_to_max_len", [False, True])
def test_batch_holds_the_padded_lists(max_len, is_bonus, pad_to_max_len):
    labels = [1, 0, 1, 0, 1]
    reviews, vocab = random_reviews([3, 0, 9, 1, 9], labels), toy_vocab(5)  # w5, w6 and w7 are unknown
    channels = np.arange(2 * len(reviews.tokens), dtype=np.float16).reshape(-1, 2)
    review_set = ReviewSet(reviews, vocab, max_len, pad_to_max_len=pad_to_max_len)
    if is_bonus:
        review_set = BonusReviewSet(reviews, vocab, max_len, "cpu", pad_to_max_len, channels)
    ids, kept_channels = [], []
    for words, start in zip(words_of(reviews), reviews.starts[:-1], strict=True):
        places = kept_places(len(words), max_len, is_bonus)
        ids.append([vocab.stoi.get(words[place], 0) for place in places])
        kept_channels.append([channels[start + place].tolist() for place in places])

    assert len(review_set) == 5
    for i, (label, ids_of_review) in enumerate(review_set):
        assert (label.item(), ids_of_review.tolist()) == (labels[i], ids[i])
    for chosen in ([0, 1, 2, 3, 4], [4, 0], [1], [3, 3]):
        longest = max([1, *(len(ids[i]) for i in chosen)])
        for T in (longest, longest + 2):
            batch, *inputs, targets = review_set.batch(torch.tensor(chosen), T)
            assert (batch.dtype, targets.dtype, len(inputs)) == (torch.int64, torch.float32, is_bonus)
            assert batch.tolist() == [ids[i] + [1] * (T - len(ids[i])) for i in chosen]
            assert targets.tolist() == [labels[i] for i in chosen]
            for of_batch in inputs:
                for row, i in zip(of_batch, chosen, strict=True):
                    assert row[:len(ids[i])].tolist() == kept_channels[i]
                    assert not (pad_to_max_len and row[len(ids[i]):].any())
    for loader in (BucketLoader(review_set), BucketLoader(review_set, 2)):
        shapes = [batch.shape for batch, *_ in loader]
        assert (len(loader), sum(B for B, _ in shapes)) == (len(shapes), 5)
        assert not pad_to_max_len or {T for _, T in shapes} == {max_len}


@pytest.fixture(scope="module")
def review_set():
    """201 reviews of 0 to 199 tokens. The label of review i is i, which identifies it."""
    reviews = random_reviews(np.random.default_rng(0).integers(0, 200, 201), np.arange(201))
    return ReviewSet(reviews, toy_vocab(), 500)


def check_pass(loader):
    """Check that a pass has every review once, padded to the longest of its batch; return the numbers of reviews."""
    passed = list(loader)
    numbers = [labels.int().tolist() for *_, labels in passed]
    assert sorted(sum(numbers, [])) == list(range(201))
    assert [ids.shape[1] for ids, _ in passed] == [max([1, *loader.dataset.lengths[batch]]) for batch in numbers]
    return numbers


@pytest.mark.parametrize("batch_size", [1, 32, 300])
def test_training_sees_every_review_once_and_follows_numpys_seed(review_set, batch_size):
    loader = BucketLoader(review_set, batch_size)
    np.random.seed(5)
    first, second = check_pass(loader), check_pass(loader)
    np.random.seed(5)
    assert check_pass(loader) == first != second
    assert sorted(map(len, first))[1:] == [batch_size] * (len(loader) - 1)
    assert len(first) == len(loader)


def test_batches_hold_reviews_of_similar_length(review_set):
    loader = BucketLoader(review_set, 16)
    first, second = check_pass(loader), check_pass(loader)
    longest = [review_set.lengths[batch].max() for batch in first]
    in_file_order = [review_set.lengths[i:i + 16].max() for i in range(0, 192, 16)]
    assert 16 * sum(longest) < 1.2 * review_set.lengths.sum() < 0.75 * 16 * sum(in_file_order)
    assert longest != sorted(longest)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}, "not only another order"


@pytest.mark.parametrize("tokens", [1, 1000, 100_000])
def test_evaluation_fills_its_batches_with_tokens_and_draws_no_random_numbers(review_set, monkeypatch, tokens):
    monkeypatch.setitem(batches.EVALUATION_TOKENS, "cpu", tokens)
    before = np.random.get_state()[1].copy()
    numbers = check_pass(BucketLoader(review_set))
    for batch in numbers:
        longest = max([1, *review_set.lengths[batch]])
        assert len(batch) == 1 or len(batch) * longest <= tokens
        assert (len(batch) + 1) * longest > tokens or batch is numbers[-1]
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_logits_are_in_the_order_of_the_set_and_without_dropout(review_set, batch_size, shape):
    model = torch.nn.Sequential(torch.nn.Embedding(10, 1, padding_idx=1), torch.nn.Dropout(0.5)).train()
    model.forward = lambda ids: torch.nn.Sequential.forward(model, ids).sum(dim=1).reshape(shape)
    logits = predict_logits(model, BucketLoader(review_set, batch_size), "")
    expected = [model[0].weight[ids].sum().item() for _, ids in review_set]
    assert logits.tolist() == pytest.approx(expected, abs=1e-4)
