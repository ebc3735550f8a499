#!/usr/bin/env python3
"""Tests of the training code: check.py, about a minute. Needs the fonts of packages.txt, no corpus."""
import argparse
import os
import random
import tempfile

import numpy as np
import torch

import export
import tokens
import train
from lines import MAX_WIDTH, STEP, Faces, Lines
from model import Reader, TextConfig, VisionConfig
from reading import distance, error_rate, patches_of, read

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Größe: 42 €, naïve façade – déjà vu!", "x = f(y) + 3.14"] * 20


def small_reader():
    torch.manual_seed(3)
    model = Reader(VisionConfig(depth=2), TextConfig(num_hidden_layers=3))
    with torch.no_grad():  # norms and biases that do something
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def check_tokens():
    text = "Ärger – 5 €"
    assert tokens.decode(tokens.encode(text)) == text and tokens.encode(text)[-1] == tokens.END
    assert len(set(tokens.byte_characters().values())) == 256
    assert max(tokens.ID.values()) < TextConfig().vocab_size
    added = [token["id"] for token in tokens.tokenizer_json()["added_tokens"]]
    assert added == list(range(256, 256 + len(tokens.SPECIAL)))


def check_distance():
    assert distance("kitten", "sitting") == 3 and distance("", "abc") == 3 and distance("same", "same") == 0


def check_patches():
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    got, at = patches_of(pixels, 8), 0
    for block in range(2 * 3):
        for inside in range(4):
            y, x = (block // 3 * 2 + inside // 2) * 8, (block % 3 * 2 + inside % 2) * 8
            values = pixels[:, y:y + 8, x:x + 8].float() / 255
            values = (values - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
                [0.26862954, 0.26130258, 0.27577711])
            assert torch.allclose(got[:, at], values.permute(0, 3, 1, 2).flatten(1), atol=1e-6)
            at += 1


def check_lines(corpus):
    learnt, held = Faces(False), Faces(True)
    paths = [{path for folder in faces.folders for path, _ in folder} for faces in (learnt, held)]
    assert paths[0] and paths[1] and not paths[0] & paths[1]
    lines = Lines(corpus)
    for seed in range(40):
        line, again = lines.sample(random.Random(seed)), lines.sample(random.Random(seed))
        assert line.text == again.text and np.array_equal(line.pixels, again.pixels)
        height, width, _ = line.pixels.shape
        assert height == 32 and width % STEP == 0 and STEP <= width <= MAX_WIDTH
        assert len(line.centres) == len(line.text) and (np.diff(line.centres) > -1).all()
        assert line.centres[0] > -STEP and line.centres[-1] < width + STEP
    wide = Lines(corpus).sample(random.Random(7), 12)
    assert len(wide.text) <= 12
    assert error_rate([wide.text + "x"], [wide]) == 1 / len(wide.text)


def check_cache(corpus):
    """Reading with a cache gives what the training's forward pass gives."""
    model, lines, differing = small_reader(), Lines(corpus), set()
    for seed in range(4):
        line = lines.sample(random.Random(seed), 12)
        ids = read(model, line, 8)
        differing.update(ids)
        pixels = torch.from_numpy(line.pixels)[None]
        rows, columns = 4, line.pixels.shape[1] // 8
        with torch.no_grad():
            image = model.vision.merge(model.vision.look(patches_of(pixels, 8), rows, columns))
            after = torch.tensor([tokens.AFTER + ids])
            out = model(image, rows // 2, columns // 2, torch.tensor([tokens.BEFORE]), after)
            best = model.head(out.hidden[0, len(tokens.AFTER) - 1:]).argmax(-1).tolist()
        assert best[:len(ids)] == ids
    assert len(differing) > 1


def check_guide():
    """Looking at the character costs nothing, looking elsewhere does; what stands nowhere does not count."""
    centres = torch.tensor([[20.0, 70.0, train.NO_PLACE]])
    columns, first = 6, len(tokens.BEFORE)
    keys = first + 2 * columns + len(tokens.AFTER) + 2
    good = torch.full((1, len(tokens.AFTER) + 2, keys), -30.0)
    good[0, len(tokens.AFTER) - 1, first + 1] = 0           # x 16..32
    good[0, len(tokens.AFTER), first + columns + 4] = 0     # x 64..80, second row
    assert train.guide_loss([good], centres, columns, 16, first) < 1e-3
    assert train.guide_loss([good.roll(2, -1)], centres, columns, 16, first) > 10


def check_quantise():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.1, (64, 192)).astype(np.float32)
    values[0] = 0.25
    values[1, :64] = np.arange(64) / 256 - 0.125
    back = export.dequantise(*export.quantise(values))
    assert np.abs(back[0] - 0.25).max() < 1e-4 and np.abs(back[1, :64] - values[1, :64]).max() < 5.1e-4
    groups = values.reshape(64, -1, 64)
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    scale, bias = export.half((high - low) / 255), export.half(low)
    plain = export.levels_of(groups, scale, bias) * scale + bias
    errors = ((back.reshape(groups.shape) - groups) ** 2).sum(-1), ((plain - groups) ** 2).sum(-1)
    assert errors[0].sum() < errors[1].sum() and (errors[0] <= errors[1] * 1.05 + 1e-9).all()


def check_export(folder):
    model = small_reader()
    views = dict(model.views())
    exported = sum(view.numel() for view in views.values())
    assert exported == sum(p.numel() for name, p in model.named_parameters() if not name.startswith("ctc."))
    full = export.checkpoint_tensors(model)
    patch = full["model.visual.patch_embed.proj.weight"]
    assert patch.shape == (192, 3, 2, 8, 8) and torch.equal(patch[:, :, 0] + patch[:, :, 1],
                                                            views["model.visual.patch_embed.proj.weight"][:, :, 0])
    path = export.write_folder(folder, export.side_files(model.vc, model.tc, 5), export.mlx_tensors(model))
    before = {name: view.detach().clone() for name, view in views.items()}
    export.set_from_mlx(model, path)
    for name, view in model.views():
        error = (view - before[name]).norm() / before[name].norm()
        assert error < 0.01, (name, error)
        assert view.ndim == 1 or torch.equal(view, view.bfloat16().float())


def check_training(corpus, folder):
    """A few steps, a stop, and going on, also from a checkpoint without optimizer and average."""
    args = argparse.Namespace(corpus=corpus, out=folder, device="cpu", rate=1e-3, cells=1024, guide=0.3, noise=0.1,
                              average=0.9, seed=1, workers=0, vision={"depth": 1}, text={"num_hidden_layers": 3})
    for stage in (train.STAGES[0], train.STAGES[3]):
        run = train.Run(args)
        batches = train.batches_for(run, stage)
        first = [run.update(next(batches), stage, 1.0) for _ in range(3)][0]
        assert all(torch.isfinite(value) for value in first.values())
        assert ("looking" in first) == stage.has_decoder
        run.save(run.path)
        again = train.Run(args)
        assert (again.step, again.seen, again.since) == (run.step, run.seen, run.since) and again.seen > 0
        assert all(torch.equal(a, b) for a, b in zip(run.average.values(), again.average.values()))
    saved = torch.load(run.path, weights_only=False)
    del saved["opt"], saved["average"]
    torch.save(saved, run.path)
    bare = train.Run(args)
    assert bare.since == 0 and bare.seen == run.seen
    bare.update(next(batches), stage, 1.0)


def main():
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        corpus = os.path.join(folder, "corpus.txt")
        with open(corpus, "w", encoding="utf-8") as file:
            file.writelines(text + "\n" for text in TEXTS)
        for check, *args in ((check_tokens,), (check_distance,), (check_patches,), (check_lines, corpus),
                             (check_cache, corpus), (check_guide,), (check_quantise,),
                             (check_export, os.path.join(folder, "mlx")),
                             (check_training, corpus, os.path.join(folder, "run"))):
            if check is check_training:
                os.makedirs(args[1])
            check(*args)
            print("ok", check.__name__, flush=True)


if __name__ == "__main__":
    main()
