"""No tensor of the CPU meets a GPU's: on torch's `meta` device, which computes nothing; and results on a real GPU."""

import contextlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sentiment_analysis
from helpers import batches
from helpers.batches import BucketLoader
from helpers.predictor import make_pipeline
from sentiment_analysis import load_imdb_data, parse_args, set_seed, settings_of, train_epoch
from tests.toy import SMALL


class OneDevice(TorchDispatchMode):
    """Raise an error if an operation, other than a copy, gets tensors with dimensions from two devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
        if len({tensor.device.type for tensor in tensors}) > 1 and func.overloadpacket.__name__ != "copy_":
            raise RuntimeError(f"{func} of tensors on two devices")
        return func(*args, **(kwargs or {}))


def load(preset, device, toy_imdb, cache):
    """Return pipeline, data and network of a preset on a device."""
    options = [*SMALL, "--preset", preset, "--data-dir", toy_imdb, "--cache-dir", cache]
    args = parse_args(list(map(str, options)))
    args.device = device
    pipeline = make_pipeline(settings_of(args))
    data = load_imdb_data(args, pipeline)
    set_seed(0)
    return pipeline, data, pipeline.build_model(data.vocab).to(device)


@pytest.mark.parametrize("preset", ["required", "bonus"])
def test_operations_stay_on_one_device(toy_imdb, tmp_path, monkeypatch, preset):
    monkeypatch.setitem(batches.EVALUATION_TOKENS, "meta", 100)
    pipeline, data, model = load(preset, "meta", toy_imdb, tmp_path)
    with OneDevice():
        for loader in (data.train_loader, BucketLoader(data.test_set)):
            for *inputs, labels in loader:
                logits = model.train()(*inputs).flatten()
                F.binary_cross_entropy_with_logits(logits, labels).backward()
                assert logits.device.type == labels.device.type == "meta"
        with pytest.raises(RuntimeError, match="two devices"):
            data.train_set.ids[:2] + torch.zeros(2)


@contextlib.contextmanager
def gpu():
    """Undo `no_gpu` of conftest.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda.random, "device_count", lambda: 1)
        torch.cuda.init()
        yield


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["required", "bonus"])
def test_epoch_on_a_gpu_is_close_to_the_cpu(toy_imdb, tmp_path, preset):
    results = []
    for device in ("cpu", "cuda"):
        with gpu() if device == "cuda" else contextlib.nullcontext():
            pipeline, data, model = load(preset, device, toy_imdb, tmp_path)
            for part in model.modules():
                if isinstance(part, torch.nn.Dropout):
                    part.p = 0.0  # a GPU draws other random numbers
            optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.01, fused=True)
            scheduler = pipeline.make_scheduler(optimizer, len(data.train_loader))
            loss = train_epoch(model, data.train_loader, optimizer, scheduler, "")
            logits = sentiment_analysis.predict_logits(model, data.test_loader, "").cpu()
            results.append(np.append(logits, loss))
    np.testing.assert_allclose(results[1], results[0], atol=2e-3)
