"""Toy data in the layout of the archive, small texts and networks."""

import json
import os
import random
import tarfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torchtext.vocab import Vocab

from helpers import predictor
from helpers.imdb import make_reviews
from helpers.text import tokenize

ROOT = Path(__file__).resolve().parents[1]
GOOD = ["wonderful", "moving", "superb", "charming", "brilliant", "touching"]
BAD = ["dreadful", "boring", "awful", "clumsy", "tedious", "hollow"]
PLAIN = ["the", "film", "was", "a", "story", "of", "two", "friends", "in", "town", ",", "and", "it", "is", "long", "."]
# Options of a quick run
SMALL = ["--lr", "0.01", "--batch-size", "8", "--min-freq", "2", "--max-len", "25", "--epochs", "2", "--device", "cpu"]


def write_toy_archive(folder, films_per_list=10, reviews_per_film=3):
    """Write an extracted `aclImdb/`. The words of a review tell its label, and the last one names its film."""
    chance, film = random.Random(0), 0
    for part, kind in (("train", "neg"), ("train", "pos"), ("train", "unsup"), ("test", "neg"), ("test", "pos")):
        (folder / part / kind).mkdir(parents=True)
        telling = {"neg": BAD, "pos": GOOD, "unsup": GOOD + BAD}[kind]
        stars = {"neg": (1, 4), "pos": (7, 10), "unsup": (0, 0)}[kind]
        urls = []
        for number in range(films_per_list * reviews_per_film):
            film += number % reviews_per_film == 0
            urls.append(f"http://www.imdb.com/title/tt{film:07d}/usercomments\n")
            words = chance.choices(telling, k=4) + chance.choices(PLAIN, k=chance.randint(4, 30))
            text = f"{words[0].capitalize()}<br /><br />{' '.join(words)} film{film}"
            path = folder / part / kind / f"{number}_{chance.randint(*stars)}.txt"
            path.write_text(text, encoding="utf-8")
        (folder / part / f"urls_{kind}.txt").write_text("".join(urls), encoding="utf-8")


def write_tar(folder, path):
    """Pack an extracted folder as in the official archive; return the path."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname="aclImdb")
    return path


def words_of(reviews):
    """Return the words of each review, a list of lists."""
    bounds = zip(reviews.starts[:-1], reviews.starts[1:], strict=True)
    return [[reviews.words[token] for token in reviews.tokens[first:last]] for first, last in bounds]


def probabilities(predictor, texts):
    """Return the probability that each text is positive."""
    return predictor.logits(make_reviews(*tokenize(texts))).sigmoid()


def random_reviews(lengths, labels=None, num_words=8):
    """Return `Reviews` with so many random words each: w0, w1, ..."""
    tokens = np.random.default_rng(0).integers(0, num_words, sum(lengths)).astype(np.int32)
    labels = None if labels is None else np.array(labels)
    return make_reviews([f"w{i}" for i in range(num_words)], tokens, np.cumsum([0, *lengths]), labels)


def toy_vocab(num_words=8, d=6):
    """Return the words w0 (id 2), w1 (id 3), ... with random vectors."""
    vocab = Vocab(Counter({f"w{i}": num_words - i for i in range(num_words)}))
    vocab.vectors = torch.randn(len(vocab), d)
    return vocab


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def use_models(monkeypatch, text, path="models.py"):
    """Let `text` take the place of `models.py` in this process."""
    Path(path).write_text(text, encoding="utf-8")
    module = ModuleType("models")
    module.__file__ = os.path.abspath(path)
    exec(compile(text, path, "exec"), module.__dict__)
    monkeypatch.setattr(predictor, "models", module)


class BagOfWords(torch.nn.Module):
    """A small network that does not need `models.py`: the mean of the word vectors, dropout, one linear layer."""

    def __init__(self, vocab):
        super().__init__()
        self.embedding = torch.nn.Embedding.from_pretrained(vocab.vectors.clone(), freeze=False)
        self.dropout = torch.nn.Dropout(0.5)
        self.fc = torch.nn.Linear(vocab.vectors.shape[1], 1)

    def forward(self, ids):
        return self.fc(self.dropout(self.embedding(ids).mean(dim=1)))
