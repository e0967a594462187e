"""A tiny GPT-2 in a Hugging Face folder, and the real minGPT if available (MINGPT_DIR=DIR, or ./minGPT)."""

import os
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from generate_gpt2 import PREFIXES
from helpers.gpt2.mingpt import choose_gpt
from helpers.gpt2.weights import load_language_model

MINGPT = Path(os.environ.get("MINGPT_DIR", Path(__file__).parent.parent / "minGPT")).resolve()
needs_mingpt = pytest.mark.skipif(not (MINGPT / "mingpt").is_dir(), reason="no minGPT: set MINGPT_DIR to a clone")
BACKENDS = ["transformers", pytest.param("mingpt", marks=needs_mingpt)]
SETTINGS = {"max_new_tokens": 12, "temperature": 1.0, "top_k": 40}


def make_tiny(folder, **options):
    """Write a GPT-2 with random weights and its own tokenizer of 300 tokens; return its path."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**{"initializer_range": 0.3} | sizes | ends | options))
    model.half().bfloat16().float().save_pretrained(folder)  # weights that half precision stores without loss
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([*PREFIXES, "The name of this film is not what they should have given it."],
                                  vocab_size=300, min_frequency=1, special_tokens=["<|endoftext|>"],
                                  show_progress=False)
    assert tokenizer.get_vocab_size() == 300
    tokenizer.save_model(str(folder))
    return folder


def only_tokenizer_json(folder):
    """Save a folder's tokenizer in one file, as transformers 5 does."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)


def sample_texts(folder, backend):
    """Return eight random continuations of a prefix by the GPT-2 of a folder."""
    language_model = load_language_model(folder, "tiny", choose_gpt(backend, MINGPT))
    assert {weights.dtype for weights in language_model.model.parameters()} == {torch.float32}
    torch.manual_seed(1)
    return language_model.sample([language_model.encode("My name")] * 8, **SETTINGS)
