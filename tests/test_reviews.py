"""The data step beside plain loops: reading, tokens, vocabulary, split, batches, word vectors, cache, and damage."""

import gzip
import hashlib
import io
import os
import ssl
import tarfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch
from conftest import write_archive_folder, write_tar
from torch.nn import functional as F
from torchtext.vocab import Vocab

import imdb
from files import Unreachable, UserError
from models import MyTransformer
from sentiment_analysis import load_imdb_data

FOLDERS = ["test/neg", "test/pos", "train/neg", "train/pos"]
ARRAYS = ["tokens", "starts", "labels", "movies", "test"]
TEXTS = [
    "I didn't like it, I LOVED it!",
    "Great.<br /><br />Awful<br />even(!)<br />",
    "see http://www.imdb.com/title/tt0118694/?ref=fn or mail me@example.com",
    "",
    "   ",
    "odd  spaces\tand\nlines\r\n\r\nand\u00a0hard ones\u2003 too ",
    "naïve café, ÀÉÎ, Straße, İstanbul, Σίσυφος, 日本語の映画 — “quoted” … ‘it’s’",
    "10/10 😀😀 :-) :( <3 ^_^ xD",
    "U.S.A. vs. Mr. and Mrs. O'Neil's e.g. 3.5km $5m 1990s rock'n'roll well-made, so-so... (sic) y'all would've gonna",
    "<b>bold</b> <BR /> <br/> a/b and/or *** ---- ''' \"\"",
    "word " * 50,
]


@pytest.fixture(scope="module")
def spacy_words():
    """A text's tokens from spaCy alone, one text at a time."""
    tokenizer = spacy.blank("en").tokenizer
    return lambda text: [token.text.lower() for token in tokenizer(" ".join(text.replace("<br />", " ").split()))]


@pytest.fixture
def toy(toy_folder, tmp_path):
    return imdb.load_reviews(toy_folder, tmp_path / "cache")


def words_of(reviews, i):
    return [reviews.words[t] for t in reviews.tokens[reviews.starts[i]:reviews.starts[i + 1]]]


def same(a, b):
    return a.words == b.words and a.digest == b.digest and all(
        getattr(a, name).dtype == getattr(b, name).dtype and np.array_equal(getattr(a, name), getattr(b, name))
        for name in ARRAYS)


def refusal(function, *args, **options):
    """The message with which a call refuses: one line."""
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def leftovers(folder):
    return sorted(path.name for path in Path(folder).rglob("*")) if Path(folder).exists() else []


# Reading


@pytest.mark.parametrize("unsup", [False, True])
def test_reviews_are_the_files_in_sorted_order(toy_folder, spacy_words, unsup):
    reviews = imdb.read_reviews(toy_folder, unsup)
    folders = FOLDERS + ["train/unsup"] * unsup
    names = sorted(f"{folder}/{path.name}" for folder in folders for path in (toy_folder / folder).iterdir())
    assert len(reviews.labels) == len(names) == 18 * len(folders)
    for i, name in enumerate(names):
        part, kind, file = name.split("/")
        assert words_of(reviews, i) == spacy_words((toy_folder / name).read_text(encoding="utf-8"))
        assert reviews.labels[i] == {"pos": 1, "neg": 0, "unsup": -1}[kind]
        assert reviews.test[i] == (part == "test")


def test_movies_are_the_lines_of_the_url_lists(toy_folder):
    reviews = imdb.read_reviews(toy_folder, unsup=True)
    names = sorted(f"{folder}/{path.name}" for folder in [*FOLDERS, "train/unsup"]
                   for path in (toy_folder / folder).iterdir())
    film_of = {}
    for movie, name in zip(reviews.movies.tolist(), names, strict=True):
        part, kind, file = name.split("/")
        urls = (toy_folder / part / f"urls_{kind}.txt").read_text(encoding="utf-8").splitlines()
        assert film_of.setdefault(movie, url := urls[int(file.split("_")[0])]) == url
    assert len(set(film_of.values())) == len(film_of) == 30
    assert set(film_of) == set(range(30))


def test_labels_are_folder_names_whatever_the_path_and_the_text(tmp_path):
    folder = tmp_path / "pos" / "neg" / "test" / "unsup" / "aclImdb"
    write_archive_folder(folder)
    next((folder / "train" / "neg").glob("0_*.txt")).write_text("pos /pos/ train/pos positive", encoding="utf-8")
    for source in (folder, write_tar(folder, tmp_path / "neg_pos" / "aclImdb_v1.tar.gz")):
        reviews = imdb.read_reviews(source)
        assert reviews.labels.tolist() == ([0] * 18 + [1] * 18) * 2
        assert reviews.test.tolist() == [True] * 36 + [False] * 36


@pytest.mark.parametrize("unsup", [False, True])
def test_archive_and_folder_agree(toy_folder, toy_archive, unsup):
    assert same(imdb.read_reviews(toy_folder, unsup), imdb.read_reviews(toy_archive, unsup))


def test_order_inside_the_archive_does_not_matter(toy_folder, toy_archive, tmp_path):
    shuffled = tmp_path / "shuffled.tar.gz"
    with tarfile.open(toy_archive) as old, tarfile.open(shuffled, "w:gz") as new:
        for member in reversed(old.getmembers()):
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    assert same(imdb.read_reviews(shuffled), imdb.read_reviews(toy_archive))


def test_digest_is_over_paths_and_bytes_of_the_labelled_reviews(toy_folder):
    digest = hashlib.sha256()
    for path in sorted(str(path.relative_to(toy_folder.parent)) for path in toy_folder.rglob("*.txt")):
        if Path(path).parent.name in ("pos", "neg"):
            digest.update(path.encode() + b"\0" + (toy_folder.parent / path).read_bytes() + b"\0")
    assert imdb.read_reviews(toy_folder).digest == digest.hexdigest()
    assert imdb.read_reviews(toy_folder, unsup=True, expected_digest=digest.hexdigest()).digest == digest.hexdigest()
    (toy_folder / "test" / "pos" / "3_0.txt").write_text("one more", encoding="utf-8")
    assert imdb.read_reviews(toy_folder).digest != digest.hexdigest()


# Tokens


def test_tokens_are_spacys_review_by_review(spacy_words):
    words, tokens, starts = imdb.tokenize(TEXTS)
    assert len(set(words)) == len(words)
    assert len(starts) == len(TEXTS) + 1
    for text, first, end in zip(TEXTS, starts[:-1], starts[1:], strict=True):
        assert [words[token] for token in tokens[first:end]] == spacy_words(text)
    assert tokens.dtype == np.int32
    assert starts[-1] == len(tokens)


def test_white_space_is_never_a_token_and_all_else_is_spacys():
    tokenizer = spacy.blank("en").tokenizer
    words, tokens, _ = imdb.tokenize(TEXTS)
    expected = [token.text.lower() for text in TEXTS for token in tokenizer(text.replace("<br />", " "))
                if not token.is_space]
    assert [words[token] for token in tokens] == expected


@pytest.mark.parametrize("texts", [[], [""], ["", " ", ""]])
def test_no_text_gives_no_tokens(texts):
    words, tokens, starts = imdb.tokenize(texts)
    assert (len(words), len(tokens)) == (0, 0)
    assert starts.tolist() == [0] * (len(texts) + 1)


def test_tokens_do_not_depend_on_the_block_in_which_they_are_cut():
    """Pieces go through spaCy in blocks of thousands; 12,000 distinct ones make three."""
    texts = [f"don't{i} x{i}-y ({i})" for i in range(12_000)]
    words, tokens, starts = imdb.tokenize(texts)
    for i in (0, 1, 1665, 1666, 1667, 4999, 5000, 11_999):
        alone_words, alone, _ = imdb.tokenize(texts[i:i + 1])
        assert [words[t] for t in tokens[starts[i]:starts[i + 1]]] == [alone_words[t] for t in alone]


def test_ranges_are_plain_ranges():
    starts, lengths = np.array([5, 0, 7, 2]), np.array([3, 0, 1, 4])
    expected = [start + i for start, length in zip(starts, lengths, strict=True) for i in range(length)]
    assert imdb.ranges(starts, lengths).tolist() == expected
    assert len(imdb.ranges(starts[:0], lengths[:0])) == 0


# Vocabulary, split, choice


@pytest.mark.parametrize(("max_size", "min_freq"), [(25_000, 1), (25_000, 10), (5, 2), (25_000, 1000)])
def test_vocabulary_is_torchtexts_of_the_chosen_reviews(toy, max_size, min_freq):
    chosen = ~toy.test & (np.arange(len(toy.test)) % 3 > 0)
    counter = Counter(word for i in np.flatnonzero(chosen) for word in words_of(toy, i))
    expected = Vocab(counter, max_size=max_size, min_freq=min_freq)
    vocab = imdb.build_vocab(toy, chosen, max_size, min_freq)
    assert vocab.itos == expected.itos
    assert vocab.stoi == expected.stoi
    assert {word: vocab.freqs[word] for word in vocab.itos[2:]} == {word: counter[word] for word in vocab.itos[2:]}
    assert vocab.itos[:2] == ["<unk>", "<pad>"]
    assert vocab.stoi["never seen"] == 0


def test_exercise_takes_25000_words_that_occur_10_times(toy):
    everything = np.ones(len(toy.test), bool)
    counter = Counter(word for i in range(len(toy.test)) for word in words_of(toy, i))
    assert imdb.build_vocab(toy, everything).itos == Vocab(counter, max_size=25_000, min_freq=10).itos


def test_split_by_movie_keeps_films_apart():
    movies = np.random.default_rng(0).integers(0, 300, 3000)
    np.random.seed(1)
    chosen = imdb.split_by_movie(movies, 0.2)
    assert not set(movies[chosen]) & set(movies[~chosen])
    assert 0.2 - np.bincount(movies).max() / 3000 <= chosen.mean() <= 0.2
    np.random.seed(1)
    assert np.array_equal(imdb.split_by_movie(movies, 0.2), chosen)
    assert not np.array_equal(imdb.split_by_movie(movies, 0.2), chosen)


def test_kept_reviews_are_those_chosen(toy):
    chosen = np.arange(len(toy.labels)) % 3 == 1
    kept = imdb.keep(toy, chosen)
    assert [words_of(kept, i) for i in range(len(kept.labels))] == [words_of(toy, i) for i in np.flatnonzero(chosen)]
    for name in ("labels", "movies", "test"):
        assert np.array_equal(getattr(kept, name), getattr(toy, name)[chosen])


def test_known_are_test_reviews_whose_words_are_to_be_trained_on(toy_folder):
    for name in ("test/pos/0_8.txt", "test/neg/4_2.txt", "train/unsup/3_0.txt", "train/neg/7_1.txt"):
        (path,) = (toy_folder / name).parent.glob(Path(name).name.split("_")[0] + "_*.txt")
        path.write_text("Known " + ("twice" if "neg" in name else "once"), encoding="utf-8")
    reviews = imdb.read_reviews(toy_folder)
    known = imdb.is_known(reviews)
    assert [words_of(reviews, i) for i in np.flatnonzero(known)] == [["known", "twice"]]
    assert reviews.test[known].all()
    assert imdb.is_known(imdb.read_reviews(toy_folder, unsup=True)).sum() == 2


# Batches


@pytest.fixture
def reviews():
    """Six reviews of 0 to 9 tokens."""
    lengths = [3, 0, 9, 5, 1, 9]
    tokens = np.random.default_rng(0).integers(0, 8, sum(lengths)).astype(np.int32)
    return imdb.Reviews([f"w{i}" for i in range(8)], tokens, np.cumsum([0, *lengths]), np.array([1, 0, 1, 0, 0, 1]),
                        np.zeros(6, int), np.zeros(6, bool), "")


@pytest.fixture
def vocab():
    return Vocab(Counter({f"w{i}": 20 - i for i in range(5)}))  # w5, w6 and w7 are unknown


@pytest.mark.parametrize("max_len", [4, 5, 9, 500])
@pytest.mark.parametrize("both_ends", [False, True])
def test_batch_is_the_padded_lists(reviews, vocab, max_len, both_ends):
    chosen = np.array([True, True, True, False, True, True])
    channels = np.arange(2 * len(reviews.tokens), dtype=np.float16).reshape(-1, 2)
    plain = imdb.ReviewSet(reviews, chosen, vocab, max_len, both_ends=both_ends)
    beside = imdb.ReviewSet(reviews, chosen, vocab, max_len, both_ends=both_ends, channels=channels)
    rows, rows_of_channels = [], []
    for i in np.flatnonzero(chosen):
        places = list(range(reviews.starts[i], reviews.starts[i + 1]))
        if len(places) > max_len:
            head = max_len // 2 if both_ends else max_len
            places = places[:head] + places[len(places) - (max_len - head):]
        rows.append([vocab.stoi.get(reviews.words[reviews.tokens[place]], 0) for place in places])
        rows_of_channels.append(channels[places].tolist())
    assert len(plain) == 5
    for picked in ([0, 1, 2, 3, 4], [4, 0], [2], [1], [3, 3]):
        T = max(1, *(len(rows[i]) for i in picked), 1)
        ids, labels = plain.batch(np.array(picked))
        assert ids.tolist() == [rows[i] + [1] * (T - len(rows[i])) for i in picked]
        assert labels.tolist() == [[1.0, 0.0, 1.0, 0.0, 1.0][i] for i in picked]
        assert (ids.dtype, labels.dtype) == (torch.int64, torch.float32)
        ids_beside, numbers, labels_beside = beside.batch(np.array(picked))
        assert ids_beside.equal(ids)
        assert labels_beside.equal(labels)
        assert [numbers[row, :len(rows[i])].tolist() for row, i in enumerate(picked)] == [
            rows_of_channels[i] for i in picked]
    for i, row in enumerate(rows):
        ids, label = plain[i]
        assert ids.tolist() == row
        assert label == [1, 0, 1, 0, 1][i]


@pytest.fixture
def review_set():
    """201 reviews of 1 to 200 tokens; the label of review i is i, to know it again."""
    lengths = np.random.default_rng(0).integers(1, 200, 201)
    tokens = np.zeros(lengths.sum(), np.int32)
    reviews = imdb.Reviews(["w"], tokens, np.cumsum([0, *lengths]), np.arange(201), np.zeros(201, int),
                           np.zeros(201, bool), "")
    return imdb.ReviewSet(reviews, np.ones(201, bool), Vocab(Counter(["w"])), 500)


def epoch(loader):
    return [labels.int().tolist() for _, labels in loader]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 32, 300])
def test_loader_gives_every_review_once(review_set, shuffle, batch_size):
    loader = imdb.BucketLoader(review_set, batch_size, shuffle)
    batches = epoch(loader)
    assert sorted(sum(batches, [])) == list(range(201))
    assert len(batches) == len(loader)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)
    assert sum(batches, []) == loader.order.tolist() or shuffle


def test_shuffled_epochs_differ_and_follow_numpys_seed(review_set):
    loader = imdb.BucketLoader(review_set, 32, shuffle=True)
    np.random.seed(5)
    first, second = epoch(loader), epoch(loader)
    assert first != second
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}, "only the order differs"
    lengths = [review_set.lengths[batch].mean() for batch in first]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))
    np.random.seed(5)
    assert epoch(loader) == first


def test_unshuffled_epochs_are_equal(review_set):
    loader = imdb.BucketLoader(review_set, 32)
    assert epoch(loader) == epoch(loader)


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_hold_reviews_of_similar_length(review_set, shuffle):
    padded = sum(ids.numel() for ids, _ in imdb.BucketLoader(review_set, 16, shuffle))
    in_file_order = sum(16 * max(review_set.lengths[i:i + 16]) for i in range(0, 192, 16))
    assert padded < 1.2 * review_set.lengths.sum() < 0.75 * in_file_order


# Word vectors


def test_glove_of_50_features(tmp_path):
    vocab = Vocab(Counter(["the", "film", "qqqzzzxx", "n't"]))
    share = imdb.add_glove(vocab, 50, tmp_path)
    words, vectors = imdb.load_glove(50, tmp_path)
    assert vectors.shape == (400_000, 50)
    assert list(words[:4]) == ["the", ",", ".", "of"]
    published = [0.418, 0.24968, -0.41242, 0.1217, 0.34527, -0.044457, -0.49688, -0.17862]  # glove.6B.50d.txt, line 1
    assert vocab.vectors[vocab.stoi["the"]][:8].tolist() == pytest.approx(published, abs=1e-6)
    words = list(words)
    for word in ("the", "film", "n't"):
        assert vocab.vectors[vocab.stoi[word]].tolist() == vectors[words.index(word)].tolist()
    for word in ("qqqzzzxx", "<unk>", "<pad>"):
        assert not vocab.vectors[vocab.stoi[word]].any()
    assert vocab.vectors.dtype == torch.float32
    assert share == pytest.approx(3 / 6)


@pytest.mark.parametrize("dim", [0, 51, -50, 500])
def test_unknown_glove_dimension_is_refused(tmp_path, dim):
    assert "50, 100, 200, 300" in refusal(imdb.load_glove, dim, tmp_path)
    assert not leftovers(tmp_path)


@pytest.fixture
def small_glove(server, monkeypatch):
    """A server with a `glove.6B.zip` of three words; returns their vectors."""
    vectors = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float32)
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(["the", "été", "film"], vectors, strict=True)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("glove.6B.50d.txt", "the " + "0 " * 50)
        archive.writestr("glove.6B.100d.txt", "".join(lines))
    server.files["/glove.6B.zip"] = packed.getvalue()
    monkeypatch.setattr(imdb, "GLOVE_URL", server.url + "/glove.6B.zip")
    monkeypatch.setattr(imdb, "GLOVE_SHA256", hashlib.sha256(packed.getvalue()).hexdigest())
    return vectors


def test_glove_of_100_features_through_torchtext(server, small_glove, tmp_path, monkeypatch):
    for _ in range(2):  # the second time from the cache
        vocab = Vocab(Counter(["film", "unknown", "été"]))
        share = imdb.add_glove(vocab, 100, tmp_path)
        assert vocab.vectors[vocab.stoi["film"]].tolist() == pytest.approx(small_glove[2].tolist())
        assert vocab.vectors[vocab.stoi["été"]].tolist() == pytest.approx(small_glove[1].tolist())
        assert not vocab.vectors[vocab.stoi["unknown"]].any()
        assert share == pytest.approx(2 / 5)
    assert server.asked == ["/glove.6B.zip"]
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "what torchtext unpacked must be gone"


def test_glove_leaves_tls_verification_on(small_glove, tmp_path):
    """torchtext 0.6.0 switches it off for the whole process."""
    before = ssl._create_default_https_context
    imdb.load_glove(100, tmp_path)
    assert ssl._create_default_https_context is before
    assert ssl._create_default_https_context().verify_mode == ssl.CERT_REQUIRED


def test_glove_archive_with_a_wrong_digest_is_refused(server, small_glove, tmp_path):
    server.files["/glove.6B.zip"] += b"x"
    refusal(imdb.load_glove, 100, tmp_path)
    assert not leftovers(tmp_path)


def test_damaged_glove_archive_put_there_by_hand_is_refused(small_glove, tmp_path):
    (tmp_path / "glove.6B.zip").write_bytes(b"<html>Not Found</html>")
    refusal(imdb.load_glove, 100, tmp_path)


def test_damaged_glove_cache_is_made_again(small_glove, tmp_path):
    imdb.load_glove(100, tmp_path)
    (cached,) = tmp_path.glob("*.npz")
    cached.write_bytes(cached.read_bytes()[:300])
    assert list(imdb.load_glove(100, tmp_path)[0]) == ["the", "été", "film"]


# The cache


def forbid_reading(monkeypatch):
    def read(*args, **options):
        raise AssertionError("read and tokenized again")
    monkeypatch.setattr(imdb, "read_reviews", read)
    monkeypatch.setattr(imdb, "tokenize", read)
    monkeypatch.setattr(imdb, "read_files", read)


@pytest.mark.parametrize("unsup", [False, True])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_second_load_reads_no_review(toy_folder, toy_archive, tmp_path, monkeypatch, unsup, packed):
    source = toy_archive if packed else toy_folder
    first = imdb.load_reviews(source, tmp_path / "cache", unsup)
    forbid_reading(monkeypatch)
    assert same(imdb.load_reviews(source, tmp_path / "cache", unsup), first)


def test_cache_follows_the_content(toy_folder, toy_archive, tmp_path):
    """Another text, another list of movies, another archive, unlabelled reviews too: each is read anew."""
    cache = tmp_path / "cache"
    before = imdb.load_reviews(toy_folder, cache)
    path = next((toy_folder / "train" / "pos").iterdir())
    path.write_text(path.read_text(encoding="utf-8") + " Changed", encoding="utf-8")
    changed = imdb.load_reviews(toy_folder, cache)
    assert "changed" in changed.words
    assert changed.digest != before.digest
    urls = toy_folder / "train" / "urls_pos.txt"
    urls.write_text("http://www.imdb.com/title/tt9999999/usercomments\n" * 18, encoding="utf-8")
    assert len(set(imdb.load_reviews(toy_folder, cache).movies[before.labels == 1])) == 7
    packed = imdb.load_reviews(toy_archive, cache)
    write_tar(toy_folder, toy_archive)
    assert imdb.load_reviews(toy_archive, cache).digest == changed.digest != packed.digest
    assert len(imdb.load_reviews(toy_folder, cache, unsup=True).labels) == 90
    assert len(imdb.load_reviews(toy_folder, cache).labels) == 72


def test_cached_reviews_are_not_taken_for_verified_ones(toy_folder, tmp_path):
    imdb.load_reviews(toy_folder, tmp_path / "cache")
    refusal(imdb.load_reviews, toy_folder, tmp_path / "cache", expected_digest="0" * 64)


@pytest.fixture
def load_damaged(toy_folder, tmp_path, monkeypatch):
    """A function that loads the reviews with the cache file changed, and says whether it was made again."""
    good = imdb.load_reviews(toy_folder, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    content, made_again = path.read_bytes(), []
    monkeypatch.setattr(imdb, "read_reviews", lambda *args, **options: made_again.append(1) or good)

    def load(change):
        made_again.clear()
        path.write_bytes(change(bytearray(content)))
        assert same(imdb.load_reviews(toy_folder, tmp_path / "cache"), good)
        return bool(made_again)
    load.size = len(content)
    return load


def flip(place):
    def change(content):
        content[place] ^= 0xFF
        return content
    return change


@pytest.mark.parametrize("size", [0, 1, 100, 1000, -1000, -22, -1])
def test_truncated_cache_is_made_again(load_damaged, size, capsys):
    assert load_damaged(lambda content: content[:size])
    assert len(capsys.readouterr().err.strip().splitlines()) >= 1
    assert not load_damaged(lambda content: content)


def test_html_page_in_place_of_the_cache_is_made_again(load_damaged):
    assert load_damaged(lambda content: b"<html>no space left</html>")


def test_cache_with_flipped_bytes_is_made_again(load_damaged):
    """In the middle of each array, where a checksum is all that can tell."""
    assert sum(load_damaged(flip(place)) for place in range(600, load_damaged.size - 800, 97)) > 50


def test_cache_with_flipped_bytes_in_its_headers_is_made_again(load_damaged):
    for place in [*range(600), *range(load_damaged.size - 600, load_damaged.size)]:
        load_damaged(flip(place))


# Damage


def test_no_archive_and_no_leave_to_download(tmp_path):
    message = refusal(imdb.find_source, tmp_path, may_download=False)
    assert imdb.ARCHIVE_URL in message
    assert str(tmp_path) in message


def test_folder_comes_before_archive(toy_folder, toy_archive, server):
    assert imdb.find_source(toy_folder.parent) == toy_folder
    assert imdb.find_source(toy_archive.parent) == toy_archive
    write_archive_folder(toy_archive.parent / "aclImdb")
    assert imdb.find_source(toy_archive.parent) == toy_archive.parent / "aclImdb"


def test_archive_is_downloaded_and_verified(toy_archive, server, monkeypatch, tmp_path):
    content = toy_archive.read_bytes()
    server.files["/aclImdb_v1.tar.gz"] = content
    monkeypatch.setattr(imdb, "ARCHIVE_URL", server.url + "/aclImdb_v1.tar.gz")
    refusal(imdb.find_source, tmp_path / "data")
    assert not leftovers(tmp_path / "data")
    monkeypatch.setattr(imdb, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())
    assert imdb.find_source(tmp_path / "data").read_bytes() == content
    imdb.find_source(tmp_path / "data")
    assert len(server.asked) == 2
    monkeypatch.setattr(imdb, "ARCHIVE_URL", server.url + "/gone.tar.gz")
    with pytest.raises(Unreachable):
        imdb.find_source(tmp_path / "elsewhere")
    assert not leftovers(tmp_path / "elsewhere")


@pytest.mark.parametrize("content", [b"", b"<html><title>404 Not Found</title></html>", b"\x1f\x8b" + b"\0" * 600],
                         ids=["empty", "html", "gzip of nothing"])
def test_something_else_in_the_archives_place_is_refused(tmp_path, content):
    archive = tmp_path / "aclImdb_v1.tar.gz"
    archive.write_bytes(content)
    message = refusal(imdb.load_reviews, archive, tmp_path / "cache", expected_digest=imdb.CONTENT_SHA256)
    assert str(archive) in message
    assert not leftovers(tmp_path / "cache")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_archive_is_refused(toy_archive, tmp_path, share):
    digest = imdb.read_reviews(toy_archive).digest
    content = toy_archive.read_bytes()
    toy_archive.write_bytes(content[:int(share * len(content))])
    message = refusal(imdb.load_reviews, toy_archive, tmp_path / "cache", expected_digest=digest)
    assert str(toy_archive) in message
    assert not leftovers(tmp_path / "cache")


def test_archive_with_flipped_bytes_is_refused_or_unharmed(toy_archive, tmp_path):
    """A byte that belongs to no review, in the README say, may differ."""
    good, content = imdb.read_files(toy_archive, FOLDERS), toy_archive.read_bytes()
    refused = []
    for place in range(20, len(content), 101):
        toy_archive.write_bytes(flip(place)(bytearray(content)))
        try:
            texts = imdb.read_files(toy_archive, FOLDERS)
        except UserError as error:
            refused.append(str(error))
            continue
        if imdb.content_digest(texts) == imdb.content_digest(good):
            assert all(texts[name] == text for name, text in good.items() if "/urls_" not in name)
    assert len(refused) > 10
    assert not [message for message in refused if "\n" in message]


def test_wrong_digest_is_refused_with_the_counts_found(toy_folder, tmp_path):
    next((toy_folder / "test" / "pos").iterdir()).unlink()
    message = refusal(imdb.load_reviews, toy_folder, tmp_path / "cache", expected_digest=imdb.CONTENT_SHA256)
    assert "18 in test/neg, 17 in test/pos" in message
    assert not leftovers(tmp_path / "cache")


def test_folder_without_one_of_its_parts_is_refused(toy_folder, tmp_path):
    for path in (toy_folder / "train" / "neg").iterdir():
        path.unlink()
    (toy_folder / "train" / "neg").rmdir()
    assert "train/neg" in refusal(imdb.load_reviews, toy_folder, tmp_path / "cache")
    assert not leftovers(tmp_path / "cache")


def cut_urls(folder):
    (folder / "train" / "urls_pos.txt").write_text("http://www.imdb.com/title/tt1/usercomments\n", encoding="utf-8")


def remove_urls(folder):
    (folder / "train" / "urls_pos.txt").unlink()


def add_nameless_review(folder):
    (folder / "train" / "pos" / "notes.txt").write_text("not a review", encoding="utf-8")


def add_negative_number(folder):
    (folder / "train" / "pos" / "-1_8.txt").write_text("which line is that", encoding="utf-8")


def spoil_review(folder):
    next((folder / "train" / "pos").iterdir()).write_bytes(b"caf\xe9 au lait")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("damage", [
    cut_urls, remove_urls, add_nameless_review, add_negative_number, spoil_review])
def test_damaged_content_is_refused(toy_folder, tmp_path, damage, packed):
    damage(toy_folder)
    source = write_tar(toy_folder, tmp_path / "packed.tar.gz") if packed else toy_folder
    assert str(source) in refusal(imdb.load_reviews, source, tmp_path / "cache")
    assert not leftovers(tmp_path / "cache")


def test_oversize_member_is_refused_unread(toy_folder, tmp_path):
    with open(toy_folder / "test" / "neg" / "18_1.txt", "wb") as file:
        file.truncate(imdb.LONGEST_FILE + 1)
    source = write_tar(toy_folder, tmp_path / "packed.tar.gz")
    assert "test/neg/18_1.txt" in refusal(imdb.load_reviews, source, tmp_path / "cache")
    assert not leftovers(tmp_path / "cache")


def test_links_in_the_archive_are_not_followed(toy_archive, tmp_path):
    """A repacked archive may hold anything; a link out of it is no review."""
    linked = tmp_path / "linked.tar.gz"
    with tarfile.open(toy_archive) as old, tarfile.open(linked, "w:gz") as new:
        for member in old.getmembers():
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
        link = tarfile.TarInfo("aclImdb/train/pos/0_10.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        new.addfile(link)
    assert same(imdb.read_reviews(linked), imdb.read_reviews(toy_archive))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_header_that_promises_more_than_there_is_does_not_keep_us_busy(toy_archive, tmp_path, kind):
    """tarfile alone would look for the next header 2^60 bytes beyond the end, step by step."""
    member = tarfile.TarInfo("aclImdb/imdb.vocab")
    member.type, member.size = kind, 2**60
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + gzip.decompress(toy_archive.read_bytes()), 1))
    started = time.process_time()
    assert "damaged" in refusal(imdb.load_reviews, damaged, tmp_path / "cache")
    assert time.process_time() - started < 5


def test_zip_bomb_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(imdb, "LARGEST_ARCHIVE", 1_000_000)
    member = tarfile.TarInfo("aclImdb/imdb.vocab")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**40
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(20_000_000), 1))
    assert "more than 1,000,000 bytes" in refusal(imdb.load_reviews, bomb, tmp_path / "cache")


@pytest.mark.parametrize("name", ["0\udcff_9.txt", "\udcff.txt"])
def test_name_that_is_not_utf_8_is_refused(toy_archive, tmp_path, name):
    with tarfile.open(toy_archive) as old, tarfile.open(tmp_path / "new.tar.gz", "w:gz") as new:
        for member in old.getmembers():
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
        new.addfile(tarfile.TarInfo(f"aclImdb/test/neg/{name}"))
    assert "new.tar.gz" in refusal(imdb.load_reviews, tmp_path / "new.tar.gz", tmp_path / "cache")


# All of IMDB


@pytest.mark.skipif("IMDB_DIR" not in os.environ, reason="no real data: set IMDB_DIR to the archive's folder")
def test_all_of_imdb(tmp_path, monkeypatch):
    """All 50,000 reviews load, digest and counts are right, and 20 training steps lower the loss."""
    source = imdb.find_source(os.environ["IMDB_DIR"], may_download=False)
    train_set, valid_set, test_set, train_loader, valid_loader, test_loader, vocab, pad_id = load_imdb_data(
        source, tmp_path)
    assert (len(train_set) + len(valid_set), len(test_set)) == (25_000, 25_000)
    assert test_set.labels.sum() == train_set.labels.sum() + valid_set.labels.sum() == 12_500
    assert len(valid_set) == pytest.approx(5000, abs=50)
    assert test_set.known.sum() == 123
    assert (pad_id, vocab.itos[:2]) == (1, ["<unk>", "<pad>"])
    assert 17_000 < len(vocab) < 19_000
    assert vocab.vectors.shape == (len(vocab), 50)
    assert vocab.vectors.any(dim=1).float().mean() > 0.95
    assert max(ids.shape[1] for ids, _ in valid_loader) == 500

    forbid_reading(monkeypatch)
    reviews = imdb.load_reviews(source, tmp_path, expected_digest=imdb.CONTENT_SHA256)
    assert reviews.digest == "cc143339df6a1f848b662a2bdc9f158f636028e69234e58742f821c6b2ab3444"
    assert np.unique(reviews.movies[~reviews.test]).size == 3456
    lengths = np.diff(reviews.starts)
    assert lengths.mean() == pytest.approx(268, abs=1)
    assert np.median(lengths) == pytest.approx(201, abs=1)

    model = MyTransformer(vocab, 500, 1)
    fixed, labels = valid_set.batch(np.arange(0, len(valid_set), 20))
    with torch.no_grad():
        before = F.binary_cross_entropy_with_logits(model.eval()(fixed).squeeze(1), labels)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    for _, (ids, targets) in zip(range(20), train_loader, strict=False):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model(ids).squeeze(1), targets).backward()
        optimizer.step()
    with torch.no_grad():
        after = F.binary_cross_entropy_with_logits(model.eval()(fixed).squeeze(1), labels)
    assert after < before - 0.01
