"""Any packing of the archive and any place gives the same files; damaged archives are refused."""

import hashlib
import re
import shutil
import tarfile
import zipfile
import zlib
from unittest.mock import Mock

import pytest

from helpers.cli import Unreachable, UserError
from helpers.data import archive
from helpers.data.archive import SAMPLE_DIR, choose_source, expected_digest, find_source, read_files
from helpers.data.reviews import LABELLED

JUNK = ["train/pos/._0_9.txt", "train/pos/.DS_Store", "test/neg/Thumbs.db", "train/pos/0_9 (1).txt",
        "train/pos/notes.txt", "train/neg/desktop.ini", "train/pos/0_9.txt.bak", "train/more/0_9.txt"]


@pytest.fixture
def files(toy_folder):
    return dict(read_files(toy_folder, LABELLED))


def pack(folder, path, root, kind):
    """Pack an extracted folder with its files under `root`, and return the path."""
    path.parent.mkdir(exist_ok=True)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) if kind == "zip" else tarfile.open(path, kind) as packed:
        add = packed.write if kind == "zip" else packed.add
        for file in files:
            add(file, root + str(file.relative_to(folder)))
    return path


@pytest.mark.parametrize("root", ["aclImdb/", "./aclImdb/", "data/aclImdb/", "", "./"])
@pytest.mark.parametrize(("kind", "name"), [("w:gz", "aclImdb_v1.tar.gz"), ("w:", "aclImdb_v1.tar"),
                                            ("zip", "aclImdb.zip"), ("w:", "aclImdb_v1.tar.gz"),
                                            ("zip", "aclImdb_v1.tar.gz"), ("w:gz", "aclImdb.tgz"),
                                            ("w:bz2", "aclImdb_v1.tar.bz2"), ("w:xz", "ACLIMDB_V1.TAR.XZ"),
                                            ("w:xz", "aclImdb.txz"), ("w:bz2", "aclImdb_v1.tar.zst")])
def test_any_packing_with_any_name(toy_folder, files, tmp_path, kind, name, root):
    path = pack(toy_folder, tmp_path / "packed" / name, root, kind)
    assert find_source(path.parent) == find_source(path) == path
    assert dict(read_files(path, LABELLED)) == files


@pytest.mark.parametrize("kind", ["w:gz", "zip", "folder"])
def test_files_added_by_operating_systems_are_ignored(toy_folder, files, tmp_path, kind):
    (toy_folder / "train" / "more").mkdir()
    for name in JUNK:
        (toy_folder / name).write_bytes(b"\0\xff junk")
    source = toy_folder if kind == "folder" else pack(toy_folder, tmp_path / "packed" / "aclImdb", "__MACOSX/x/", kind)
    assert dict(read_files(source, LABELLED)) == files


@pytest.mark.parametrize("inner", ["", "aclImdb", "aclImdb/aclImdb"])
def test_extracted_folder_is_preferred_to_an_archive(toy_folder, tmp_path, inner):
    place = tmp_path / "place"
    shutil.copytree(toy_folder, place / inner)
    pack(toy_folder, place / "aclImdb.zip", "", "zip")
    assert find_source(place) == place / inner


def test_archive_is_downloaded_and_verified(toy_archive, server, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    content = toy_archive.read_bytes()
    server.files["/aclImdb_v1.tar.gz"] = content
    monkeypatch.setattr(archive, "ARCHIVE_URL", server.url + "/aclImdb_v1.tar.gz")
    with pytest.raises(UserError):
        find_source()
    assert not list((tmp_path / ".data").iterdir())
    monkeypatch.setattr(archive, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())
    for _ in range(2):
        assert find_source().read_bytes() == content
    assert len(server.asked) == 2
    assert len(server.asked) == 2


@pytest.mark.parametrize("name", ["imdb.tar.gz", "~", "a/b", "link"])
def test_place_that_does_not_exist_is_refused_and_not_created(monkeypatch, tmp_path, server, name):
    monkeypatch.setattr(archive, "ARCHIVE_URL", server.url)
    (tmp_path / "link").symlink_to("nowhere")
    for choose in (find_source, lambda place: choose_source(place, sample=False)):
        with pytest.raises(UserError, match=f"{name} does not exist.* leave out --data-dir to download") as caught:
            choose(tmp_path / name)
        assert caught.type is UserError
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    assert not server.asked


@pytest.mark.parametrize(("names", "first"), [
    (["aclImdb_v1 (1).tar.gz", "aclImdb_v1.tar.gz", "aclImdb.zip"], "aclImdb_v1.tar.gz"),
    (["aclImdb_v1 (1).tar.gz", "aclImdb_v1.tar"], "aclImdb_v1.tar"),
    (["aclImdb_v1 copy.tar.gz", "aclImdb_v1-2.tar.gz", "aclImdb_v1.tgz"], "aclImdb_v1.tgz"),
    (["aclImdb_v1.part.tar.gz", "aclImdb_v1.2.tar.gz", "aclImdb.tar.gz.tmp.gz", "aclImdb_v1.tz2"], "aclImdb_v1.tz2"),
    (["aclImdb_v1.tar.zst", "aclImdb_v1(1).tar.xz"], "aclImdb_v1(1).tar.xz"),
    (["aclImdb_v1.tar.gz.part", "aclImdb_v1.tar.gz.crdownload", "my.tar.gz", "aclImdb_v1.rar"], "aclImdb_v1.rar")])
def test_official_name_is_preferred_then_names_without_a_mark_of_a_copy(tmp_path, names, first):
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".half-written-0.aclImdb_v1.tar.gz").write_bytes(b"half")
    assert find_source(tmp_path).name == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names), "the leftover is deleted"


def test_sample_is_used_on_request_or_if_imdb_is_unavailable(monkeypatch, tmp_path, capsys, server):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archive, "ARCHIVE_URL", server.url)
    assert choose_source(None, sample=True) == choose_source(None, sample=False) == SAMPLE_DIR
    assert capsys.readouterr().out.count(SAMPLE_DIR.name) == 2
    assert (expected_digest(SAMPLE_DIR), expected_digest(tmp_path)) == (None, archive.CONTENT_SHA256)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(Unreachable, match="elsewhere"):
        choose_source(tmp_path / "elsewhere", sample=False)
    monkeypatch.setattr(archive, "SAMPLE_DIR", tmp_path / "sample_reviews")
    for sample, message in ((True, "sample_reviews"), (False, server.url)):
        with pytest.raises(UserError, match=message):
            choose_source(None, sample)


# Damage


def encrypted(content):
    content = bytearray(content)
    for place in re.finditer(b"PK\x01\x02", content):
        content[place.start() + 8] |= 1
    return content


def header(size=3, kind=tarfile.REGTYPE, **pax_headers):
    """Return a function that returns a tar with only the header of a review."""
    member = tarfile.TarInfo("train/pos/0_9.txt")
    member.size, member.type, member.pax_headers = size, kind, pax_headers
    return lambda content: member.tobuf(tarfile.PAX_FORMAT if pax_headers else tarfile.GNU_FORMAT) + bytes(1024)


def broken_inside(content):
    """Return a gzipped tar with an invalid block of compressed data half a megabyte into a review."""
    compress = zlib.compressobj(wbits=31)
    start = header(10**6)(content)[:512] + bytes(500_000)
    return compress.compress(start) + compress.flush(zlib.Z_FULL_FLUSH) + b"\x07" * 600


@pytest.mark.parametrize("ending", ["tar.zst", "7z", "rar", "tar.lz4", "TAR.Z"])
def test_archive_of_a_kind_that_is_not_read_is_refused_by_name(tmp_path, ending):
    path = tmp_path / f"aclImdb_v1.{ending}"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(5000))
    with pytest.raises(UserError, match=rf"^{path} cannot be read, only .*\.tar\.xz.*extract it[^\n]*$"):
        dict(read_files(find_source(tmp_path), LABELLED))


@pytest.mark.parametrize(("kind", "damage"), [
    ("zip", encrypted), ("zip", lambda content: content[:100] + bytes(300) + content[400:]),
    ("w:gz", lambda content: content[:3000] + bytes(10) + content[3010:]),
    ("w:gz", lambda content: content[:-8] + bytes(8)),  # the checksum alone
    ("w:gz", broken_inside),
    *((kind, lambda content, share=share: content[:int(share * len(content))])
      for kind in ("w:gz", "w:bz2", "w:xz") for share in (0.1, 0.5, 0.9, 0.99)),
    *((kind, lambda content: content[:3000] + bytes(10) + content[3010:]) for kind in ("w:bz2", "w:xz")),
    *(("w:gz", lambda content, other=other: other)
      for other in (b"", b"<html><title>404 Not Found</title></html>", b"\x1f\x8b" + b"\0" * 600)),
    ("w:", header(**{"GNU.sparse.size": "1", "GNU.sparse.map": "a,b"})),
    ("w:", header(**{"GNU.sparse.size": "x", "GNU.sparse.map": "1,2"})),
    *(("w:", header(2**60, kind)) for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE))])
def test_archive_that_cannot_be_read_is_refused(toy_folder, tmp_path, kind, damage):
    path = pack(toy_folder, tmp_path / "packed" / "aclImdb", "", kind)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"^{path} is damaged or not an archive .*[^\n]*$"):
        dict(read_files(path, LABELLED))


def test_too_large_an_archive_is_refused_unread(monkeypatch, tmp_path):
    """Ignored files count too, because skipping them means unpacking them."""
    read = Mock(return_value=b"text")
    members = [("train/pos/0_9.txt", 400_000, read), ("other", 400_000, None), ("train/pos/1_9.txt", 200_001, read)]
    monkeypatch.setattr(archive, "LARGEST", 10**6)
    monkeypatch.setattr(archive, "archive_members", Mock(return_value=members))
    with pytest.raises(UserError, match="more than 1,000,000 bytes"):
        dict(read_files(tmp_path / "bomb", LABELLED))
    assert read.call_count == 1
