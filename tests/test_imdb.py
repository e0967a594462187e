"""The archive and its reviews, compared with loops over the files; the split; the real archive, if there is one."""

import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from helpers import UserError, imdb
from helpers.imdb import LABELLED, UNLABELLED, read_reviews, select, split_train_val
from helpers.predictor import make_pipeline
from helpers.text import tokenize
from sentiment_analysis import load_imdb_data, parse_args, settings_of
from tests.toy import random_reviews, words_of, write_tar

ALL = LABELLED | UNLABELLED


def same(a, b):
    """Return whether two `Reviews` have the same arrays of the same types."""
    pairs = [(np.asarray(value), np.asarray(getattr(b, name))) for name, value in vars(a).items()]
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("parts", [LABELLED, ALL], ids=["labelled", "all"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_reviews_are_the_files_in_sorted_order(toy_imdb, tmp_path, packed, parts):
    source = write_tar(toy_imdb, tmp_path / "test_pos.tar.gz") if packed else toy_imdb
    reviews = read_reviews(source, parts)
    paths = sorted(path for part in parts for path in (toy_imdb / part).iterdir())
    assert len(reviews.labels) == len(paths) == 30 * len(parts)
    film_of = {}
    for i, path in enumerate(paths):
        part, kind = path.parts[-3:-1]
        number, stars = map(int, re.findall(r"\d+", path.name))
        alone = imdb.make_reviews(*tokenize([path.read_text(encoding="utf-8")]))
        assert words_of(select(reviews, [i])) == words_of(alone)
        assert reviews.labels[i] == {"pos": 1, "neg": 0, "unsup": -1}[kind]
        assert (reviews.stars[i], reviews.test[i]) == (stars, part == "test")
        urls = (toy_imdb / part / f"urls_{kind}.txt").read_text(encoding="utf-8").splitlines()
        film_of.setdefault(urls[number], set()).add(reviews.movies[i])
    assert {len(numbers) for numbers in film_of.values()} == {1}
    assert len(set.union(*film_of.values())) == len(film_of) == 10 * len(parts)


@pytest.mark.parametrize(("altered", "refused"), [("test/neg", [LABELLED, ALL]), ("train/unsup", [ALL])])
def test_altered_reviews_are_not_imdb_and_others_are_cached(toy_imdb, tmp_path, monkeypatch, altered, refused):
    folder = shutil.copytree(toy_imdb, tmp_path / "aclImdb")
    path = next((folder / altered).iterdir())
    path.write_bytes(path.read_bytes() + b" ")
    for parts in (ALL, LABELLED):
        if parts in refused:
            with pytest.raises(UserError, match="unaltered"):
                imdb.load_reviews(folder, tmp_path / "cache", parts)
            assert not (tmp_path / "cache").exists()
        else:
            first = imdb.load_reviews(folder, tmp_path / "cache", parts)
            assert same(first, read_reviews(toy_imdb, parts))
            with monkeypatch.context() as patch:
                patch.setattr(imdb, "read_reviews", None)
                assert same(imdb.load_reviews(folder, tmp_path / "cache", parts), first), "from the cache"


def test_data_dir_is_an_archive_or_a_folder_around_it(toy_data, tmp_path):
    assert imdb.find_source(toy_data) == imdb.find_source(toy_data.parent) == toy_data
    archive = write_tar(toy_data, tmp_path / imdb.ARCHIVE)
    assert imdb.find_source(archive) == imdb.find_source(tmp_path) == archive
    with pytest.raises(UserError, match="missing.*--data-dir"):
        imdb.find_source(tmp_path / "missing")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(UserError, match=f"{archive} cannot be read"):
        read_reviews(archive)


def test_spans_are_cut_from_anywhere_in_the_reviews_that_are_long_enough():
    starts, labels = np.array([0, 4, 10]), np.array([1, 0])
    reviews = imdb.make_reviews(list("abcdefghij"), np.arange(10, dtype=np.int32), starts, labels)
    found = set()
    for seed in range(60):
        (span,) = words_of(imdb.cut_spans(reviews, 5, np.random.default_rng(seed)))
        found.add("".join(span))
    assert found == {"efghi", "fghij"}
    assert imdb.cut_spans(reviews, 5, np.random.default_rng(0)).labels.tolist() == [0]
    assert imdb.cut_spans(reviews, 4, np.random.default_rng(0)).labels.tolist() == [1, 0]


def test_split_shares_no_film_and_follows_numpys_seed():
    chance = np.random.default_rng(0)
    reviews = random_reviews([1] * 3000, chance.integers(-1, 2, 3000))
    reviews = replace(reviews, movies=chance.integers(0, 300, 3000), test=chance.random(3000) < 0.3)
    splits = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        splits.append(split_train_val(reviews, 0.2))
    (is_train, is_valid), again, other = splits
    assert np.array_equal(is_train | is_valid, ~reviews.test & (reviews.labels >= 0))
    assert not (is_train & is_valid).any()
    assert not set(reviews.movies[is_train]) & set(reviews.movies[is_valid])
    share = is_valid.sum() / (is_train | is_valid).sum()
    assert 0.19 < share <= 0.2
    assert np.array_equal(is_valid, again[1])
    assert not np.array_equal(is_valid, other[1])


def test_identity_depends_on_everything_that_is_learned_from():
    reviews, mask = random_reviews([3, 2, 4], [1, 0, 0]), np.array([True, False, False])
    reviews = replace(reviews, movies=np.array([0, 0, 1]), test=np.array([False, True, True]))
    found = [imdb.identity_of(reviews, mask), imdb.identity_of(reviews, ~mask)]
    for name in ("words", "tokens", "starts", "labels", "movies", "test"):
        flipped = np.flip(getattr(reviews, name)).copy()
        found.append(imdb.identity_of(replace(reviews, **{name: flipped}), mask))
    assert len(set(found)) == len(found)
    assert imdb.identity_of(replace(reviews), mask) == found[0]


@pytest.mark.timeout(900)
@pytest.mark.skipif("IMDB_DIR" not in os.environ, reason="no real data: set IMDB_DIR to the archive's folder")
def test_all_of_imdb(tmp_path):
    source = imdb.find_source(os.environ["IMDB_DIR"])
    args = parse_args(["--data-dir", str(source), "--cache-dir", str(tmp_path), "--device", "cpu"])
    data = load_imdb_data(args, make_pipeline(settings_of(args)))  # verifies the labelled reviews
    assert (len(data.train_set), len(data.valid_set), len(data.test_set)) == (20_003, 4_997, 25_000)
    labelled = [data.train_set.labels.sum() + data.valid_set.labels.sum(), data.test_set.labels.sum()]
    assert labelled == [12_500, 12_500]
    assert not set(data.train_set.reviews.movies) & set(data.valid_set.reviews.movies)
    assert np.array_equal(data.test_set.reviews.stars > 5, data.test_set.reviews.labels == 1)
    assert 17_000 < len(data.vocab) < 19_000
    assert data.vocab.vectors.any(dim=1).float().mean() > 0.95
    assert max(ids.shape[1] for ids, _ in data.valid_loader) == 500
    unlabelled = imdb.read_archive(source, UNLABELLED) if source.is_file() else imdb.read_folder(source, UNLABELLED)
    assert imdb.content_digest(unlabelled, ("unsup",)) == imdb.UNLABELLED_SHA256
