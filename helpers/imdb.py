"""The IMDB reviews: find or download the archive, tokenize it once, select and split the reviews."""

import hashlib
import importlib.metadata
import re
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import UserError
from helpers.files import cached_arrays, download, reading
from helpers.text import concat_ranges, tokenize

ARCHIVE = "aclImdb_v1.tar.gz"
ARCHIVE_URL = "https://ai.stanford.edu/~amaas/data/sentiment/" + ARCHIVE
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
DATA_DIR = ".data"  # where the archive is downloaded
SAMPLE = Path(__file__).resolve().parents[1] / "sample_reviews"  # 312 invented reviews in the layout of the archive
LABELS = {"neg": 0, "pos": 1, "unsup": -1}
LABELLED = {"test/neg", "test/pos", "train/neg", "train/pos"}  # folders of the archive
UNLABELLED = {"train/unsup"}
# The `content_digest` of the 50,000 labelled and of the 50,000 unlabelled reviews.
LABELLED_SHA256 = "cc143339df6a1f848b662a2bdc9f158f636028e69234e58742f821c6b2ab3444"
UNLABELLED_SHA256 = "3bfa5a330331655a513799368dd65b6e08db6e1b261cbd5037b44d5555e3e04d"
# Reviews, named NUMBER_STARS.txt, and the lists of their movies. Operating systems add other files to archives.
WANTED = re.compile(r"((?:train|test)/(?:(?:neg|pos|unsup)/\d+_\d+|urls_(?:neg|pos|unsup))\.txt)$")
CACHE_VERSION = 9  # raise it with every change to `read_reviews`, `plain_text` or `tokenize`


@dataclass
class Reviews:
    """Tokenized reviews: review i has the tokens `words[t] for t in tokens[starts[i]:starts[i + 1]]`."""

    words: list  # the distinct tokens, in lower case
    tokens: np.ndarray  # int32 (tokens,), all reviews one after the other
    starts: np.ndarray  # int64 (reviews + 1,)
    labels: np.ndarray  # int64 (reviews,): 0 negative, 1 positive, -1 unlabelled
    stars: np.ndarray  # int8 (reviews,): 1 to 10, 0 for unlabelled reviews
    movies: np.ndarray  # int64 (reviews,): reviews with equal numbers are about the same movie
    test: np.ndarray  # bool (reviews,): whether it is a test review


def make_reviews(words, tokens, starts, labels=None):
    """Return texts that are not from the archive as `Reviews`; without `labels`, they are unlabelled."""
    zeros = np.zeros(len(starts) - 1, np.int64)
    if labels is None:
        labels = zeros - 1
    return Reviews(words, tokens, starts, labels, zeros.astype(np.int8), zeros, zeros.astype(bool))


def find_source(data_dir):
    """Return the archive or the extracted folder at `data_dir`. Download the archive if a folder has neither."""
    place = Path(data_dir)
    for folder in (place, place / "aclImdb"):
        if (folder / "train").is_dir():
            return folder
    if place.is_file():
        return place
    if not place.is_dir() and data_dir != DATA_DIR:
        raise UserError(f"{place} does not exist; give the path of the IMDB archive, or leave out --data-dir.")
    if not (place / ARCHIVE).exists():
        download(ARCHIVE_URL, place / ARCHIVE, ARCHIVE_MD5, "md5")
    return place / ARCHIVE


def is_sample(source):
    """Return whether a path is the folder of the bundled sample."""
    return Path(source).resolve() == SAMPLE


def read_folder(folder, parts):
    """Return the wanted files of an extracted archive: a dict from names such as "train/pos/0_9.txt" to bytes."""
    files = {}
    for pattern in ("*/urls_*.txt", *(f"{part}/[0-9]*.txt" for part in parts)):
        for path in folder.glob(pattern):
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def read_archive(path, parts):
    """Return the wanted files of an archive, as `read_folder` does."""
    files = {}
    with reading(path, f"download it again from {ARCHIVE_URL}."), tarfile.open(path) as archive:
        for member in tqdm(archive, desc="reading the archive", unit=" files", total=100_027, leave=False):
            found = WANTED.search(member.name)
            if found and (found[1].rpartition("/")[0] in parts or "/urls_" in found[1]):
                files[found[1]] = archive.extractfile(member).read()
    return files


def content_digest(files, labels):
    """Return the SHA-256 over path + NUL + bytes + NUL of the reviews in the folders `labels`, sorted by path."""
    digest = hashlib.sha256()
    for name in sorted(files):
        if name.split("/")[1] in labels:
            digest.update(f"aclImdb/{name}\0".encode() + files[name] + b"\0")
    return digest.hexdigest()


def read_reviews(source, parts=LABELLED):
    """Read, verify and tokenize an archive or an extracted folder; return `Reviews`, sorted by names of files."""
    files = read_folder(source, parts) if source.is_dir() else read_archive(source, parts)
    lists = {name: files[name].splitlines() for name in files if "/urls_" in name}
    is_right = is_sample(source) or content_digest(files, ("neg", "pos")) == LABELLED_SHA256
    if parts >= UNLABELLED:
        is_right = is_right and content_digest(files, ("unsup",)) == UNLABELLED_SHA256
    if not is_right:
        raise UserError(f"{source} does not hold the unaltered reviews of IMDB; download them from {ARCHIVE_URL}.")
    names = sorted(files.keys() - lists.keys())
    labels, stars, movies = [], [], []
    for name in names:
        part, kind, number, rating = re.split("[/_.]", name)[:4]
        labels.append(LABELS[kind])
        stars.append(int(rating))
        line = lists[f"{part}/urls_{kind}.txt"][int(number)]  # line i is the movie of i_*.txt
        movies.append(line.rstrip(b"/").removesuffix(b"/usercomments"))
    words, tokens, starts = tokenize([files[name].decode(errors="replace") for name in names])
    test = np.array([name.startswith("test/") for name in names])
    movie_numbers = pd.factorize(np.array(movies, object))[0]
    return Reviews(words, tokens, starts, np.array(labels), np.array(stars, np.int8), movie_numbers, test)


def load_reviews(source, cache_dir, parts=LABELLED):
    """Return `read_reviews(source, parts)`. IMDB, which never changes, is kept in `cache_dir`."""
    if is_sample(source):
        return read_reviews(source, parts)
    key = [LABELLED_SHA256, UNLABELLED_SHA256, sorted(parts), CACHE_VERSION, importlib.metadata.version("spacy")]
    arrays = cached_arrays(cache_dir, "tokens", key, lambda: vars(read_reviews(source, parts)))
    words = list(map(str, arrays.pop("words")))
    return Reviews(words, **arrays)


def identity_of(reviews, *masks):
    """Return a digest of reviews and of masks (reviews,): the key of a cached result or a checkpoint."""
    digest = hashlib.sha256("\0".join(reviews.words).encode())
    for array in (reviews.tokens, reviews.starts, reviews.labels, reviews.movies, reviews.test, *masks):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def select(reviews, chosen):
    """Return the chosen reviews (a mask or indices) as `Reviews` with the same words."""
    lengths = np.diff(reviews.starts)[chosen]
    positions = concat_ranges(reviews.starts[:-1][chosen], lengths)
    of_reviews = {name: getattr(reviews, name)[chosen] for name in ("labels", "stars", "movies", "test")}
    return Reviews(reviews.words, reviews.tokens[positions], np.cumsum([0, *lengths]), **of_reviews)


def cut_spans(reviews, length, generator):
    """Return `length` tokens from a random place of each review that is long enough, as `Reviews`."""
    reviews = select(reviews, np.diff(reviews.starts) >= length)
    first = reviews.starts[:-1] + generator.integers(np.diff(reviews.starts) - length + 1)
    lengths = np.full(len(first), length)
    return replace(reviews, tokens=reviews.tokens[concat_ranges(first, lengths)], starts=np.cumsum([0, *lengths]))


def split_train_val(reviews, share):
    """Return which reviews are for training and which are for validation: two masks (reviews,).

    The validation reviews are those of random movies (numpy's seed), and at most `share` of the labelled training
    reviews. Reviews of a movie share names and opinions, so a random split gives too high a validation accuracy.
    """
    is_labelled = ~reviews.test & (reviews.labels >= 0)
    movies = reviews.movies[is_labelled]
    order = np.random.permutation(movies.max() + 1)
    sizes = np.bincount(movies, minlength=len(order))[order]
    valid_movies = order[np.cumsum(sizes) <= share * len(movies)]
    is_valid = np.zeros_like(is_labelled)
    is_valid[is_labelled] = np.isin(movies, valid_movies)
    return is_labelled & ~is_valid, is_valid
