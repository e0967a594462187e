"""Measure training on a GPU: time of an epoch and of a step, kernels of a step, and how busy the GPU is.

    python -m benchmarks.gpu --data-dir .data        about 2 minutes with a filled cache, 12 minutes without

The networks are those of the required setting, of the exercise's skeleton (which pads to 500 tokens) and of the bonus.
Each trains for one pass: STEPS batches to warm up, STEPS batches with torch's profiler, and the others for the time of
a step. Expect 7 ms for a step of the required setting, of which a fast GPU is busy for a tenth.
"""

import itertools
import time

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import data_parser, machine, write_result
from benchmarks.speed import MAX_LEN, Skeleton, skeleton_loader
from helpers import run
from helpers.batches import ReviewSet
from helpers.predictor import make_pipeline
from sentiment_analysis import load_imdb_data, parse_args, settings_of, train_epoch

STEPS = 50


def measure(name, model, loader, lr, pipeline):
    """Return the row of a network. The bonus draws the short texts of a pass before the first step, on the CPU."""
    def train(number):
        started = time.perf_counter()
        train_epoch(model, itertools.islice(batches, number), optimizer, scheduler, name)  # waits for the GPU
        return time.perf_counter() - started

    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
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
            "kernels a step": kernels / STEPS, "GPU busy, %": 100 * busy}


def summarize(events):
    """Return the number of kernels among the events of a profiler, and the share of time in which one was running."""
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA
               and not event.is_user_annotation and not event.name.startswith("Mem")]  # copies, and filling memory
    times = [event.time_range for event in kernels]
    span = max(one.end for one in times) - min(one.start for one in times)
    return len(kernels), sum(one.elapsed_us() for one in times) / span


def main():
    options = data_parser(__doc__).parse_args()
    rows = []
    for preset in ("required", "bonus"):
        args = parse_args(["--preset", preset, "--data-dir", options.data_dir, "--cache-dir", options.cache_dir,
                           "--device", "cuda"])
        pipeline = make_pipeline(settings_of(args))
        data = load_imdb_data(args, pipeline)
        model = pipeline.build_model(data.vocab).to(args.device)
        rows.append(measure(preset, model, data.train_loader, args.lr, pipeline))
        if preset == "required":
            on_cpu = ReviewSet(data.train_set.reviews, data.vocab, MAX_LEN)
            theirs = skeleton_loader(on_cpu, data.pad_id, args.device)
            skeleton = Skeleton(data.vocab, MAX_LEN, args.blocks).to(args.device)
            rows.append(measure("skeleton", skeleton, theirs, args.lr, pipeline))
    write_result("gpu", {"gpu": torch.cuda.get_device_name(), "rows": rows, "machine": machine()})


if __name__ == "__main__":
    run(main)
