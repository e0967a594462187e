"""Write five English sentences for each of ten two-word prefixes with GPT-2, through a clone of minGPT.

    python generate_gpt2.py                               gpt2 from the Hugging Face hub, minGPT from GitHub
    python generate_gpt2.py --prefix "My name"            another prefix; the option can be repeated
    python generate_gpt2.py --weights DIR                 a local Hugging Face GPT-2 folder, without network

Prints the sentences and writes `gpt2_sentences.json` and `gpt2_sentences.md` to `report/results/`. What cannot be had
is replaced by the next best thing, and a notice says so: transformers for minGPT, a small GPT of our own for gpt2.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import time
import urllib.request
import warnings
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from files import Parser, Unreachable, UserError, download, file_digest, number, run_command, whole_file

# torch, spaCy, transformers and minGPT are imported where they are used, so that --help and refusals are quick.

PREFIXES = ["My name", "This film", "She never", "Why does", "If you", "Two brothers", "Once upon", "Do not",
            "Nobody knows", "After midnight"]
SENTENCES = 5  # for each prefix
ROUNDS = 5  # of drawing: the first, and four for the samples that found no end
ROWS = 100  # of a batch at most, which bounds the memory
MODELS = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
OWN_GPT = Path(__file__).parent / "pretrained" / "gpt-reviews"
MINGPT_URL = "https://github.com/karpathy/minGPT"
MINGPT_COMMIT = "37baab71b9abea1b76ab957409a1cc2fbfba8a26"
# transformers keeps these as the transposed matrices of its Conv1D.
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
BPE_CACHE = Path(".cache", "gpt2")
BPE_FILES = {  # Hugging Face's name: OpenAI's name for the same bytes, and their SHA-256
    "vocab.json": ("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "merges.txt": ("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5")}


# ---- The command

def write_sentences(writer, prefixes, seed, settings):
    """Draw the sentences; returns all that `gpt2_sentences.json` is to hold."""
    import torch
    room = writer.config.n_positions - max(len(writer.encode(prefix)) for prefix in prefixes)
    if settings["max_new_tokens"] > room:
        raise UserError(f"{writer.facts['model']} has room for {room} new tokens; lower --max-new-tokens.")

    def draw(prompts, stopped):
        return sample(writer.model, writer.config.n_head, torch.tensor(prompts), settings["max_new_tokens"],
                      settings["temperature"], settings["top_k"], stopped)

    started = time.time()
    writer.set_seed(seed)
    with tqdm(total=len(prefixes) * SENTENCES, desc=writer.facts["model"], unit=" sentences", leave=False) as bar:
        sentences = draw_sentences(prefixes, writer.encode, writer.decode, draw, bar)
    versions = {name: version(name) for name in ("torch", "transformers", "spacy", "numpy")}
    return writer.facts | {
        "seed": seed, "settings": settings | {"sentences_per_prefix": SENTENCES, "rounds": ROUNDS},
        "versions": versions | {"python": platform.python_version()},
        "seconds": round(time.time() - started, 1), "sentences": sentences}


def as_table(result, width):
    """The sentences for the terminal, wrapped to `width`."""
    lines, last = [], None
    column = 2 + max(len(one["prefix"]) for one in result["sentences"])
    for one in result["sentences"]:
        first = "" if one["prefix"] == last else one["prefix"]
        last = one["prefix"]
        lines += [""] * bool(first) + textwrap.wrap(
            one["sentence"] + " [cut]" * one["cut"], width, initial_indent=f"{first:<{column}}- ",
            subsequent_indent=" " * (column + 2))
    return "\n".join(lines)


def as_markdown(result):
    """The Markdown table of a result."""
    def plain(text):
        return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", text)

    settings = result["settings"]
    rows = [f"| {plain(one['prefix'])} | {plain(one['sentence'])}{' *(cut)*' * one['cut']} |\n"
            for one in result["sentences"]]
    return (f"Written by {result['model']} ({result['parameters']:,} parameters; {result['weights']} with SHA-256 "
            f"`{result['weights_sha256']}`) through {result['backend']}: seed {result['seed']}, top-k "
            f"{settings['top_k']}, temperature {settings['temperature']:g}, at most {settings['max_new_tokens']} new "
            "tokens.\n\n| prefix | sentence |\n|---|---|\n" + "".join(rows))


def two_words(text):
    """An argparse type: a prefix of two words."""
    words = text.split()
    if len(words) != 2 or not all(re.fullmatch(r"(?=.*[^\W_])[\w'’.,&-]+", word) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not two words")
    return " ".join(words)


def parse_args(argv=None):
    """Options of the command line."""
    parser = Parser(description=__doc__.partition("\n")[0])
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--model", choices=MODELS, help="weights from the Hugging Face hub (default: "
                         f"{MODELS[0]}, or {OWN_GPT.name} with a notice where it cannot be had)")
    weights.add_argument("--weights", metavar="DIR", help="local Hugging Face GPT-2 folder; needs no network")
    parser.add_argument("--backend", choices=["mingpt", "transformers"], help="whose network and tokenizer to use "
                        "(default: mingpt, or transformers with a notice where minGPT cannot be had)")
    parser.add_argument("--mingpt-dir", metavar="DIR", help="clone of minGPT (default: the installed package, "
                        "./minGPT, or a clone made there)")
    parser.add_argument("--prefix", type=two_words, action="append", metavar='"TWO WORDS"',
                        help=f"write for this prefix; can be repeated (default: {', '.join(PREFIXES)})")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=42, help="seed (default: %(default)s)")
    parser.add_argument("--top-k", type=number(int, 1), default=40, metavar="K",
                        help="draw from the K likeliest tokens (default: %(default)s)")
    parser.add_argument("--temperature", type=number(float, 0.01), metavar="T", help="below 1 is safer, above 1 is "
                        "wilder (default: what the weights' generation_config.json says, else 1)")
    parser.add_argument("--max-new-tokens", type=number(int, 1), default=60, metavar="N",
                        help="limit of a sentence (default: %(default)s)")
    parser.add_argument("--bfloat16", action="store_true", help="half precision on the CPU: twice as fast where the "
                        "processor has instructions for it (a GPU takes float16 always)")
    parser.add_argument("--out", metavar="DIR", default="report/results", help="folder of results (default: "
                        "%(default)s)")
    return parser.parse_args(argv)


def main():
    args = parse_args()
    folder, name, from_hub = choose_folder(args)
    weights_file(folder)  # refuses before minGPT is cloned
    backend = choose_backend(args)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)  # fails before minutes of work, not after them
    writer = load_writer(folder, name, backend, from_hub, args.bfloat16)
    settings = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature or writer.temperature,
                "top_k": args.top_k}
    print("{model}: {parameters:,} parameters through {backend} on {device} in {precision}".format(**writer.facts))
    result = write_sentences(writer, list(dict.fromkeys(args.prefix or PREFIXES)), args.seed, settings)
    with whole_file(out / "gpt2_sentences.json") as data, whole_file(out / "gpt2_sentences.md") as table:
        data.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        table.write_text(as_markdown(result), encoding="utf-8")
    print(as_table(result, min(shutil.get_terminal_size((100, 24)).columns, 120)))
    print(f"\n{len(result['sentences'])} sentences in {result['seconds']} s; {out} holds gpt2_sentences.json and "
          "gpt2_sentences.md")


if __name__ == "__main__":
    # Threads that wait sleep instead of spinning: 9 times as fast where the cores have other work. torch reads it when
    # it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter shows "?"
    run_command(main)
