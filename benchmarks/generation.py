"""Time of fifty samples at gpt2's size: ours, and minGPT's own `GPT.generate` called once a sample.

    python -m benchmarks.generation        about 6 minutes on 2 cores; minGPT is found or cloned as by generate_gpt2.py

One process, one network with random weights, ten prompts of two tokens five times each, 40 new tokens a sample with
top-k 40. Ours draws the fifty before, amid and after minGPT's, and its median counts. Every fifth sample is then drawn
greedily by both, whose ids must be equal. Ratio: minGPT / ours, higher is better for us.
"""

import contextlib
import io
import statistics
import time

import torch
from tqdm import tqdm

from benchmarks.common import print_table, write_result
from helpers.cli import Parser, run_command
from helpers.gpt2 import cached_gpt, choose_gpt

PROMPTS, SENTENCES, NEW_TOKENS, TOP_K, VOCABULARY = 10, 5, 40, 40, 50257


def seconds(kind, model, prompts):
    """Return the wall-clock seconds in which the class `kind` draws NEW_TOKENS for each row of `prompts`."""
    started = time.perf_counter()
    kind.generate(model, prompts, NEW_TOKENS, do_sample=True, top_k=TOP_K)
    return time.perf_counter() - started


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mingpt-dir", help="clone of minGPT")
    GPT = choose_gpt("mingpt", parser.parse_args().mingpt_dir)
    torch.manual_seed(42)
    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = "gpt2", VOCABULARY, 1024
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        CachedGPT = cached_gpt(GPT)
        model = CachedGPT(config).eval()
    prompts = torch.randint(VOCABULARY, (PROMPTS, 2)).repeat_interleave(SENTENCES, dim=0)  # (50, 2)

    for kind in (CachedGPT, GPT):  # neither side pays for the first call
        kind.generate(model, prompts[:1], 2)
    batch, singles = [seconds(CachedGPT, model, prompts)], 0.0
    for row, prompt in enumerate(tqdm(prompts.split(1), desc="GPT.generate", unit=" samples", leave=False)):
        singles += seconds(GPT, model, prompt)
        if row == len(prompts) // 2:
            batch.append(seconds(CachedGPT, model, prompts))
    batch.append(seconds(CachedGPT, model, prompts))
    greedy = prompts[::SENTENCES]
    equal = torch.equal(CachedGPT.generate(model, greedy, NEW_TOKENS), GPT.generate(model, greedy, NEW_TOKENS))

    rows = [{"way": way, "seconds": round(took, 2), "ms a token": round(1000 * took / len(prompts) / NEW_TOKENS, 2),
             "ratio": round(singles / took, 1)}
            for way, took in (("GPT.generate", singles), ("ours", statistics.median(batch)))]
    print_table(rows)
    print(f"greedy ids {'equal' if equal else 'DIFFER'}")
    write_result("generation_speed", {"samples": len(prompts), "new_tokens": NEW_TOKENS, "top_k": TOP_K, "rows": rows,
                                      "ours_seconds": [round(took, 2) for took in batch], "greedy_ids_equal": equal})


if __name__ == "__main__":
    run_command(main)
