"""An interrupted run goes on: `checkpoint.pt` holds all that the next epochs depend on."""

import numpy as np
import torch

from helpers.cli import UserError
from helpers.files import read_torch, write_torch


class Checkpoint:
    """The file from which an interrupted run goes on.

    Args:
        path: of the file.
        identity: what must be the same for a run to go on where another stopped; dict from name to number or string.
        parts: what has a `state_dict`: network, optimizer, schedule.
    """

    def __init__(self, path, identity, **parts):
        self.path, self.identity, self.parts = path, identity, parts

    def save(self, epochs, seconds):
        """Write the parts, numpy's and torch's generators, the epochs so far (a list) and the seconds they took."""
        kind, keys, *rest = np.random.get_state()
        write_torch(self.path, {
            "identity": self.identity, "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "epochs": epochs, "seconds": seconds, "torch": torch.get_rng_state(),
            "numpy": (kind, keys.tolist(), *rest),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []})

    def start(self, resume):
        """Say where the run starts and, to `resume`, set everything to where it was saved.

        Returns the epochs so far and the seconds they took. Raises UserError if the file is damaged or of another run.
        """
        if not self.path.exists():
            if resume:
                print(f"no interrupted run in {self.path.parent}; starting anew")
            return [], 0.0
        if not resume:
            print(f"starting anew, though {self.path.parent} holds an interrupted run: --resume goes on with that one")
            return [], 0.0
        again = "leave --resume out to start anew"
        try:
            saved = read_torch(self.path)
            identity = saved["identity"]
        except Exception as error:  # a damaged file can fail in many ways, and none of them is of use to the reader
            raise UserError(f"{self.path} is not a checkpoint of this program, or is damaged; {again}.") from error
        differences = ", ".join(f"{name} {identity.get(name)} instead of {value}"
                                for name, value in self.identity.items() if identity.get(name) != value)
        if differences:
            raise UserError(f"{self.path} belongs to another run ({differences}); give its options, or {again}.")
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        np.random.set_state(saved["numpy"])
        torch.set_rng_state(saved["torch"])
        torch.cuda.set_rng_state_all(saved["cuda"][:torch.cuda.device_count()])
        print(f"going on after epoch {len(saved['epochs'])}")
        return saved["epochs"], saved["seconds"]
