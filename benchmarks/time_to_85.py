"""Seconds of training from ids to 85 % test accuracy on IMDB, beside fastText on the same tokens.

    pip install fasttext-numpy2-wheel
    python -m benchmarks.time_to_85 --data-dir .data        about 3 minutes on 2 cores

The required network with a larger learning rate, for one epoch of the training split; the setting was chosen on the
validation split. The test accuracy is measured once, at the end. fastText trains on all 25,000 reviews.
"""

import tempfile
import time
from pathlib import Path

import fasttext
import numpy as np

from benchmarks.common import data_parser, print_table, write_result
from helpers.archive import CONTENT_SHA256, find_source
from helpers.batches import predict_logits
from helpers.cli import run_command
from helpers.evaluate import compute_metrics
from helpers.reviews import load_reviews
from helpers.runtime import keep_freed_memory
from models import MyTransformer
from sentiment_analysis import Settings, load_imdb_data, make_optimizer, set_seed, train_epoch

SETTINGS = Settings(epochs=1, lr=1e-3, schedule="one-cycle")


def ours(source):
    """Return seconds and test accuracy."""
    *_, loader, _, test_loader, vocab, _ = load_imdb_data(SETTINGS, source)
    set_seed(42)
    started = time.perf_counter()
    model = MyTransformer(vocab, 500, 1)
    train_epoch(model, loader, *make_optimizer(model, SETTINGS, len(loader)), "training")
    seconds = time.perf_counter() - started
    return seconds, compute_metrics(predict_logits(model, test_loader, "test"), test_loader.dataset.labels)["accuracy"]


def fast_text(reviews, word_ngrams):
    """Return seconds and test accuracy of fastText's supervised mode."""
    texts = [" ".join(reviews.words[t] for t in reviews.tokens[a:b] if not reviews.words[t].isspace())
             for a, b in zip(reviews.starts[:-1], reviews.starts[1:], strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.txt")
        rows = zip(reviews.labels, texts, reviews.test, strict=True)
        train = [f"__label__{label} {text}" for label, text, test in rows if not test]
        path.write_text("\n".join(train[i] for i in np.random.permutation(len(train))))
        started = time.perf_counter()
        model = fasttext.train_supervised(str(path), wordNgrams=word_ngrams, epoch=10, lr=0.2, dim=50, thread=2,
                                          verbose=0, seed=42)
        seconds = time.perf_counter() - started
    predicted = model.predict([text for text, test in zip(texts, reviews.test, strict=True) if test])[0]
    predicted = np.array([label[0] == "__label__1" for label in predicted])
    return seconds, float(np.mean(predicted == reviews.labels[reviews.test]))


def main():
    source = find_source(data_parser(__doc__).parse_args().data_dir)
    keep_freed_memory()
    reviews = load_reviews(source, ".cache", digest=CONTENT_SHA256)
    rows = []
    for name, run in (("ours, 1 epoch", lambda: ours(source)), ("fastText words", lambda: fast_text(reviews, 1)),
                      ("fastText bigrams", lambda: fast_text(reviews, 2))):
        seconds, accuracy = run()
        rows.append({"what": name, "seconds": seconds, "test accuracy": accuracy})
    print_table(rows)
    write_result("time_to_85", {"rows": rows})


if __name__ == "__main__":
    run_command(main)
