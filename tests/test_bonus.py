"""The network of the bonus, compared with its formula, and the settings of all presets."""

from collections import Counter
from dataclasses import asdict

import pytest
import torch
from torchtext.vocab import Vocab

from helpers.bonus.network import BonusTransformer
from helpers.bonus.regions import RegionEmbedding
from sentiment_analysis import preset


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
    network = BonusTransformer(vocab, 9, 2, 0.0, False, 2, 0.5, embeddings).eval()
    assert (network.regions is not None) == request.param
    return network


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


def test_dropout_of_word_vectors_and_regions_is_for_training_only(network):
    ids, channels = torch.randint(2, 14, (3, 5)), torch.randn(3, 5, 2)
    expected = network.embed(ids, channels)
    assert network.embed(ids, channels).equal(expected)
    for part in (network.input_dropout, network.regions):
        if part is not None:
            part.train()
            dropped = network.embed(ids, channels)
            part.eval()
            assert not dropped[..., :6].allclose(expected[..., :6])
            assert dropped[..., 6:].equal(expected[..., 6:])


def test_gradients_reach_everything_that_is_trained(network):
    network(torch.randint(2, 14, (3, 5)), torch.randn(3, 5, 2)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


EXERCISE = {"blocks": 1, "epochs": 5, "lr": 1e-4, "batch_size": 32, "max_len": 500, "dropout": 0.1, "freeze": False,
            "min_freq": 10, "glove_dim": 50, "valid_share": 0.2, "handout_data": False, "bonus": None}
ALL_PARTS = {"unlabelled": False, "short_texts": True, "regions": True, "input_dropout": 0.6, "one_cycle": True}
BONUS = EXERCISE | {"lr": 1e-3, "max_len": 400, "dropout": 0.3, "valid_share": 0.05, "bonus": ALL_PARTS}


@pytest.mark.parametrize(("name", "expected"), [
    ("required", EXERCISE), ("handout", EXERCISE | {"glove_dim": 300, "freeze": True, "handout_data": True}),
    ("sample", EXERCISE | {"epochs": 20, "lr": 1e-3, "batch_size": 16, "min_freq": 2}), ("bonus", BONUS),
    ("bonus-unsup", BONUS | {"epochs": 8, "bonus": ALL_PARTS | {"unlabelled": True}})])
def test_presets_are_those_of_the_results(name, expected):
    assert asdict(preset(name)) == expected
