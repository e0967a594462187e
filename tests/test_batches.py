"""From tokens to batches, beside plain loops and torchtext: split, vocabulary, word vectors, batches, and logits."""

import hashlib
import itertools
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

from helpers import batches
from helpers.batches import BucketLoader, ReviewSet, add_glove, build_vocab, load_glove, predict_logits, split_by_movie
from helpers.cli import UserError
from helpers.reviews import Reviews, keep


def make_reviews(lengths, labels, words=8):
    """Return reviews of so many random tokens."""
    tokens = np.random.default_rng(0).integers(0, words, sum(lengths)).astype(np.int32)
    none = np.zeros(len(lengths), bool)
    return Reviews([f"w{i}" for i in range(words)], tokens, np.cumsum([0, *lengths]), np.array(labels),
                   np.zeros(len(lengths), int), none, none)


def test_split_by_movie_keeps_films_apart():
    movies = np.random.default_rng(0).integers(0, 300, 3000)
    np.random.seed(1)
    chosen = split_by_movie(movies, 0.2)
    assert not set(movies[chosen]) & set(movies[~chosen])
    assert 0.2 - np.bincount(movies).max() / 3000 <= chosen.mean() <= 0.2
    np.random.seed(1)
    assert np.array_equal(split_by_movie(movies, 0.2), chosen)
    assert not np.array_equal(split_by_movie(movies, 0.2), chosen)


@pytest.mark.parametrize("options", [{}, {"max_size": 5, "min_freq": 2}, {"min_freq": 1}, {"min_freq": 1000}])
def test_vocabulary_is_torchtexts_of_the_chosen_reviews(options):
    """The exercise takes 25,000 words that occur 10 times."""
    reviews = make_reviews([9, 0, 30, 5, 1, 12] * 5, [0] * 30, words=16)
    chosen = np.arange(30) % 4 > 0
    counter = Counter(reviews.words[token] for i in np.flatnonzero(chosen)
                      for token in reviews.tokens[reviews.starts[i]:reviews.starts[i + 1]])
    assert min(counter.values()) < 10 < max(counter.values())
    expected = Vocab(counter, **{"max_size": 25_000, "min_freq": 10} | options)
    vocab = build_vocab(reviews, chosen, **options)
    assert vocab.itos == expected.itos
    assert vocab.stoi == expected.stoi
    assert {word: vocab.freqs[word] for word in vocab.itos[2:]} == {word: counter[word] for word in vocab.itos[2:]}
    assert vocab.stoi["never seen"] == 0


@pytest.mark.parametrize("max_len", [4, 5, 9, 500])
@pytest.mark.parametrize("both_ends", [False, True])
def test_batch_is_the_padded_lists(max_len, both_ends):
    reviews = make_reviews([3, 0, 9, 5, 1, 9], [1, 0, 1, 0, 0, 1])
    reviews.duplicate = np.array([True, False, False, True, True, False])
    vocab = Vocab(Counter({f"w{i}": 20 - i for i in range(5)}))  # w5, w6 and w7 are unknown
    chosen = np.array([True, True, True, False, True, True])
    channels = np.arange(2 * len(reviews.tokens), dtype=np.float16).reshape(-1, 2)
    of_chosen = channels[np.repeat(chosen, np.diff(reviews.starts))]
    plain = ReviewSet(keep(reviews, chosen), vocab, max_len, both_ends)
    beside = ReviewSet(keep(reviews, chosen), vocab, max_len, both_ends, of_chosen)
    rows, channel_rows, labels = [], [], [1, 0, 1, 0, 1]
    for i in np.flatnonzero(chosen):
        places, head = list(range(reviews.starts[i], reviews.starts[i + 1])), max_len // 2 if both_ends else max_len
        if len(places) > max_len:
            places = places[:head] + places[len(places) - (max_len - head):]
        rows.append([vocab.stoi.get(reviews.words[reviews.tokens[place]], 0) for place in places])
        channel_rows.append(channels[places].tolist())
    assert len(plain) == 5
    assert plain.duplicate.tolist() == [True, False, False, True, False]
    for picked in ([0, 1, 2, 3, 4], [4, 0], [2], [1], [3, 3]):
        longest = max(1, *(len(rows[i]) for i in picked), 1)
        for T, with_channels in itertools.product((longest, longest + 2, 2), (False, True)):
            ids, *numbers, targets = (beside if with_channels else plain).batch(torch.tensor(picked), T)
            assert ids.tolist() == [(rows[i] + [1] * T)[:T] for i in picked]
            assert targets.tolist() == [labels[i] for i in picked]
            assert (ids.dtype, targets.dtype, len(numbers)) == (torch.int64, torch.float32, with_channels)
            assert all(of_token[row, :len(rows[i])].tolist() == channel_rows[i][:T] for of_token in numbers
                       for row, i in enumerate(picked))
    assert [(ids.tolist(), label) for ids, label in map(plain.__getitem__, range(5))] == list(
        zip(rows, labels, strict=True))


@pytest.fixture(scope="module")
def review_set():
    """201 reviews of 0 to 199 tokens; the label of review i is i, to know it again."""
    reviews = make_reviews(np.random.default_rng(0).integers(0, 200, 201), np.arange(201))
    return ReviewSet(reviews, Vocab(Counter(reviews.words)), 500)


def epoch(loader):
    return [labels.int().tolist() for _, labels in loader]


@pytest.mark.parametrize("batch_size", [1, 32, 300])
def test_training_sees_every_review_once_and_follows_numpys_seed(review_set, batch_size):
    loader = BucketLoader(review_set, batch_size)
    np.random.seed(5)
    first, second = epoch(loader), epoch(loader)
    for batches_of_epoch in (first, second):
        assert sorted(sum(batches_of_epoch, [])) == list(range(201))
        assert len(batches_of_epoch) == len(loader)
        assert sorted(map(len, batches_of_epoch))[1:] == [batch_size] * (len(loader) - 1)
    assert first != second
    np.random.seed(5)
    plan = loader.plan()
    assert [chosen.tolist() for chosen, _ in plan] == first
    assert [T for _, T in plan] == [max(1, *review_set.lengths[batch]) for batch in first]


@pytest.mark.parametrize("tokens", [1, 1000, 100_000])
def test_evaluation_fills_its_batches_with_tokens_and_draws_nothing(review_set, monkeypatch, tokens):
    monkeypatch.setitem(batches.TOKENS, "cpu", tokens)
    loader, before = BucketLoader(review_set), np.random.get_state()[1:3]
    plan, labels = loader.plan(), epoch(loader)
    assert [chosen.tolist() for chosen, _ in plan] == labels
    assert sorted(sum(labels, [])) == list(range(201))
    assert len(loader) == len(plan)
    for i, (chosen, T) in enumerate(plan):
        assert max(1, *review_set.lengths[chosen.tolist()]) == T
        assert len(chosen) == 1 or len(chosen) * T <= tokens
        assert (len(chosen) + 1) * T > tokens or i == len(plan) - 1
    assert np.random.get_state()[2] == before[1]
    assert np.array_equal(np.random.get_state()[1], before[0])


def test_batches_hold_reviews_of_similar_length(review_set):
    loader = BucketLoader(review_set, 16)
    np.random.seed(5)
    (first, longest), (second, _) = (zip(*loader.plan(), strict=True) for _ in range(2))
    in_file_order = [max(review_set.lengths[i:i + 16]) for i in range(0, 192, 16)]
    assert 16 * sum(longest) < 1.2 * review_set.lengths.sum() < 0.75 * 16 * sum(in_file_order)
    assert list(longest) != sorted(longest)
    first, second = ({frozenset(batch.tolist()) for batch in batches} for batches in (first, second))
    assert first != second, "not only the order differs"


@pytest.mark.parametrize("batch_size", [None, 16])
def test_logits_are_in_the_order_of_the_set(review_set, batch_size):
    model = torch.nn.Sequential(torch.nn.Embedding(10, 1, padding_idx=1), torch.nn.Dropout(0.5))
    model.forward = lambda ids: torch.nn.Sequential.forward(model, ids).sum(dim=1)
    logits = predict_logits(model, BucketLoader(review_set, batch_size), "")
    expected = [model[0].weight[review_set[i][0]].sum().item() for i in range(201)]
    assert logits.tolist() == pytest.approx(expected, abs=1e-4)


def test_glove_of_50_features(tmp_path):
    vocab = Vocab(Counter(["the", "film", "qqqzzzxx", "n't"]))
    assert add_glove(vocab, 50, tmp_path) == pytest.approx(3 / 6)
    words, vectors = load_glove(50, tmp_path)
    assert vectors.shape == (400_000, 50)
    assert list(words[:4]) == ["the", ",", ".", "of"]
    published = [0.418, 0.24968, -0.41242, 0.1217, 0.34527, -0.044457, -0.49688, -0.17862]  # glove.6B.50d.txt, line 1
    assert vocab.vectors[vocab.stoi["the"]][:8].tolist() == pytest.approx(published, abs=1e-6)
    film = list(words).index("film")
    assert vocab.vectors[vocab.stoi["film"]].tolist() == vectors[film].tolist()
    assert not vocab.vectors[[vocab.stoi[word] for word in ("qqqzzzxx", "<unk>", "<pad>")]].any()
    assert vocab.vectors.dtype == torch.float32


def test_glove_of_100_features(server, monkeypatch, tmp_path):
    """Words that a reader of tables takes for marks or gaps stay words; the archive is verified whenever it is read."""
    words = ["the", "été", '"', "film", "null", "nan", "#"]
    values = np.random.default_rng(0).normal(size=(len(words), 100)).astype(np.float32)
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, values, strict=True)]
    with zipfile.ZipFile(tmp_path / "served.zip", "w") as served:
        served.writestr("glove.6B.50d.txt", "the " + "0 " * 50)
        served.writestr("glove.6B.100d.txt", "".join(lines))
    content = server.files["/glove.6B.zip"] = (tmp_path / "served.zip").read_bytes()
    monkeypatch.setattr(batches, "GLOVE_URL", server.url + "/glove.6B.zip")
    monkeypatch.setattr(batches, "GLOVE_SHA256", hashlib.sha256(content).hexdigest())
    for _ in range(2):
        vocab = Vocab(Counter([*words, "unknown"]))
        assert add_glove(vocab, 100, tmp_path / "cache") == pytest.approx(7 / 10)
        expected = dict(zip(words, values.tolist(), strict=True))
        for word in vocab.itos:
            assert vocab.vectors[vocab.stoi[word]].tolist() == pytest.approx(expected.get(word, [0] * 100))
    assert server.asked == ["/glove.6B.zip"]
    server.files["/glove.6B.zip"] += b"x"
    with pytest.raises(UserError, match="glove.6B.zip"):
        load_glove(100, tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())
    (tmp_path / "cache" / "glove.6B.zip").unlink()
    assert load_glove(100, tmp_path / "cache")[0].tolist() == words  # kept beside the archive
    (tmp_path / "elsewhere" / "glove.6B.zip").write_bytes(b"<html>Not Found</html>")
    with pytest.raises(UserError, match="glove.6B.zip is damaged"):
        load_glove(100, tmp_path / "elsewhere")
