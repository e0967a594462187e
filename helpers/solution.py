"""Train the network of another `models.py` with the data and the loop of this project.

Such a network takes no mask, and its layer norm has the shape (max_len, d). So all reviews are padded to `max_len`.
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers.cli import UserError
from helpers.data.batches import ReviewSet
from helpers.pipeline import Pipeline
from helpers.runtime import is_memory_error
from helpers.source import read_source, select_needed

LAYERS = ("MySelfAttention", "MyLayerNorm")
NETWORK = "MyTransformer"


def check_file(path):
    """Raise UserError unless `path` is a Python file."""
    if not Path(path).is_file():
        raise UserError(f"cannot open {path}: give the path of a models.py with --models.")
    if Path(path).suffix != ".py":
        raise UserError(f"{path} is not a Python file; give the path of a models.py with --models.")


def load_module(path):
    """Import a Python file. Raises UserError if it cannot be imported or lacks one of the two layers."""
    path = Path(path).resolve()
    check_file(path)
    source = read_source(path, path)
    # The cells of an exported notebook train; only what the network needs is run.
    tree = select_needed(source.tree, [*LAYERS, NETWORK]) if source.is_notebook else source.tree
    module = sys.modules["solution"] = types.ModuleType("solution")
    module.__file__ = str(path)
    sys.path.insert(0, str(path.parent))  # for the modules that it imports
    try:
        exec(compile(tree, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} cannot be imported ({describe(error)}); correct it and run again.") from error
    finally:
        sys.path.remove(str(path.parent))
    missing = [name for name in LAYERS if not hasattr(module, name)]
    if missing and not hasattr(module, NETWORK):
        raise UserError(f"{path} has no class {' and no class '.join(missing)}; add it and run again.")
    return module


def describe(error):
    """Return an error as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


class HandoutBlock(nn.Module):
    """The block of the hand-out with the layers of a solution."""

    def __init__(self, module, max_len, d, dropout):
        super().__init__()
        self.attention = module.MySelfAttention(d)
        self.norm1, self.norm2 = module.MyLayerNorm((max_len, d)), module.MyLayerNorm((max_len, d))
        self.fc1, self.fc2 = nn.Linear(d, d), nn.Linear(d, d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        """Apply the block: x (B, max_len, d) -> (B, max_len, d)."""
        x = self.norm1(self.dropout(self.attention(x)) + x)
        return self.norm2(self.fc2(F.relu(self.fc1(x))) + x)


class HandoutTransformer(nn.Module):
    """The transformer of the hand-out with the layers of a solution. It treats padding like any other word."""

    def __init__(self, module, vocab, max_len, num_of_blocks, dropout, freeze):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(vocab.vectors.clone(), freeze=freeze)
        d = vocab.vectors.shape[1]
        self.blocks = nn.Sequential(*(HandoutBlock(module, max_len, d, dropout) for _ in range(num_of_blocks)))
        self.fc = nn.Linear(d, 1)

    def forward(self, ids):
        """Return the logits: ids (B, max_len) -> (B, 1)."""
        return self.fc(self.blocks(self.embedding(ids)).mean(dim=1))


class OneOutput(nn.Module):
    """The network of a solution, with output (B, 1). Raises UserError if it fails or returns other outputs."""

    def __init__(self, model, path):
        super().__init__()
        self.model, self.path = model, path

    def forward(self, ids):
        """Return the logits: ids (B, max_len) -> (B, 1)."""
        try:
            logits = self.model(ids)
        except Exception as error:
            if is_memory_error(error):
                raise
            raise UserError(f"{self.path}: the network fails on ids of shape {tuple(ids.shape)} "
                            f"({describe(error)}); correct it and run again.") from error
        if not isinstance(logits, torch.Tensor) or logits.numel() != len(ids):
            raise UserError(f"{self.path}: the network must return one logit for each of the {len(ids)} reviews.")
        return logits.reshape(-1, 1)


class PaddedReviewSet(ReviewSet):
    """Reviews that are all padded to `max_len`."""

    def __init__(self, reviews, vocab, max_len, device="cpu"):
        super().__init__(reviews, vocab, max_len, device)
        self.lengths = np.full(len(reviews.labels), max_len)  # so that the loaders pad to it


class SolutionPipeline(Pipeline):
    """The steps of the exercise for the network of another `models.py`.

    Args:
        settings: a dict as in `metrics.json`.
        path: the Python file.
    """

    def __init__(self, settings, path):
        self.path, self.module = path, load_module(path)
        if hasattr(self.module, NETWORK):  # the file's own network chooses them
            settings = settings | {"dropout": None, "freeze": None}
        super().__init__(settings)

    def review_set(self, reviews, vocab, device):
        """Convert `reviews.Reviews` to a `PaddedReviewSet`."""
        return PaddedReviewSet(reviews, vocab, self.settings["max_len"], device)

    def build_model(self, vocab):
        """Return the `MyTransformer` of the file. If it has none, return a `HandoutTransformer` with its layers."""
        max_len, blocks = self.settings["max_len"], self.settings["blocks"]
        try:
            if hasattr(self.module, NETWORK):
                model = self.module.MyTransformer(vocab=vocab, max_len=max_len, num_of_blocks=blocks)
            else:
                model = HandoutTransformer(self.module, vocab, max_len, blocks, self.settings["dropout"],
                                           self.settings["freeze"])
        except Exception as error:
            raise UserError(f"{self.path}: the network cannot be built ({describe(error)}); correct it and run "
                            "again.") from error
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(f"{self.path}: the network has no parameter to train; correct it and run again.")
        return OneOutput(model, self.path)
