#!/usr/bin/env python3
"""Trains the small reader on synthetic lines; can be stopped and gone on with at any time.

    train.py --corpus corpus.txt --out run --minutes 160             goes on from run/last.pt, at a constant rate
    train.py --corpus corpus.txt --out run --minutes 30 --decay 30   the rate falls to the end: run/decayed.pt

A checkpoint holds the weights, their running average (what is evaluated and released), the optimizer's state and the
counters. One without optimizer state or average is gone on from as well.

The plan goes by lines seen (STAGES). First the vision tower learns to read by itself (CTC over columns), on short lines,
then on long ones; then the decoder joins. What makes a decoder of this size slow to learn is finding out where to
look: the generator knows where every character stands, so one head is told (--guide).
"""
import argparse
import json
import os
import random
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lines import HEIGHT, Lines
from model import Reader, TextConfig, VisionConfig
from reading import evaluate, patches_of
from tokens import AFTER, BEFORE, BLANK, END, PAD, encode

WIDTH_STEP = 64  # widths of batches, pixels
WARM_UP = 200    # steps
AHEAD_WEIGHT, COLUMNS_WEIGHT = 0.3, 0.5
GUIDE_REACH = 12  # pixels between a character and the middle of a column that may be looked at
NO_PLACE = -1e4   # centre of what stands nowhere: the end, padding


@dataclass(frozen=True)
class Stage:
    until: int        # lines seen
    longest: int      # characters
    has_decoder: bool


STAGES = (Stage(25_000, 16, False), Stage(60_000, 40, False), Stage(80_000, 90, False), Stage(110_000, 24, True),
          Stage(1 << 60, 90, True))


def stage_at(seen):
    return next(stage for stage in STAGES if seen < stage.until)


# ---- data ----

@dataclass
class Batch:
    pixels: torch.Tensor   # uint8 [B, HEIGHT, W, 3]
    tokens: torch.Tensor   # int64 [B, T], END and PAD after the text
    centres: torch.Tensor  # f32 [B, T]: x of the character that a byte belongs to

    def to(self, device):
        return Batch(*(t.to(device, non_blocking=True) for t in (self.pixels, self.tokens, self.centres)))


def make_batch(lines, width):
    tokens = [encode(line.text) for line in lines]
    longest = max(map(len, tokens))
    batch = Batch(torch.empty((len(lines), HEIGHT, width, 3), dtype=torch.uint8),
                  torch.full((len(lines), longest), PAD), torch.full((len(lines), longest), NO_PLACE))
    for i, line in enumerate(lines):
        own = line.pixels.shape[1]
        batch.pixels[i, :, :own] = torch.from_numpy(line.pixels)
        batch.pixels[i, :, own:] = torch.from_numpy(np.median(line.pixels[:, -2:], axis=(0, 1)).astype(np.uint8))
        batch.tokens[i, :len(tokens[i])] = torch.tensor(tokens[i])
        centres = [x for x, c in zip(line.centres, line.text) for _ in c.encode()]
        batch.centres[i, :len(centres)] = torch.tensor(centres)
    return batch


class Batches(torch.utils.data.IterableDataset):
    """Endless batches of lines of like width; `cells` bounds lines x width, so that all cost alike."""

    def __init__(self, corpus, seed, cells, longest):
        self.corpus, self.seed, self.cells, self.longest = corpus, seed, cells, longest

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rng = random.Random(self.seed * 1000 + (worker.id if worker else 0))
        lines, waiting = Lines(self.corpus), {}
        while True:
            line = lines.sample(rng, self.longest)
            width = -(-line.pixels.shape[1] // WIDTH_STEP) * WIDTH_STEP
            group = waiting.setdefault(width, [])
            group.append(line)
            if len(group) * width >= self.cells:
                yield make_batch(waiting.pop(width), width)


# ---- losses ----

def column_loss(model, patches, tokens, rows, columns):
    """CTC of the bytes over the columns, per byte; lines with more bytes than columns do not count."""
    logits = model.columns(patches, rows, columns).float().log_softmax(-1).transpose(0, 1)
    lengths = ((tokens != PAD) & (tokens != END)).sum(1)
    fits = lengths < columns
    loss = F.ctc_loss(logits, tokens.clamp(max=255), torch.full_like(lengths, columns), lengths, blank=BLANK,
                      reduction="none", zero_infinity=True)
    return (loss / lengths.clamp(min=1) * fits).sum() / fits.sum().clamp(min=1)


def guide_loss(watched, centres, columns, step, first):
    """How little the watched heads look at the character that is to be written. watched: log probabilities
    [B, T', keys]; row len(AFTER) - 1 + i writes byte i, the picture's keys begin at `first`."""
    middles = (torch.arange(columns, device=centres.device) + 0.5) * step
    near = ((centres[..., None] - middles).abs() <= GUIDE_REACH).repeat(1, 1, HEIGHT // step)  # [B, T, I]
    has_place = near.any(-1)
    loss = 0
    for seen in watched:
        rows = seen[:, len(AFTER) - 1:len(AFTER) - 1 + centres.shape[1]]
        looked = rows[..., first:first + near.shape[-1]].masked_fill(~near, -1e4).logsumexp(-1)
        loss = loss - (looked * has_place).sum() / has_place.sum().clamp(min=1)
    return loss / len(watched)


def spoil(tokens, share):
    """What the decoder is told it has written: some bytes are wrong, as its own mistakes will be."""
    wrong = (torch.rand(tokens.shape, device=tokens.device) < share) & (tokens < 256)
    return torch.where(wrong, torch.randint_like(tokens, 32, 127), tokens)


def losses(model, batch, stage, guide, noise):
    """The sum to be minimised, and its parts for the log."""
    tokens, patch, merge = batch.tokens, model.vc.patch_size, model.vc.spatial_merge_size
    rows, columns = HEIGHT // patch, batch.pixels.shape[2] // patch
    with torch.autocast(tokens.device.type, torch.bfloat16):
        patches = model.vision.look(patches_of(batch.pixels, patch, merge), rows, columns)
        by_columns = column_loss(model, patches, tokens, rows, columns)
    if not stage.has_decoder:
        return by_columns, {"columns": by_columns.detach()}
    with torch.autocast(tokens.device.type, torch.bfloat16):
        image = model.vision.merge(patches)
        before = torch.tensor(BEFORE, device=tokens.device).expand(len(tokens), -1)
        after = torch.cat((torch.tensor(AFTER, device=tokens.device).expand(len(tokens), -1),
                           spoil(tokens[:, :-1], noise)), dim=1)
        out = model(image, rows // merge, columns // merge, before, after, watch=guide > 0)
        logits = model.head(out.hidden[:, len(AFTER) - 1:]).float()
        ahead = model.head(out.ahead[:, len(AFTER) - 1:]).float()
    wanted = tokens.masked_fill(tokens == PAD, -100)
    next_loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)
    ahead_loss = F.cross_entropy(ahead.flatten(0, 1), wanted[:, 1:].flatten(), ignore_index=-100)
    total = next_loss + AHEAD_WEIGHT * ahead_loss + COLUMNS_WEIGHT * by_columns
    with torch.no_grad():
        known, known_ahead = wanted != -100, wanted[:, 1:] != -100
        parts = {"next": next_loss, "ahead": ahead_loss, "columns": by_columns,
                 "right": (logits.argmax(-1) == wanted)[known].float().mean(),
                 "ahead_right": (ahead.argmax(-1) == wanted[:, 1:])[known_ahead].float().mean()}
    if guide > 0:
        looking = guide_loss(out.watched, batch.centres, columns // merge, patch * merge, len(BEFORE))
        total, parts["looking"] = total + guide * looking, looking
    return total, {name: value.detach() for name, value in parts.items()}


# ---- the run ----

class Run:
    """Model, optimizer, average and counters, and their checkpoint."""

    def __init__(self, args):
        self.args, self.path = args, os.path.join(args.out, "last.pt")
        saved = torch.load(self.path, weights_only=False, map_location=args.device) if os.path.exists(self.path) else {}
        self.model = Reader(VisionConfig(**saved.get("vision", args.vision)), TextConfig(**saved.get("text", args.text)))
        self.model.to(args.device)
        parameters = list(self.model.parameters())
        groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.03},
                  {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98), fused=True)
        self.step = self.seen = self.since = 0  # since: steps of this stage, for the warm-up
        if saved:
            self.model.load_state_dict(saved["model"])
            self.step, self.seen = saved["step"], saved["seen"]
            if "opt" in saved:
                self.optimizer.load_state_dict(saved["opt"])
                self.since = saved["since"]
            print(f"goes on at step {self.step}, {self.seen} lines", flush=True)
        average = saved.get("average", self.model.state_dict())
        self.average = {name: value.clone() for name, value in average.items()}
        self.averaged = Reader(self.model.vc, self.model.tc).to(args.device)

    def update(self, batch, stage, share):
        rate = self.args.rate * min(1.0, (self.since + 1) / WARM_UP) * (0.05 + 0.95 * share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, parts = losses(self.model, batch.to(self.args.device), stage, self.args.guide, self.args.noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parts["gradient"] = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            current = self.model.state_dict()
            torch._foreach_lerp_(list(self.average.values()), [current[name] for name in self.average],
                                 1 - min(self.args.average, self.since / (self.since + 10)))
        self.step, self.since, self.seen = self.step + 1, self.since + 1, self.seen + len(batch.tokens)
        return parts

    def save(self, path):
        torch.save({"model": self.model.state_dict(), "average": self.average, "opt": self.optimizer.state_dict(),
                    "vision": asdict(self.model.vc), "text": asdict(self.model.tc), "step": self.step,
                    "seen": self.seen, "since": self.since}, path + ".tmp")
        os.replace(path + ".tmp", path)

    def report(self, lines, examples=1):
        self.averaged.load_state_dict(self.average)
        texts, decoder, columns = evaluate(self.averaged, lines)
        print(f"   faces never seen, {len(lines)} lines: decoder CER {decoder:.4f}, columns CER {columns:.4f}", flush=True)
        for text, line in list(zip(texts, lines))[:examples]:
            print("     ", repr(line.text), "->", repr(text), flush=True)


def batches_for(run, stage):
    args = run.args
    data = Batches(args.corpus, args.seed + run.step, args.cells, stage.longest)
    return iter(torch.utils.data.DataLoader(data, batch_size=None, num_workers=args.workers,
                                            prefetch_factor=8 if args.workers else None))


def train(args):
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    run, rng, held = Run(args), random.Random(77), Lines(args.corpus, holdout=True)
    print(f"{sum(p.numel() for p in run.model.parameters()) / 1e6:.2f} M parameters", flush=True)
    test = [held.sample(rng) for _ in range(60)]
    del held  # its texts are as large as the corpus
    stage, batches, smooth = None, None, {}
    start = logged = saved = time.time()
    end = start + args.minutes * 60
    while (now := time.time()) < end:
        if stage_at(run.seen) != stage:
            run.since = run.since if stage is None else 0  # the optimizer's state is of another loss
            stage, smooth = stage_at(run.seen), {}
            batches = batches_for(run, stage)
        share = min(1.0, (end - now) / (args.decay * 60)) if args.decay else 1.0
        for name, value in run.update(next(batches), stage, share).items():
            smooth[name] = smooth.get(name, value) * 0.98 + value * 0.02
        if now - logged > args.log_seconds:
            logged = now
            print(f"{(now - start) / 60:6.1f} min step {run.step} longest {stage.longest} lines {run.seen} "
                  + " ".join(f"{name} {value:.4f}" for name, value in smooth.items()), flush=True)
        if now - saved > args.save_minutes * 60:
            saved = now
            run.save(run.path)
            run.report(test[:24])
    run.save(os.path.join(args.out, "decayed.pt") if args.decay else run.path)
    print(f"end: {run.seen} lines")
    run.report(test, examples=12)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--corpus", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--minutes", type=float, default=160)
    p.add_argument("--decay", type=float, default=0, help="minutes at the end in which the rate falls to a twentieth")
    p.add_argument("--rate", type=float, default=1.2e-3)
    p.add_argument("--cells", type=int, default=8192, help="lines of a batch times their width in pixels")
    p.add_argument("--guide", type=float, default=0.3, help="weight of the loss that teaches where to look; 0: none")
    p.add_argument("--noise", type=float, default=0.06, help="share of wrong bytes in what the decoder is told it wrote")
    p.add_argument("--average", type=float, default=0.998, help="share that the running average keeps at a step")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--vision", type=json.loads, default={}, help="sizes of a new model, JSON")
    p.add_argument("--text", type=json.loads, default={}, help="sizes of a new model, JSON")
    p.add_argument("--workers", type=int, default=1, help="processes that draw lines")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--save-minutes", type=float, default=10)
    p.add_argument("--log-seconds", type=float, default=60)
    train(p.parse_args())


if __name__ == "__main__":
    main()
