"""A tiny GPT-2 in a Hugging Face folder, and the real minGPT where it is (MINGPT_DIR=DIR, or ./minGPT)."""

import os
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from generate_gpt2 import PREFIXES
from helpers.gpt2 import choose_gpt, load_writer

MINGPT = Path(os.environ.get("MINGPT_DIR", Path(__file__).parent.parent / "minGPT")).resolve()
needs_mingpt = pytest.mark.skipif(not (MINGPT / "mingpt").is_dir(), reason="no minGPT: set MINGPT_DIR to a clone")
BACKENDS = ["transformers", pytest.param("mingpt", marks=needs_mingpt)]
SETTINGS = {"max_new_tokens": 12, "temperature": 1.0, "top_k": 40}


def make_tiny(folder, **sizes):
    """Write a GPT-2 with random weights and a tokenizer of 300 tokens of its own; return its path."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0) | sizes
    model = GPT2LMHeadModel(GPT2Config(initializer_range=0.3, **sizes))
    model.half().bfloat16().float().save_pretrained(folder)  # weights that half precision holds without loss
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([*PREFIXES, "The name of this film is not what they should have given it."],
                                  vocab_size=300, min_frequency=1, special_tokens=["<|endoftext|>"],
                                  show_progress=False)
    assert tokenizer.get_vocab_size() == 300
    tokenizer.save_model(str(folder))
    return folder


def only_tokenizer_json(folder):
    """Save a folder's tokenizer as transformers 5 does: in one file, and its settings."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)


def write(folder, backend):
    """Return eight texts that the GPT-2 of a folder writes after a prefix."""
    writer = load_writer(folder, "tiny", choose_gpt(backend, MINGPT))
    assert {weights.dtype for weights in writer.model.parameters()} == {torch.float32}
    idx = torch.tensor([writer.encode("My name")] * 8)
    torch.manual_seed(1)
    drawn = writer.model.generate(idx, do_sample=True, **SETTINGS)
    return [writer.decode(ids) for ids in drawn[:, idx.size(1):].tolist()]
