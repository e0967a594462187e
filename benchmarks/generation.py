"""Time of fifty samples at gpt2's size: ours, and minGPT's own `GPT.generate` called once a sample.

    python -m benchmarks.generation        about 5 minutes on 2 cores; minGPT is found or cloned as by generate_gpt2.py

One process, one network with random weights, ten prompts of two tokens five times each, 40 new tokens a sample with
top-k 40. Ours draws the fifty before, amid and after minGPT's, and its median counts. Every fifth sample is then drawn
greedily by both, whose ids must be equal. Ratio: minGPT / ours, higher is better for us.
"""

import argparse
import contextlib
import io
import os
import statistics
import time

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # for both: other work on the cores costs either side less
import torch
from tqdm import tqdm

from benchmarks.common import print_table, write_result
from files import run_command
from generate_gpt2 import find_mingpt, sample

PROMPTS, SENTENCES, NEW_TOKENS, TOP_K, HEADS, VOCABULARY = 10, 5, 40, 40, 12, 50257


def make_model():
    """minGPT's GPT at gpt2's size."""
    from mingpt.model import GPT
    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = "gpt2", VOCABULARY, 1024
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        return GPT(config).eval()


def seconds(function):
    """Wall-clock seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mingpt-dir", help="clone of minGPT")
    find_mingpt(parser.parse_args().mingpt_dir)
    torch.manual_seed(42)
    model = make_model()
    prompts = torch.randint(VOCABULARY, (PROMPTS, 2)).repeat_interleave(SENTENCES, dim=0)  # (50, 2)

    def draw_ours():
        drawn = sample(model, HEADS, prompts, NEW_TOKENS, top_k=TOP_K)
        assert [len(ids) for ids in drawn] == [NEW_TOKENS] * len(prompts)

    sample(model, HEADS, prompts[:5], 2)  # neither side pays for the first call
    model.generate(prompts[:1], 2)
    ours, theirs = [seconds(draw_ours)], 0.0
    for row, prompt in enumerate(tqdm(prompts.split(1), desc="GPT.generate", unit=" samples", leave=False)):
        theirs += seconds(lambda prompt=prompt: model.generate(prompt, NEW_TOKENS, do_sample=True, top_k=TOP_K))
        if row == len(prompts) // 2:
            ours.append(seconds(draw_ours))
    ours.append(seconds(draw_ours))
    median = statistics.median(ours)
    greedy = prompts[::SENTENCES]
    equal = torch.equal(torch.tensor(sample(model, HEADS, greedy, NEW_TOKENS, top_k=1)),
                        model.generate(greedy, NEW_TOKENS)[:, 2:])

    tokens = len(prompts) * NEW_TOKENS
    rows = [{"way": way, "seconds": round(took, 2), "ms a token": round(1000 * took / tokens, 2),
             "ratio": round(theirs / took, 1)} for way, took in (("GPT.generate", theirs), ("ours", median))]
    print_table(rows)
    print(f"greedy ids {'equal' if equal else 'DIFFER'}")
    write_result("generation_speed", {"samples": len(prompts), "new_tokens": NEW_TOKENS, "top_k": TOP_K, "rows": rows,
                                      "ours_seconds": [round(took, 2) for took in ours], "greedy_ids_equal": equal})


if __name__ == "__main__":
    run_command(main)
