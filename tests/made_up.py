"""Made-up runs, sentences and notes, in the form in which training, generation and authors write them."""

import json

from helpers.files import write_text

SETTINGS = {"blocks": 1, "epochs": 5, "lr": 1e-4, "batch_size": 32, "max_len": 500, "dropout": 0.1, "freeze": False,
            "min_freq": 10, "glove_dim": 50, "valid_share": 0.2, "bonus": None}
BONUS = {"lr": 1e-3, "bonus": {"unlabelled": False}}
NOTES = "\n".join(f"= {name}\nWe explain the {name.lower()} here."
                  for name in ("Layers", "Training", "Bonus", "Generation"))


def write_run(folder, data="IMDB", valid_accuracy=0.8321, date="2026-12-01T10:00:00", **settings):
    """Write the files of a finished run, whose other settings are those of the exercise; return the folder."""
    settings = SETTINGS | settings
    epochs = []
    for i in range(settings["epochs"]):
        epochs.append({"train_loss": 0.7 / (i + 1), "valid_loss": 0.61239 / (i + 1), "valid_accuracy": valid_accuracy,
                       "seconds": 40.0})
    metrics = {"data": data, "seed": 4711, "words": 17_003, "settings": settings, "device": "Abacus 9", "threads": 3,
               "versions": {"python": "3.11.7", "torch": "2.13.0"}, "epochs": epochs, "calibration": [0.0, 0.0, 0.0],
               "test": {"accuracy": 0.81197, "loss": 0.43219, "confusion": [[10101, 2399], [2302, 10198]]},
               "seconds": 321.0, "date": date}
    attention = {"tokens": ["not", "bad", "."], "weights": [[0.1, 0.8, 0.1]] * 3, "probability": 0.2503}
    analysis = {"model_sha256": "of a model.pt that is not there",
                "by_stars": [{"group": "1", "reviews": 5022, "errors": 0.064}],
                "by_length": [{"group": "1–100", "reviews": 2403, "errors": 0.125}],
                "longest_example": 80, "examples": [{"text": "so #good it $hurts .", "stars": 1, "probability": 0.987}],
                "attention": attention}
    write_text(folder / "metrics.json", json.dumps(metrics))
    write_text(folder / "analysis.json", json.dumps(analysis))
    return folder


def write_sentences(runs, prefixes=10, **changes):
    """Write `gpt2/gpt2_sentences.json` with five sentences for each prefix to a folder of runs."""
    sentences = []
    for i in range(prefixes):
        for j in range(5):
            sentences.append({"prefix": f"Prefix {i}", "sentence": f"Prefix {i} made sentence {j} for $3."})
    content = {"model": "gpt2", "parameters": 124_439_808, "weights_sha256": "ab" * 32, "backend": "mingpt",
               "device": "CPU", "substitutes": [], "seed": 42, "settings": {"top_k": 40, "temperature": 1.0},
               "versions": {}, "seconds": 5.3, "date": "2026-12-01T10:00:00", "sentences": sentences}
    write_text(runs / "gpt2" / "gpt2_sentences.json", json.dumps(content | changes))
