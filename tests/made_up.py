"""Made-up runs, sentences and notes, in the form in which training, generation and authors write them."""

import json

from helpers.files import write_text

SETTINGS = {"blocks": 1, "epochs": 5, "lr": 1e-4, "batch_size": 32, "max_len": 500, "dropout": 0.1, "freeze": None,
            "min_freq": 10, "glove_dim": 50, "valid_share": 0.2, "bonus": None}
BONUS = {"lr": 1e-3, "bonus": {"unlabelled": False}}
NOTES = "= Layers\nHow.\n= Training\nWhat.\n= Bonus\nWe explain the bonus.\n= Generation\nWhy."
ANALYSIS = {"model_sha256": "of a model.pt that is not there", "longest_example": 80,
            "by_stars": [{"group": "1", "reviews": 5022, "errors": 0.064}],
            "by_length": [{"group": "1–100", "reviews": 2403, "errors": 0.125}],
            "examples": [{"text": "so #good it $hurts .", "stars": 1, "probability": 0.987}],
            "attention": {"tokens": ["not", "bad"], "weights": [[0.1, 0.9]] * 2, "probability": 0.2503}}


def write_run(folder, data="IMDB", valid_accuracy=0.8321, date="2026-12-01T10:00:00", **settings):
    """Write the files of a finished run, whose other settings are those of the exercise."""
    settings = SETTINGS | settings
    epoch = {"train_loss": 0.71234, "valid_loss": 0.61239, "valid_accuracy": valid_accuracy, "seconds": 40.0}
    metrics = {"data": data, "seed": 4711, "words": 17_003, "settings": settings, "device": "Abacus 9", "threads": 3,
               "versions": {"python": "3.11.7", "torch": "2.13.0"}, "epochs": [epoch] * settings["epochs"],
               "test": {"accuracy": 0.81197, "loss": 0.43219, "confusion": [[10101, 2399], [2302, 10198]]},
               "seconds": 321.0, "date": date}
    write_text(folder / "metrics.json", json.dumps(metrics))
    write_text(folder / "analysis.json", json.dumps(ANALYSIS))


def write_sentences(runs, prefixes=10, **changes):
    """Write `gpt2/gpt2_sentences.json` with five sentences for each prefix to a folder of runs."""
    numbers = [(f"Prefix {i}", j) for i in range(prefixes) for j in range(5)]
    sentences = [{"prefix": prefix, "sentence": f"{prefix} made sentence {j} for $3."} for prefix, j in numbers]
    content = {"model": "gpt2", "parameters": 124_439_808, "weights_sha256": "ab", "backend": "mingpt", "device": "CPU",
               "substitutes": [], "seed": 42, "settings": {"top_k": 40, "temperature": 1.0}, "sentences": sentences}
    write_text(runs / "gpt2" / "gpt2_sentences.json", json.dumps(content | changes))
