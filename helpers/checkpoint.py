"""Networks on disk: `model.pt`, which judges texts, and `checkpoint.pt`, from which an interrupted run goes on.

Both are whole or absent, and reading them executes no code. Used by the training and by `predict`; run by none.
"""

import hashlib
import io
import random
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torchtext.vocab import Vocab

import features
from files import UserError, whole_file
from models import MyTransformer


def write(path, content):
    """`torch.save`, whole or not at all."""
    buffer = io.BytesIO()  # torch.save answers a full disk with a RuntimeError that does not say so
    torch.save(content, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path):
    """What `write` wrote, on the CPU; any error but FileNotFoundError means that the file is another, or damaged.

    torch compares no checksums, and would take flipped bits for weights; nor does it mind a zip bomb.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > Path(path).stat().st_size or archive.testzip():
            raise ValueError("the file is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def build_model(vocab, settings):
    """A new network with the given settings."""
    return MyTransformer(vocab, settings["max_len"], settings["blocks"], settings["dropout"], settings["freeze"],
                         settings["channels"], settings["input_dropout"])


def save_model(path, model, vocab, table, metrics):
    """Weights, settings, vocabulary and n-grams: all that the network needs to judge a text."""
    saved = {"state": {name: tensor.cpu() for name, tensor in model.state_dict().items()}, "words": vocab.itos,
             "settings": metrics["settings"], "data": metrics["data"]}
    if table:
        saved["ngrams"] = {"words": table.words, "keys": [pack(keys) for keys in table.keys],
                           "values": torch.from_numpy(table.values), "scale": torch.from_numpy(table.scale)}
    write(path, saved)


def pack(keys):
    """The lower six bytes of int64 keys, (n, 6): they hold three word ids, and a small file has no room for zeros."""
    lower = keys.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :6]
    if not np.array_equal(unpack(torch.from_numpy(lower)), keys):
        raise ValueError("a key has more than 48 bits")
    return torch.from_numpy(lower.copy())


def unpack(lower):
    """The keys that `pack` was given."""
    return np.pad(lower.numpy(), [(0, 0), (0, 2)]).view("<i8").reshape(-1)


def load_model(path, device):
    """What a `model.pt` holds: network, vocabulary, n-grams or None, settings, kind of data ("IMDB" or "SAMPLE")."""
    try:
        saved = read(path)
        check(saved)
        vocab = Vocab(Counter(), specials=saved["words"])
        vocab.vectors = saved["state"]["embedding.weight"]
        model = build_model(vocab, saved["settings"]).eval()
        model.load_state_dict(saved["state"])
        table, channels = None, None
        if "ngrams" in saved:
            parts = saved["ngrams"]
            table = features.Table(parts["words"], [unpack(keys) for keys in parts["keys"]],
                                   parts["values"].numpy(), parts["scale"].numpy())
            channels = torch.from_numpy(table.channels(np.array([0]), np.array([0, 1]))).float().unsqueeze(0)
        model(torch.zeros(1, 1, dtype=torch.long), channels)  # fails if the parts do not fit each other
        return model.to(device), vocab, table, saved["settings"], saved["data"]
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; train first, or name the model of another run.") from error
    except Exception as error:  # a damaged file can fail in many ways, and none of them is of use to the reader
        raise UserError(f"{path} is not a model of this program, or is damaged; train again.") from error


def check(saved):
    """Raise an error unless the parts of a `model.pt` are those of one network: it might fill the memory, or lie."""
    if not isinstance(saved, dict):
        raise TypeError("it holds something else")
    state, settings, ngrams = saved["state"], saved["settings"], saved.get("ngrams")
    words, d = state["embedding.weight"].shape
    fits = [len(saved["words"]) == words,
            state["blocks.0.norm1.gamma"].shape == (settings["max_len"], d + settings["channels"]),
            settings["blocks"] <= len(state),
            settings.keys() >= {"both_ends", "ngrams", "batch_size"},
            bool(settings["ngrams"]) == bool(ngrams)]
    if ngrams:
        fits += [len(ngrams["values"]) == sum(map(len, ngrams["keys"])),
                 all(unpack(keys).max(initial=0) < len(ngrams["words"]) ** order
                     for order, keys in zip(features.ORDERS, ngrams["keys"], strict=True))]
    fits += [tensor.is_contiguous() and bool(tensor.isfinite().all()) for tensor in state.values()]
    if not all(fits):
        raise ValueError("its parts do not fit each other")


def run_identity(settings, seed, device, train_set, vocab):
    """What must be the same for a run to go on where another stopped: dict from a name to a number or a string."""
    data = hashlib.sha256("\n".join(vocab.itos).encode())
    for tensor in (train_set.ids, train_set.starts, train_set.labels):
        data.update(tensor.cpu().numpy())
    return settings | {"seed": seed, "device": device.type, "data": data.hexdigest()[:16]}


def save_checkpoint(path, identity, parts, progress):
    """All that the next epochs depend on.

    Args:
        identity: of the run, see `run_identity`.
        parts: dict from a name to what has a `state_dict`: network, optimizer, scheduler, scaler.
        progress: what else to get back, of plain Python types.
    """
    kind, keys, *rest = np.random.get_state()
    write(path, {"identity": identity, "parts": {name: part.state_dict() for name, part in parts.items()},
                 "progress": progress, "python": random.getstate(), "torch": torch.get_rng_state(),
                 "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
                 "cuda": torch.cuda.get_rng_state_all()})


def load_checkpoint(path, identity, parts):
    """Set `parts` and the generators of random numbers to where they stood, and return the progress.

    Raises FileNotFoundError if there is no checkpoint, UserError if it is damaged or belongs to another run.
    """
    again = "leave --resume out to start anew"
    try:
        saved = read(path)
        old = saved["identity"]
    except FileNotFoundError:
        raise
    except Exception as error:  # as in `load_model`
        raise UserError(f"{path} is not a checkpoint of this program, or is damaged; {again}.") from error
    others = [name for name, value in identity.items() if old.get(name) != value]
    if others:
        differences = ", ".join(f"{name} {old.get(name)} instead of {identity[name]}" for name in others)
        raise UserError(f"{path} belongs to another run ({differences}); give its options, or {again}.")
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    random.setstate(saved["python"])
    torch.set_rng_state(saved["torch"])
    for number, state in enumerate(saved["cuda"][:torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, number)
    return saved["progress"]
