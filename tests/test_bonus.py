"""The network of the bonus, compared with its formula, and the schedules of the learning rate."""

from collections import Counter
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torchtext.vocab import Vocab

from helpers.bonus import BonusPipeline, BonusSettings
from helpers.bonus.network import BonusTransformer
from helpers.bonus.regions import RegionEmbedding
from helpers.pipeline import Pipeline
from sentiment_analysis import make_optimizer, preset


@pytest.fixture(params=[False, True], ids=["without regions", "with regions"])
def network(request):
    """A small network in evaluation mode with two channels and random parameters."""
    torch.manual_seed(0)
    vocab = Vocab(Counter({f"w{i}": 12 - i for i in range(12)}))
    vocab.vectors = torch.randn(14, 6)
    embeddings = None
    if request.param:
        embeddings = [RegionEmbedding(14, 0), RegionEmbedding(14, 1)]
        for embedding in embeddings:
            embedding.vectors[2:] = torch.randint(-128, 128, embedding.vectors[2:].shape)
            embedding.scale[:] = 0.01
    return BonusTransformer(vocab, 9, 2, 0.0, False, 2, 0.5, embeddings).eval()


def test_blocks_read_word_vectors_regions_and_channels(network):
    ids, channels = torch.randint(2, 14, (3, 5)), torch.randn(3, 5, 2)
    vectors = network.embedding.weight[ids]
    if network.regions is not None:
        features = [embedding(ids) for embedding in network.regions.embeddings]
        vectors = vectors + torch.cat(features, dim=2) @ network.regions.fc.weight.T
    x = torch.cat([vectors, channels], dim=2)
    torch.testing.assert_close(network.embed(ids, channels), x)
    for block in network.blocks:
        x = block(x)
    torch.testing.assert_close(network(ids, channels), network.fc(x.mean(dim=1)))


def test_logits_depend_on_the_channels_of_tokens_but_not_of_padding(network):
    ids, channels = torch.tensor([[3, 4, 1], [5, 6, 7]]), torch.randn(2, 3, 2)
    logits = network(ids, channels)
    torch.testing.assert_close(network(ids[:1, :2], channels[:1, :2]), logits[:1])
    channels[0, 2] = 9.0
    torch.testing.assert_close(network(ids, channels), logits)
    assert ((network(ids, channels + 1) - logits).abs() > 1e-3).all()


def test_dropout_of_word_vectors_is_for_training_only(network):
    ids, channels = torch.randint(2, 14, (3, 5)), torch.randn(3, 5, 2)
    expected = network.embed(ids, channels)
    assert network.embed(ids, channels).equal(expected)
    network.input_dropout.train()
    dropped = network.embed(ids, channels)
    assert not dropped[..., :6].allclose(expected[..., :6])
    assert dropped[..., 6:].equal(expected[..., 6:])


def test_gradients_reach_everything_that_is_trained(network):
    network(torch.randint(2, 14, (3, 5)), torch.randn(3, 5, 2)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize(("is_bonus", "one_cycle", "expected"), [
    (False, False, [0.1] * 10), (True, False, [0.1] * 10), (True, True, None)])
def test_schedule_of_the_learning_rate(is_bonus, one_cycle, expected):
    settings = replace(preset("required"), lr=0.1)
    if is_bonus:
        settings = replace(settings, bonus=BonusSettings(one_cycle=one_cycle))
    pipeline = (BonusPipeline if is_bonus else Pipeline)(asdict(settings))
    optimizer = make_optimizer(nn.Linear(1, 1), settings.lr)
    scheduler = pipeline.make_scheduler(optimizer, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    if expected:
        assert rates == pytest.approx(expected)
    else:  # up in the first 30 % of the steps, then down to almost 0
        assert rates[2] == max(rates) == pytest.approx(0.1)
        assert rates[0] == pytest.approx(0.1 / 25)
        assert rates[-1] < 1e-5
