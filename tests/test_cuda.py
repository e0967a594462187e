"""Everything that runs on a GPU, on a simulated one, and on a real one if there is one (tests marked `gpu`)."""

import contextlib
from collections import Counter
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sentiment_analysis
from generate_gpt2 import PREFIXES, draw_sentences
from helpers.data import batches
from helpers.data.archive import SAMPLE_DIR
from helpers.data.batches import predict_logits
from helpers.door import make_pipeline
from helpers.gpt2.mingpt import choose_gpt
from helpers.gpt2.weights import OWN_GPT, load_language_model
from helpers.inference.explain import attention_weights, word_effects
from helpers.inference.predictor import Predictor, as_reviews
from sentiment_analysis import SAMPLE, load_imdb_data, make_optimizer, preset, set_seed, train_epoch
from tests.tiny_gpt2 import BACKENDS, MINGPT
from tests.toy import QUICK, read_json, train_toy

CUDA = torch.device("cuda", 0)
KINDS = ["simulated", pytest.param("real", marks=[
    pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")])]
TEXT = "a wonderful film , but boring"


def with_index(function):
    """Return a function that takes the device "cuda" for "cuda:0", as a build of torch for CUDA does."""
    def numbered(value):
        return CUDA if isinstance(value, str | torch.device) and str(value) == "cuda" else value

    return lambda *args, **options: function(*map(numbered, args), **{
        name: numbered(value) for name, value in options.items()})


class SimulatedCuda(TorchDispatchMode):
    """Computes on the CPU, remembers which tensors were sent to "cuda", and raises an error if devices mix.

    Attributes:
        waits: the operations so far for which the program waits for the GPU.
    """

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount")

    def __init__(self, patch):
        super().__init__()
        self.storages = {}  # by address; a weak reference frees the memory but not the address
        self.waits, self.generator = [], torch.Generator()
        device, tolist = torch.Tensor.device, torch.Tensor.tolist
        self.numpy_of, self.tag_of = torch.Tensor.numpy, torch.serialization.location_tag
        patch.setattr(torch.Tensor, "device", property(lambda tensor: CUDA if self.has(tensor)
                                                       else device.__get__(tensor)))
        for module, name in (torch.Tensor, "to"), (torch, "tensor"):
            patch.setattr(module, name, with_index(getattr(module, name)))
        patch.setattr(torch.Tensor, "numpy", lambda tensor: self.numpy(tensor))
        patch.setattr(torch.Tensor, "cpu", lambda tensor: self.cpu(tensor))
        patch.setattr(torch.Tensor, "tolist", lambda tensor: tolist(self.cpu(tensor)))
        patch.setattr(torch.serialization, "location_tag", self.location_tag)
        patch.setattr(torch.cuda, "_initialized", True)
        patch.setattr(torch.cuda, "default_generators", (self.generator,))
        patch.setattr(torch.cuda, "get_device_name", lambda: "simulated")
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        patch.setattr(torch.accelerator, "current_stream", lambda: SimpleNamespace(is_capturing=lambda: False))

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") makes a CPU tensor and copies it
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*error)

    def has(self, tensor):
        return not tensor.is_sparse and tensor.untyped_storage()._cdata in self.storages

    def numpy(self, tensor):
        if self.has(tensor):
            raise TypeError("numpy() of a tensor on cuda")
        return self.numpy_of(tensor)

    def cpu(self, tensor):
        if not self.has(tensor):
            return tensor
        self.waits.append("cpu")
        return torch.from_numpy(self.numpy_of(tensor.detach()).copy())

    def location_tag(self, storage):
        """Return the device that torch.save stores with a tensor, where torch.load puts it."""
        return "cuda:0" if storage._cdata in self.storages else self.tag_of(storage)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = any(map(self.has, tensors))
        mixed = there and any(tensor.dim() and not self.has(tensor) for tensor in tensors)
        if mixed and name != "copy_" and not (name == "index" and self.has(args[0])):
            raise RuntimeError(f"{func} of tensors on cuda and on the CPU")
        by_mask = name == "index" and any(tensor.dtype == torch.bool for tensor in tensors[1:])
        moved = False
        if name == "copy_":
            there = self.has(args[0])
        elif kwargs.get("device"):
            moved = bool(tensors) and there != (kwargs["device"].type == "cuda")
            there, kwargs["device"] = kwargs["device"].type == "cuda", torch.device("cpu")
        if mixed or moved or there and (name in self.WAITS or by_mask):
            self.waits.append(name)
        if there and any(argument.name == "generator" for argument in func._schema.arguments):
            kwargs["generator"] = self.generator
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if there and isinstance(tensor, torch.Tensor) and not self.has(tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage)
        return out


@contextlib.contextmanager
def gpu(kind):
    """Use a GPU, "simulated" or "real"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        for module in (torch.cuda, torch.cuda.random):
            patch.setattr(module, "device_count", lambda: 1)
        if kind == "real":
            torch.cuda.init()
            yield
        else:
            with SimulatedCuda(patch) as simulated:
                yield simulated


def test_commands_keep_devices_apart(call, data, tmp_path):
    """A network that was trained on a GPU can be used there and on the CPU."""
    where, run = ("--data-dir", data, "--cache-dir", data / "cache"), tmp_path / "bonus-unsup"
    predict = "predict", TEXT, "--model", run / "model.pt", "--explain", tmp_path / "why.html"
    with gpu("simulated"):
        code, trained, _ = call(*where, "--runs-dir", tmp_path, *QUICK, "--preset", "bonus-unsup", "--epochs", "2")
        evaluated = call("evaluate", "--run", run, *where)
        predicted = call(*predict)
    metrics = read_json(run / "metrics.json")
    accuracy = f"IMDB test accuracy {metrics['test']['accuracy']:.2%}\n"
    assert (code, evaluated[0], predicted[0], metrics["device"]) == (0, 0, 0, "simulated")
    assert accuracy in trained
    assert evaluated[1].startswith(accuracy)
    assert predicted == call(*predict)
    assert {tensor.device.type for tensor in torch.load(run / "model.pt")["state"].values()} == {"cpu"}


def load_for_gpu(settings, source, cache_dir, device):
    """Return the loaders of training and test reviews and a network; see `load_imdb_data`."""
    pipeline = make_pipeline(asdict(settings))
    *_, train_loader, _, test_loader, vocab, _ = load_imdb_data(settings, source, cache_dir, device=device,
                                                                pipeline=pipeline)
    set_seed()
    return train_loader, test_loader, pipeline.build_model(vocab).to(device), pipeline


@pytest.mark.parametrize(("name", "batches_of_epoch", "copies"), [("required", 60, 1), ("bonus", 159, 7)])
def test_loop_does_not_wait(data, monkeypatch, name, batches_of_epoch, copies):
    """An epoch waits once for the copy of its order, at each 50th step for the loss, and at the end.

    The short texts of an epoch are copied at once, too: ids, starts and ends, labels, duplicates and channels.
    """
    settings = replace(preset(name), batch_size=1, min_freq=2, max_len=25, valid_share=0.0)
    monkeypatch.setitem(batches.EVALUATION_TOKENS, "cuda", 200)
    with gpu("simulated") as simulated:
        loader, test_loader, model, pipeline = load_for_gpu(settings, data / "aclImdb", data / "cache", CUDA)
        optimizer = make_optimizer(model, settings.lr)
        scheduler = pipeline.make_scheduler(optimizer, len(loader))
        del simulated.waits[:]
        train_epoch(model, loader, optimizer, scheduler, "")
        training = simulated.waits[:]
        predict_logits(model, test_loader, "")
        evaluation = simulated.waits[len(training):]
        assert (len(loader), len(test_loader)) == (batches_of_epoch, 7)
    assert Counter(training) == {"_to_copy": copies, "_local_scalar_dense": batches_of_epoch // 50 + 1}
    assert Counter(evaluation) == {"_to_copy": 1}


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
@pytest.mark.parametrize("kind", KINDS)
def test_epoch_on_the_sample_agrees_with_the_cpu(tmp_path, kind):
    def epoch(device):
        loader, test_loader, model, pipeline = load_for_gpu(settings, SAMPLE_DIR, tmp_path, device)
        optimizer = make_optimizer(model, settings.lr)
        loss = train_epoch(model, loader, optimizer, pipeline.make_scheduler(optimizer, len(loader)), "")
        return loss, predict_logits(model, test_loader, "").cpu()

    settings = replace(SAMPLE, dropout=0.0)  # a GPU draws other random numbers
    expected_loss, expected = epoch(torch.device("cpu"))
    with gpu(kind):
        loss, logits = epoch(CUDA)
    assert loss == pytest.approx(expected_loss, abs=1e-3)
    assert torch.equal(logits > 0, expected > 0)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run_ends_as_the_uninterrupted_one(data, tmp_path, monkeypatch, kind):
    """A real GPU may add in another order, which changes a loss by 1e-8; other dropout changes it by over 1e-5."""
    def train(run, *options):
        folder = train_toy(data, tmp_path, run, "--preset", "bonus", "--epochs", "2", "--dropout", "0.5", *options)
        epochs = read_json(folder / "metrics.json")["epochs"]
        return [loss for epoch in epochs for loss in (epoch["train_loss"], epoch["valid_loss"])]

    def stop(*args):
        if args[-1] == "epoch 2":
            raise KeyboardInterrupt
        return train_epoch(*args)

    with gpu(kind):
        whole = train("whole")
        with monkeypatch.context() as patch:
            patch.setattr(sentiment_analysis, "train_epoch", stop)
            with pytest.raises(KeyboardInterrupt):
                train("resumed")
        resumed = train("resumed", "--resume")
    assert resumed == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_explanations_agree_with_the_cpu(data, tmp_path, kind):
    def answers(device):
        predictor, reviews = Predictor.load(path, device), as_reviews([TEXT])
        return predictor.logits(reviews), word_effects(predictor, reviews), attention_weights(predictor, reviews)

    path = train_toy(data, tmp_path, "a", "--preset", "bonus", "--epochs", "2") / "model.pt"
    expected = answers("cpu")
    with gpu(kind):
        found = answers(CUDA)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_greedy_ids_of_gpt_agree_with_the_cpu(kind, backend):
    def generate():
        language_model = load_language_model(OWN_GPT, "own", choose_gpt(backend, MINGPT))
        ids = torch.tensor([language_model.encode(PREFIXES[0])], device=language_model.device)
        return language_model, language_model.model.generate(ids, max_new_tokens=20, do_sample=False).tolist()

    _, expected = generate()
    with gpu(kind):
        language_model, ids = generate()
        settings = {"max_new_tokens": 20, "temperature": 1.0, "top_k": 40}
        sentences = draw_sentences(language_model, PREFIXES[:1], settings, seed=1)
    assert (language_model.device, ids) == ("cuda", expected)
    assert len(sentences) == 5
