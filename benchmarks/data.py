"""First start: from the archive to ids, beside the exercise's skeleton, which tokenizes the reviews twice.

    python -m benchmarks.data --data-dir .data        about 4 minutes on 2 cores

The skeleton's way, written from its description: torchtext's `basic_english` over the training reviews for the
vocabulary, spaCy over each of the 50,000 reviews for the text. Its reviews are in memory; ours reads the archive.
"""

import time
from collections import Counter

import numpy as np
import spacy
from torchtext.data.utils import get_tokenizer
from torchtext.vocab import Vocab
from tqdm import tqdm

from benchmarks.common import data_parser, print_table, write_result
from helpers.archive import CONTENT_SHA256, find_source, read_files
from helpers.batches import ReviewSet, build_vocab
from helpers.cli import run_command
from helpers.reviews import LABELLED, keep, read_reviews


def skeleton(texts):
    """Return the ids of all reviews, as lists; `texts` is a dict from "train/pos/0_9.txt" to str."""
    basic, nlp = get_tokenizer("basic_english"), spacy.blank("en")
    counter = Counter()
    for name, text in texts.items():
        if name.startswith("train/"):
            counter.update(basic(text))
    stoi = Vocab(counter, max_size=25_000, min_freq=10).stoi
    return [[stoi[token.text] for token in nlp.tokenizer(text)] for text in tqdm(texts.values(), leave=False)]


def ours(source):
    """Return the ids of all reviews."""
    reviews = read_reviews(source, digest=CONTENT_SHA256)
    vocab = build_vocab(reviews, ~reviews.test)
    return [ReviewSet(keep(reviews, part), vocab, 500) for part in (~reviews.test, reviews.test)]


def main():
    source = find_source(data_parser(__doc__).parse_args().data_dir)
    texts = {name: text.decode() for name, text in read_files(source, LABELLED) if "urls_" not in name}
    rows = []
    for _ in range(5):
        started = time.perf_counter()
        ours(source)
        between = time.perf_counter()
        skeleton(texts)
        rows.append({"ours, s": between - started, "skeleton, s": time.perf_counter() - between})
        rows[-1]["ours / skeleton"] = rows[-1]["ours, s"] / rows[-1]["skeleton, s"]
    print_table(rows)
    write_result("data", {"rows": rows, "ratio": float(np.median([row["ours / skeleton"] for row in rows]))})


if __name__ == "__main__":
    run_command(main)
