"""Write five English sentences for each of ten two-word prefixes with GPT-2, through a clone of minGPT.

    python generate_gpt2.py                               gpt2 from the Hugging Face hub, minGPT from GitHub
    python generate_gpt2.py --prefix "My name"            another prefix; the option can be repeated
    python generate_gpt2.py --weights DIR                 a local Hugging Face GPT-2 folder, without network

Prints the sentences and writes `gpt2_sentences.json` and `gpt2_sentences.md` to `report/results/`. What is unavailable
is replaced by the next best thing, and a notice says so: transformers for minGPT, a small GPT of our own for gpt2.
"""

import helpers.runtime  # before torch, whose threads it tells how to wait

# isort: split
import argparse
import json
import re
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from helpers.cli import Parser, UserError, number, run_command
from helpers.files import whole_file
from helpers.gpt2 import COOLEST, MODELS, OWN_GPT, choose_folder, choose_gpt, load_writer, weights_files
from helpers.sentences import first_sentence, has_words, make_splitter

PREFIXES = ["My name", "This film", "She never", "Why does", "If you", "Two brothers", "Once upon", "Do not",
            "Nobody knows", "After midnight"]
SENTENCES = 5  # for each prefix
ROUNDS = 5  # of drawing: the first, and four for the samples that found no end


def draw_sentences(writer, prefixes, settings, seed):
    """Return five different sentences for each prefix, as a list of {"prefix", "sentence", "cut"}.

    Raises UserError if there is no room for so many tokens, or if the network repeats itself in all rounds.
    """
    import torch  # takes a second, for which no refusal should wait

    nlp = make_splitter()
    prompts = {prefix: writer.encode(prefix) for prefix in prefixes}
    room = writer.positions - max(map(len, prompts.values()))
    if settings["max_new_tokens"] > room:
        raise UserError(f"{writer.facts['model']} has room for {room} new tokens; lower --max-new-tokens.")
    torch.manual_seed(seed)
    found = {prefix: {} for prefix in prefixes}  # sentence: whether it is complete
    for _ in range(ROUNDS):
        for length in sorted({len(ids) for ids in prompts.values()}):  # generate takes prompts of equal length
            batch = [prefix for prefix in prefixes if len(prompts[prefix]) == length
                     for _ in range(SENTENCES - sum(found[prefix].values()))]
            if not batch:
                continue
            idx = torch.tensor([prompts[prefix] for prefix in batch], device=writer.device)  # (B, T)
            drawn = writer.model.generate(idx, do_sample=True, **settings)  # (B, T + max_new_tokens)
            for prefix, ids in zip(batch, drawn[:, length:].tolist(), strict=True):
                sentence, complete = first_sentence(nlp, prefix + writer.decode(ids), len(prefix))
                if has_words(sentence[len(prefix):]):
                    found[prefix][sentence] = complete or found[prefix].get(sentence, False)

    sentences = []
    for prefix in prefixes:
        chosen = sorted(found[prefix].items(), key=lambda item: not item[1])[:SENTENCES]  # the complete ones first
        if len(chosen) < SENTENCES:
            raise UserError(f"{ROUNDS} rounds gave only {len(chosen)} different sentences for '{prefix}'; "
                            "raise --temperature, --top-k or --max-new-tokens.")
        sentences += [{"prefix": prefix, "sentence": text, "cut": not complete} for text, complete in chosen]
    return sentences


def as_markdown(result):
    """Return the Markdown table of a result."""
    def plain(text):
        return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", text)

    lines = ["Written by {model} ({parameters:,} parameters; {weights} with SHA-256 `{weights_sha256}`) through "
             "{backend}: seed {seed}, top-k {settings[top_k]}, temperature {settings[temperature]:g}, at most "
             "{settings[max_new_tokens]} new tokens.\n".format(**result), "| prefix | sentence |", "|---|---|"]
    for one in result["sentences"]:
        lines.append(f"| {plain(one['prefix'])} | {plain(one['sentence'])}{' *(cut)*' if one['cut'] else ''} |")
    return "\n".join(lines) + "\n"


def two_words(text):
    """Return a prefix of two words: an argparse type."""
    words = text.split()
    if len(words) != 2 or not all(re.fullmatch(r"(?=.*[^\W_])[\w'’.,&-]+", word) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not two words")
    return " ".join(words)


def parse_args(argv=None):
    """Return the options of the command line."""
    parser = Parser(description="Write five English sentences for each of ten two-word prefixes with GPT-2.")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--model", choices=MODELS, help="weights from the Hugging Face hub (default: gpt2, or "
                         f"{OWN_GPT.name} with a notice where it is unavailable)")
    weights.add_argument("--weights", metavar="DIR", help="local Hugging Face GPT-2 folder; needs no network")
    parser.add_argument("--backend", choices=["mingpt", "transformers"], help="whose network generates (default: "
                        "mingpt, or transformers with a notice where minGPT is unavailable)")
    parser.add_argument("--mingpt-dir", metavar="DIR", help="clone of minGPT (default: the installed package, "
                        "./minGPT, or a clone made there)")
    parser.add_argument("--prefix", type=two_words, action="append", metavar='"TWO WORDS"',
                        help=f"write for this prefix; can be repeated (default: {', '.join(PREFIXES)})")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=42, help="seed (default: %(default)s)")
    parser.add_argument("--top-k", type=number(int, 1), default=40, metavar="K",
                        help="draw from the K likeliest tokens (default: %(default)s)")
    parser.add_argument("--temperature", type=number(float, COOLEST), metavar="T", help="below 1 is safer, above "
                        "wilder (default: what the weights' generation_config.json says, else 1)")
    parser.add_argument("--max-new-tokens", type=number(int, 1), default=60, metavar="N",
                        help="limit of a sentence (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("report/results"),
                        help="folder of results (default: %(default)s)")
    return parser.parse_args(argv)


def main():
    args = parse_args()
    folder, name = choose_folder(args.model, args.weights)
    weights_files(folder)  # refuses before minGPT is cloned
    GPT = choose_gpt(args.backend, args.mingpt_dir)
    args.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=args.out).close()  # fails before minutes of work, not after them
    writer = load_writer(folder, name, GPT)
    settings = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature or writer.temperature,
                "top_k": min(args.top_k, writer.model.lm_head.out_features)}
    print("{model}: {parameters:,} parameters through {backend} on {device}".format(**writer.facts))
    started = time.time()
    with tqdm(desc=name, unit=" steps", leave=False) as bar:
        writer.model.register_forward_hook(lambda *_: bar.update() and None)  # None: the output stays as it is
        sentences = draw_sentences(writer, list(dict.fromkeys(args.prefix or PREFIXES)), settings, args.seed)
    result = writer.facts | {
        "seed": args.seed, "settings": settings | {"sentences_per_prefix": SENTENCES, "rounds": ROUNDS},
        "versions": helpers.runtime.versions_of("torch", "transformers", "spacy", "numpy"),
        "seconds": round(time.time() - started, 1), "sentences": sentences}
    with whole_file(args.out / "gpt2_sentences.json") as data, whole_file(args.out / "gpt2_sentences.md") as table:
        data.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        table.write_text(as_markdown(result), encoding="utf-8")
    for i, one in enumerate(sentences):
        print("\n" if i % SENTENCES == 0 else "", one["sentence"], " [cut]" if one["cut"] else "", sep="")
    print(f"\n{len(sentences)} sentences in {result['seconds']} s; gpt2_sentences.json and .md are in {args.out}")


if __name__ == "__main__":
    run_command(main)
