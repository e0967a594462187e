"""The tokenized reviews: read from the IMDB archive, kept in the cache, selected and split."""

import hashlib
import importlib.metadata
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cli import UserError
from helpers.data.archive import UNLABELLED_SHA256, content_digest, list_folder, read_files
from helpers.data.tokens import concat_ranges, tokenize
from helpers.files import cached_arrays, file_digest

LABELS = {"neg": 0, "pos": 1, "unsup": -1}
LABELLED = {"test/neg", "test/pos", "train/neg", "train/pos"}  # parts: folders of reviews in the archive
UNLABELLED = {"train/unsup"}
CACHE_VERSION = 6  # raise it with every change to `read_reviews`, `plain_text` or `tokenize`


@dataclass
class Reviews:
    """Tokenized reviews: review i has the tokens `words[t] for t in tokens[starts[i]:starts[i + 1]]`."""

    words: list  # the distinct tokens, in lower case
    tokens: np.ndarray  # int32 (tokens,), all reviews one after the other
    starts: np.ndarray  # int64 (reviews + 1,)
    labels: np.ndarray  # int64 (reviews,): 0 negative, 1 positive, -1 unlabelled
    movies: np.ndarray  # int64 (reviews,): reviews with equal numbers are about the same movie
    test: np.ndarray  # bool (reviews,): whether it is a test review
    duplicate: np.ndarray  # bool (reviews,): a test review with the same tokens as a training or unlabelled review


def make_reviews(words, tokens, starts, labels=None):
    """Return texts that are not from the archive as `Reviews`; without `labels`, they are unlabelled."""
    number = len(starts) - 1
    nothing = np.zeros(number, bool)
    labels = np.full(number, -1) if labels is None else labels
    return Reviews(words, tokens, starts, labels, np.zeros(number, np.int64), test=nothing, duplicate=nothing)


def find_duplicates(tokens, starts, test):
    """Return whether each test review has the same tokens as a review outside the test set: (reviews,) bool."""
    texts = pd.Series([tokens[start:end].tobytes() for start, end in zip(starts[:-1], starts[1:], strict=True)])
    return test & texts.isin(texts[~test]).to_numpy()


def read_reviews(source, parts=LABELLED, digest=None):
    """Read and tokenize an archive or an extracted folder; return `Reviews`, sorted by the names of the files.

    The label of a review is the name of its folder. Line i of `train/urls_pos.txt` is the movie of `train/pos/i_*.txt`.

    Args:
        source: the archive or the folder.
        parts: the folders to read, a set of names such as "train/pos".
        digest: the `content_digest` that the labelled reviews must have, or None. If it is that of IMDB, the
            unlabelled reviews are verified too.

    Raises:
        UserError: the reviews have another digest, or a list of movies is incomplete.
    """
    files = {}  # from name to bytes

    def read_texts():
        for name, content in read_files(source, parts):
            files[name] = content
            if "/urls_" not in name:
                yield content.decode(errors="replace")
        if digest:
            check_content(source, files, parts, digest)

    words, tokens, starts = tokenize(read_texts())
    urls = {name: files.pop(name).splitlines() for name in list(files) if "/urls_" in name}
    names = list(files)
    movies = find_movies(source, names, urls)
    labels = np.array([LABELS[name.split("/")[1]] for name in names])
    test = np.array([name.startswith("test/") for name in names])
    reviews = Reviews(words, tokens, starts, labels, movies, test, find_duplicates(tokens, starts, test))
    reviews = select(reviews, np.argsort(names))  # the result does not depend on the order of the archive
    return replace(reviews, movies=pd.factorize(reviews.movies)[0])


def check_content(source, files, parts, digest):
    """Raise UserError unless the reviews in `files` (a dict from name to bytes) are those that belong to `digest`.

    `digest` is the `content_digest` of the labelled reviews.
    """
    is_right = content_digest(files) == digest
    if is_right and parts >= UNLABELLED and digest in UNLABELLED_SHA256:
        is_right = content_digest(files, ["unsup"]) == UNLABELLED_SHA256[digest]
    if is_right:
        return
    counts = Counter(name.rpartition("/")[0] for name in files)
    found = ", ".join(f"{counts[part]:,} in {part}" for part in sorted(parts))
    raise UserError(f"{source} does not hold the unaltered reviews of the Large Movie Review Dataset, 12,500 in each "
                    f"labelled folder and 50,000 in train/unsup (found {found}); download it again.")


def find_movies(source, names, urls):
    """Return the address of the movie of each review: (reviews,) of bytes.

    Args:
        source: the archive, for the error message.
        names: file names of the reviews, such as "train/pos/0_9.txt".
        urls: the lists of movies, a dict from "train/urls_pos.txt" to lines.
    """
    movies = []
    for name in names:
        part, kind, file = name.split("/")
        number, list_name = int(file.partition("_")[0]), f"{part}/urls_{kind}.txt"
        lines = urls.get(list_name, [])
        if number >= len(lines):
            raise UserError(f"{source}: {name} has no line in {list_name}, the list of movies; download the archive "
                            "again.")
        movies.append(lines[number].rstrip(b"/").removesuffix(b"/usercomments"))
    return np.array(movies, object)


def load_reviews(source, cache_dir, parts=LABELLED, digest=None):
    """Return `read_reviews(source, parts, digest)`, or what an earlier call left in `cache_dir`."""
    if Path(source).is_dir():
        stats = [(name, path.stat()) for name, path in list_folder(source, parts).items()]
        fingerprint = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats]
    else:
        fingerprint = file_digest(source)
    key = [fingerprint, sorted(parts), digest, CACHE_VERSION, importlib.metadata.version("spacy")]
    names = [field.name for field in fields(Reviews)]
    arrays = cached_arrays(cache_dir, "tokens", key, names, lambda: vars(read_reviews(source, parts, digest)))
    return Reviews(**arrays | {"words": list(map(str, arrays["words"]))})


def identity_of(reviews, chosen):
    """Return a digest of all reviews and of `chosen`, a mask (reviews,), for the key of a cache."""
    digest = hashlib.sha256("\0".join(reviews.words).encode())
    for array in (reviews.tokens, reviews.starts, reviews.labels, reviews.movies, chosen):
        digest.update(array)
    return digest.hexdigest()


def select(reviews, chosen):
    """Return the chosen reviews (a mask or indices) as `Reviews` with the same words."""
    lengths = np.diff(reviews.starts)[chosen]
    positions = concat_ranges(reviews.starts[:-1][chosen], lengths)
    of_reviews = {name: getattr(reviews, name)[chosen] for name in ("labels", "movies", "test", "duplicate")}
    return Reviews(reviews.words, reviews.tokens[positions], np.cumsum([0, *lengths]), **of_reviews)


def cut_spans(reviews, length, generator):
    """Return `length` tokens from a random place of each review that is long enough, as `Reviews` with the same words.

    Args:
        reviews: `Reviews`.
        length: tokens of a span.
        generator: a `numpy.random.Generator`.
    """
    reviews = select(reviews, np.diff(reviews.starts) >= length)
    first = reviews.starts[:-1] + generator.integers(np.diff(reviews.starts) - length + 1)
    lengths = np.full(len(first), length)
    return replace(reviews, tokens=reviews.tokens[concat_ranges(first, lengths)], starts=np.cumsum([0, *lengths]))


def split_by_movie(movies, share):
    """Choose random movies (numpy's seed) that have at most `share` of all reviews; return which reviews are theirs.

    Reviews of a movie share names and opinions. If a movie has reviews on both sides of a split, the validation
    accuracy is too high.

    Args:
        movies: (reviews,) number of the movie of each review.
        share: from 0 to 1.
    """
    order = np.random.permutation(movies.max() + 1)
    sizes = np.bincount(movies)[order]
    chosen = order[np.cumsum(sizes) <= share * len(movies)]
    return np.isin(movies, chosen)


def split_at_random(number, share, seed=0):
    """Choose a share of `number` reviews at random, as the hand-out does: (number,) bool."""
    chosen = np.zeros(number, bool)
    chosen[np.random.default_rng(seed).permutation(number)[:int(share * number)]] = True
    return chosen


def split_train_val(reviews, share, at_random=False):
    """Return which reviews are for training and which are for validation: two masks (reviews,).

    Args:
        reviews: `Reviews`.
        share: share of the labelled training reviews that is for validation.
        at_random: split as the hand-out does, not by movie.
    """
    is_labelled = ~reviews.test & (reviews.labels >= 0)
    is_valid = np.zeros_like(is_labelled)
    if at_random:
        is_valid[is_labelled] = split_at_random(is_labelled.sum(), share)
    else:
        is_valid[is_labelled] = split_by_movie(reviews.movies[is_labelled], share)
    return is_labelled & ~is_valid, is_valid
