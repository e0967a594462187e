"""Measure training on a GPU: time of an epoch and of a step, kernels of a step, and how busy the GPU is.

    python -m benchmarks.gpu --data-dir .data        about 2 minutes with a filled cache

The networks are those of the required setting, of the exercise's skeleton (which pads to 500 tokens) and of the bonus.
Each trains for one pass: STEPS batches to warm up, STEPS batches with torch's profiler, and the others for the time of
a step. The tokens, n-grams and regions come from `--cache-dir`; without them, it takes about 10 minutes more.
"""

import itertools
import time
from dataclasses import asdict

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from benchmarks.common import data_parser, print_table, write_result
from benchmarks.epoch import MAX_LEN, Skeleton, pad_trim
from helpers.cli import run_command
from helpers.data.archive import find_source
from helpers.data.batches import ReviewSet
from helpers.door import make_pipeline
from helpers.runtime import choose_device
from sentiment_analysis import load_imdb_data, make_optimizer, preset, train_epoch

STEPS = 50


class NextBatches:
    """The next `number` batches of an iterator, as a loader for `train_epoch`."""

    def __init__(self, batches, number):
        self.batches, self.number = batches, number

    def __len__(self):
        return self.number

    def __iter__(self):
        return itertools.islice(self.batches, self.number)


def measure(name, model, loader, lr, pipeline):
    """Return the row of a network. The bonus draws the short texts of a pass before the first step, on the CPU."""
    def train(number):
        started = time.perf_counter()
        train_epoch(model, NextBatches(batches, number), optimizer, scheduler, name)  # waits for the GPU at the end
        return time.perf_counter() - started

    optimizer = make_optimizer(model, lr)
    scheduler = pipeline.make_scheduler(optimizer, len(loader))
    started = time.perf_counter()
    batches = iter(loader)
    seconds_to_draw = time.perf_counter() - started
    train(STEPS)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        train(STEPS)
    others = len(loader) - 2 * STEPS
    seconds_of_step = train(others) / others
    kernels, busy = summarize(profiled.events())
    return {"network": name, "s an epoch": seconds_to_draw + seconds_of_step * len(loader),
            "s to draw texts": seconds_to_draw, "ms a step": 1000 * seconds_of_step,
            "kernels a step": kernels / STEPS, "busy": busy}


def summarize(events):
    """Return the number of kernels among the events of a profiler, and the share of time in which one was running."""
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA
               and not event.is_user_annotation and not event.name.startswith("Mem")]  # copies, and filling memory
    times = [event.time_range for event in kernels]
    span = max(one.end for one in times) - min(one.start for one in times)
    return len(kernels), sum(one.elapsed_us() for one in times) / span


def main():
    args = data_parser(__doc__).parse_args()
    device, source, rows = choose_device("cuda"), find_source(args.data_dir), []
    for name in ("required", "bonus"):
        settings = preset(name)
        pipeline = make_pipeline(asdict(settings))
        data = load_imdb_data(settings, source, args.cache_dir, device=device, pipeline=pipeline)
        model = pipeline.build_model(data.vocab).to(device)
        rows.append(measure(name, model, data.train_loader, settings.lr, pipeline))
        if name == "required":
            on_cpu = ReviewSet(data.train_set.reviews, data.vocab, MAX_LEN)
            theirs = DataLoader(on_cpu, settings.batch_size, shuffle=True, collate_fn=pad_trim(data.pad_id, device))
            skeleton = Skeleton(data.vocab, MAX_LEN, settings.blocks).to(device)
            rows.append(measure("skeleton", skeleton, theirs, settings.lr, pipeline))
    print_table(rows)
    write_result("gpu", {"gpu": torch.cuda.get_device_name(), "rows": rows})


if __name__ == "__main__":
    run_command(main)
