"""Save and continue interrupted runs: `checkpoint.pt` holds everything that the next epochs depend on."""

import hashlib

import numpy as np
import torch

from helpers.cli import UserError
from helpers.files import file_digest, read_torch, write_torch

LONGEST_SHOWN = 30  # characters of a setting in a message


def refuse_to_lose(folder, resume, overwrite):
    """Raise UserError if a new run would lose an interrupted one, or if the run to be resumed is finished.

    Args:
        folder: folder of the run. `checkpoint.pt` is there from the first epoch until the run is finished.
        resume, overwrite: whether the user gave `--resume`, `--overwrite`.
    """
    is_interrupted = (folder / "checkpoint.pt").exists()
    if is_interrupted and not (resume or overwrite):
        raise UserError(f"{folder} holds an interrupted run; use --resume to continue it, or --overwrite to start a "
                        "new run in its place.")
    if resume and not is_interrupted and (folder / "metrics.json").exists():
        raise UserError(f"the run in {folder} is finished; leave out --resume to train again, which overwrites its "
                        "results, or choose another --name.")


def data_digest(reviews, is_train):
    """Return a digest of the texts and labels of `reviews.Reviews`, and of the choice of training reviews (reviews,).

    It depends neither on the packing of the archive nor on the versions of libraries, unless they change the tokens.
    """
    order = np.argsort(reviews.words)  # the numbers of the words depend on the order of the files in the archive
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    digest = hashlib.sha256("\0".join(sorted(reviews.words)).encode())
    for array in (number[reviews.tokens], reviews.starts, reviews.labels, reviews.movies, reviews.test, is_train):
        digest.update(array)
    return digest.hexdigest()


def identity_of_run(metrics, device, vocab, data):
    """Return what must be equal for a run to continue another: a dict from names to JSON values.

    Args:
        metrics: settings, seed and other network, as in `metrics.json`.
        device: a torch device.
        vocab: a `torchtext.vocab.Vocab`.
        data: the `data_digest`.
    """
    return metrics["settings"] | {
        "models": metrics["models"] and file_digest(metrics["models"]), "seed": metrics["seed"], "device": device.type,
        "data": data, "vocabulary": hashlib.sha256("\0".join(vocab.itos).encode()).hexdigest()}


def describe_difference(name, old, new):
    """Return how a value of the `identity_of_run` differs. Digests and other long values are not shown."""
    if max(len(str(old)), len(str(new))) > LONGEST_SHOWN:
        return f"other {name}"
    return f"{name} {old} instead of {new}"


class Checkpoint:
    """The file from which an interrupted run continues.

    Args:
        path: path of the file.
        identity: what must be equal for a run to continue another; a dict from names to JSON values.
        parts: objects with a `state_dict`: network, optimizer, scheduler.
    """

    def __init__(self, path, identity, **parts):
        self.path, self.identity, self.parts = path, identity, parts

    def save(self, epochs, seconds):
        """Write the parts, the random generators, the metrics of the epochs so far (a list) and their total time."""
        kind, keys, *rest = np.random.get_state()
        saved = {"identity": self.identity, "epochs": epochs, "seconds": seconds}
        saved["parts"] = {name: part.state_dict() for name, part in self.parts.items()}
        saved["numpy"] = (kind, keys.tolist(), *rest)
        saved["torch"] = torch.get_rng_state()
        saved["cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        write_torch(self.path, saved)

    def start(self, resume):
        """Restore what was saved if `resume` is true.

        Returns:
            the metrics of the epochs so far (a list), and their total time in seconds.

        Raises:
            UserError: the file is damaged or belongs to another run.
        """
        if not resume:
            return [], 0.0
        if not self.path.exists():
            print(f"found no interrupted run in {self.path.parent}; starting a new one")
            return [], 0.0
        again = "replace --resume by --overwrite to start a new run"
        try:
            saved = read_torch(self.path)
            identity = saved["identity"]
        except Exception as error:  # a damaged file can fail in many ways, and the user cannot use the details
            raise UserError(f"{self.path} is damaged or not a checkpoint of this program; {again}.") from error
        differences = ", ".join(describe_difference(name, identity.get(name), value)
                                for name, value in self.identity.items() if identity.get(name) != value)
        if differences:
            raise UserError(f"{self.path} belongs to another run ({differences}); use its options, or {again}.")
        try:
            for name, part in self.parts.items():
                part.load_state_dict(saved["parts"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{self.path} belongs to another network; {again}.") from error
        np.random.set_state(saved["numpy"])
        torch.set_rng_state(saved["torch"])
        torch.cuda.set_rng_state_all(saved["cuda"][:torch.cuda.device_count()])
        print(f"continuing after epoch {len(saved['epochs'])}")
        return saved["epochs"], saved["seconds"]
