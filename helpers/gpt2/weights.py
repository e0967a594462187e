"""Weights and tokenizer of GPT-2: from the Hugging Face hub, a local folder, or this project's own small GPT."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.cli import Unreachable, UserError
from helpers.files import file_digest
from helpers.gpt2.hub import MODELS, hub_folder
from helpers.gpt2.mingpt import to_mingpt
from helpers.runtime import is_memory_error

# torch and transformers are imported inside the functions, so that --help and refusals are quick.

TOKENIZERS = [{"tokenizer.json"}, {"vocab.json", "merges.txt"}]  # files of newer and of older folders
OWN_GPT = Path(__file__).parents[2] / "pretrained" / "gpt-reviews"
MIN_TEMPERATURE = 0.01  # sampling divides the logits by the temperature


def choose_folder(model, weights):
    """Return the folder with the weights, and their name.

    `weights` is the path of a local folder or of a file in it, `model` one of MODELS; the default is gpt2, or our own
    GPT if the hub is unreachable. Raises UserError if `model` was asked for and is unavailable.
    """
    if weights is not None:
        folder = Path(weights)
        if folder.is_file():
            folder = folder.parent
        return folder, folder.resolve().name
    name = model or MODELS[0]
    try:
        return hub_folder(name), name
    except Unreachable as error:
        if model or not OWN_GPT.is_dir():
            raise UserError(f"{name} is unavailable: {error}, or give the path of a local folder with "
                            "--weights.") from error
        print(f"notice: {name} is unavailable: {error}. Using {OWN_GPT.name} instead, a small GPT that this project "
              "trained on film reviews; it is not GPT-2.")
        return OWN_GPT, OWN_GPT.name


def weights_files(folder):
    """Return the paths of the weights, several if they are sharded; raise UserError if a file is missing."""
    paths = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    names = {path.name for path in folder.glob("*")}
    has_tokenizer = any(files <= names for files in TOKENIZERS)
    if not paths or "config.json" not in names or not has_tokenizer:
        raise UserError(f"{folder} is not a Hugging Face GPT-2 folder: it must contain config.json, model.safetensors "
                        "(or pytorch_model.bin) and tokenizer.json (or vocab.json and merges.txt).")
    return paths


def read_folder(folder):
    """Return the network of a Hugging Face folder in float32 (GPT2LMHeadModel) and its tokenizer.

    Raises UserError if a file is damaged, or if the files are not a GPT-2 with its tokenizer.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = transformers.GPT2LMHeadModel.from_pretrained(
            str(folder), output_loading_info=True, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a damaged file fails in many ways, and their messages do not help the user
        if is_memory_error(error):
            raise
        raise UserError(f"{folder}: the files are damaged or do not match each other; download all of them "
                        "again.") from error
    # Unexpected masks (attn.bias) are harmless. Unexpected mlp weights are from a layer that config.json does not have.
    if report["missing_keys"] or any(".mlp." in key for key in report["unexpected_keys"]):
        raise UserError(f"{folder}: the weights do not belong to the network in config.json; give the path of a GPT-2 "
                        "folder with --weights.")
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise UserError(f"{folder}: the weights contain NaN or infinity; download them again.")
    remove_padding_rows(model, tokenizer, folder)
    return model.float().eval(), tokenizer


def remove_padding_rows(model, tokenizer, folder):
    """Cut the network's vocabulary to the tokenizer's, because padding rows could be sampled.

    Raises UserError if the network belongs to another tokenizer.
    """
    rows = model.config.vocab_size
    added = tokenizer.get_added_vocab()
    ids = []
    for token, id in tokenizer.get_vocab().items():
        if id < rows or token not in added:  # a folder may add tokens for which the network has no row
            ids.append(id)
    tokens = len(ids)
    # A network may be padded to a multiple of 8, 64 or 128 rows, for speed on GPUs.
    possible_rows = [math.ceil(tokens / multiple) * multiple for multiple in (1, 8, 64, 128)]
    if sorted(ids) != list(range(tokens)) or rows not in possible_rows:
        raise UserError(f"{folder}: the tokenizer has {tokens:,} tokens, but the network has {rows:,}; add the "
                        "network's own tokenizer to the folder.")
    model.resize_token_embeddings(tokens)


@dataclass
class LanguageModel:
    """A network with its tokenizer, and metadata for the results."""
    model: Any  # minGPT's GPT or transformers' GPT2LMHeadModel; both have a method `generate`
    tokenizer: Any
    device: str
    end_ids: set  # ids of the tokens that end a text
    max_positions: int  # most tokens that the network can read
    temperature: float  # recommended by the folder, else 1
    facts: dict  # metadata

    def encode(self, text):
        """Return the ids of `text`."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids):
        """Return the text of `ids` up to the first end token, which is replaced by a line break."""
        end = next((i for i, id in enumerate(ids) if id in self.end_ids), None)
        text = self.tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        return text if end is None else text + "\n"

    def sample(self, prompts, **settings):
        """Return a random continuation of each prompt, as text.

        Prompts are lists of ids. They must have the same length, because minGPT's `generate` has no padding.
        """
        import torch

        idx = torch.tensor(prompts, device=self.device)  # (B, T)
        drawn = self.model.generate(idx, do_sample=True, **settings)  # (B, T + max_new_tokens)
        return [self.decode(ids) for ids in drawn[:, idx.size(1):].tolist()]


def load_language_model(folder, name, GPT):
    """Return the LanguageModel of a folder: with minGPT's class `GPT`, or with transformers' network if it is None."""
    import torch
    from transformers import GenerationConfig

    paths = weights_files(folder)
    reference, tokenizer = read_folder(folder)
    generation = reference.generation_config
    reference.generation_config = GenerationConfig()  # so that only the command's options decide
    end_ids = find_end_ids(tokenizer, generation, reference.config)
    temperature = read_temperature(generation, folder)
    has_gpu = torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    model = to_mingpt(reference, GPT) if GPT else reference
    digests = [file_digest(path) for path in paths]
    facts = {
        "model": name,
        "parameters": reference.num_parameters(),
        "weights": ", ".join(path.name for path in paths),
        "weights_sha256": ", ".join(digests),
        "backend": "mingpt" if GPT else "transformers",
        "device": torch.cuda.get_device_name() if has_gpu else "CPU"}
    return LanguageModel(model.to(device), tokenizer, device, end_ids, reference.config.n_positions, temperature, facts)


def find_end_ids(tokenizer, generation, config):
    """Return the ids of the tokens that end a text: special tokens, and those named in a folder's two config files."""
    ids = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    for end in (generation.eos_token_id, config.eos_token_id):
        ids.update(end if isinstance(end, list) else [end])
    return ids


def read_temperature(generation, folder):
    """Return the temperature in a folder's generation config, or 1; raise UserError if it is unusable."""
    temperature = generation.temperature or 1.0
    is_number = isinstance(temperature, int | float)
    if not is_number or not MIN_TEMPERATURE <= temperature < float("inf"):
        raise UserError(f"{folder}: the temperature in generation_config.json is {temperature!r}, but must be a number "
                        f"of at least {MIN_TEMPERATURE}; correct it, or delete that file.")
    return temperature
