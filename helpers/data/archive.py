"""Find, download and read the IMDB archive, packed or extracted."""

import hashlib
import re
import tarfile
import zipfile
from pathlib import Path

from tqdm import tqdm

from helpers.cli import Unreachable, UserError
from helpers.downloads import download
from helpers.locks import delete_leftovers

ARCHIVE = "aclImdb_v1.tar.gz"
ARCHIVE_URL = "https://ai.stanford.edu/~amaas/data/sentiment/" + ARCHIVE
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
ARCHIVE_SIZE = 84_125_825  # bytes
DEFAULT_DIR = Path(".data")
# The `content_digest` of the 50,000 labelled reviews. It is the same for the official archive, for a repacked one and
# for an extracted folder.
CONTENT_SHA256 = "cc143339df6a1f848b662a2bdc9f158f636028e69234e58742f821c6b2ab3444"
# The `content_digest` of the unlabelled reviews that belong to these labelled ones.
UNLABELLED_SHA256 = {CONTENT_SHA256: "3bfa5a330331655a513799368dd65b6e08db6e1b261cbd5037b44d5555e3e04d"}
SAMPLE_NOTICE = ("SAMPLE results, not IMDB: the network was trained and tested on the 312 invented reviews in "
                 "sample_reviews/.")
SAMPLE_DIR = Path(__file__).resolve().parents[2] / "sample_reviews"  # in the layout of the extracted archive
# Endings of the names of archives.
READABLE = (".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".tb2", ".tz2", ".xz", ".txz", ".lzma", ".zip")
READABLE_NAMES = ".tar, .tar.gz, .tar.bz2, .tar.xz and .zip"  # what we tell the user
UNREADABLE = (".zst", ".tzst", ".7z", ".rar", ".lz", ".tlz", ".lz4", ".lzo", ".lrz", ".br", ".z", ".cab")
# Not "aclImdb_v1 (1).tar.gz" or "aclImdb_v1.part.tar.gz", which may be incomplete downloads.
PLAIN_NAME = re.compile(r"aclimdb(_v1)?(\.tar)?\.\w+")
# The files that are read: reviews and lists of their movies, in any folder. Operating systems add others to archives.
WANTED = re.compile(r"(?:.*/)?((train|test)/(?:(neg|pos|unsup)/[0-9]+_[0-9]+|urls_(?:neg|pos|unsup))\.txt)")
LARGEST = 1_000_000_000  # bytes of all files; the real archive holds a fifth of this


def find_source(data_dir=None):
    """Return the path of the archive or of the extracted folder. Download the archive if a folder has neither.

    Args:
        data_dir: the archive, the extracted folder, or a folder with one of them (default: DEFAULT_DIR, which is
            created).

    Raises:
        Unreachable: the server does not answer, or the connection ends early.
        UserError: `data_dir` does not exist.
    """
    place = Path(data_dir or DEFAULT_DIR)
    if place.is_file():
        return place
    if place != DEFAULT_DIR and not place.is_dir():
        raise UserError(f"{place} does not exist; give the path of the IMDB archive or of a folder, or leave out "
                        f"--data-dir to download the archive to {DEFAULT_DIR}.")
    delete_leftovers(place)
    for folder in (place, place / "aclImdb", place / "aclImdb" / "aclImdb"):
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return folder
    archive = find_archive(place)
    if archive is None:
        archive = place / ARCHIVE
        download(ARCHIVE_URL, archive, ARCHIVE_MD5, ARCHIVE_SIZE, "md5")
    return archive


def find_archive(folder):
    """Return the path of the archive in `folder`, or None.

    The official name comes first, names of copies such as "aclImdb_v1 (1).tar.gz" come later, and archives that will be
    refused come last.
    """
    def preference(path):
        name = path.name.lower()
        return path.name != ARCHIVE, name.endswith(UNREADABLE), not PLAIN_NAME.fullmatch(name), name

    archives = []
    for path in folder.glob("*"):
        name = path.name.lower()
        if name.startswith("aclimdb") and name.endswith(READABLE + UNREADABLE) and path.is_file():
            archives.append(path)
    return min(archives, key=preference, default=None)


def choose_source(data_dir, sample):
    """Return SAMPLE_DIR if `sample` is true, otherwise the path of IMDB.

    If IMDB is unavailable, print a notice and return SAMPLE_DIR.

    Raises:
        UserError: the sample is missing.
        Unreachable: IMDB cannot be downloaded, and `data_dir` was given or the sample is missing.
    """
    if sample and not SAMPLE_DIR.is_dir():  # the zip that is handed in has no reviews
        raise UserError(f"{SAMPLE_DIR.name}/ is missing from this folder; copy it from the repository.")
    if not sample:
        try:
            source = find_source(data_dir)
            return SAMPLE_DIR if source.resolve() == SAMPLE_DIR else source
        except Unreachable as error:
            if data_dir or not SAMPLE_DIR.is_dir():
                raise
            print(error)
    print(f"Training on the 312 invented reviews in {SAMPLE_DIR.name}/ instead of IMDB.")
    return SAMPLE_DIR


def expected_digest(source):
    """Return the `content_digest` that `source` must have: that of IMDB, or None for the sample."""
    return None if source == SAMPLE_DIR else CONTENT_SHA256


def archive_members(path):
    """Yield (name, size, function that returns the bytes) for each file of a zip or of a tar of any compression."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                yield info.filename, info.file_size, lambda info=info: archive.read(info)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            archive.members.clear()  # tarfile would keep all headers, which slow down garbage collection
            if member.isfile():
                yield member.name, member.size, lambda member=member: archive.extractfile(member).read()
        archive.fileobj.seek(LARGEST)  # to the end, where the checksums of compressed data are compared


def list_folder(folder, parts):
    """Return the files that `read_files` reads from an extracted folder: a dict from "train/pos/0_9.txt" to a Path."""
    paths = {}
    folders_of_lists = {part.split("/")[0] for part in parts}  # "train" and "test" hold the lists of movies
    for part in sorted(parts | folders_of_lists):
        if not Path(folder, part).is_dir():
            raise UserError(f"{folder} has no folder {part}; extract the archive again.")
        paths |= {f"{part}/{path.name}": path for path in Path(folder, part).iterdir()}
    return {name: path for name, path in sorted(paths.items()) if WANTED.fullmatch(name)}


def read_files(source, parts):
    """Yield name ("train/pos/0_9.txt") and bytes of each review in `parts` and of each list of movies.

    Args:
        source: an extracted folder or an archive. An archive is not unpacked to the disk.
        parts: the folders of reviews to read, a set of names such as "train/pos".

    Raises:
        UserError: the archive is damaged.
    """
    if Path(source).is_dir():
        yield from ((name, path.read_bytes()) for name, path in list_folder(source, parts).items())
        return
    names, total = set(), 0
    try:
        for path, size, read in tqdm(archive_members(source), desc="reading the archive", unit=" files", total=100_027,
                                     leave=False):
            total += size
            if total > LARGEST:
                raise ValueError(f"its files have more than {LARGEST:,} bytes")
            found = WANTED.fullmatch(path.replace("\\", "/"))
            if not found:
                continue
            name, folder, kind = found.groups()
            is_list_of_movies = kind is None
            if is_list_of_movies or f"{folder}/{kind}" in parts:
                if name in names:
                    raise ValueError(f"it has two files {name}")
                names.add(name)
                yield name, read()
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # a damaged archive can fail in many ways
        raise UserError(refusal(source, error)) from error


def refusal(source, error):
    """Return the error message for an archive that cannot be read; `error` is the exception from reading it."""
    path = Path(source)
    if path.name.lower().endswith(UNREADABLE):
        return f"{path} cannot be read, only {READABLE_NAMES} can; extract it and give the path of the folder."
    # A MemoryError has no message: a header claims a huge size.
    reason = str(error).partition("\n")[0].rstrip(":") or "too large"
    return f"{path} is damaged or not an archive ({reason}); download it again from {ARCHIVE_URL}."


def content_digest(files, labels=("neg", "pos")):
    """Return the SHA-256 over path + NUL + bytes + NUL of the reviews in the folders `labels`, sorted by path.

    `files` is a dict from names, such as "train/pos/0_9.txt", to bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        if name.split("/")[1] in labels:
            digest.update(f"aclImdb/{name}\0".encode() + files[name] + b"\0")
    return digest.hexdigest()
