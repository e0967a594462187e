"""`model.pt`: a trained network and all that it needs to classify any text."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torchtext.vocab import Vocab

from helpers.cli import UserError
from helpers.data.batches import BucketLoader, predict_logits
from helpers.data.reviews import make_reviews
from helpers.data.tokens import tokenize
from helpers.door import make_pipeline
from helpers.files import read_torch, write_torch
from helpers.inference.calibration import calibration_error, cut_excerpts, fit, sharpness
from helpers.runtime import refuse_memory_errors

VERSION = 3  # of `model.pt`; raise it when tokens or inputs of the network change
CALIBRATION_DRAWS = 4  # sets of excerpts from which the calibration is learned
SURE = 0.55  # a lower probability of the predicted label is shown with the words "hard to say"
RESULTS = ".json", ".png"  # endings of the other files of a run
MODEL = Path(__file__).parents[2] / "pretrained" / "sentiment" / "model.pt"


class Predictor:
    """A trained network that classifies texts.

    Args:
        model: the network.
        vocab: its `torchtext.vocab.Vocab`.
        pipeline: a `pipeline.Pipeline` that was fitted on the training reviews.
        data: what the network was trained on, "IMDB" or "SAMPLE".
        calibration: a, b and c of `calibration`. The default does not change the logits.
    """

    def __init__(self, model, vocab, pipeline, data, calibration=(0.0, 0.0, 0.0)):
        self.model, self.vocab, self.pipeline = model.eval(), vocab, pipeline
        self.settings, self.data, self.calibration = pipeline.settings, data, calibration
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, path=None, device="cpu"):
        """Return what `save` wrote. For `path` see `find_model`, and without it `default_model`.

        Raises:
            UserError: the file is missing, damaged, or of another kind or version.
        """
        path = find_model(path) if path else default_model()
        try:
            saved = read_torch(path)
            version = saved.get("version")
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist; train first, or give the model of another run.") from error
        except Exception as error:  # a damaged file can fail in many ways, and the user cannot use the details
            raise UserError(f"{path} is damaged or not a model of this program; train again.") from error
        if version != VERSION:
            raise UserError(f"{path} was not written by this version of the program; train again, and give the "
                            "model.pt of the new run.")
        try:
            with refuse_memory_errors(f"close other programs, or train again if {path} is damaged"):
                return cls.from_saved(saved, device)
        except UserError:  # the bonus is missing, or the memory is full
            raise
        except Exception as error:
            raise UserError(f"{path} is damaged; train again.") from error

    @classmethod
    def from_saved(cls, saved, device):
        """Build a predictor from the content of a `model.pt`. Raises various errors if its parts do not fit."""
        state = saved["state"]
        if saved["settings"]["blocks"] > len(state):
            raise ValueError("the blocks have no weights")  # building so many could take all memory
        if len(saved["words"]) != len(state["embedding.weight"]):
            raise ValueError("the words and their vectors do not fit each other")
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise ValueError("a weight is not a finite number")
        vocab = Vocab(Counter(), specials=saved["words"])
        vocab.vectors = state["embedding.weight"]
        pipeline = make_pipeline(saved["settings"])
        pipeline.load_state(saved["bonus"], vocab)
        with torch.device("meta"):  # takes no memory, so wrong sizes in the settings do no harm
            model = pipeline.build_model(vocab)
        model.load_state_dict(state, assign=True)
        predictor = cls(model.to(device), vocab, pipeline, saved["data"], saved["calibration"])
        one_word = make_reviews(["film"], np.zeros(1, np.int32), np.array([0, 1]))
        if not predictor.logits(one_word).isfinite().all():
            raise ValueError("the network gives no finite number")
        return predictor

    def save(self, path):
        """Write everything that `load` needs."""
        state = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
        write_torch(path, {"version": VERSION, "data": self.data, "settings": self.settings, "words": self.vocab.itos,
                           "state": state, "calibration": list(self.calibration), "bonus": self.pipeline.state()})

    def logits(self, reviews):
        """Return the calibrated logit of each of `reviews.Reviews`: (reviews,). A positive logit means positive."""
        review_set = self.pipeline.review_set(reviews, self.vocab, self.device)
        return self.calibrated(predict_logits(self.model, BucketLoader(review_set), "predicting"), reviews)

    def calibrated(self, logits, reviews):
        """Return the calibrated logits, on the CPU, for the network's logits of `reviews.Reviews`: (reviews,)."""
        return (logits.cpu() * sharpness(self.calibration, np.diff(reviews.starts))).float()

    def calibrate(self, reviews):
        """Fit the calibration on excerpts of validation reviews."""
        self.calibration = 0.0, 0.0, 0.0
        logits_of_all = self.logits(reviews)  # computed once, although every draw contains the whole reviews
        logits, lengths, labels = [], [], []
        for seed in range(CALIBRATION_DRAWS):
            for texts in cut_excerpts(reviews, seed).values():
                logits.append(logits_of_all if texts is reviews else self.logits(texts))
                lengths.append(np.diff(texts.starts))
                labels.append(torch.from_numpy(texts.labels))
        self.calibration = fit(torch.cat(logits), np.concatenate(lengths), torch.cat(labels))

    def excerpt_metrics(self, reviews, logits_of_all):
        """Return accuracy and calibration error on excerpts of reviews: a dict from the keys of `cut_excerpts`.

        Args:
            reviews: `reviews.Reviews` with labels.
            logits_of_all: the calibrated logits of the whole reviews, (reviews,).
        """
        metrics = {}
        for length, texts in cut_excerpts(reviews).items():
            logits = logits_of_all if texts is reviews else self.logits(texts)
            labels = torch.from_numpy(texts.labels)
            accuracy = ((logits > 0) == labels).float().mean().item()
            metrics[length] = {"accuracy": accuracy, "calibration_error": calibration_error(logits, labels)}
        return metrics


def default_model(runs="runs"):
    """Return the path of the bundled network, or of the newest run if the bundled network is not in this folder."""
    if MODEL.exists():
        return MODEL
    models = sorted(Path(runs).glob("*/model.pt"), key=lambda path: path.stat().st_mtime)
    return models[-1] if models else MODEL


def find_model(path):
    """Return the path of the `model.pt` of a run.

    Args:
        path: the folder of the run, a result in it (metrics.json, loss.png, ...), or a `model.pt` under any name.

    Raises:
        UserError: a folder has no `model.pt`, or the file is the checkpoint of an interrupted run.
    """
    path = Path(path)
    if path.name == "checkpoint.pt":
        raise UserError(f"{path} belongs to an interrupted run; continue the run with --resume, and give its model.pt.")
    folder = path.parent if path.suffix in RESULTS else path
    if not folder.is_dir():
        return path
    if not (folder / "model.pt").exists():
        raise UserError(f"{folder} has no model.pt; give the folder of a finished run (--models writes none).")
    return folder / "model.pt"


def as_reviews(texts):
    """Tokenize texts into `reviews.Reviews` without labels."""
    return make_reviews(*tokenize(texts))


def classify(logit):
    """Return the label of a logit, "positive" or "negative", and its probability, from 0.5 to 1."""
    return "positive" if logit > 0 else "negative", torch.sigmoid(logit.abs()).item()
