"""Leaks: nothing that training sees knows a label or a text that is kept from it.

Most tests change what must not be seen, and compare what training sees before and after.
"""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import sentiment_analysis
from helpers.data.reviews import LABELLED, UNLABELLED, identity_of, load_reviews, select, split_train_val
from helpers.door import make_pipeline
from helpers.inference.predictor import Predictor
from sentiment_analysis import Settings, load_imdb_data, preset, set_seed
from tests.test_regions import recorded_rates
from tests.toy import read_json, train_toy, words_of

VALID_SHARE = 0.3
BONUS = pytest.mark.parametrize("fitted", ["bonus-unsup"], indirect=True)


def learn(reviews, name, folder, seed=0):
    """Fit a preset to `Reviews`, in place of those of an archive; return the pipeline and the data."""
    if name != "bonus-unsup":
        reviews = select(reviews, reviews.labels >= 0)
    settings = replace(preset(name), valid_share=VALID_SHARE, min_freq=2, max_len=25)
    pipeline = make_pipeline(asdict(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment_analysis, "load_reviews", lambda *args: reviews)
        return pipeline, load_imdb_data(settings, folder, folder, seed, pipeline=pipeline)


@pytest.fixture(scope="module")
def reviews(data):
    return load_reviews(data / "aclImdb", data / "cache", LABELLED | UNLABELLED)


@pytest.fixture(scope="module")
def fitted(request, reviews, data):
    """A preset, and the pipeline and the data that `learn` returns for it."""
    return request.param, *learn(reviews, request.param, data / "cache")


def reverse_labels(reviews, chosen):
    return replace(reviews, labels=np.where(chosen & (reviews.labels >= 0), 1 - reviews.labels, reviews.labels))


def replace_texts(reviews, chosen):
    """Return the reviews, where the text of each chosen one is all words."""
    texts = np.split(reviews.tokens, reviews.starts[1:-1])
    all_words = np.arange(len(reviews.words), dtype=np.int32)
    texts = [all_words if is_chosen else text for text, is_chosen in zip(texts, chosen, strict=True)]
    return replace(reviews, tokens=np.concatenate(texts), starts=np.cumsum([0, *map(len, texts)]))


def what_training_sees(pipeline, data):
    """Return the vocabulary, the batches of a pass and the region embeddings."""
    np.random.seed(0)
    seen = [tensor for batch in data.train_loader for tensor in batch]
    for embedding in getattr(pipeline, "embeddings", None) or []:
        seen += embedding.state_dict().values()
    return data.vocab.itos, data.vocab.freqs, seen


@pytest.mark.parametrize("fitted", ["required", "bonus-unsup"], indirect=True)
def test_training_knows_nothing_of_validation_and_test_reviews(reviews, fitted, tmp_path):
    name, pipeline, data = fitted
    set_seed(0)
    is_train, is_valid = split_train_val(reviews, VALID_SHARE)
    for review_set, part in ((data.train_set, is_train), (data.valid_set, is_valid), (data.test_set, reviews.test)):
        assert words_of(review_set.reviews) == words_of(select(reviews, part))
    assert not set(data.train_set.reviews.movies) & set(data.valid_set.reviews.movies)
    assert (data.valid_loader.dataset, data.test_loader.dataset) == (data.valid_set, data.test_set)
    words, counts, seen = what_training_sees(pipeline, data)
    others = reverse_labels(replace_texts(reviews, is_valid | reviews.test), is_valid | reviews.test)
    other_words, other_counts, other_seen = what_training_sees(*learn(others, name, tmp_path))
    assert (words, counts, len(seen)) == (other_words, other_counts, len(other_seen))
    assert all(map(torch.equal, seen, other_seen))


def names_of_films(pipeline):
    """Return the names of films among the n-grams. The last word of the 3 reviews of a film is its name."""
    return [word for word in pipeline.table.words if word.startswith("film") and word != "film"]


@BONUS
def test_labels_of_a_film_do_not_reach_the_channels_of_its_reviews(reviews, fitted, tmp_path):
    """The labels of fold 0 are reversed. Channels are divided by their deviation, which knows all labels."""
    name, pipeline, data = fitted
    in_fold = pipeline.folds == 0
    films = data.train_set.reviews.movies[in_fold]
    assert set(pipeline.folds) == set(range(5))
    assert not names_of_films(pipeline), "n-grams are in at least 5 reviews if unlabelled reviews are read"
    assert not set(films) & set(data.train_set.reviews.movies[~in_fold])
    others = reverse_labels(reviews, np.isin(reviews.movies, films))
    other_pipeline, other_data = learn(others, name, tmp_path)
    before = data.train_set.channels * torch.from_numpy(pipeline.table.scale)
    after = other_data.train_set.channels * torch.from_numpy(other_pipeline.table.scale)
    of_fold = torch.from_numpy(np.repeat(in_fold, data.train_set.lengths))
    torch.testing.assert_close(after[of_fold], before[of_fold], atol=5e-3, rtol=5e-3)
    assert (after[~of_fold] - before[~of_fold]).abs().max() > 0.1


@BONUS
def test_short_texts_have_the_channels_of_the_fold_of_their_review(fitted):
    _, pipeline, data = fitted
    np.random.seed(0)
    texts, folds = data.train_loader.draw()
    np.random.seed(0)
    data.train_loader.plan()
    drawn = data.train_loader.dataset
    assert words_of(drawn.reviews) == words_of(texts)
    channels = [pipeline.fold_tables[fold].channels(select(texts, [i])) for i, fold in enumerate(folds)]
    assert drawn.channels.numpy().tolist() == np.concatenate(channels)[drawn.positions].tolist()


def one_cycle_rates(peak, steps):
    """Return the learning rate of each step: up along a cosine for 30 % of the steps, then down."""
    phase = np.interp(np.arange(steps), [0, 0.3 * steps - 1, steps - 1], [0, 1, 2])
    lowest = np.where(phase < 1, peak / 25, peak / 25 / 10_000)
    return lowest + (peak - lowest) * (1 - np.cos(np.pi * phase)) / 2


@pytest.mark.parametrize("name", ["required", "bonus"])
def test_run_follows_its_settings_and_validates_and_calibrates_on_validation_reviews(data, tmp_path, name):
    with recorded_rates(torch.optim.Adam) as rates:
        folder = train_toy(data, tmp_path, "a", "--preset", name, "--epochs", "2")
    metrics, predictor = read_json(folder / "metrics.json"), Predictor.load(folder / "model.pt")
    loaded = load_imdb_data(Settings(**metrics["settings"]), data / "aclImdb", data / "cache")
    steps = 2 * len(loaded.train_loader)
    expected = one_cycle_rates(0.01, steps) if name == "bonus" else [0.01] * steps
    assert rates[-steps:] == pytest.approx(expected)
    dropouts = {part.p for part in predictor.model.modules() if isinstance(part, torch.nn.Dropout)}
    assert dropouts == ({0.2, 0.3, 0.6} if name == "bonus" else {0.1})

    valid, test = loaded.valid_set.reviews, loaded.test_set.reviews
    assert len(valid.labels) == (3 if name == "bonus" else 12), "of 60"
    whole = predictor.excerpt_metrics(test, predictor.logits(test))["all"]
    assert metrics["test"]["excerpts"]["all"] == pytest.approx(whole, rel=1e-3), "with calibrated logits"
    calibration, predictor.calibration = predictor.calibration, (0.0, 0.0, 0.0)
    loss = F.binary_cross_entropy_with_logits(predictor.logits(valid), torch.from_numpy(valid.labels).float()).item()
    assert metrics["epochs"][-1]["valid_loss"] == pytest.approx(loss, rel=1e-4)
    predictor.calibrate(valid)
    assert calibration == pytest.approx(predictor.calibration, rel=1e-3)


def test_seed_reaches_folds_and_regions(reviews, tmp_path):
    pipeline, data = learn(reviews, "bonus", tmp_path, seed=7)
    films = data.train_set.reviews.movies
    fold_of_film = np.random.default_rng(7).permutation(films.max() + 1) % 5
    assert pipeline.folds.tolist() == fold_of_film[films].tolist()
    assert len(names_of_films(pipeline)) == len(set(films)), "n-grams are in at least 2 reviews"
    vectors, labelled = pipeline.embeddings[0].vectors, select(reviews, reviews.labels >= 0)
    pipeline.fit(labelled, np.isin(labelled.movies, films), data.vocab, 8, tmp_path)
    assert not vectors.equal(pipeline.embeddings[0].vectors)


@pytest.mark.parametrize("name", ["words", "tokens", "starts", "labels", "movies", "chosen"])
def test_key_of_a_cache_depends_on_everything_that_is_learned_from(reviews, name):
    chosen = reviews.labels >= 0
    if name == "chosen":
        after = identity_of(reviews, ~chosen)
    else:
        other = np.flip(getattr(reviews, name)).copy()
        after = identity_of(replace(reviews, **{name: other}), chosen)
    assert after != identity_of(reviews, chosen)
