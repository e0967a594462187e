"""Time our first start, from the archive to ids, and that of the exercise's skeleton, which tokenizes twice.

    python -m benchmarks.data --data-dir .data        about 4 minutes on 2 cores

The skeleton is rewritten from its description: `basic_english` of torchtext makes the vocabulary, and spaCy tokenizes
each of the 50,000 reviews. Its reviews are already in memory, while ours are read from the archive.
"""

from collections import Counter

import numpy as np
import spacy
from torchtext.data.utils import get_tokenizer
from torchtext.vocab import Vocab
from tqdm import tqdm

from benchmarks.common import data_parser, print_table, seconds_of, write_result
from helpers.cli import run_command
from helpers.data.archive import CONTENT_SHA256, find_source, read_files
from helpers.data.batches import ReviewSet
from helpers.data.reviews import LABELLED, read_reviews, select
from helpers.data.vocab import build_vocab

ROUNDS = 5


def skeleton(texts):
    """Return the ids of all reviews, a list for each; `texts` is a dict from "train/pos/0_9.txt" to str."""
    basic, nlp = get_tokenizer("basic_english"), spacy.blank("en")
    counter = Counter()
    for name, text in texts.items():
        if name.startswith("train/"):
            counter.update(basic(text))
    stoi = Vocab(counter, max_size=25_000, min_freq=10).stoi
    ids = []
    for text in tqdm(texts.values(), leave=False):
        tokens = nlp.tokenizer(text)
        ids.append([stoi[token.text] for token in tokens])
    return ids


def ours(source):
    """Return the training and the test reviews as ids."""
    reviews = read_reviews(source, digest=CONTENT_SHA256)
    vocab = build_vocab(reviews, ~reviews.test)
    return [ReviewSet(select(reviews, part), vocab, 500) for part in (~reviews.test, reviews.test)]


def main():
    source = find_source(data_parser(__doc__, cache=False).parse_args().data_dir)
    texts = {name: text.decode() for name, text in read_files(source, LABELLED) if "urls_" not in name}
    rows = []
    for _ in range(ROUNDS):
        a, b = seconds_of(ours, source), seconds_of(skeleton, texts)
        rows.append({"ours, s": a, "skeleton, s": b, "ours / skeleton": a / b})
    print_table(rows)
    write_result("data", {"rows": rows, "ratio": float(np.median([row["ours / skeleton"] for row in rows]))})


if __name__ == "__main__":
    run_command(main)
