"""Training on a GPU: seconds an epoch, and what a step costs, beside the skeleton's loop over 500 tokens a review.

    python -m benchmarks.gpu --data-dir .data        about 5 minutes, of which the bonus's n-grams and regions take most

Each network passes once over the reviews to warm up, once for the time of an epoch, and 50 batches once more under
torch's profiler, which counts the kernels and sums up how long the GPU was busy with them.
"""

import itertools
import time
from dataclasses import asdict

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from benchmarks.common import data_parser, print_table, write_result
from benchmarks.epoch import MAX_LEN, Skeleton, pad_trim
from helpers.archive import find_source
from helpers.cli import run_command
from helpers.predictor import build_model
from helpers.runtime import choose_device
from sentiment_analysis import PRESETS, load_imdb_data, make_optimizer, train_epoch

STEPS = 50


class FirstBatches:
    """The first STEPS batches of a loader, or fewer if it has fewer; what a pass begins with is done beforehand."""

    def __init__(self, loader):
        self.batches, self.number = iter(loader), min(STEPS, len(loader))

    def __len__(self):
        return self.number

    def __iter__(self):
        return itertools.islice(self.batches, self.number)


def measure(what, model, loader, settings):
    """Return a row of the table."""
    def train(loader):
        started = time.perf_counter()
        train_epoch(model, loader, optimizer, scheduler, what)  # looks at the loss in the end, so the GPU is done, too
        return time.perf_counter() - started

    optimizer, scheduler = make_optimizer(model, settings, 3 * len(loader))
    train(loader)
    seconds, first = train(loader), FirstBatches(loader)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        train(first)
    kernels = [event.time_range for event in profiled.events()
               if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith("Mem")]
    span = max((one.end for one in kernels), default=1) - min((one.start for one in kernels), default=0)
    return {"network": what, "s an epoch": seconds, "ms a step": 1000 * seconds / len(loader),
            "kernels a step": len(kernels) / len(first), "busy": sum(one.elapsed_us() for one in kernels) / span}


def main():
    args = data_parser(__doc__).parse_args()
    device, source, rows = choose_device("cuda"), find_source(args.data_dir), []
    for preset in ("required", "bonus"):
        settings = PRESETS[preset]
        train_set, _, _, loader, _, _, vocab, pad_id = load_imdb_data(settings, source, device=device)
        channels = train_set.channels.shape[1] if settings.ngrams else 0
        model = build_model(vocab, asdict(settings) | {"channels": channels}).to(device)
        rows.append(measure(preset, model, loader, settings))
        if preset == "required":
            on_cpu, *_ = load_imdb_data(settings, source)
            theirs = DataLoader(on_cpu, settings.batch_size, shuffle=True, collate_fn=pad_trim(pad_id, device))
            skeleton = Skeleton(vocab, MAX_LEN, settings.blocks).to(device)
            rows.append(measure("skeleton", skeleton, theirs, settings))
    print_table(rows)
    write_result("gpu", {"gpu": torch.cuda.get_device_name(), "rows": rows})


if __name__ == "__main__":
    run_command(main)
