"""From the archive to tokens, beside plain loops and spaCy alone: reading, digest, cache, and damaged content."""

import hashlib
import itertools
import os
import shutil
import tarfile

import numpy as np
import pytest
import spacy
from torch.nn import functional as F

from helpers import archive, reviews
from helpers.archive import find_source
from helpers.cli import UserError
from helpers.reviews import LABELLED, keep, load_reviews, read_reviews
from helpers.tokens import plain_text, tokenize
from models import MyTransformer
from sentiment_analysis import Settings, load_imdb_data, make_optimizer
from tests.toy import write_archive_folder, write_tar

SPACY = spacy.blank("en").tokenizer
TEXTS = [
    "I didn't like it, I LOVED it!",
    "Great.<br /><br />Awful<br />even(!)<br />",
    "see http://www.imdb.com/title/tt0118694/?ref=fn or mail me@example.com",
    "odd  spaces\tand\nlines\r\n\r\nand\u00a0hard ones\u2003 too ",
    "naïve café, ÀÉÎ, Straße, İstanbul, Σίσυφος, 日本語の映画 — “quoted” … ‘it’s’",
    "10/10 😀😀 :-) :( <3 ^_^ xD",
    "U.S.A. vs. Mr. and Mrs. O'Neil's e.g. 3.5km $5m 1990s rock'n'roll well-made, so-so... (sic) y'all would've gonna",
    "<b>bold</b> <BR /> <br/> a/b and/or *** ---- ''' \"\"",
    "word " * 50, "", "   ",
]
MANY = [f"don't{i} x{i}-y ({i})" for i in range(4000)]  # 12,000 distinct pieces go through spaCy in three blocks


def spacy_words(text):
    """Return the tokens of a text's plain form from spaCy alone, less those of white space."""
    return [token.text.lower() for token in SPACY(plain_text(text)) if not token.is_space]


def texts_of(words, tokens, starts):
    return [[words[token] for token in tokens[first:end]] for first, end in zip(starts[:-1], starts[1:], strict=True)]


ALL = LABELLED | {"train/unsup"}


def same(a, b):
    return all(np.asarray(value).dtype == np.asarray(getattr(b, name)).dtype and np.array_equal(value, getattr(b, name))
               for name, value in vars(a).items())


def refused(source, digest=None):
    """Return the message with which a source is refused: one line that names it; and see that nothing is kept."""
    cache = source.parent / "cache"
    with pytest.raises(UserError) as caught:
        load_reviews(source, cache, digest=digest)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not cache.exists()
    return str(caught.value)


# Reading


@pytest.mark.parametrize("unsup", [False, True])
def test_reviews_are_the_files_in_sorted_order_whatever_the_path_and_the_text(tmp_path, unsup):
    """Line i of a list of URLs is the film of review i of that folder."""
    folder = tmp_path / "pos" / "neg" / "test" / "unsup" / "aclImdb"
    write_archive_folder(folder)
    next((folder / "train" / "neg").glob("0_*.txt")).write_text("pos /pos/ train/pos positive", encoding="utf-8")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*/*.txt")
                   if unsup or path.parent.name != "unsup")
    places = [name.split("/") for name in names]
    films = [(folder / part / f"urls_{kind}.txt").read_text(encoding="utf-8").splitlines()[int(file.split("_")[0])]
             for part, kind, file in places]
    digest = hashlib.sha256(b"".join(f"aclImdb/{name}\0".encode() + (folder / name).read_bytes() + b"\0"
                                     for name in names if "unsup" not in name)).hexdigest()
    parts = ALL if unsup else LABELLED
    data = read_reviews(folder, parts, digest)
    assert len(names) == (90 if unsup else 72)
    assert texts_of(data.words, data.tokens, data.starts) == [
        spacy_words((folder / name).read_text(encoding="utf-8")) for name in names]
    assert data.labels.tolist() == [{"pos": 1, "neg": 0, "unsup": -1}[kind] for _, kind, _ in places]
    assert data.test.tolist() == [part == "test" for part, _, _ in places]
    assert set(data.movies) == set(range(len(names) // 3))
    assert len(set(zip(data.movies, films, strict=True))) == len(set(films)) == len(names) // 3
    (folder / "test" / "pos" / "3_0.txt").write_text("one more", encoding="utf-8")
    with pytest.raises(UserError, match="unaltered"):
        read_reviews(folder, parts, digest)


def test_order_and_links_in_an_archive_do_not_matter(toy_archive):
    """Nor do names that are not UTF-8."""
    repacked, link = toy_archive.with_name("test_pos_unsup.tgz"), tarfile.TarInfo("aclImdb/train/pos/0_10.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    others = [link, *map(tarfile.TarInfo, ("aclImdb/train/pos/0\udcff_9.txt", "aclImdb/train/pos/-1_9.txt"))]
    with tarfile.open(toy_archive) as old, tarfile.open(repacked, "w:gz") as new:
        for member in [*reversed(old.getmembers()), *others]:
            new.addfile(member, old.extractfile(member) if member.size else None)
    assert same(read_reviews(repacked, ALL), read_reviews(toy_archive, ALL))


def test_archive_with_two_files_of_a_name_is_refused(toy_archive):
    """It holds two copies of the reviews, say, one of which may be altered."""
    source = toy_archive.with_name("twice.tar")
    with tarfile.open(toy_archive) as old, tarfile.open(source, "w") as new:
        reviews = [member for member in old if "/neg/" in member.name and member.isfile()]
        for member in [*reviews, reviews[3]]:
            new.addfile(member, old.extractfile(member))
    assert reviews[3].name.removeprefix("aclImdb/") in refused(source)


def test_duplicates_are_test_reviews_whose_tokens_are_to_be_trained_on(toy_folder):
    """And `keep` keeps them alone."""
    for name, word in {"test/neg/4": "twice", "train/neg/7": "Twice", "test/pos/0": "once", "train/unsup/3": "once",
                       "test/pos/1": "never", "test/pos/2": "never"}.items():
        (path,) = toy_folder.glob(name + "_*.txt")
        path.write_text(f"known {word}", encoding="utf-8")
    for unsup, expected in ((False, [["known", "twice"]]), (True, [["known", "twice"], ["known", "once"]])):
        data = read_reviews(toy_folder, ALL if unsup else LABELLED)
        kept = keep(data, data.duplicate)
        assert texts_of(kept.words, kept.tokens, kept.starts) == expected
        assert kept.test.all()
        for name in ("labels", "movies", "test", "duplicate"):
            assert np.array_equal(getattr(kept, name), getattr(data, name)[data.duplicate])


@pytest.mark.parametrize("texts", [TEXTS, [], [""], ["", " ", ""], MANY], ids=["texts", "none", "one", "three", "many"])
def test_tokens_are_spacys_review_by_review(texts):
    words, tokens, starts = tokenize(texts)
    expected = [spacy_words(text) for text in texts]
    assert texts_of(words, tokens, starts) == expected
    assert sorted(words) == sorted(set(itertools.chain(*expected)))
    assert (tokens.dtype, starts.dtype, starts[-1]) == (np.int32, np.int64, len(tokens))


# The cache


@pytest.mark.parametrize("unsup", [False, True])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_second_load_reads_no_review(toy_folder, toy_archive, tmp_path, monkeypatch, unsup, packed):
    """Wherever the data lie by then, and whatever other files lie beside them."""
    source = toy_archive if packed else toy_folder
    first = load_reviews(source, tmp_path / "cache", unsup)
    assert same(first, read_reviews(toy_folder, ALL if unsup else LABELLED))
    (toy_folder / "train" / "pos" / ".DS_Store").write_bytes(b"junk")
    moved = shutil.move(source, tmp_path / "elsewhere")
    monkeypatch.setattr(reviews, "read_reviews", None)
    assert same(load_reviews(moved, tmp_path / "cache", unsup), first)


def test_cache_follows_the_content(toy_folder, toy_archive, tmp_path):
    """Another text, another list of movies, another archive, unlabelled reviews too: each is read anew."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    shutil.move(toy_folder / "train", outside)
    (toy_folder / "train").symlink_to(outside)
    before = load_reviews(toy_folder, cache)
    path = next((outside / "pos").iterdir())
    times = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("e", "x"), encoding="utf-8")  # of the same length
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # and by its old time
    changed = load_reviews(toy_folder, cache)
    assert not same(changed, before)
    (outside / "urls_pos.txt").write_text("http://www.imdb.com/title/tt9999999/usercomments\n" * 18, encoding="utf-8")
    assert len(set(load_reviews(toy_folder, cache).movies[before.labels == 1])) == 7
    changed, packed = load_reviews(toy_folder, cache), load_reviews(toy_archive, cache)
    (toy_folder / "train").unlink()
    shutil.move(outside, toy_folder / "train")
    write_tar(toy_folder, toy_archive)
    assert same(load_reviews(toy_archive, cache), changed)
    assert not same(changed, packed)
    for source in (toy_folder, toy_archive):
        assert len(load_reviews(source, cache, unsup=True).labels) == 90
        assert len(load_reviews(source, cache).labels) == 72
    with pytest.raises(UserError, match="unaltered"):
        load_reviews(toy_folder, cache, digest="0" * 64)  # unverified ones must not do


# Damaged content


def test_folder_without_all_of_its_parts_is_refused(toy_folder):
    next((toy_folder / "test" / "pos").iterdir()).unlink()
    assert "18 in test/neg, 17 in test/pos" in refused(toy_folder, archive.CONTENT_SHA256)
    (toy_folder / "train" / "neg").rename(toy_folder / "moved")
    assert "train/neg" in refused(toy_folder)


@pytest.mark.parametrize(("name", "content"), [
    ("urls_pos.txt", b"http://www.imdb.com/title/tt1/usercomments\n"), ("urls_pos.txt", b""), ("urls_pos.txt", None),
    ("pos/18_8.txt", b"of no movie")])
def test_damaged_content_is_refused(toy_folder, name, content):
    (toy_folder / "train" / name).write_bytes(content or b"")
    if content is None:
        (toy_folder / "train" / name).unlink()
    refused(toy_folder)


@pytest.mark.skipif("IMDB_DIR" not in os.environ, reason="no real data: set IMDB_DIR to the archive's folder")
def test_all_of_imdb(tmp_path):
    """All 50,000 reviews load, digest and counts are right, and 40 training steps lower the loss."""
    source = find_source(os.environ["IMDB_DIR"])
    train_set, valid_set, test_set, train_loader, valid_loader, _, vocab, pad_id = load_imdb_data(
        source=source, cache_dir=tmp_path)
    assert (len(train_set) + len(valid_set), len(test_set)) == (25_000, 25_000)
    assert test_set.labels.sum() == train_set.labels.sum() + valid_set.labels.sum() == 12_500
    assert len(valid_set) == pytest.approx(5000, abs=50)
    assert test_set.duplicate.sum() == 123
    assert (pad_id, vocab.itos[:2]) == (1, ["<unk>", "<pad>"])
    assert 17_000 < len(vocab) < 19_000
    assert vocab.vectors.shape == (len(vocab), 50)
    assert vocab.vectors.any(dim=1).float().mean() > 0.95
    assert max(ids.shape[1] for ids, _ in valid_loader) == 500

    data = load_reviews(source, tmp_path, digest=archive.CONTENT_SHA256)
    lengths = np.diff(data.starts)
    assert np.unique(data.movies[~data.test]).size == 3456
    assert (lengths.mean(), np.median(lengths)) == (pytest.approx(268, abs=1), pytest.approx(201, abs=1))

    model, losses = MyTransformer(vocab, 500, 1), []
    optimizer, _ = make_optimizer(model, Settings(lr=1e-3), 40)
    for ids, targets in itertools.islice(train_loader, 40):
        loss = F.binary_cross_entropy_with_logits(model(ids).squeeze(1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[20:]) < sum(losses[:20]) - 0.2
