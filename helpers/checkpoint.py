"""Save and continue interrupted runs: `checkpoint.pt` holds everything that the next epochs depend on."""

import numpy as np
import torch

from helpers.cli import UserError
from helpers.files import read_torch, write_torch


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
        """Restore what was saved if `resume` is true; print what is continued or discarded.

        Returns:
            the metrics of the epochs so far (a list), and their total time in seconds.

        Raises:
            UserError: the file is damaged or belongs to another run.
        """
        if not self.path.exists():
            if resume:
                print(f"found no interrupted run in {self.path.parent}; starting a new one")
            return [], 0.0
        if not resume:
            print(f"starting over; use --resume to continue the interrupted run in {self.path.parent}")
            return [], 0.0
        again = "leave out --resume to start over"
        try:
            saved = read_torch(self.path)
            identity = saved["identity"]
        except Exception as error:  # a damaged file can fail in many ways, and the user cannot use the details
            raise UserError(f"{self.path} is damaged or not a checkpoint of this program; {again}.") from error
        differences = ", ".join(f"{name} {identity.get(name)} instead of {value}"
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
