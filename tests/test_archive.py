"""The reviews in any packing and any folder: the same reviews are read, and other files do not matter."""

import io
import os
import re
import shutil
import tarfile
import zipfile

import pytest

from helpers import archive
from helpers.archive import content_digest, find_source, read_files
from helpers.cli import UserError
from helpers.reviews import LABELLED, load_reviews

JUNK = ["train/pos/._0_9.txt", "train/pos/.DS_Store", "test/neg/Thumbs.db", "train/pos/0_9 (1).txt",
        "train/pos/notes.txt", "train/neg/desktop.ini", "train/pos/0_9.txt.bak", "train/more/0_9.txt"]


@pytest.fixture
def files(toy_folder):
    return read_files(toy_folder, LABELLED)


def pack(folder, path, root, kind):
    """Pack an extracted folder with its files under `root`, and return the path."""
    members = [(root + str(file.relative_to(folder)), file) for file in sorted(folder.rglob("*")) if file.is_file()]
    path.parent.mkdir(exist_ok=True)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, file in members:
                packed.write(file, name)
    else:
        with tarfile.open(path, kind) as packed:
            for name, file in members:
                packed.add(file, name)
    return path


@pytest.mark.parametrize("root", ["aclImdb/", "./aclImdb/", "data/aclImdb/", "", "./"])
@pytest.mark.parametrize(("kind", "name"), [("w:gz", "aclImdb_v1.tar.gz"), ("w:", "aclImdb_v1.tar"),
                                            ("zip", "aclImdb.zip"), ("w:", "aclImdb_v1.tar.gz"),
                                            ("zip", "aclImdb_v1.tar.gz"), ("w:gz", "aclImdb.tgz")])
def test_any_packing_under_any_of_the_names(toy_folder, files, tmp_path, kind, name, root):
    path = pack(toy_folder, tmp_path / "packed" / name, root, kind)
    assert find_source(path.parent) == find_source(path) == path
    assert read_files(path, LABELLED) == files


@pytest.mark.parametrize("kind", ["w:gz", "zip", "folder"])
def test_files_that_a_system_added_are_ignored(toy_folder, files, tmp_path, kind):
    (toy_folder / "train" / "more").mkdir()
    for name in JUNK:
        (toy_folder / name).write_bytes(b"\0\xff junk")
    source = toy_folder if kind == "folder" else pack(toy_folder, tmp_path / "packed" / "aclImdb", "__MACOSX/x/", kind)
    assert read_files(source, LABELLED) == files
    assert load_reviews(source, tmp_path / "cache", digest=content_digest(files)).digest == content_digest(files)


@pytest.mark.parametrize("inner", ["", "aclImdb", "aclImdb/aclImdb"])
def test_folder_itself_its_parent_and_a_nested_one(toy_folder, tmp_path, inner):
    place = tmp_path / "place"
    (place / inner).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(toy_folder, place / inner, dirs_exist_ok=True)
    assert find_source(place) == place / inner


def test_archive_that_is_named_but_missing_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        find_source(tmp_path / "imdb.tar.gz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["encrypted", "huge", "other"])
def test_zip_that_cannot_be_read_is_refused(toy_folder, tmp_path, monkeypatch, damage):
    path = pack(toy_folder, tmp_path / "packed" / "aclImdb.zip", "", "zip")
    content = bytearray(path.read_bytes())
    if damage == "encrypted":
        for place in re.finditer(b"PK\x01\x02", content):
            content[place.start() + 8] |= 1
    elif damage == "huge":
        monkeypatch.setattr(archive, "LONGEST_FILE", 30)
    else:
        content[100:400] = bytes(300)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged, or not an archive"):
        read_files(path, LABELLED)


@pytest.mark.parametrize("headers", [{"GNU.sparse.size": "1", "GNU.sparse.map": "a,b"},
                                     {"GNU.sparse.size": "x", "GNU.sparse.map": "1,2"}])
def test_tar_with_malformed_headers_is_refused(tmp_path, headers):
    """tarfile raises a bare ValueError for these."""
    member = tarfile.TarInfo("train/pos/0_9.txt")
    member.size, member.pax_headers = 3, headers
    path = tmp_path / "aclImdb.tar"
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as packed:
        packed.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(UserError, match="damaged, or not an archive"):
        read_files(path, LABELLED)


# The cache is keyed on what is read


def test_linked_folder_that_is_altered_is_read_anew(toy_folder, tmp_path):
    """Behind a link to a folder too: another text of the same length, with the old time set back."""
    outside = tmp_path / "outside"
    shutil.move(toy_folder / "train", outside)
    (toy_folder / "train").symlink_to(outside)
    first = load_reviews(toy_folder, tmp_path / "cache")
    path = next((outside / "pos").iterdir())
    before = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("e", "x"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    altered = load_reviews(toy_folder, tmp_path / "cache")
    assert altered.digest != first.digest
    with pytest.raises(UserError, match="unaltered"):
        load_reviews(toy_folder, tmp_path / "cache", digest=first.digest)


def test_cache_does_not_depend_on_where_the_data_lie(toy_folder, tmp_path, monkeypatch):
    load_reviews(toy_folder, tmp_path / "cache")
    moved = shutil.move(toy_folder, tmp_path / "elsewhere")
    monkeypatch.setattr("helpers.reviews.read_reviews", None)  # must not be called again
    load_reviews(moved, tmp_path / "cache")


def test_other_files_do_not_make_the_cache_anew(toy_folder, tmp_path, monkeypatch):
    load_reviews(toy_folder, tmp_path / "cache")
    (toy_folder / "train" / "pos" / ".DS_Store").write_bytes(b"junk")
    monkeypatch.setattr("helpers.reviews.read_reviews", None)
    load_reviews(toy_folder, tmp_path / "cache")
