"""The reviews: from the IMDB archive to tokens.

The archive is read in one pass, each distinct piece of text is tokenized once, and the result is kept in `.cache/`:
all reviews are one flat array of token numbers.
"""

import functools
import gzip
import hashlib
import importlib.metadata
import json
import tarfile
import zlib
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.cli import Unreachable, UserError
from helpers.files import cached_arrays, download, file_digest

ARCHIVE = "aclImdb_v1.tar.gz"
ARCHIVE_URL = "https://ai.stanford.edu/~amaas/data/sentiment/" + ARCHIVE
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
# SHA-256 over path + NUL + bytes + NUL of the 50,000 labelled reviews in sorted path order: the same for the official
# archive, a repacked one and an extracted folder.
CONTENT_SHA256 = "cc143339df6a1f848b662a2bdc9f158f636028e69234e58742f821c6b2ab3444"
LABELS = {"neg": 0, "pos": 1, "unsup": -1}
LARGEST_ARCHIVE = 1_000_000_000  # bytes, unzipped; the real one has a fifth of that
LONGEST_FILE = 10_000_000  # bytes; the archive's longest text file, a list of movies, has a fifth of that
SAMPLE_DIR = Path(__file__).parents[1] / "sample_reviews"  # in the layout of the extracted archive
CACHE_VERSION = 2  # to be raised with every change of `read_reviews` or `tokenize`


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
    digest: str  # SHA-256 of the labelled reviews, see CONTENT_SHA256


def find_source(data_dir=None):
    """Return the extracted folder or the archive in `data_dir`, or `.data`; download and verify the archive if need be.

    Raises Unreachable if the server does not answer.
    """
    data_dir = data_dir or ".data"
    folder, archive = Path(data_dir, "aclImdb"), Path(data_dir, ARCHIVE)
    if folder.is_dir():
        return folder
    if not archive.exists():
        try:
            download(ARCHIVE_URL, archive, ARCHIVE_MD5, "md5")
        except Unreachable as error:
            raise Unreachable(f"{str(error).rstrip('.')}, or name its folder with --data-dir.") from error
    return archive


def choose_source(data_dir, sample):
    """Return what to train on: the sample if wanted, or IMDB; where that is unavailable, say so and take the sample.

    Raises UserError if the sample is missing, and Unreachable if there is a `data_dir`, for then nothing else will do.
    """
    try:
        if not sample:
            return find_source(data_dir)
        if not SAMPLE_DIR.is_dir():  # as where the exercise's zip was unpacked
            raise UserError(f"{SAMPLE_DIR.name}/ is not beside the program; copy it there from the repository.")
    except Unreachable as error:
        if data_dir or not SAMPLE_DIR.is_dir():
            raise
        print(error)
    print(f"SAMPLE: the invented reviews of {SAMPLE_DIR.name}/; the results say nothing about IMDB.")
    return SAMPLE_DIR


def expected_digest(source):
    """Return the `content_digest` that `source` must have: IMDB's, or None for the sample."""
    return None if source == SAMPLE_DIR else CONTENT_SHA256


class LimitedGzip(gzip.GzipFile):
    """A gzip file for tarfile, which would fill the memory with a header of any length, and unzip any bomb."""

    def read(self, size=-1):
        if size > LONGEST_FILE:
            raise tarfile.ReadError(f"a part of it has {size:,} bytes")
        return super().read(size)

    def seek(self, offset, whence=0):
        if offset > LARGEST_ARCHIVE:
            raise tarfile.ReadError(f"more than {LARGEST_ARCHIVE:,} bytes unzipped")
        return super().seek(offset, whence)


def read_files(source, folders):
    """Read the text files of `folders` ("train/pos", ...) and the lists of movies in one pass.

    Args:
        source: an extracted folder, or the archive, which is not unpacked.

    Returns:
        dict from "train/pos/0_9.txt" to the file's bytes, in sorted order.
    """
    wanted = {*folders, *{folder.split("/")[0] for folder in folders}}
    texts = {}
    if Path(source).is_dir():
        for folder in sorted(wanted):
            if not Path(source, folder).is_dir():
                raise UserError(f"{source} has no folder {folder}; extract the archive again.")
            for path in Path(source, folder).glob("*.txt"):
                texts[f"{folder}/{path.name}"] = path.read_bytes()
        return dict(sorted(texts.items()))
    try:
        with LimitedGzip(source) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as archive:
            for member in tqdm(archive, desc="reading the archive", unit=" files", total=100_027, leave=False):
                name = member.name.removeprefix("aclImdb/")
                if member.isfile() and name.rpartition("/")[0] in wanted and name.endswith(".txt"):
                    if member.size > LONGEST_FILE:
                        raise UserError(f"{source} holds a file of {member.size:,} bytes ({name}) and is not the "
                                        "IMDB archive; delete it, and it is downloaded again.")
                    texts[name] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            raise
        raise UserError(f"{source} is damaged ({error}); delete it, and it is downloaded again.") from error
    return dict(sorted(texts.items()))


def content_digest(texts):
    """Return the SHA-256 over path + NUL + bytes + NUL of the labelled reviews in sorted path order."""
    digest = hashlib.sha256()
    for name in sorted(texts):
        if "/pos/" in name or "/neg/" in name:
            digest.update(f"aclImdb/{name}\0".encode(errors="surrogateescape") + texts[name] + b"\0")
    return digest.hexdigest()


@functools.cache
def english_tokenizer():
    """Return spaCy's tokenizer for English, the same as that of its pipeline `en_core_web_sm`."""
    import spacy  # here, because it takes a second, and only a first start needs it

    return spacy.blank("en").tokenizer


def tokenize(texts):
    """Split texts into spaCy's tokens, in lower case; `<br />` and any run of white space separate as one space does.

    spaCy's rules work inside a piece of text between two spaces: each distinct piece is tokenized once and its tokens
    are copied to wherever it stands. 5 of IMDB's 50,000 reviews come out otherwise when each is tokenized by itself:
    spaCy splits a few pieces, such as "shape:)).", differently depending on what it has tokenized before.

    Args:
        texts: list of str.

    Returns:
        words (list of the distinct tokens), tokens (int32) and starts (int64) as in `Reviews`.
    """
    tokenizer = english_tokenizer()
    numbers = {}  # of the distinct pieces, in the order in which they come up
    pieces = [np.array([numbers.setdefault(piece, len(numbers)) for piece in text.replace("<br />", " ").split()],
                       np.int64) for text in tqdm(texts, desc="splitting", unit=" reviews", leave=False, delay=1)]
    distinct = list(numbers)

    # A line break between pieces is a token of its own: it keeps the pieces apart and says where each one ends.
    newline = tokenizer.vocab.strings.add("\n")
    lower = [np.zeros(0, np.uint64)]
    for first in tqdm(range(0, len(distinct), 5000), desc="tokenizing", unit_scale=5000, unit=" pieces", leave=False,
                      delay=1):
        text = "".join(piece + "\n" for piece in distinct[first:first + 5000])
        lower.append(tokenizer(text).to_array("LOWER"))
    lower = np.concatenate(lower)
    is_end = lower == newline
    ends = np.flatnonzero(is_end) - np.arange(len(distinct))  # where each piece's tokens end once the breaks are out
    hashes, tokens = np.unique(lower[~is_end], return_inverse=True)
    words = [tokenizer.vocab.strings[int(code)] for code in hashes]

    # All pieces of all reviews one after the other, each replaced by its tokens.
    piece_starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    piece_lengths = ends - piece_starts
    flat = np.concatenate([np.zeros(0, np.int64), *pieces])
    positions = ranges(piece_starts[flat], piece_lengths[flat])
    token_ends = np.concatenate([[0], np.cumsum(piece_lengths[flat])])
    starts = token_ends[np.cumsum([0, *map(len, pieces)])]
    return words, tokens.astype(np.int32)[positions], starts.astype(np.int64)


def ranges(starts, lengths):
    """Return starts[0], starts[0] + 1, ... (lengths[0] integers), then those of starts[1], and so on."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


def find_duplicates(tokens, starts, test):
    """Return (reviews) bool: whether a review is a test review whose tokens are those of another part's as well."""
    texts = pd.Series([tokens[start:end].tobytes() for start, end in zip(starts[:-1], starts[1:], strict=True)])
    return test & texts.isin(texts[~test]).to_numpy()


def read_reviews(source, unsup=False, digest=None):
    """Read and tokenize an archive or an extracted folder; return `Reviews`.

    Labels are the names of the archive's folders; line i of `train/urls_pos.txt` is the movie of `train/pos/i_*.txt`.

    Args:
        unsup: whether to read the 50,000 unlabelled reviews as well.
        digest: refuse (UserError) anything but the labelled reviews with this `content_digest`.
    """
    folders = ["test/neg", "test/pos", "train/neg", "train/pos"] + ["train/unsup"] * unsup
    texts = read_files(source, folders)
    found_digest = content_digest(texts)
    if digest and digest != found_digest:
        counts = Counter(name.rpartition("/")[0] for name in texts)
        found = ", ".join(f"{counts[folder]:,} in {folder}" for folder in folders)
        raise UserError(f"{source} does not hold the 4 x 12,500 reviews of the Large Movie Review Dataset unaltered "
                        f"(found {found}); delete it, and it is downloaded again.")
    names = [name for name in texts if name.rpartition("/")[0] in folders]
    urls = {folder: texts.get(f"{folder.replace('/', '/urls_')}.txt", b"").splitlines() for folder in folders}
    labels, movies = [], []
    for name in names:
        folder, _, file = name.rpartition("/")
        labels.append(LABELS[folder.partition("/")[2]])
        number = file.partition("_")[0]
        if not number.isdecimal() or int(number) >= len(urls[folder]):
            raise UserError(f"{source}: {name} has no line in the list of movies urls_{folder.partition('/')[2]}.txt; "
                            "extract the archive again.")
        movies.append(urls[folder][int(number)].rstrip(b"/").removesuffix(b"/usercomments"))
    try:
        words, tokens, starts = tokenize([texts[name].decode() for name in names])
    except UnicodeDecodeError as error:
        raise UserError(f"{source} holds a review that is not UTF-8 text; extract the archive again.") from error
    test = np.array([name.startswith("test/") for name in names])
    return Reviews(words, tokens, starts, np.array(labels), pd.factorize(np.array(movies, object))[0], test,
                   find_duplicates(tokens, starts, test), found_digest)


def load_reviews(source, cache_dir, unsup=False, digest=None):
    """Return `read_reviews(...)`, kept in `cache_dir` under a name made of all that determines the result."""
    source = Path(source)
    if source.is_dir():
        listing = sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in source.rglob("*.txt"))
        fingerprint = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    else:
        fingerprint = file_digest(source)
    key = [fingerprint, unsup, digest, CACHE_VERSION, importlib.metadata.version("spacy")]
    parts = cached_arrays(cache_dir, "tokens", key, [field.name for field in fields(Reviews)],
                          lambda: vars(read_reviews(source, unsup, digest)))
    return Reviews(**parts | {"words": list(map(str, parts["words"])), "digest": str(parts["digest"])})


def keep(reviews, chosen):
    """Return the chosen reviews alone, as `Reviews` with the same words."""
    lengths = np.diff(reviews.starts)[chosen]
    return replace(reviews, tokens=reviews.tokens[ranges(reviews.starts[:-1][chosen], lengths)],
                   starts=np.cumsum([0, *lengths]), labels=reviews.labels[chosen], movies=reviews.movies[chosen],
                   test=reviews.test[chosen], duplicate=reviews.duplicate[chosen])
