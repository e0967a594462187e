"""Time fifty samples at the size of gpt2: ours as one batch, minGPT's own `GPT.generate` called for each sample.

    python -m benchmarks.generation        about 6 minutes on 2 cores; minGPT is found or cloned as in generate_gpt2.py

Both use one network with random weights, ten prompts of two tokens with five samples each, and top-k 40. Ours is timed
before, during and after minGPT's samples, and its median counts. Then both draw ten samples greedily, which must be
equal.
"""

import contextlib
import io
import statistics

import torch
from tqdm import tqdm

from benchmarks.common import print_table, seconds_of, write_result
from helpers.cli import Parser, run_command, user_path
from helpers.gpt2.mingpt import cached_gpt, choose_gpt

PROMPTS, SENTENCES, NEW_TOKENS, TOP_K, VOCABULARY = 10, 5, 40, 40, 50257


def sample(kind, model, prompts):
    """Draw NEW_TOKENS tokens after each row of `prompts` by the method `generate` of the class `kind`."""
    kind.generate(model, prompts, NEW_TOKENS, do_sample=True, top_k=TOP_K)


def compare(GPT, CachedGPT, model, prompts):
    """Return the seconds of minGPT's samples, and those of three batches of ours (a list)."""
    for kind in (CachedGPT, GPT):
        kind.generate(model, prompts[:1], 2)  # the first call is slower
    batches, singles = [seconds_of(sample, CachedGPT, model, prompts)], 0.0
    for row, prompt in enumerate(tqdm(prompts.split(1), desc="GPT.generate", unit=" samples", leave=False)):
        singles += seconds_of(sample, GPT, model, prompt)
        if row == len(prompts) // 2:
            batches.append(seconds_of(sample, CachedGPT, model, prompts))
    batches.append(seconds_of(sample, CachedGPT, model, prompts))
    return singles, batches


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mingpt-dir", type=user_path, help="clone of minGPT")
    GPT = choose_gpt("mingpt", parser.parse_args().mingpt_dir)
    torch.manual_seed(42)
    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = "gpt2", VOCABULARY, 1024
    CachedGPT = cached_gpt(GPT)
    with contextlib.redirect_stdout(io.StringIO()):  # minGPT prints its number of parameters
        model = CachedGPT(config).eval()
    prompts = torch.randint(VOCABULARY, (PROMPTS, 2)).repeat_interleave(SENTENCES, dim=0)  # (50, 2)
    singles, batches = compare(GPT, CachedGPT, model, prompts)
    greedy = prompts[::SENTENCES]
    equal = torch.equal(CachedGPT.generate(model, greedy, NEW_TOKENS), GPT.generate(model, greedy, NEW_TOKENS))

    rows, tokens = [], len(prompts) * NEW_TOKENS
    for way, seconds in (("GPT.generate", singles), ("ours", statistics.median(batches))):
        rows.append({"way": way, "seconds": round(seconds, 2), "ms a token": round(1000 * seconds / tokens, 2),
                     "ratio": round(singles / seconds, 1)})
    print_table(rows)
    print(f"greedy ids {'equal' if equal else 'DIFFER'}")
    write_result("generation_speed", {"samples": len(prompts), "new_tokens": NEW_TOKENS, "top_k": TOP_K, "rows": rows,
                                      "ours_seconds": [round(took, 2) for took in batches], "greedy_ids_equal": equal})


if __name__ == "__main__":
    run_command(main)
