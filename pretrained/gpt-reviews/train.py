"""Train the small GPT of this folder with minGPT on the 75,000 training reviews of IMDB, without their labels.

    PYTHONPATH=.:minGPT python pretrained/gpt-reviews/train.py     in the project's folder, with a clone of minGPT in it

Writes a Hugging Face GPT-2 folder (config.json, model.safetensors in float16, vocab.json, merges.txt), `log.csv`, and
`result.json` with the validation perplexity. All go to this folder. The state of the training is saved in
`runs/gpt-reviews/`; an interrupted run continues from there.
"""

import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from mingpt.model import GPT
from mingpt.trainer import Trainer
from mingpt.utils import set_seed
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.cli import Parser, run_command, user_path
from helpers.data.archive import find_source, read_files
from helpers.data.reviews import split_by_movie
from helpers.files import whole_file, write_text
from helpers.gpt2.mingpt import TRANSPOSED

HERE = Path(__file__).parent
STATE = Path("runs/gpt-reviews/state.pt")  # of an interrupted training
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
    total = 0.0
    for inputs, targets in zip(x.split(16), y.split(16), strict=True):
        _, loss = model(inputs, targets)
        total += loss.item() * len(inputs)
    model.train()
    return total / rows


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


def make_trainer(tokenizer, ids, steps):
    """Return minGPT's trainer of a new network for a number of steps, on windows of `ids`."""
    config = GPT.get_default_config()
    config.merge_from_dict(SIZES | dict(model_type=None, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0))
    setting = Trainer.get_default_config()
    setting.merge_from_dict(dict(device="cpu", num_workers=0, batch_size=16, learning_rate=2e-3, max_iters=steps))
    return Trainer(setting, ReviewGPT(config), Windows(ids, tokenizer.token_to_id(END), SIZES["block_size"]))


class Progress:
    """Sets the learning rate, and every 500 steps validates, prints a line and saves the state of the training.

    Attributes:
        first: the steps of an interrupted run, which this one continues.
        rows: a list of [step, tokens, training loss, validation loss, seconds].
    """

    def __init__(self, trainer, valid_ids):
        self.steps, self.valid_ids = trainer.config.max_iters, valid_ids
        self.first, self.seconds_before, self.rows = 0, 0.0, []
        if STATE.exists():
            self.load(trainer)
        self.started = time.perf_counter()

    def load(self, trainer):
        """Continue an interrupted run."""
        saved = torch.load(STATE, weights_only=True)
        trainer.model.load_state_dict(saved["model"])
        trainer.model.state = saved["optimizer"]
        self.first, self.seconds_before, self.rows = saved["step"], saved["seconds"], saved["rows"]
        set_seed(42 + self.first)  # new random windows
        trainer.config.max_iters -= self.first

    def __call__(self, trainer):
        """Act after a step: a callback of the trainer."""
        step = self.first + trainer.iter_num + 1
        # warm up, keep the rate, then lower it to 0 over the last 40 %
        factor = min(step / 200, 1, (self.steps - step) / (0.4 * self.steps))
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.config.learning_rate * factor
        if step % 500 == 0 or step == self.steps:
            self.save(trainer, step)

    def save(self, trainer, step):
        """Validate, print a line, and save the state of the training."""
        tokens = step * trainer.config.batch_size * SIZES["block_size"]
        seconds = self.seconds_before + time.perf_counter() - self.started
        valid_loss = validation_loss(trainer.model, self.valid_ids, SIZES["block_size"])
        self.rows.append([step, tokens, trainer.loss.item(), valid_loss, seconds])
        print("step {} tokens {} train {:.4f} valid {:.4f} seconds {:.0f}".format(*self.rows[-1]), flush=True)
        state = {"model": trainer.model.state_dict(), "optimizer": trainer.optimizer.state_dict(), "step": step,
                 "seconds": seconds, "rows": self.rows}
        with whole_file(STATE) as temporary:
            torch.save(state, temporary)


def write_results(rows, threads, train_ids, valid_ids):
    """Write the rows of a `Progress` to log.csv, and the last one with the settings to result.json."""
    log = pd.DataFrame(rows, columns=["step", "tokens", "train_loss", "valid_loss", "seconds"])
    write_text(HERE / "log.csv", log.to_csv(index=False))
    step, tokens, _, valid_loss, seconds = rows[-1]
    result = {"valid_loss": valid_loss, "valid_perplexity": math.exp(valid_loss), "steps": step, "tokens": tokens,
              "seconds": seconds, "threads": threads, "sizes": SIZES}
    result |= {"train_tokens": len(train_ids), "valid_tokens": len(valid_ids)}
    write_text(HERE / "result.json", json.dumps(result, indent=1) + "\n")


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=user_path, default=".data", help="folder with the IMDB archive")
    parser.add_argument("--iters", type=int, default=12_000, help="number of training steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="number of threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    set_seed(42)
    train_texts, valid_texts = read_texts(args.data_dir)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(train_texts, SIZES["vocab_size"], special_tokens=[END], show_progress=False)
    train_ids, valid_ids = encode(tokenizer, train_texts), encode(tokenizer, valid_texts)
    print(f"{len(train_ids):,} tokens to train on, {len(valid_ids):,} to validate", flush=True)

    trainer = make_trainer(tokenizer, train_ids, args.iters)
    progress = Progress(trainer, valid_ids)
    trainer.set_callback("on_batch_end", progress)
    if trainer.config.max_iters > 0:
        trainer.run()
    save(trainer.model, tokenizer)
    write_results(progress.rows, args.threads, train_ids, valid_ids)


if __name__ == "__main__":
    run_command(main)
