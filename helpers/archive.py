"""Where the reviews are: the IMDB archive in any packing, or extracted; and its files as bytes."""

import hashlib
import re
import tarfile
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from helpers.cli import Unreachable, UserError
from helpers.files import download

ARCHIVE = "aclImdb_v1.tar.gz"
ARCHIVE_URL = "https://ai.stanford.edu/~amaas/data/sentiment/" + ARCHIVE
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
# SHA-256 over path + NUL + bytes + NUL of the 50,000 labelled reviews in sorted path order: the same for the official
# archive, a repacked one and an extracted folder.
CONTENT_SHA256 = "cc143339df6a1f848b662a2bdc9f158f636028e69234e58742f821c6b2ab3444"
SAMPLE_DIR = Path(__file__).parents[1] / "sample_reviews"  # in the layout of the extracted archive
ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
# The reviews and the lists of their movies, whatever folder they are packed in; systems add files of other names.
WANTED = re.compile(r"(?:.*/)?((train|test)/(?:(neg|pos|unsup)/[0-9]+_[0-9]+|urls_(?:neg|pos|unsup))\.txt)")
LARGEST = 1_000_000_000  # bytes of all files; the real archive has a fifth of that


def find_source(data_dir=None):
    """Return the extracted folder or the archive that `data_dir` is or holds; download the archive if there is none.

    `data_dir` is `.data` unless given. Raises Unreachable if the server does not answer.
    """
    place = Path(data_dir or ".data")
    if place.is_file():
        return place
    for folder in (place, place / "aclImdb", place / "aclImdb" / "aclImdb"):
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return folder
    archives = sorted(path for path in place.glob("aclImdb*") if path.is_file() and path.name.endswith(ENDINGS))
    if archives:
        return archives[0]
    if place.name.endswith(ENDINGS):
        raise UserError(f"{place} is not there; name the archive, or a folder for it.")
    download(ARCHIVE_URL, place / ARCHIVE, ARCHIVE_MD5, "md5")
    return place / ARCHIVE


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


def archive_members(path):
    """Yield (name, size, function that reads the bytes) of each file in a zip, a tar, or a gzipped tar."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                yield info.filename, info.file_size, lambda info=info: archive.read(info)
        return
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with tarfile.open(path, "r:gz" if is_gzip else "r:") as archive:
        for member in archive:
            archive.members.clear()  # or it keeps the headers of all, which the garbage collector goes through again
            if member.isfile():
                yield member.name, member.size, lambda member=member: archive.extractfile(member).read()
        archive.fileobj.seek(LARGEST)  # to the end, where gzip has its checksum


def list_folder(folder, parts):
    """Return the wanted files of an extracted folder, see `read_files`: dict from "train/pos/0_9.txt" to a Path."""
    paths = {}
    for part in sorted(parts | {part.split("/")[0] for part in parts}):
        if not Path(folder, part).is_dir():
            raise UserError(f"{folder} has no folder {part}; extract the archive again.")
        paths |= {f"{part}/{path.name}": path for path in Path(folder, part).iterdir()}
    return {name: path for name, path in sorted(paths.items()) if WANTED.fullmatch(name)}


def read_files(source, parts):
    """Yield name ("train/pos/0_9.txt") and bytes of reviews and lists of movies, in the order in which they are stored.

    Args:
        source: an extracted folder, or an archive, which is not unpacked to the disk.
        parts: set of the folders of reviews to read, "train/pos" for example.
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
            if found and (not found[3] or f"{found[2]}/{found[3]}" in parts):
                if found[1] in names:
                    raise ValueError(f"it has two files {found[1]}")
                names.add(found[1])
                yield found[1], read()
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError,
            MemoryError) as error:  # the last one if a header says that it goes on for ever
        raise UserError(f"{source} is damaged, or not an archive ({str(error) or 'too large'}); get it anew from "
                        f"{ARCHIVE_URL}.") from error


def content_digest(files):
    """Return the SHA-256 over path + NUL + bytes + NUL of the labelled reviews in sorted path order."""
    digest = hashlib.sha256()
    for name in sorted(files):
        if "/pos/" in name or "/neg/" in name:
            digest.update(f"aclImdb/{name}\0".encode() + files[name] + b"\0")
    return digest.hexdigest()
