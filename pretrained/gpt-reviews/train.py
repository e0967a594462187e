"""Train the small GPT of this folder with minGPT on the 75,000 training reviews of IMDB, without their labels.

    PYTHONPATH=.:minGPT python pretrained/gpt-reviews/train.py     in the project's folder, with a clone of minGPT in it

Writes a Hugging Face GPT-2 folder (config.json, model.safetensors in float16, vocab.json, merges.txt), `log.csv`, and
`result.json` with the validation perplexity. All go to this folder. The state of the training is saved in
`runs/gpt-reviews/`; an interrupted run continues from there.
"""

import argparse
import csv
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from mingpt.model import GPT
from mingpt.trainer import Trainer
from mingpt.utils import set_seed
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.data.archive import find_source, read_files
from helpers.data.reviews import split_by_movie
from helpers.files import whole_file, write_text
from helpers.gpt2.mingpt import TRANSPOSED

HERE = Path(__file__).parent
END = "<|endoftext|>"
SIZES = dict(n_layer=4, n_head=4, n_embd=256, vocab_size=8000, block_size=128)


class ReviewGPT(GPT):
    """minGPT's network with tied input and output embeddings, as in GPT-2, and bfloat16 autocast."""

    def __init__(self, config):
        super().__init__(config)
        self.transformer.wte.weight = self.lm_head.weight
        self.state = None  # of the optimizer, to continue an interrupted run

    def forward(self, ids, targets=None):
        with torch.autocast(ids.device.type, torch.bfloat16):
            return super().forward(ids, targets)

    def configure_optimizers(self, config):
        """Return AdamW with weight decay on the matrices. minGPT's own method fails with tied embeddings."""
        groups = [{"params": [p for p in self.parameters() if p.dim() >= 2], "weight_decay": config.weight_decay},
                  {"params": [p for p in self.parameters() if p.dim() < 2], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, config.learning_rate, config.betas, fused=True)
        if self.state:
            optimizer.load_state_dict(self.state)
        return optimizer


class Windows(torch.utils.data.Dataset):
    """Item i: `block_size` tokens, and the next token of each. Odd items begin at the start of a review."""

    def __init__(self, ids, end, block_size):
        self.ids, self.T = ids, block_size
        self.begins = np.flatnonzero(ids == end) + 1
        self.begins = self.begins[self.begins < len(ids) - block_size - 1]

    def __len__(self):
        return 2 * len(self.begins)

    def __getitem__(self, i):
        # Generation begins at the start of a text, where random windows rarely begin.
        first = self.begins[i // 2] if i % 2 else np.random.randint(len(self.ids) - self.T - 1)
        window = torch.from_numpy(self.ids[first:first + self.T + 1].astype(np.int64))
        return window[:-1], window[1:]


def read_texts(data_dir):
    """Return training and validation texts, about 99 % and 1 %; they are reviews of different films."""
    reviews = dict(sorted(read_files(find_source(data_dir), {"train/neg", "train/pos", "train/unsup"})))
    urls = {name: reviews.pop(name).splitlines() for name in list(reviews) if "/urls_" in name}
    names, movies = list(reviews), {}
    numbers = []
    for name in names:
        part, kind, file = name.split("/")
        url = urls[f"{part}/urls_{kind}.txt"][int(file.partition("_")[0])]
        numbers.append(movies.setdefault(url, len(movies)))
    held_out = split_by_movie(np.array(numbers), share=0.01)
    texts = [" ".join(reviews[name].decode().replace("<br />", " ").split()) for name in names]
    order = np.random.permutation(len(texts))
    return [texts[i] for i in order if not held_out[i]], [texts[i] for i in order if held_out[i]]


def encode(tokenizer, texts):
    """Return the ids of all texts in one array, with <|endoftext|> after each text."""
    end = tokenizer.token_to_id(END)
    return np.concatenate([[*encoding.ids, end] for encoding in tokenizer.encode_batch(texts)]).astype(np.uint16)


@torch.no_grad()
def validation_loss(model, ids, block_size):
    """Return the mean cross-entropy in nats per token, over consecutive windows."""
    model.eval()
    rows = (len(ids) - 1) // block_size
    x = torch.from_numpy(ids[:rows * block_size].astype(np.int64)).reshape(rows, block_size)
    y = torch.from_numpy(ids[1:rows * block_size + 1].astype(np.int64)).reshape(rows, block_size)
    losses = [model(x[i:i + 16], y[i:i + 16])[1].item() * len(x[i:i + 16]) for i in range(0, rows, 16)]
    model.train()
    return sum(losses) / rows


def save(model, tokenizer):
    """Write the network as a Hugging Face GPT-2 folder."""
    config = GPT2Config(n_layer=SIZES["n_layer"], n_head=SIZES["n_head"], n_embd=SIZES["n_embd"],
                        vocab_size=SIZES["vocab_size"], n_positions=SIZES["block_size"],
                        bos_token_id=tokenizer.token_to_id(END), eos_token_id=tokenizer.token_to_id(END))
    twin = GPT2LMHeadModel(config)
    state = {name: tensor.t() if name.endswith(TRANSPOSED) else tensor
             for name, tensor in model.state_dict().items() if not name.endswith(".attn.bias")}
    twin.load_state_dict(state)
    twin.generation_config.update(do_sample=True, temperature=0.7)  # at 1, such a small network makes too many mistakes
    twin.half().save_pretrained(HERE)
    tokenizer.save_model(str(HERE))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", default=".data", help="folder with the IMDB archive")
    parser.add_argument("--iters", type=int, default=12_000, help="number of training steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="number of threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    set_seed(42)
    folder = Path("runs/gpt-reviews")
    train_texts, valid_texts = read_texts(args.data_dir)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(train_texts, SIZES["vocab_size"], special_tokens=[END], show_progress=False)
    train_ids, valid_ids = encode(tokenizer, train_texts), encode(tokenizer, valid_texts)
    print(f"{len(train_ids):,} tokens to train on, {len(valid_ids):,} to validate", flush=True)

    config = GPT.get_default_config()
    config.merge_from_dict(SIZES | dict(model_type=None, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0))
    model = ReviewGPT(config)
    setting = Trainer.get_default_config()
    setting.merge_from_dict(dict(device="cpu", num_workers=0, batch_size=16, learning_rate=2e-3, max_iters=args.iters))
    trainer = Trainer(setting, model, Windows(train_ids, tokenizer.token_to_id(END), SIZES["block_size"]))
    first, seconds_before, rows = 0, 0.0, []
    if (folder / "state.pt").exists():
        saved = torch.load(folder / "state.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        model.state, first, seconds_before, rows = (saved[key] for key in ("optimizer", "step", "seconds", "rows"))
        set_seed(42 + first)  # new random windows
        setting.max_iters -= first
    started = time.time()

    def on_batch_end(trainer):
        step = first + trainer.iter_num + 1
        # warm up, keep the rate, then lower it to 0 over the last 40 %
        rate = setting.learning_rate * min(step / 200, 1, (args.iters - step) / (0.4 * args.iters))
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate
        if step % 500 and step != args.iters:
            return
        seconds = seconds_before + time.time() - started
        rows.append([step, step * setting.batch_size * SIZES["block_size"], trainer.loss.item(),
                     validation_loss(model, valid_ids, SIZES["block_size"]), seconds])
        print("step {} tokens {} train {:.4f} valid {:.4f} seconds {:.0f}".format(*rows[-1]), flush=True)
        with whole_file(folder / "state.pt") as temporary:
            torch.save({"model": model.state_dict(), "optimizer": trainer.optimizer.state_dict(), "step": step,
                        "seconds": seconds, "rows": rows}, temporary)

    trainer.set_callback("on_batch_end", on_batch_end)
    if setting.max_iters > 0:
        trainer.run()
    save(model, tokenizer)
    with whole_file(HERE / "log.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "tokens", "train_loss", "valid_loss", "seconds"])
        writer.writerows(rows)
    write_text(HERE / "result.json", json.dumps({
        "valid_loss": rows[-1][3], "valid_perplexity": math.exp(rows[-1][3]), "steps": rows[-1][0],
        "tokens": rows[-1][1], "seconds": rows[-1][4], "threads": args.threads, "sizes": SIZES,
        "train_tokens": len(train_ids), "valid_tokens": len(valid_ids)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
