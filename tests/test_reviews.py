"""Reading, caching, selecting and splitting reviews; damaged content is refused."""

import hashlib
import itertools
import os
import re
import shutil
import tarfile

import numpy as np
import pytest
from torch.nn import functional as F

from helpers.cli import UserError
from helpers.data import reviews as reviews_module
from helpers.data.archive import CONTENT_SHA256, UNLABELLED_SHA256, content_digest, find_source, read_files
from helpers.data.reviews import LABELLED, UNLABELLED, load_reviews, read_reviews, select, split_by_movie
from models import MyTransformer
from sentiment_analysis import load_imdb_data, make_optimizer
from tests.toy import labelled_digest, spacy_words, words_of, write_archive_folder, write_tar

ALL = LABELLED | UNLABELLED
PARTS = pytest.mark.parametrize("parts", [LABELLED, ALL], ids=["labelled", "all"])


def same(a, b):
    """Return whether two `Reviews` have the same arrays of the same types."""
    pairs = [(np.asarray(value), np.asarray(getattr(b, name))) for name, value in vars(a).items()]
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


def refused(source, digest=None):
    """Check that a source is refused with one sentence that names it, and nothing is cached; return the sentence."""
    cache = source.parent / "cache"
    with pytest.raises(UserError) as caught:
        load_reviews(source, cache, digest=digest)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not cache.exists()
    return str(caught.value)


# Reading


@PARTS
def test_reviews_are_the_files_in_sorted_order_whatever_the_path_and_the_text(tmp_path, parts):
    """Line i of a list of URLs is the film of review i of that folder."""
    folder = tmp_path / "pos" / "neg" / "test" / "unsup" / "aclImdb"
    write_archive_folder(folder)
    next((folder / "train" / "neg").glob("0_*.txt")).write_text("pos /pos/ train/pos positive", encoding="utf-8")
    list_of_films = folder / "train" / "urls_pos.txt"  # the first three lines name one film
    urls = list_of_films.read_text(encoding="utf-8")
    list_of_films.write_text(urls.replace("/usercomments", "", 1).replace("comments", "comments/", 1), encoding="utf-8")
    paths = sorted(path for part in parts for path in (folder / part).iterdir())
    assert len(paths) == 18 * len(parts)
    films, digest = [], hashlib.sha256()
    for path in paths:
        urls = (path.parents[1] / f"urls_{path.parent.name}.txt").read_text(encoding="utf-8").splitlines()
        films.append(re.search(r"tt\d+", urls[int(path.name.split("_")[0])])[0])
        if path.parent.name != "unsup":
            digest.update(f"aclImdb/{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    reviews = read_reviews(folder, parts, digest.hexdigest())
    assert words_of(reviews) == [spacy_words(path.read_text(encoding="utf-8")) for path in paths]
    assert reviews.labels.tolist() == [{"pos": 1, "neg": 0, "unsup": -1}[path.parent.name] for path in paths]
    assert reviews.test.tolist() == ["test" in path.relative_to(folder).parts for path in paths]
    assert set(reviews.movies) == set(range(len(paths) // 3))
    assert len(set(zip(reviews.movies, films, strict=True))) == len(set(films)) == len(paths) // 3
    (folder / "test" / "pos" / "3_0.txt").write_text("one more", encoding="utf-8")
    with pytest.raises(UserError, match="unaltered"):
        read_reviews(folder, parts, digest.hexdigest())


def test_unlabelled_reviews_are_verified_with_the_labelled_ones(toy_folder, monkeypatch):
    digest = hashlib.sha256()
    for path in sorted((toy_folder / "train" / "unsup").iterdir()):
        digest.update(f"aclImdb/train/unsup/{path.name}\0".encode() + path.read_bytes() + b"\0")
    labelled = labelled_digest(toy_folder)
    monkeypatch.setitem(UNLABELLED_SHA256, labelled, digest.hexdigest())
    assert len(read_reviews(toy_folder, ALL, labelled).labels) == 90
    path.write_bytes(path.read_bytes() + b" ")
    assert len(read_reviews(toy_folder, LABELLED, labelled).labels) == 72
    with pytest.raises(UserError, match="unaltered.*18 in train/unsup"):
        read_reviews(toy_folder, ALL, labelled)


def test_order_links_and_odd_names_in_an_archive_do_not_matter(toy_archive):
    repacked, link = toy_archive.with_name("test_pos_unsup.tgz"), tarfile.TarInfo("aclImdb/train/pos/0_10.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    others = [link, *map(tarfile.TarInfo, ("aclImdb/train/pos/0\udcff_9.txt", "aclImdb/train/pos/-1_9.txt"))]
    with tarfile.open(toy_archive) as old, tarfile.open(repacked, "w:gz") as new:
        for member in [*reversed(old.getmembers()), *others]:
            new.addfile(member, old.extractfile(member) if member.size else None)
    assert same(read_reviews(repacked, ALL), read_reviews(toy_archive, ALL))


def test_archive_with_two_files_of_a_name_is_refused(toy_archive):
    """Such an archive may hold two copies of the reviews, and one of them may be altered."""
    source = toy_archive.with_name("twice.tar")
    with tarfile.open(toy_archive) as old, tarfile.open(source, "w") as new:
        members = [member for member in old if "/neg/" in member.name and member.isfile()]
        for member in [*members, members[3]]:
            new.addfile(member, old.extractfile(member))
    assert members[3].name.removeprefix("aclImdb/") in refused(source)


@pytest.mark.parametrize(("parts", "expected"), [
    (LABELLED, [["known", "twice"]]), (ALL, [["known", "twice"], ["known", "once"]])], ids=["labelled", "all"])
def test_duplicates_are_test_reviews_with_the_tokens_of_a_review_that_is_not(toy_folder, parts, expected):
    for name, word in {"test/neg/4": "twice", "train/neg/7": "Twice", "test/pos/0": "once", "train/unsup/3": "once",
                       "test/pos/1": "never", "test/pos/2": "never"}.items():
        (path,) = toy_folder.glob(name + "_*.txt")
        path.write_text(f"known {word}", encoding="utf-8")
    reviews = read_reviews(toy_folder, parts)
    duplicates = select(reviews, reviews.duplicate)
    assert words_of(duplicates) == expected
    assert duplicates.test.all()
    for name in ("labels", "movies", "test", "duplicate"):
        assert np.array_equal(getattr(duplicates, name), getattr(reviews, name)[reviews.duplicate])


def test_split_by_movie_keeps_the_reviews_of_a_film_together():
    movies = np.random.default_rng(0).integers(0, 300, 3000)
    np.random.seed(1)
    chosen = split_by_movie(movies, 0.2)
    assert not set(movies[chosen]) & set(movies[~chosen])
    assert 0.2 - np.bincount(movies).max() / 3000 <= chosen.mean() <= 0.2
    np.random.seed(1)
    assert np.array_equal(split_by_movie(movies, 0.2), chosen)
    assert not np.array_equal(split_by_movie(movies, 0.2), chosen)


# The cache


@PARTS
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_second_load_reads_no_review(toy_folder, toy_archive, tmp_path, monkeypatch, parts, packed):
    """Neither a move of the data nor additional files matter."""
    first = load_reviews(toy_archive if packed else toy_folder, tmp_path / "cache", parts)
    assert same(first, read_reviews(toy_folder, parts))
    (toy_folder / "train" / "pos" / ".DS_Store").write_bytes(b"junk")
    moved = shutil.move(toy_archive if packed else toy_folder, tmp_path / "elsewhere")
    monkeypatch.setattr(reviews_module, "read_reviews", None)
    assert same(load_reviews(moved, tmp_path / "cache", parts), first)


def test_cache_follows_the_content(toy_folder, toy_archive, tmp_path):
    """Another text, list of movies, archive, set of parts or digest is not taken from the cache."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    shutil.move(toy_folder / "train", outside)
    (toy_folder / "train").symlink_to(outside)
    before = load_reviews(toy_folder, cache)
    path = next((outside / "pos").iterdir())
    times = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("e", "x"), encoding="utf-8")  # of the same length
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # and with the old time
    assert not same(load_reviews(toy_folder, cache), before)
    (outside / "urls_pos.txt").write_text("http://www.imdb.com/title/tt9999999/usercomments\n" * 18, encoding="utf-8")
    assert len(set(load_reviews(toy_folder, cache).movies[before.labels == 1])) == 7
    changed, packed = load_reviews(toy_folder, cache), load_reviews(toy_archive, cache)
    (toy_folder / "train").unlink()
    shutil.move(outside, toy_folder / "train")
    write_tar(toy_folder, toy_archive)
    assert same(load_reviews(toy_archive, cache), changed)
    assert not same(changed, packed)
    for source in (toy_folder, toy_archive):
        assert len(load_reviews(source, cache, ALL).labels) == 90
        assert len(load_reviews(source, cache).labels) == 72
    with pytest.raises(UserError, match="unaltered"):
        load_reviews(toy_folder, cache, digest="0" * 64)  # the cache holds reviews without verification


# Damaged content


def test_folder_without_all_of_its_parts_is_refused(toy_folder):
    next((toy_folder / "test" / "pos").iterdir()).unlink()
    assert "18 in test/neg, 17 in test/pos" in refused(toy_folder, CONTENT_SHA256)
    (toy_folder / "train" / "neg").rename(toy_folder / "moved")
    assert "train/neg" in refused(toy_folder)


@pytest.mark.parametrize(("name", "content"), [
    ("urls_pos.txt", b"http://www.imdb.com/title/tt1/usercomments\n"), ("urls_pos.txt", b""), ("urls_pos.txt", None),
    ("pos/18_8.txt", b"of no movie")])
def test_incomplete_list_of_movies_is_refused(toy_folder, name, content):
    (toy_folder / "train" / name).write_bytes(content or b"")
    if content is None:
        (toy_folder / "train" / name).unlink()
    refused(toy_folder)


@pytest.mark.skipif("IMDB_DIR" not in os.environ, reason="no real data: set IMDB_DIR to the archive's folder")
def test_all_of_imdb(tmp_path):
    """All 50,000 reviews load, digest and counts are right, and 40 training steps lower the loss."""
    source = find_source(os.environ["IMDB_DIR"])
    train_set, valid_set, test_set, train_loader, valid_loader, _, vocab, pad_id = load_imdb_data(
        source=source, cache_dir=tmp_path)
    assert (len(train_set) + len(valid_set), len(test_set)) == (25_000, 25_000)
    assert test_set.labels.sum() == train_set.labels.sum() + valid_set.labels.sum() == 12_500
    assert len(valid_set) == pytest.approx(5000, abs=50)
    assert test_set.duplicate.sum() == 123
    assert (pad_id, vocab.itos[:2]) == (1, ["<unk>", "<pad>"])
    assert 17_000 < len(vocab) < 19_000
    assert vocab.vectors.shape == (len(vocab), 50)
    assert vocab.vectors.any(dim=1).float().mean() > 0.95
    assert max(ids.shape[1] for ids, _ in valid_loader) == 500

    assert content_digest(dict(read_files(source, UNLABELLED)), ["unsup"]) == UNLABELLED_SHA256[CONTENT_SHA256]
    reviews = load_reviews(source, tmp_path, digest=CONTENT_SHA256)
    lengths = np.diff(reviews.starts)
    assert np.unique(reviews.movies[~reviews.test]).size == 3456
    assert (lengths.mean(), np.median(lengths)) == (pytest.approx(268, abs=1), pytest.approx(201, abs=1))

    model, losses = MyTransformer(vocab, 500, 1), []
    optimizer = make_optimizer(model, lr=1e-3)
    for ids, targets in itertools.islice(train_loader, 40):
        loss = F.binary_cross_entropy_with_logits(model(ids).squeeze(1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[20:]) < sum(losses[:20]) - 0.2
