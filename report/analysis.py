"""Analyse a finished run for the report: exactness of the layers, errors, attention.

    python -m report.analysis --run runs/required [--data-dir .data]

Compares the layers with the loops of tests/loops.py, with PyTorch's kernels and with numerical gradients, judges
all test reviews once more, and writes `report/results/analysis.json`. About a minute on one core.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.step import FusedAttention
from helpers.archive import expected_digest, find_source, read_files
from helpers.batches import predict_logits
from helpers.cli import Parser, UserError, run_command
from helpers.evaluate import compute_metrics
from helpers.files import write_text
from helpers.predictor import Predictor
from helpers.reviews import load_reviews
from helpers.tokens import tokenize
from models import MyLayerNorm, MySelfAttention
from sentiment_analysis import Settings, load_imdb_data
from tests.loops import MASK, SHAPES, attention_oracle, norm_oracle

RESULT = Path(__file__).parent / "results" / "analysis.json"
SENTENCES = ["The plot is weak, yet the cast is superb.", "It was not bad at all."]
LENGTHS = [0, 100, 200, 300, 500, 10**6]  # tokens: reviews are compared in these ranges
EXAMPLE_TOKENS = 100  # at most, of a review that serves as an example
EXAMPLE_WORDS = 40  # of it that are shown
EXAMPLES = 2  # of each label


def layer_differences():
    """Return each layer's largest differences from its formula in loops, PyTorch and numerical gradients."""
    torch.manual_seed(0)
    found = {"attention": {"loops": 0, "pytorch": 0, "gradient": 0}, "norm": {"loops": 0, "pytorch": 0, "gradient": 0}}

    def note(name, kind, ours, theirs):
        found[name][kind] = max(found[name][kind], (ours - theirs).abs().max().item())

    for (B, T, d), mask in [*((shape, None) for shape in SHAPES), ((*MASK.shape, 4), MASK)]:
        attention, norm = MySelfAttention(d).double(), MyLayerNorm((T, d)).double()
        torch.nn.init.normal_(norm.gamma, mean=1)
        torch.nn.init.normal_(norm.beta)
        x = torch.randn(B, T, d, dtype=torch.float64)
        real = torch.ones(B, T, dtype=torch.bool) if mask is None else mask
        note("attention", "loops", attention(x, mask)[real], attention_oracle(attention, x, real)[real])
        note("norm", "loops", norm(x, mask)[real], norm_oracle(norm, x, real)[real])
        note("attention", "pytorch", attention(x, mask)[real], FusedAttention.forward(attention, x, real)[real])
        if mask is None:
            note("norm", "pytorch", norm(x), F.layer_norm(x, x.shape[1:], norm.gamma, norm.beta, eps=norm.eps))
        for name, layer in (("attention", attention), ("norm", norm)):
            for ours, theirs in gradients(layer, x, mask, real):
                note(name, "gradient", ours, theirs)
    return {"shapes": len(SHAPES), **found}


def gradients(layer, x, mask, real, step=1e-6):
    """Yield the analytic and numerical gradients of a random sum of the outputs, for the input and each parameter."""
    x = x.clone().requires_grad_()
    factors = torch.randn_like(x) * real.unsqueeze(2)
    for tensor in (x, *layer.parameters()):
        analytic, = torch.autograd.grad((factors * layer(x, mask)).sum(), tensor)
        numerical = torch.empty_like(analytic).flatten()
        with torch.no_grad():
            elements = tensor.view(-1)
            for i, value in enumerate(elements.tolist()):
                sums = []
                for moved in (value + step, value - step):
                    elements[i] = moved
                    sums.append((factors * layer(x, mask)).sum())
                elements[i] = value
                numerical[i] = (sums[0] - sums[1]) / (2 * step)
        yield analytic.flatten(), numerical


def data_figures(reviews, train_set, valid_set, test_set, vocab):
    """Return sizes of the data set and of its parts."""
    labelled = reviews.labels >= 0
    lengths = np.diff(reviews.starts)[labelled]
    train_movies, test_movies = (np.unique(reviews.movies[labelled & (reviews.test == test)]) for test in (False, True))
    return {"train": len(train_set), "valid": len(valid_set), "test": len(test_set), "words": len(vocab),
            "in_glove": (vocab.vectors != 0).any(dim=1).double().mean().item(), "movies": len(train_movies),
            "most_reviews_of_a_movie": int(np.bincount(reviews.movies[labelled & ~reviews.test]).max()),
            "movies_in_both": len(np.intersect1d(train_movies, test_movies)),
            "median_tokens": int(np.median(lengths)), "p95_tokens": int(np.quantile(lengths, 0.95))}


def error_rates(wrong, lengths, ratings):
    """Return the share of wrong reviews by length and by the stars that their author gave."""
    by_length = [{"above": low, "to": high, "reviews": int(chosen.sum()), "error": wrong[chosen].mean()}
                 for low, high in zip(LENGTHS[:-1], LENGTHS[1:], strict=True)
                 if (chosen := (lengths > low) & (lengths <= high)).any()]
    by_rating = [{"stars": int(stars), "reviews": int((ratings == stars).sum()),
                  "error": wrong[ratings == stars].mean()} for stars in np.unique(ratings)]
    return by_length, by_rating


def confident_errors(texts, wrong, lengths, ratings, labels, probabilities):
    """Return, of each label, the errors among the short reviews of which the network is surest, shortened."""
    examples = []
    for label in (0, 1):
        candidates = np.flatnonzero(wrong & (lengths <= EXAMPLE_TOKENS) & (labels == label))
        surest = candidates[np.argsort(-np.abs(probabilities[candidates] - 0.5), kind="stable")][:EXAMPLES]
        for i in surest:
            words = re.sub(r"(<br />)+", " ", texts[i]).split()
            cut = [] if len(words) <= EXAMPLE_WORDS else ["…"]
            shown = " ".join(words[:EXAMPLE_WORDS] + cut)
            examples.append({"text": shown, "stars": int(ratings[i]), "label": label, "tokens": int(lengths[i]),
                             "probability": float(probabilities[i])})
    return examples


@torch.no_grad()
def attention_of(sentence, model, vocab):
    """Return a sentence's words, the first block's attention matrix, and the probability that it is positive."""
    words, tokens, _ = tokenize([sentence])
    words = [words[token] for token in tokens]
    ids = torch.tensor([[vocab.stoi[word] for word in words]])
    return {"sentence": sentence, "words": words,
            "weights": model.blocks[0].attention.weights(model.embedding(ids))[0].double().numpy().round(4).tolist(),
            "probability": model(ids).sigmoid().item()}


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", required=True, help="folder of a finished run of the required setting")
    parser.add_argument("--data-dir", default=".data", help="folder with the IMDB reviews (default: %(default)s)")
    parser.add_argument("--cache-dir", default=".cache", help="as in sentiment_analysis.py (default: %(default)s)")
    args = parser.parse_args()
    predictor = Predictor.load(Path(args.run, "model.pt"))
    model = predictor.model
    metrics = json.loads(Path(args.run, "metrics.json").read_text(encoding="utf-8"))
    if predictor.data != "IMDB" or predictor.table:
        raise UserError(f"{args.run} is not a run of the required setting on IMDB; name one with --run.")
    source = find_source(args.data_dir)
    settings = Settings(**{name: value for name, value in predictor.settings.items() if name != "channels"})
    train_set, valid_set, test_set, _, _, loader, vocab, _ = load_imdb_data(
        settings, source, args.cache_dir, metrics["seed"])
    reviews = load_reviews(source, args.cache_dir, digest=expected_digest(source))
    files = {name: text.decode() for name, text in sorted(read_files(source, {"test/neg", "test/pos"}))
             if "/urls_" not in name}

    logits = predict_logits(model, loader, "test")
    labels = test_set.labels.numpy().astype(int)
    wrong = (logits.numpy() > 0) != labels
    accuracy = 1 - wrong.mean()
    if vocab.itos != predictor.vocab.itos or abs(accuracy - metrics["test"]["accuracy"]) > 2e-4:
        raise UserError(f"{args.run} was trained by another version of the program, or on other data; train again.")
    lengths = np.diff(reviews.starts)[reviews.test]
    ratings = np.array([int(re.search(r"_(\d+)\.txt$", name)[1]) for name in files])
    by_length, by_rating = error_rates(wrong, lengths, ratings)
    write_text(RESULT, json.dumps({
        "seed": metrics["seed"], "test_accuracy": accuracy,
        "confusion": compute_metrics(logits, test_set.labels)["confusion"],
        "layers": layer_differences(),
        "data": data_figures(reviews, train_set, valid_set, test_set, vocab),
        "error_by_length": by_length, "error_by_rating": by_rating, "examples_of_at_most": EXAMPLE_TOKENS,
        "examples": confident_errors(list(files.values()), wrong, lengths, ratings, labels,
                                     logits.sigmoid().numpy()),
        "attention": [attention_of(sentence, model, vocab) for sentence in SENTENCES]}, indent=1,
        ensure_ascii=False) + "\n")
    print(f"report/results/analysis.json: {wrong.sum():,} errors among {len(wrong):,} test reviews looked at")


if __name__ == "__main__":
    run_command(main)
