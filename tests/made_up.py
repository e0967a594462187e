"""Made-up runs and sentences, in the form in which training and generation write them."""

import json
from dataclasses import asdict, replace

import sentiment_analysis
from generate_gpt2 import PREFIXES
from helpers.gpt2.identity import GPT2_SHA256, OWN_GPT_SHA256

TWO_BLOCKS = replace(sentiment_analysis.REQUIRED, blocks=2)


def make_metrics(seed=42, settings=sentiment_analysis.REQUIRED, accuracy=0.8123, valid_accuracy=0.8321, **changes):
    """Return a `metrics.json`."""
    valid_losses = changes.pop("valid_losses", [0.6 - 0.05 * i for i in range(settings.epochs)])
    epochs = []
    for i, valid_loss in enumerate(valid_losses):
        epochs.append({"train_loss": 0.7 - 0.06 * i, "valid_loss": valid_loss, "valid_accuracy": valid_accuracy,
                       "seconds": 40.0, "tokens_per_second": 100_000})
    excerpts = {length: {"accuracy": 0.7, "calibration_error": 0.03} for length in ("5", "all")}
    return {"data": "IMDB", "seed": seed, "words": 17_000, "settings": asdict(settings), "device": "Abacus 9",
            "threads": 3, "versions": {"python": "3.11.7", "torch": "2.13.0"}, "epochs": epochs, "seconds": 321.0,
            "date": "2026-10-09",
            "test": {"accuracy": accuracy, "accuracy_without_duplicates": accuracy - 0.001, "duplicates": 123,
                     "confusion": [[10101, 2399], [2302, 10198]], "excerpts": excerpts}} | changes


def make_analysis(**changes):
    """Return an `analysis.json`."""
    words = ["not", "bad", "."]
    return {"data": {"train": 20_000, "valid": 5_000, "test": 25_000, "words": 17_000, "in_glove": 0.987,
                     "movies": 3_333, "most_reviews_of_a_movie": 30, "movies_in_both": 1, "median_tokens": 200,
                     "p95_tokens": 700},
            "error_by_stars": [{"stars": 1, "reviews": 100, "error": 0.1}, {"stars": 4, "reviews": 100, "error": 0.3}],
            "error_by_length": [{"above": 0, "to": 100, "reviews": 99, "error": 0.1},
                                {"above": 100, "to": 200, "reviews": 101, "error": 0.3}],
            "examples_of_at_most": 100,
            "examples": [{"text": "So good it hurts.", "stars": 1, "label": 0, "tokens": 5, "probability": 0.987}],
            "attention": [{"sentence": "Not bad.", "words": words, "weights": [[0.1, 0.8, 0.1]] * 3,
                           "probability": 0.25}]} | changes


def make_sentences(weights_sha256=GPT2_SHA256, **changes):
    """Return a `gpt2_sentences.json`."""
    sentences = []
    for prefix in PREFIXES:
        for i in range(5):
            sentences.append({"prefix": prefix, "sentence": f"{prefix} made sentence number {i}.", "cut": False})
    return {"model": "gpt2", "parameters": 124_439_808, "weights": "model.safetensors",
            "weights_sha256": weights_sha256, "backend": "mingpt", "device": "CPU", "seed": 42,
            "settings": {"max_new_tokens": 60, "temperature": 1.0, "top_k": 40}, "versions": {}, "substitutes": [],
            "sentences": sentences} | changes


def write_run(folder, metrics, analysis=None):
    """Write the files of a finished run that the report reads."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "analysis.json").write_text(json.dumps(analysis or make_analysis()), encoding="utf-8")


def write_sentences(runs, **changes):
    """Write `gpt2/gpt2_sentences.json` of a folder of runs."""
    (runs / "gpt2").mkdir(parents=True)
    content = json.dumps(make_sentences(**changes))
    (runs / "gpt2" / "gpt2_sentences.json").write_text(content, encoding="utf-8")


def write_own_sentences(runs):
    """Write the sentences of this project's own small GPT."""
    write_sentences(runs, weights_sha256=OWN_GPT_SHA256, model="gpt-reviews", parameters=5_240_320)
