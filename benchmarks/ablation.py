"""Measure what each part contributes: the bonus without one of its parts, and runs with another `models.py`.

    python -m benchmarks.ablation                      about 15 minutes for a part and seed on one core
    python -m benchmarks.ablation --networks RUN...    seconds; RUN is the folder of a run with another `models.py`

Parts of the bonus: 20 % of the training reviews are the validation set. They are about other films, and they are the
same for all rows and seeds. The test reviews are not used. Expect a loss of .187, and up to .014 more without a part.
Finished trainings are kept in `runs/ablation/`, so that an interrupted ablation continues.
"""

import json
from pathlib import Path

import torch
from torch import nn

from benchmarks.common import data_parser, machine, mean_row, read_json, write_result
from benchmarks.seeds import SEEDS, figures
from helpers import keep_freed_memory, run
from helpers.bonus import BonusPipeline
from helpers.files import write_text
from helpers.predictor import Pipeline
from sentiment_analysis import load_imdb_data, parse_args, run_epoch, set_seed, settings_of

PARTS = ("nothing", "short texts", "region embeddings", "input dropout", "one-cycle schedule")


class NoRegions(nn.Module):
    """Replaces `Regions`: adds nothing to the word vectors."""

    def forward(self, ids):
        return 0.0


class AblatedPipeline(BonusPipeline):
    """The bonus without one of PARTS."""

    def __init__(self, settings, left_out):
        super().__init__(settings)
        self.left_out = left_out

    def train_loader(self, train_set):
        """Return the batches to train on: without short texts, those of the exercise."""
        kind = Pipeline if self.left_out == "short texts" else BonusPipeline
        return kind.train_loader(self, train_set)

    def build_model(self, vocab):
        """Return a new network."""
        model = super().build_model(vocab)
        if self.left_out == "region embeddings":
            model.regions = NoRegions()
        if self.left_out == "input dropout":
            model.input_dropout = nn.Identity()
        return model

    def make_scheduler(self, optimizer, steps):
        """Return the schedule: without one cycle, the constant rate of the exercise."""
        kind = Pipeline if self.left_out == "one-cycle schedule" else BonusPipeline
        return kind.make_scheduler(self, optimizer, steps)


def train_and_validate(pipeline, seed, args):
    """Return the metrics of the last epoch, as in `metrics.json`. `args` are the options of a run."""
    data = load_imdb_data(args, pipeline)
    set_seed(seed)
    model = pipeline.build_model(data.vocab).to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, fused=True)
    scheduler = pipeline.make_scheduler(optimizer, args.epochs * len(data.train_loader))
    epochs = [run_epoch(epoch, model, data, optimizer, scheduler) for epoch in range(1, args.epochs + 1)]
    return epochs[-1]


def load_or_train(left_out, seed, args):
    """Return the figures of a part and seed, from `runs/ablation/` if an earlier call left them there."""
    path = Path("runs", "ablation", f"{left_out.replace(' ', '-')}-{seed}.json")
    settings = settings_of(args)
    if not path.exists() or read_json(path)["settings"] != settings:
        print(f"without {left_out}, seed {seed}", flush=True)
        last_epoch = train_and_validate(AblatedPipeline(settings, left_out), seed, args)
        write_text(path, json.dumps({"settings": settings, "last_epoch": last_epoch}) + "\n")
    last_epoch = read_json(path)["last_epoch"]
    return {"validation accuracy, %": 100 * last_epoch["valid_accuracy"], "validation loss": last_epoch["valid_loss"]}


def measure_parts(args):
    """Return the result of the bonus without each part. `args` are the options of a run."""
    rows = []
    for left_out in PARTS:
        of_seeds = [load_or_train(left_out, seed, args) for seed in SEEDS]
        rows.append({"left out": left_out} | mean_row(of_seeds))
    return {"rows": rows, "device": args.device, "machine": machine()}


def measure_networks(folders):
    """Return the result of finished runs, which are named by their folders."""
    rows = []
    for folder in folders:
        metrics = read_json(folder / "metrics.json")
        rows.append({"network": folder.name} | figures(metrics) | {"learning rate": str(metrics["settings"]["lr"])})
    return {"rows": rows}


def main():
    parser = data_parser(__doc__)
    parser.add_argument("--networks", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    options = parser.parse_args()
    if options.networks:
        write_result("networks", measure_networks(options.networks))
        return
    keep_freed_memory()
    args = parse_args(["--preset", "bonus", "--data-dir", options.data_dir, "--cache-dir", options.cache_dir])
    args.valid_share = 0.2
    write_result("ablation", measure_parts(args))


if __name__ == "__main__":
    run(main)
