"""The peer of the bonus: naive Bayes' ratios and logistic regression on n-grams (Wang & Manning 2012), by scikit-learn.

    python -m benchmarks.peer --data-dir .data        about 2 minutes

It trains on all 25,000 labelled reviews, on the same tokens as the network.
"""

import time

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.common import data_parser, print_table, write_result
from helpers.archive import CONTENT_SHA256, find_source
from helpers.cli import run_command
from helpers.reviews import load_reviews


def main():
    source = find_source(data_parser(__doc__).parse_args().data_dir)
    reviews = load_reviews(source, ".cache", digest=CONTENT_SHA256)
    words, test, labels = np.array(reviews.words, object), reviews.test, reviews.labels
    texts = [words[reviews.tokens[a:b]] for a, b in zip(reviews.starts[:-1], reviews.starts[1:], strict=True)]
    rows = []
    for order in (1, 2, 3):
        started = time.perf_counter()
        counter = CountVectorizer(binary=True, ngram_range=(1, order), analyzer="word", tokenizer=lambda text: text,
                                  lowercase=False, token_pattern=None, min_df=2, dtype=np.float32)
        X = counter.fit_transform(text for text, part in zip(texts, test, strict=True) if not part)
        y = labels[~test]
        ratio = np.log((X[y == 1].sum(axis=0) + 1) / (X[y == 0].sum(axis=0) + 1))
        model = LogisticRegression(C=1 / 3, max_iter=200).fit(X.multiply(ratio).tocsr(), y)
        seconds = time.perf_counter() - started
        X = counter.transform(text for text, part in zip(texts, test, strict=True) if part)
        accuracy = float((model.predict(X.multiply(ratio).tocsr()) == labels[test]).mean())
        rows.append({"what": f"1-{order}-grams" if order > 1 else "words", "test_accuracy": accuracy,
                     "seconds": seconds})
    print_table(rows)
    write_result("peer", {"rows": rows})


if __name__ == "__main__":
    run_command(main)
