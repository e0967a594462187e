"""Random and hostile texts, archives, models and caches: a refusal or a right answer, and nothing else happens.

The suite tries a few of each; `make fuzz` tries all that the numbers in the marks say.
"""

import contextlib
import gzip
import io
import json
import math
import os
import pickle
import random
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import archive, ngrams
from helpers.cli import UserError
from helpers.reviews import load_reviews
from tests.toy import refused, train_toy, write_tar

CANARY = Path(tempfile.gettempdir(), f"fuzz-{os.getpid()}")  # appears if code from a file is executed


def numbers(few, many):
    """How many to try: a few in the suite, many in `make fuzz`."""
    return pytest.mark.parametrize("number", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """A network with n-gram channels trained on the toy data."""
    return train_toy(data, tmp_path_factory.mktemp("runs"), "a", "--preset", "bonus", "--epochs", "4") / "model.pt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with room around it for what climbs out; nothing else may appear there."""
    here = tmp_path / "a" / "b" / "c"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    yield here
    assert sorted(path for path in tmp_path.rglob("*") if here not in path.parents) == [here.parent.parent, here.parent,
                                                                                        here]
    assert not CANARY.exists()


class Bomb:
    """What executes code when it is unpickled carelessly."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)


ODD = ["\0", "\n", "\r", "\t", "\x1b[2J", "\x7f", "\x85", "\xa0", "\u00ad", "\u200b", "\u200d", "\u202e", "\u2028",
       "\ufeff", "\ufffd", "\ufffe", "\U000e0001", "\U0010ffff", "e\u0301", "👨\u200d👩\u200d👧", "ﷺ", "İ", "ß",
       "日本語", "א", "１", "½", "<br />", "<br", "<script>", "&amp;", "$x^2$", "%s%n", "{0}", "${HOME}", "`ls`",
       "'; --", "\\", "\\n", "../..", "--", "-1", "--json", "null", "nan", "1e999", "http://a.b/c?d=e", "a@b.c", ":)",
       ": )", ")))", "(((", "...", "''", "can't", "<unk>", "<pad>", "wonderful", "Boring", "film", " ", "  "]


def text(chance):
    """Random bytes, random characters, or pieces that have given some program trouble."""
    kind, length = chance.randrange(4), chance.choice([0, 1, 3, 10, 100, 1000])
    if kind == 0:
        return chance.randbytes(length)
    if kind == 1:
        return bytes(chance.choices(range(128), k=length))
    if kind == 2:
        return "".join(chr(chance.randrange(1, 0xD800)) for _ in range(length)).encode()
    return chance.choice([" ", ""]).join(chance.choices(ODD, k=length // 2 + 1)).encode()


@numbers(60, 1000)
def test_any_bytes_are_answered_or_refused(call, model, folder, monkeypatch, number):
    chance = random.Random(number)
    endings = {0: 0, 2: 0}
    for _ in range(number):
        content, way = text(chance), chance.randrange(3)
        options = ["--json"] * chance.randrange(2)
        if way == 0 and b"\0" not in content:  # no system passes a NUL as an argument
            options += ["--", os.fsdecode(content)]
        elif way == 1:
            Path("texts").write_bytes(content)
            options += ["--file", "texts"]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, out, err = call("predict", "--model", model, *options)
        endings[code] += 1
        if code:
            refused(code, out, err)
            assert out == ""
            continue
        assert all(line.startswith("note: ") for line in err.splitlines()), content
        lines = out.split("\n")[:-1]
        assert lines
        for line in lines:
            assert line.isprintable()
            if "--json" in options:
                answer = json.loads(line)
                assert answer["text"].encode() in content or "\r" in os.fsdecode(content)
                assert answer["label"] in ("positive", "negative")
                assert 0.5 <= answer["probability"] <= 1
            else:
                assert line[:8] in ("positive", "negative")
                assert 50 <= float(line[8:15].rstrip("%")) <= 100
    assert min(endings.values()) > number / 10
    assert {path.name for path in folder.iterdir()} <= {"texts"}


def truncate(chance, content):
    return content[:chance.randrange(len(content))]


def flip(chance, content):
    content = bytearray(content)
    for _ in range(chance.choice([1, 1, 10, 1000])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def overwrite(chance, content):
    start = chance.randrange(len(content))
    noise = chance.choice([bytes(1000), chance.randbytes(1000), b"<html>" * 100])
    return content[:start] + noise + content[start + len(noise):]


def inside(damage):
    """Return the same damage to the tar file in the gzip file, whose checksum then fits."""
    return lambda chance, content: gzip.compress(damage(chance, gzip.decompress(content)), 1)


def as_zip(damage):
    """Return the same damage to a zip file of the same members."""
    def damage_zip(chance, content):
        with tarfile.open(fileobj=io.BytesIO(content)) as tar, io.BytesIO() as file:
            with zipfile.ZipFile(file, "w") as archive:
                for member in filter(tarfile.TarInfo.isfile, tar):
                    archive.writestr(member.name, tar.extractfile(member).read())
            return damage(chance, file.getvalue())
    return damage_zip


def insert(chance, content, member, data=b""):
    """Insert the header of a member, and data, before another one's."""
    tar = gzip.decompress(content)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        place = chance.choice(archive.getmembers()).offset
    header = member.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")
    return gzip.compress(tar[:place] + header + data + bytes(-len(data) % 512) + tar[place:], 1)


def strange_member(chance, content):
    """Insert a path that climbs out, a link, a device, or another review of that name."""
    name = chance.choice(["../../../climbed", str(CANARY), "aclImdb/train/pos/../../../../climbed",
                          "aclImdb/train/pos/0_9.txt", "aclImdb/train/pos/99_9.txt", "aclImdb/test/neg/\udcff_1.txt",
                          "aclImdb/train/pos/0_9.txt/0_9.txt", "aclImdb/train/pos", "aclImdb/train/pos/" + "x" * 5000])
    member = tarfile.TarInfo(name)
    member.type = chance.choice([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
                                 tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE, b"Z"])
    member.linkname = chance.choice(["/etc/passwd", "../../../climbed", "aclImdb/train/pos/0_9.txt", name])
    member.mode, data = 0o7777, b"wonderful" if member.isfile() else b""
    member.size = len(data)
    return insert(chance, content, member, data)


def large_member(chance, content):
    """Insert more than the limit: a header that lies about it, or long names and files that are there."""
    member = tarfile.TarInfo(chance.choice(["aclImdb/train/pos/0_9.txt", "aclImdb/imdb.vocab", "x"]))
    member.type = chance.choice([tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
    member.size = chance.choice([4 * 10**7, 10**8, 2**33, 2**60])
    return insert(chance, content, member, bytes(4 * 10**7 * (member.size < 10**8)))


def nonsense(chance, content):
    return chance.choice([b"", b"<html>404</html>", chance.randbytes(5000), gzip.compress(b""), gzip.compress(b"x" * 9),
                          pickle.dumps(Bomb()), gzip.compress(bytes(10_000_000)), content[::-1]])


ARCHIVE_DAMAGES = [truncate, flip, overwrite, inside(truncate), inside(flip), inside(overwrite), as_zip(truncate),
                   as_zip(flip), as_zip(overwrite), strange_member, large_member, nonsense]


@numbers(36, 200)
@pytest.mark.filterwarnings("error")
def test_damaged_archive_is_refused_or_read_right(data, folder, monkeypatch, number):
    monkeypatch.setattr(archive, "LARGEST_ARCHIVE", 30_000_000)
    chance, path = random.Random(number), write_tar(data / "aclImdb", folder / archive.ARCHIVE)
    content, intact = path.read_bytes(), load_reviews(path, "intact", digest=archive.CONTENT_SHA256)
    endings = {"refused": 0, "right": 0}
    for i in range(number):
        path.write_bytes(ARCHIVE_DAMAGES[i % len(ARCHIVE_DAMAGES)](chance, content))
        reviews = None
        with contextlib.suppress(UserError):
            reviews = load_reviews(path, f"cache{i}", digest=archive.CONTENT_SHA256)
        endings["right" if reviews else "refused"] += 1
        assert Path(f"cache{i}").exists() == bool(reviews)
        if reviews:
            assert reviews.words == intact.words
            assert all(np.array_equal(getattr(reviews, name), getattr(intact, name))
                       for name in ("tokens", "starts", "labels", "test"))
    assert min(endings.values()) > 0
    assert {path.name for path in folder.iterdir() if not path.name.startswith("cache")} == {archive.ARCHIVE, "intact"}


def pickled(chance, content):
    """Files that would execute code: a pickle, one in torch's zip file, one in torch's old format."""
    with io.BytesIO() as new, io.BytesIO() as old:
        torch.save({"state": Bomb(), "words": ["<unk>", "<pad>"]}, new)
        torch.save(Bomb(), old, _use_new_zipfile_serialization=False)
        return chance.choice([pickle.dumps(Bomb()), new.getvalue(), old.getvalue()])


def other_content(chance, content):
    """A whole file of torch's, with something else in it."""
    whole = {"saved": torch.load(io.BytesIO(content), weights_only=True)}
    saved, state, settings = whole["saved"], whole["saved"]["state"], whole["saved"]["settings"]
    name = chance.choice(list(state))
    spoilt = state[name].clone()
    spoilt[0] = chance.choice([math.nan, math.inf])
    part, key, values = chance.choice([
        (whole, "saved", [[], {}, None, 1, "model", torch.zeros(3), {"state": {}}]),
        (saved, chance.choice(list(saved)), [...]),
        (saved, "words", [saved["words"][:-1], [], None, [1, 2], "words", [*saved["words"], "more"]]),
        (saved["ngrams"], chance.choice(list(saved["ngrams"])), [None, [], torch.zeros(3)]),
        (settings, "max_len", [10**12, -1, 0, "500", None, 24]),
        (settings, "blocks", [10**9, -1, 0, 2, "1", None, 1.5]),
        (settings, "channels", [0, 1, 10**12, -1]),
        (state, "embedding.weight", [torch.zeros(3), torch.zeros(1, 1).expand(10**9, 50), None]),
        (state, name, [..., spoilt, spoilt[..., :-1]])])
    part[key] = chance.choice(values)
    if part[key] is ...:  # stands for nothing at all
        del part[key]
    with io.BytesIO() as file:
        torch.save(whole["saved"], file)
        return file.getvalue()


def zip_of(chance, content):
    """Zip files that are not torch's, or that unzip to very much."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            name = chance.choice(["model/data.pkl", "../../../climbed", str(CANARY), "words.npy"])
            archive.writestr(name, chance.choice([bytes(10**8), b"x", pickle.dumps(Bomb())]))
        return file.getvalue()


MODEL_DAMAGES = [truncate, flip, overwrite, other_content, pickled, zip_of, other_content, flip, nonsense,
                 other_content]


@numbers(30, 200)
def test_damaged_model_is_refused_or_answers_right(call, model, folder, number):
    chance, content = random.Random(number), model.read_bytes()
    text = "a wonderful film , but long"
    _, expected, _ = call("predict", "--model", model, text)
    endings = {0: 0, 2: 0}
    for i in range(number):
        Path("model.pt").write_bytes(MODEL_DAMAGES[i % len(MODEL_DAMAGES)](chance, content))
        code, out, err = call("predict", "--model", "model.pt", text)
        endings[code] += 1
        assert (out == expected and not err) if code == 0 else "model.pt is not a model" in refused(code, out, err)
    assert endings[2] > number / 2
    assert [path.name for path in folder.iterdir()] == ["model.pt"]


def pickled_arrays(chance, content):
    """An npz file with the right names, and code where the arrays should be."""
    with np.load(io.BytesIO(content)) as arrays, io.BytesIO() as file:
        np.savez(file, **{name: np.array([Bomb()], object) for name in arrays})
        return file.getvalue()


@numbers(14, 50)
@pytest.mark.parametrize("kind", ["tokens", "channels"])
def test_damaged_cache_is_made_again(data, folder, capsys, kind, number):
    def load():
        reviews = load_reviews(data / "aclImdb", "cache")
        channels, table = ngrams.load_channels(reviews, ~reviews.test, "labels", 42, "cache")
        return [reviews.words, reviews.tokens, reviews.starts, reviews.labels, reviews.movies, reviews.test,
                channels, table.words, *table.keys, table.values, table.scale]

    chance, expected = random.Random(number), load()
    (path,) = Path("cache").glob(f"{kind}-*.npz")
    content, said = path.read_bytes(), 0
    damages = [truncate, flip, overwrite, pickled_arrays, pickled, zip_of, nonsense]
    for i in range(number):
        path.write_bytes(damages[i % len(damages)](chance, content))
        for found, value in zip(load(), expected, strict=True):
            assert np.array_equal(found, value)
        said += "is damaged and is made again" in capsys.readouterr().err
    assert said > number / 2
    assert len(list(Path("cache").iterdir())) == 2
