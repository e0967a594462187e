"""Everything that runs on a GPU: on a pretended one, which any machine has, and on a real one (tests marked `gpu`)."""

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
from helpers import batches
from helpers.archive import SAMPLE_DIR
from helpers.batches import predict_logits
from helpers.explain import attention_weights, word_effects
from helpers.gpt2 import OWN_GPT, choose_gpt, load_writer
from helpers.predictor import Predictor, as_reviews, build_model
from sentiment_analysis import BONUS, REQUIRED, SAMPLE, load_imdb_data, make_optimizer, set_seed, train_epoch
from tests.tiny_gpt2 import BACKENDS, MINGPT
from tests.toy import QUICK, read_json, train_toy

CUDA = torch.device("cuda", 0)
KINDS = ["pretended", pytest.param("real", marks=[
    pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")])]
TEXT = "a wonderful film , but boring"


def with_index(function):
    """Return a function that takes the device "cuda" for "cuda:0", as torch does itself where it is built for CUDA."""
    def numbered(value):
        return CUDA if isinstance(value, str | torch.device) and str(value) == "cuda" else value

    return lambda *args, **options: function(*map(numbered, args), **{
        name: numbered(value) for name, value in options.items()})


class PretendedCuda(TorchDispatchMode):
    """Computes on the CPU, remembers what was sent to "cuda", and raises, as a GPU does, where devices mix.

    Attributes:
        waits: the operations so far in which a GPU and the program wait for each other.
    """

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount")

    def __init__(self, patch):
        super().__init__()
        self.storages = {}  # by number; a weak reference frees the memory, but no number is given again
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
        patch.setattr(torch.cuda, "get_device_name", lambda: "pretended")
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
        """Return what torch.save writes beside a storage: where torch.load will put it."""
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
    """Let there be a GPU, "pretended" or "real"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        for module in (torch.cuda, torch.cuda.random):
            patch.setattr(module, "device_count", lambda: 1)
        if kind == "real":
            torch.cuda.init()
            yield
        else:
            with PretendedCuda(patch) as pretended:
                yield pretended


@pytest.mark.parametrize("preset", ["required", "bonus", "bonus-unsup", pytest.param(
    "sample", marks=pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/"))])
def test_commands_keep_devices_apart(call, data, tmp_path, preset):
    """What trains there is evaluated there, saved for machines without a GPU, and predicts and explains on the CPU."""
    where, run = ("--data-dir", data, "--cache-dir", data / "cache"), tmp_path / preset
    with gpu("pretended"):
        code, out, _ = call(*where, "--runs-dir", tmp_path, *QUICK, "--preset", preset, "--epochs", "2")
        *_, test, confusion, parts, _ = out.splitlines()
        evaluated = call("evaluate", "--run", run, *where)
        predict = "predict", TEXT, "--model", run / "model.pt", "--explain", tmp_path / "why.png"
        predicted = call(*predict)
    assert read_json(run / "metrics.json")["device"] == "pretended"
    assert (code, predicted[0]) == (0, 0)
    assert evaluated == (0, f"{test}\n{confusion}\n{parts}\n", "")
    assert predicted == call(*predict)
    assert {tensor.device.type for tensor in torch.load(run / "model.pt")["state"].values()} == {"cpu"}


@pytest.mark.parametrize(("settings", "batches_of_epoch", "copies"), [(REQUIRED, 60, 1), (BONUS, 159, 7)])
def test_loop_does_not_wait(data, monkeypatch, settings, batches_of_epoch, copies):
    """An epoch waits for its order, which goes there once, and for the loss, at each step 50 and in the end.

    The short texts of an epoch go there at once, too: ids, where they begin and end, labels, channels.
    """
    settings = replace(settings, batch_size=1, min_freq=2, max_len=25, valid_share=0.0)
    monkeypatch.setitem(batches.TOKENS, "cuda", 200)
    with gpu("pretended") as pretended:
        train_set, *_, loader, _, test_loader, vocab, _ = load_imdb_data(settings, data / "aclImdb", data / "cache",
                                                                         device=CUDA)
        channels = train_set.channels.shape[1] if settings.ngrams else 0
        model = build_model(vocab, asdict(settings) | {"channels": channels}).to(CUDA)
        optimizer = make_optimizer(model, settings, len(loader))
        del pretended.waits[:]
        train_epoch(model, loader, *optimizer, "")
        training = pretended.waits[:]
        predict_logits(model, test_loader, "")
        evaluation = pretended.waits[len(training):]
        assert (len(loader), len(test_loader)) == (batches_of_epoch, 7)
    assert Counter(training) == {"_to_copy": copies, "_local_scalar_dense": batches_of_epoch // 50 + 1}
    assert Counter(evaluation) == {"_to_copy": 1}


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
@pytest.mark.parametrize("kind", KINDS)
def test_epoch_on_the_sample_agrees_with_the_cpus(tmp_path, kind):
    def epoch(device):
        *_, loader, _, test_loader, vocab, _ = load_imdb_data(settings, SAMPLE_DIR, tmp_path, device=device)
        set_seed()
        model = build_model(vocab, asdict(settings) | {"channels": 0}).to(device)
        loss = train_epoch(model, loader, *make_optimizer(model, settings, len(loader)), "")
        return loss, predict_logits(model, test_loader, "").cpu()

    settings = replace(SAMPLE, dropout=0.0)  # a GPU draws other numbers
    expected_loss, expected = epoch(torch.device("cpu"))
    with gpu(kind):
        loss, logits = epoch(CUDA)
    assert loss == pytest.approx(expected_loss, abs=1e-3)
    assert torch.equal(logits > 0, expected > 0)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", ["required", "bonus"])
def test_resumed_run_ends_as_the_uninterrupted_one(data, tmp_path, monkeypatch, kind, preset):
    """A real GPU may add in another order, which changes a loss by 1e-8 here; other dropout by more than 1e-5."""
    def train(name, *options):
        folder = train_toy(data, tmp_path, name, "--preset", preset, "--epochs", "4", "--dropout", "0.5", *options)
        epochs = read_json(folder / "metrics.json")["epochs"]
        return [loss for epoch in epochs for loss in (epoch["train_loss"], epoch["valid_loss"])]

    def stop(*args):
        if args[-1] == "epoch 3":
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
def test_answers_and_explanations_are_the_cpus(data, tmp_path, kind):
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
def test_greedy_ids_of_gpt_are_the_cpus(kind, backend):
    def write():
        writer = load_writer(OWN_GPT, "own", GPT)
        ids = torch.tensor([writer.encode(prefix) for prefix in PREFIXES[:1]], device=writer.device)
        return writer, writer.model.generate(ids, max_new_tokens=20, do_sample=False).tolist()

    GPT = choose_gpt(backend, MINGPT)
    _, expected = write()
    with gpu(kind):
        writer, ids = write()
        sentences = draw_sentences(writer, PREFIXES[:2], {"max_new_tokens": 20, "temperature": 1.0, "top_k": 40}, 1)
    assert (writer.device, ids) == ("cuda", expected)
    assert len(sentences) == 10
