"""Find, download and read the IMDB archive: its reviews as bytes, packed or extracted."""

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
# SHA-256 over path + NUL + bytes + NUL of the 50,000 labelled reviews, sorted by path. It is the same for the official
# archive, for a repacked one and for an extracted folder.
CONTENT_SHA256 = "cc143339df6a1f848b662a2bdc9f158f636028e69234e58742f821c6b2ab3444"
SAMPLE_NOTICE = ("SAMPLE results, not IMDB: the network was trained and tested on the 312 invented reviews in "
                 "sample_reviews/.")
SAMPLE_DIR = Path(__file__).resolve().parents[2] / "sample_reviews"  # in the layout of the extracted archive
ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
# Reviews and lists of their movies, in any folder. Operating systems add files with other names to archives.
WANTED = re.compile(r"(?:.*/)?((train|test)/(?:(neg|pos|unsup)/[0-9]+_[0-9]+|urls_(?:neg|pos|unsup))\.txt)")
LARGEST = 1_000_000_000  # bytes of all files; the real archive holds a fifth of this


def find_source(data_dir=None):
    """Return the path of the archive or of the extracted folder. Download the archive if there is neither.

    Args:
        data_dir: the archive, the extracted folder, or a folder with one of them (default: `.data`).

    Raises:
        Unreachable: the server does not answer.
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
        raise UserError(f"there is no file {place}; give the path of the archive, or a folder to download it to.")
    download(ARCHIVE_URL, place / ARCHIVE, ARCHIVE_MD5, "md5")
    return place / ARCHIVE


def choose_source(data_dir, sample):
    """Return SAMPLE_DIR if `sample` is true; else IMDB; else, if IMDB is unavailable, SAMPLE_DIR with a notice.

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
    """Yield (name, size, function that returns the bytes) for each file of a zip, a tar or a gzipped tar."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                yield info.filename, info.file_size, lambda info=info: archive.read(info)
        return
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with tarfile.open(path, "r:gz" if is_gzip else "r:") as archive:
        for member in archive:
            archive.members.clear()  # tarfile would keep all headers, which slow down garbage collection
            if member.isfile():
                yield member.name, member.size, lambda member=member: archive.extractfile(member).read()
        archive.fileobj.seek(LARGEST)  # to the end, where gzip compares its checksum


def list_folder(folder, parts):
    """Return the files that `read_files` reads from an extracted folder: a dict from "train/pos/0_9.txt" to a Path."""
    paths = {}
    for part in sorted(parts | {part.split("/")[0] for part in parts}):
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
            if found and (not found[3] or f"{found[2]}/{found[3]}" in parts):
                if found[1] in names:
                    raise ValueError(f"it has two files {found[1]}")
                names.add(found[1])
                yield found[1], read()
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError,
            MemoryError) as error:  # MemoryError if a header claims a huge size
        raise UserError(f"{source} is damaged or not an archive ({str(error) or 'too large'}); download it again from "
                        f"{ARCHIVE_URL}.") from error


def content_digest(files):
    """Return the SHA-256 over path + NUL + bytes + NUL of the labelled reviews, sorted by path."""
    digest = hashlib.sha256()
    for name in sorted(files):
        if "/pos/" in name or "/neg/" in name:
            digest.update(f"aclImdb/{name}\0".encode() + files[name] + b"\0")
    return digest.hexdigest()
