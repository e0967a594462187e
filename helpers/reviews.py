"""The reviews: from the IMDB archive to tokens, which are kept in `.cache/`.

All reviews are one flat array of token numbers.
"""

import hashlib
import importlib.metadata
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.archive import content_digest, list_folder, read_files
from helpers.cli import UserError
from helpers.files import cached_arrays, file_digest
from helpers.tokens import ranges, tokenize

LABELS = {"neg": 0, "pos": 1, "unsup": -1}
LABELLED = {"test/neg", "test/pos", "train/neg", "train/pos"}  # folders of the archive, "parts"
CACHE_VERSION = 5  # to be raised with every change of `read_reviews`, `plain_text` or `tokenize`


@dataclass
class Reviews:
    """Tokenized reviews: the tokens of review i are `words[t] for t in tokens[starts[i]:starts[i + 1]]`."""

    words: list  # the distinct tokens, lower case
    tokens: np.ndarray  # int32, all reviews one after the other
    starts: np.ndarray  # int64 (number of reviews + 1)
    labels: np.ndarray  # int64: 0 negative, 1 positive, -1 unlabelled
    movies: np.ndarray  # int64: equal numbers are reviews of one movie
    test: np.ndarray  # bool: belongs to the test part
    duplicate: np.ndarray  # bool: a test review whose tokens are also those of a review to train on, labelled or not


def make_reviews(words, tokens, starts, labels=None):
    """Return texts that are not from the archive as `Reviews`; without `labels`, they are unlabelled."""
    number = len(starts) - 1
    nothing = np.zeros(number, bool)
    labels = np.full(number, -1) if labels is None else labels
    return Reviews(words, tokens, starts, labels, np.zeros(number, np.int64), test=nothing, duplicate=nothing)


def find_duplicates(tokens, starts, test):
    """Return (reviews) bool: whether a review is a test review whose tokens are those of another part's as well."""
    texts = pd.Series([tokens[start:end].tobytes() for start, end in zip(starts[:-1], starts[1:], strict=True)])
    return test & texts.isin(texts[~test]).to_numpy()


def read_reviews(source, parts=LABELLED, digest=None):
    """Read and tokenize an archive or an extracted folder; return `Reviews`.

    Labels are the names of the archive's folders; line i of `train/urls_pos.txt` is the movie of `train/pos/i_*.txt`.

    Args:
        parts: set of the folders to read, "train/pos" for example.
        digest: refuse (UserError) anything but the labelled reviews with this `content_digest`.
    """
    files = {}

    def texts():
        for name, content in read_files(source, parts):
            files[name] = content
            if "/urls_" not in name:
                yield content.decode(errors="replace")
        if digest and digest != content_digest(files):
            counts = Counter(name.rpartition("/")[0] for name in files)
            found = ", ".join(f"{counts[part]:,} in {part}" for part in sorted(parts))
            raise UserError(f"{source} does not hold the 4 x 12,500 reviews of the Large Movie Review Dataset "
                            f"unaltered (found {found}); get them anew.")

    words, tokens, starts = tokenize(texts())
    labels, movies, test = [], [], []
    urls = {name: files.pop(name).splitlines() for name in list(files) if "/urls_" in name}
    for name in files:
        part, kind, file = name.split("/")
        number, list_of_movies = int(file.partition("_")[0]), f"{part}/urls_{kind}.txt"
        if number >= len(urls.get(list_of_movies, [])):
            raise UserError(f"{source}: {name} has no line in the list of movies {list_of_movies}; get both anew.")
        labels.append(LABELS[kind])
        movies.append(urls[list_of_movies][number].rstrip(b"/").removesuffix(b"/usercomments"))
        test.append(part == "test")
    test = np.array(test)
    reviews = Reviews(words, tokens, starts, np.array(labels), np.array(movies, object), test,
                      find_duplicates(tokens, starts, test))
    reviews = keep(reviews, np.argsort(list(files)))  # in the order of their names, whatever the archive's is
    return replace(reviews, movies=pd.factorize(reviews.movies)[0])


def load_reviews(source, cache_dir, unsup=False, digest=None):
    """Return the labelled reviews, and the 50,000 unlabelled ones if wanted, by `read_reviews` or from `cache_dir`."""
    parts = LABELLED | {"train/unsup"} if unsup else LABELLED
    if Path(source).is_dir():
        files = list_folder(source, parts)
        stats = [(name, path.stat()) for name, path in files.items()]
        fingerprint = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats]
    else:
        fingerprint = file_digest(source)
    key = [fingerprint, unsup, digest, CACHE_VERSION, importlib.metadata.version("spacy")]
    arrays = cached_arrays(cache_dir, "tokens", key, [field.name for field in fields(Reviews)],
                           lambda: vars(read_reviews(source, parts, digest)))
    return Reviews(**arrays | {"words": list(map(str, arrays["words"]))})


def identity_of(reviews, chosen):
    """Return the SHA-256 of all reviews, and of which were chosen: what names a cache of a result made of them."""
    digest = hashlib.sha256("\0".join(reviews.words).encode())
    for array in (reviews.tokens, reviews.starts, reviews.labels, reviews.movies, chosen):
        digest.update(array)
    return digest.hexdigest()


def keep(reviews, chosen):
    """Return the chosen reviews alone, as `Reviews` with the same words."""
    lengths = np.diff(reviews.starts)[chosen]
    return replace(reviews, tokens=reviews.tokens[ranges(reviews.starts[:-1][chosen], lengths)],
                   starts=np.cumsum([0, *lengths]), labels=reviews.labels[chosen], movies=reviews.movies[chosen],
                   test=reviews.test[chosen], duplicate=reviews.duplicate[chosen])


def cut_spans(reviews, length, generator):
    """Return `length` tokens from a random place in each review that has as many, as `Reviews` with the same words."""
    reviews = keep(reviews, np.diff(reviews.starts) >= length)
    begin = reviews.starts[:-1] + generator.integers(np.diff(reviews.starts) - length + 1)
    lengths = np.full(len(begin), length)
    return replace(reviews, tokens=reviews.tokens[ranges(begin, lengths)], starts=np.cumsum([0, *lengths]))
