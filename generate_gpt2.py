"""Write five English sentences for each of ten two-word prefixes with GPT-2, using minGPT.

    python generate_gpt2.py                         gpt2 from the Hugging Face hub, minGPT from GitHub
    python generate_gpt2.py --prefix "My name"      another prefix; the option can be repeated
    python generate_gpt2.py --weights DIR           a local Hugging Face GPT-2 folder; needs no network

Prints the sentences. For exactly ten prefixes, it also writes `gpt2_sentences.json` and `gpt2_sentences.md` to
`runs/gpt2/`. If minGPT is unavailable, transformers runs the network. If gpt2 is unavailable, this project's own small
GPT writes the sentences. In both cases, the last line of the output says so.
"""

import helpers.runtime  # before torch, which reads the environment when it is imported

# isort: split
import datetime
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from helpers.cli import Parser, UserError, number, run_command, user_path
from helpers.gpt2.hub import MODELS
from helpers.gpt2.identity import OWN_GPT_NAME
from helpers.gpt2.mingpt import choose_gpt
from helpers.gpt2.prefixes import check_length, two_words
from helpers.gpt2.results import write_results
from helpers.gpt2.sentences import first_sentence, has_words
from helpers.gpt2.weights import MIN_TEMPERATURE, OWN_GPT, choose_folder, load_language_model, weights_files

PREFIXES = ["My name", "This film", "She never", "Why does", "If you", "Two brothers", "Once upon", "Do not",
            "Nobody knows", "After midnight"]
SENTENCES = 5  # for each prefix
DEFAULT_OUT = Path("runs/gpt2")
LESS_MEMORY = "use smaller weights, fewer prefixes or a lower --max-new-tokens"
ROUNDS = 5  # at most; each round samples again for the sentences that are still missing


def draw_sentences(language_model, prefixes, settings, seed):
    """Return five different sentences for each prefix, as a list of {"prefix", "sentence", "cut"}.

    Raises UserError if a prefix with its new tokens is too long for the network, or if the sentences repeat too often.
    """
    import torch  # imported late: it takes a second, and wrong options are refused before

    prompts = {prefix: language_model.encode(prefix) for prefix in prefixes}
    check_length(language_model, prompts, settings["max_new_tokens"])
    torch.manual_seed(seed)
    found = {prefix: {} for prefix in prefixes}  # prefix -> {sentence: whether it is complete}
    for _ in range(ROUNDS):
        for batch in missing_batches(prompts, found):
            texts = language_model.sample([prompts[prefix] for prefix in batch], **settings)
            for prefix, text in zip(batch, texts, strict=True):
                add_sentence(found[prefix], prefix, text)

    sentences = []
    for prefix in prefixes:
        for sentence, complete in choose_sentences(found[prefix], prefix):
            sentences.append({"prefix": prefix, "sentence": sentence, "cut": not complete})
    return sentences


def missing_batches(prompts, found):
    """Yield batches of prefixes with prompts of equal length. Each prefix occurs once for each missing sentence."""
    lengths = {len(ids) for ids in prompts.values()}
    for length in sorted(lengths):
        batch = []
        for prefix, ids in prompts.items():
            if len(ids) == length:
                complete = sum(found[prefix].values())
                batch += [prefix] * (SENTENCES - complete)
        if batch:
            yield batch


def add_sentence(sentences, prefix, text):
    """Add the first sentence of `prefix + text` to `sentences`, a dict: sentence -> whether it is complete."""
    sentence, complete = first_sentence(prefix + text, len(prefix))
    if has_words(sentence[len(prefix):]):
        sentences[sentence] = complete or sentences.get(sentence, False)


def choose_sentences(sentences, prefix):
    """Return five pairs (sentence, whether it is complete), complete ones first. Raises UserError if too few."""
    complete_first = sorted(sentences.items(), key=lambda item: not item[1])
    if len(complete_first) < SENTENCES:
        raise UserError(f"{ROUNDS} rounds gave only {len(complete_first)} different sentences for '{prefix}'; "
                        "raise --temperature, --top-k or --max-new-tokens.")
    return complete_first[:SENTENCES]


def parse_args(argv=None):
    """Return the options of the command line."""
    parser = Parser(description="Write five English sentences for each of ten two-word prefixes with GPT-2.")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--model", choices=MODELS, help="weights from the Hugging Face hub (default: gpt2; if it is "
                         f"unavailable, {OWN_GPT.name}, with a notice)")
    weights.add_argument("--weights", type=user_path, metavar="DIR",
                         help="local Hugging Face GPT-2 folder; needs no network")
    parser.add_argument("--backend", choices=["mingpt", "transformers"], help="implementation of the network (default: "
                        "mingpt; if it is unavailable, transformers, with a notice)")
    parser.add_argument("--mingpt-dir", type=user_path, metavar="DIR", help="clone of minGPT (default: the "
                        "installed package; without it, ./minGPT, which is cloned if it is missing or empty)")
    parser.add_argument("--prefix", type=two_words, action="append", metavar='"TWO WORDS"',
                        help=f"prefix of the sentences; can be repeated (default: {', '.join(PREFIXES)})")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=42, help="random seed (default: %(default)s)")
    parser.add_argument("--top-k", type=number(int, 1), default=40, metavar="K",
                        help="sample from the K most probable tokens (default: %(default)s)")
    parser.add_argument("--temperature", type=number(float, MIN_TEMPERATURE), metavar="T", help="sampling temperature: "
                        "lower is more predictable (default: from the weights' generation_config.json, or 1)")
    parser.add_argument("--max-new-tokens", type=number(int, 1), default=60, metavar="N",
                        help="maximum number of new tokens per sample (default: %(default)s)")
    parser.add_argument("--out", type=user_path, metavar="DIR",
                        help=f"folder for the results (default: {DEFAULT_OUT} for ten prefixes, else none)")
    return parser.parse_args(argv)


def draw_with_progress(language_model, prefixes, settings, seed):
    """Call `draw_sentences` with a progress bar of the network's steps."""
    with tqdm(desc=language_model.facts["model"], unit=" steps", leave=False) as bar:
        def count_step(*_):
            bar.update()  # returns None, so the network's output does not change

        language_model.model.register_forward_hook(count_step)
        return draw_sentences(language_model, prefixes, settings, seed)


def print_sentences(sentences):
    """Print one sentence a line, with an empty line before each prefix."""
    for i, one in enumerate(sentences):
        if i % SENTENCES == 0:
            print()
        print(one["sentence"] + (" [cut]" if one["cut"] else ""))


def find_substitutes(args, name, GPT):
    """Return what replaces gpt2 and minGPT, as a list of noun phrases; the list is empty if nothing was replaced."""
    substitutes = []
    if args.weights is None and name not in MODELS:
        substitutes.append(f"{OWN_GPT_NAME}, instead of gpt2")
    if GPT is None and args.backend is None:
        substitutes.append("GPT2LMHeadModel of the library transformers, instead of minGPT")
    return substitutes


def generate(args, prefixes, out):
    """Return the sentences of the prefixes and all facts about them: the content of `gpt2_sentences.json`.

    `out` is the folder to which they will be written, or None. If it is not writable, this fails at once.
    """
    folder, name = choose_folder(args.model, args.weights)
    weights_files(folder)  # refuse a wrong folder before cloning minGPT
    GPT = choose_gpt(args.backend, args.mingpt_dir)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()  # fail before minutes of work if the folder is not writable
    language_model = load_language_model(folder, name, GPT)
    print("{model}: {parameters:,} parameters through {backend} on {device}".format(**language_model.facts))
    vocab_size = language_model.model.lm_head.out_features
    settings = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature or language_model.temperature,
                "top_k": min(args.top_k, vocab_size)}
    started = time.monotonic()
    sentences = draw_with_progress(language_model, prefixes, settings, args.seed)
    seconds = round(time.monotonic() - started, 1)
    versions = helpers.runtime.versions_of("torch", "transformers", "spacy", "numpy")
    return language_model.facts | {
        "substitutes": find_substitutes(args, name, GPT),
        "seed": args.seed,
        "settings": settings | {"sentences_per_prefix": SENTENCES, "rounds": ROUNDS},
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "seconds": seconds,
        "sentences": sentences}


def main():
    args = parse_args()
    prefixes = list(dict.fromkeys(args.prefix or PREFIXES))  # without duplicates
    out = Path(args.out) if args.out else None
    if out is None and len(prefixes) == len(PREFIXES):
        out = DEFAULT_OUT  # any other number of prefixes must not replace the sentences of a submission
    with helpers.runtime.refuse_memory_errors(LESS_MEMORY):
        result = generate(args, prefixes, out)
    if out:
        write_results(out, result)
    print_sentences(result["sentences"])
    where = f"gpt2_sentences.json and .md are in {out}" if out else "nothing was saved (use --out DIR)"
    print(f"\n{len(result['sentences'])} sentences in {result['seconds']} s; {where}")
    if result["substitutes"]:
        print(f"SUBSTITUTES were used: {'; '.join(result['substitutes'])}.")


if __name__ == "__main__":
    run_command(main)
