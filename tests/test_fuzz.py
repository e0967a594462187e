"""Random and hostile texts, archives and models are refused or get the correct answer, and have no other effect.

The suite tries a few of each, and `make fuzz` many more.
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

from helpers.cli import UserError
from helpers.data import archive
from helpers.data.reviews import load_reviews
from tests.toy import refused, train_toy, write_tar

CANARY = Path(tempfile.gettempdir(), f"fuzz-{os.getpid()}")  # appears if code from a file is executed


def numbers(few, many):
    """Set how many to try: few in the suite, many in `make fuzz`."""
    return pytest.mark.parametrize("number", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """The `model.pt` of a bonus network that was trained on the toy data."""
    return train_toy(data, tmp_path_factory.mktemp("runs"), "a", "--preset", "bonus", "--epochs", "4") / "model.pt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder. Nothing may appear in the folders above it."""
    here = tmp_path / "a" / "b" / "c"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    yield here
    assert {*tmp_path.rglob("*")} - {*here.rglob("*")} == {here, here.parent, here.parent.parent}
    assert not CANARY.exists()


class Bomb:
    """An object that executes code when it is unpickled without care."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)


ODD = ["\0", "\n", "\r", "\t", "\x1b[2J", "\x7f", "\x85", "\xa0", "\u00ad", "\u200b", "\u200d", "\u202e", "\u2028",
       "\ufeff", "\ufffd", "\ufffe", "\U000e0001", "\U0010ffff", "e\u0301", "👨\u200d👩\u200d👧", "ﷺ", "İ", "ß",
       "日本語", "א", "１", "½", "<br />", "<br", "<script>", "&amp;", "$x^2$", "%s%n", "{0}", "${HOME}", "`ls`",
       "'; --", "\\", "\\n", "../..", "--", "-1", "--json", "null", "nan", "1e999", "http://a.b/c?d=e", "a@b.c", ":)",
       ": )", ")))", "(((", "...", "''", "can't", "<unk>", "<pad>", "wonderful", "Boring", "film", " ", "  "]


def text(chance):
    """Return random bytes, random characters, or pieces that cause trouble in some programs."""
    length = chance.choice([0, 1, 3, 10, 100, 1000])
    pieces = chance.choices(ODD, k=length // 2 + 1)
    return chance.choice([chance.randbytes(length), bytes(chance.choices(range(128), k=length)),
                          "".join(chr(chance.randrange(1, 0xD800)) for _ in range(length)).encode(),
                          " ".join(pieces).encode(), "".join(pieces).encode()])


def check_answer(line, is_json, content):
    """Check a line that `predict` prints for a text in `content`."""
    assert line.isprintable()
    if is_json:
        answer = json.loads(line)
        assert answer["text"].encode() in content or "\r" in os.fsdecode(content)
    else:
        answer = {"label": line[:8].strip() or None, "probability": float(line[8:15].strip(" %") or 0) / 100}
    if answer["label"] is None:  # there is a note
        assert not answer["probability"]
        return
    assert answer["label"] in ("positive", "negative")
    assert 0.5 <= answer["probability"] <= 1


@numbers(30, 1000)
def test_any_bytes_are_answered_or_refused(call, model, folder, monkeypatch, number):
    chance, endings = random.Random(number), {0: 0, 2: 0}
    for _ in range(number):
        content, source = text(chance), chance.choice(["arguments", "file", "standard input"])
        options = ["--json"] * chance.randrange(2)
        if source == "arguments" and b"\0" not in content:  # no system passes a NUL as an argument
            options += ["--", os.fsdecode(content)]
        elif source == "file":
            Path("texts").write_bytes(content)
            options += ["--file", "texts"]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, out, err = call("predict", "--model", model, *options)
        endings[code] += 1
        if code:
            refused(code, out, err)
            assert not out
            continue
        assert all(line.startswith("note: ") for line in err.splitlines()), content
        assert out.endswith("\n")
        for line in out[:-1].split("\n"):
            check_answer(line, options[:1] == ["--json"], content)
    assert min(endings.values()) > number / 10
    assert {path.name for path in folder.iterdir()} <= {"texts"}


def spoil(chance, content):
    """Truncate the content, overwrite a part of it, or flip some of its bits."""
    kind, place = chance.randrange(3), chance.randrange(len(content))
    if kind == 0:
        return content[:place]
    if kind == 1:
        noise = chance.choice([bytes(1000), chance.randbytes(1000), b"<html>" * 100])
        return content[:place] + noise + content[place + len(noise):]
    content = bytearray(content)
    for _ in range(chance.choice([1, 1, 10, 1000])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def spoil_tar(chance, content):
    """Spoil the tar file in a gzip file, with the correct checksum."""
    return gzip.compress(spoil(chance, gzip.decompress(content)), 1, mtime=0)


def spoil_zip(chance, content):
    """Spoil a zip file with the same members."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar, io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for member in filter(tarfile.TarInfo.isfile, tar):
                archive.writestr(member.name, tar.extractfile(member).read())
        return spoil(chance, file.getvalue())


def strange_member(chance, content):
    """Insert a path that leaves the folder, a link, a device, or another review with the name of one."""
    tar = gzip.decompress(content)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        place = chance.choice(archive.getmembers()).offset
    name = chance.choice(["../../../climbed", str(CANARY), "aclImdb/train/pos/../../../../climbed",
                          "aclImdb/train/pos/0_9.txt", "aclImdb/train/pos/99_9.txt", "aclImdb/test/neg/\udcff_1.txt",
                          "aclImdb/train/pos/0_9.txt/0_9.txt", "aclImdb/train/pos", "aclImdb/train/pos/" + "x" * 5000])
    member = tarfile.TarInfo(name)
    member.type = chance.choice([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
                                 tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE, b"Z"])
    member.linkname = chance.choice(["/etc/passwd", "../../../climbed", "aclImdb/train/pos/0_9.txt", name])
    member.mode, data = 0o7777, b"wonderful".ljust(512, b"\0") if member.isfile() else b""
    member.size = len(data)
    header = member.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")
    return gzip.compress(tar[:place] + header + data + tar[place:], 1, mtime=0)


def written(write):
    """Return the bytes that `write(file)` writes."""
    with io.BytesIO() as file:
        write(file)
        return file.getvalue()


def foreign(chance, content):
    """Return a file of another kind, one that would execute code, or one that unpacks to a huge size."""
    def write_zip(file):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            name = chance.choice(["model/data.pkl", "../../../climbed", str(CANARY), "train/pos/0_9.txt"])
            archive.writestr(name, chance.choice([bytes(10**8), b"x", pickle.dumps(Bomb())]))

    return chance.choice([
        b"", b"<html>404</html>", chance.randbytes(5000), content[::-1], pickle.dumps(Bomb()), written(write_zip),
        gzip.compress(chance.choice([b"", b"x" * 9, bytes(10**7)]), mtime=0),
        written(lambda file: torch.save({"state": Bomb(), "words": ["<unk>", "<pad>"]}, file)),
        written(lambda file: torch.save(Bomb(), file, _use_new_zipfile_serialization=False))])


@numbers(15, 200)
@pytest.mark.filterwarnings("error")
def test_damaged_archive_is_refused_or_read_correctly(data, folder, monkeypatch, number):
    monkeypatch.setattr(archive, "LARGEST", 30_000_000)
    chance, path = random.Random(number), write_tar(data / "aclImdb", folder / archive.ARCHIVE)
    content, intact = path.read_bytes(), load_reviews(path, "intact", digest=archive.CONTENT_SHA256)
    damages, endings = [spoil, spoil_tar, spoil_zip, strange_member, foreign], {"refused": 0, "read": 0}
    for i in range(number):
        path.write_bytes(damages[i % 5](chance, content))
        reviews = None
        with contextlib.suppress(UserError):
            reviews = load_reviews(path, f"cache{i}", digest=archive.CONTENT_SHA256)
        endings["read" if reviews else "refused"] += 1
        assert Path(f"cache{i}").exists() == bool(reviews)
        if reviews:
            assert reviews.words == intact.words
            for name in ("tokens", "starts", "labels", "test"):
                assert np.array_equal(getattr(reviews, name), getattr(intact, name))
    assert min(endings.values()) > 0
    assert {path.name for path in folder.iterdir() if not path.name.startswith("cache")} == {archive.ARCHIVE, "intact"}


NOTHING = object()  # stands for a missing value


def other_content(chance, content):
    """Return a `model.pt` in which one value is replaced or missing."""
    whole = {"saved": torch.load(io.BytesIO(content), weights_only=True)}
    saved, state, settings = whole["saved"], whole["saved"]["state"], whole["saved"]["settings"]
    ngrams = saved["bonus"]["ngrams"]
    name = chance.choice(list(state))
    spoilt = state[name].clone()
    if spoilt.is_floating_point():
        spoilt[0] = chance.choice([math.nan, math.inf])
    part, key, values = chance.choice([
        (whole, "saved", [[], {}, None, 1, "model", torch.zeros(3), {"state": {}}]),
        (saved, chance.choice(list(saved)), [NOTHING, None]),
        (saved, "words", [saved["words"][:-1], [], [1, 2], "words", [*saved["words"], "more"]]),
        (saved, "calibration", [[0.0, 0.0], [math.nan] * 3, "abc", [0, 0, math.inf]]),
        (ngrams, chance.choice(list(ngrams)), [NOTHING, None, [], torch.zeros(3)]),
        (ngrams, "values", [ngrams["values"][1:], ngrams["values"][:, :1]]),
        (settings, "max_len", [10**12, -1, 0, "500", None, 24]),
        (settings, "blocks", [10**9, -1, 0, 2, "1", None, 1.5]),
        (settings, "bonus", [NOTHING, {}, {"regions": False}, {"channels": 3}, 1]),
        (state, "embedding.weight", [torch.zeros(3), torch.zeros(1, 1).expand(10**9, 50), None]),
        (state, name, [NOTHING, spoilt, spoilt[..., :-1]])])
    part[key] = chance.choice(values)
    if part[key] is NOTHING:
        del part[key]
    return written(lambda file: torch.save(whole["saved"], file))


@numbers(15, 200)
def test_damaged_model_is_refused_or_answers_correctly(call, model, folder, number):
    chance, content, endings = random.Random(number), model.read_bytes(), {0: 0, 2: 0}
    _, expected, _ = call("predict", "--model", model, "a wonderful film , but long")
    for i in range(number):
        Path("model.pt").write_bytes([spoil, other_content, foreign][i % 3](chance, content))
        code, out, err = call("predict", "--model", "model.pt", "a wonderful film , but long")
        endings[code] += 1
        if code == 0:
            assert (out, err) == (expected, "")
        else:
            assert "model.pt" in refused(code, out, err)
    assert endings[2] > number / 2
    assert [path.name for path in folder.iterdir()] == ["model.pt"]
