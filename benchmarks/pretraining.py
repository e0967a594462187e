"""What blocks pre-trained as a masked language model, on a GPU, add to `bonus-unsup`: validation with and without them.

    python -m benchmarks.pretraining --data-dir .data        perhaps 25 minutes on an H100, 10 of them for regions

Four of the exercise's blocks with 256 features learn to tell a fifth of the words of a review from the others (Devlin
et al. 2019, "BERT"), from the text of the training and the unlabelled reviews. What they make of a token goes,
projected, with its channels into the network of the bonus, frozen or trained on. The validation split is that of
`ablation`.
"""

import itertools
import math
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from benchmarks.common import data_parser, print_table, write_result
from benchmarks.seeds import SEEDS
from helpers.archive import expected_digest, find_source
from helpers.batches import BucketLoader, ReviewSet, predict_logits
from helpers.cli import run_command
from helpers.evaluate import compute_metrics
from helpers.predictor import build_model
from helpers.reviews import keep, load_reviews
from helpers.runtime import choose_device
from models import MyTransformerBlock
from sentiment_analysis import BONUS_UNSUP, load_imdb_data, make_optimizer, set_seed, train_epoch

D, BLOCKS, PASSES, MASKED, FEATURES = 256, 4, 24, 0.2, 64
SETTINGS = replace(BONUS_UNSUP, valid_share=0.2, batch_size=64, epochs=4)
ENCODER_LR = {"frozen": None, "trained on": 3e-5}


class Encoder(nn.Module):
    """Word vectors with sinusoids for the positions, blocks, and the head that tells a masked word."""

    def __init__(self, num_words, max_len):
        super().__init__()
        self.embedding = nn.Embedding(num_words + 1, D)  # the last is the mask
        nn.init.normal_(self.embedding.weight, std=D**-0.5)
        angles = torch.arange(max_len).unsqueeze(1) / 10_000 ** (torch.arange(0, D, 2) / D)
        self.positions = nn.Parameter(torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1))  # (max_len, D)
        self.blocks = nn.ModuleList(MyTransformerBlock(max_len, D) for _ in range(BLOCKS))
        self.head = nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.LayerNorm(D))
        self.bias = nn.Parameter(torch.zeros(num_words + 1))

    def forward(self, ids, mask):
        """ids (B, T), mask (B, T) -> (B, T, D)."""
        x = math.sqrt(D) * self.embedding(ids) + self.positions[:ids.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return x

    def loss(self, ids, mask, hidden):
        """Return the cross-entropy of the words where `hidden`, (B, T): most masked, a tenth random, a tenth as is."""
        num_words = len(self.bias) - 1
        chance = torch.rand(ids.shape, device=ids.device)
        given = ids.masked_fill(hidden & (chance < 0.8), num_words)
        given = torch.where(hidden & (chance > 0.9), torch.randint_like(ids, num_words), given)
        h = self.head(self(given, mask)[hidden])
        return F.cross_entropy(F.linear(h, self.embedding.weight, self.bias).float(), ids[hidden])


class WithEncoder(nn.Module):
    """The bonus's network, to which an encoder gives further channels."""

    def __init__(self, vocab, channels, pad_id, encoder):
        super().__init__()
        self.model = build_model(vocab, asdict(SETTINGS) | {"channels": channels + FEATURES})
        self.encoder, self.pad_id, self.fc = encoder, pad_id, self.model.fc
        self.project = nn.Sequential(nn.Dropout(0.2), nn.Linear(D, FEATURES))

    def forward(self, ids, channels):
        with torch.autocast(ids.device.type, torch.bfloat16):
            h = self.encoder(ids, ids != self.pad_id)
        # 0.3 for the same reason as `regions.DEVIATION`
        return self.model(ids, torch.cat([channels, 0.3 * self.project(h.float())], dim=2))


def pretrain(dataset, vocab):
    """Return an encoder that has learned from the reviews of a `ReviewSet`."""
    set_seed()
    device, loader = dataset.ids.device, BucketLoader(dataset)
    encoder = Encoder(len(vocab), SETTINGS.max_len).to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), betas=(0.9, 0.98), fused=True)
    scheduler = OneCycleLR(optimizer, 1e-3, total_steps=PASSES * len(loader), pct_start=0.06)
    for i in range(PASSES):
        plan = loader.plan()
        np.random.shuffle(plan)
        total = torch.zeros((), device=device)
        for chosen, T in tqdm(plan, desc=f"pass {i + 1}", leave=False):
            ids, _ = dataset.batch(chosen, T)
            hidden = (torch.rand(ids.shape, device=device) < MASKED) & (ids > dataset.pad_id)  # words, known ones
            with torch.autocast(device.type, torch.bfloat16):
                loss = encoder.loss(ids, ids != dataset.pad_id, hidden)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            total += loss.detach()
        print(f"pass {i + 1:2d}  loss {total.item() / len(plan):.4f}", flush=True)
    return encoder


def main():
    device = choose_device("cuda")
    source = find_source(data_parser(__doc__).parse_args().data_dir)
    train_set, valid_set, _, loader, valid_loader, _, vocab, pad_id = load_imdb_data(SETTINGS, source, device=device)
    reviews = load_reviews(source, ".cache", unsup=True, digest=expected_digest(source))
    films = np.unique(train_set.reviews.movies)
    texts = keep(reviews, ~reviews.test & ((reviews.labels < 0) | np.isin(reviews.movies, films)))
    state = pretrain(ReviewSet(texts, vocab, SETTINGS.max_len, True, device=device), vocab).state_dict()
    channels, rows = train_set.channels.shape[1], []
    for what, seed in itertools.product(("without", *ENCODER_LR), SEEDS):
        set_seed(seed)
        if what == "without":
            model = build_model(vocab, asdict(SETTINGS) | {"channels": channels})
        else:
            encoder = Encoder(len(vocab), SETTINGS.max_len)
            encoder.load_state_dict(state)
            model = WithEncoder(vocab, channels, pad_id, encoder.requires_grad_(ENCODER_LR[what] is not None))
        model.to(device)
        optimizer, scheduler = make_optimizer(model, SETTINGS, len(loader))
        if rate := ENCODER_LR.get(what):
            own = [parameter for name, parameter in model.named_parameters() if not name.startswith("encoder.")]
            optimizer = torch.optim.Adam([{"params": own}, {"params": encoder.parameters()}], fused=True)
            scheduler = OneCycleLR(optimizer, [SETTINGS.lr, rate], total_steps=SETTINGS.epochs * len(loader))
        for epoch in range(SETTINGS.epochs):
            train_epoch(model, loader, optimizer, scheduler, f"epoch {epoch + 1}")
        result = compute_metrics(predict_logits(model, valid_loader, "validation"), valid_set.labels)
        rows.append({"blocks": what, "seed": seed, "valid loss": result["loss"], "valid accuracy": result["accuracy"]})
        print_table(rows[-1:], header=len(rows) == 1)
    write_result("pretraining", {"gpu": torch.cuda.get_device_name(), "rows": rows})


if __name__ == "__main__":
    run_command(main)
