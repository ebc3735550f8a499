"""Pixels in, texts out: patches of a line, greedy reading with a cache, error rates."""
import numpy as np
import torch

from lines import HEIGHT
from tokens import AFTER, BEFORE, BLANK, END, PAD, decode

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def patches_of(pixels, patch, merge=2):
    """uint8 [B, H, W, 3] -> f32 [B, P, 3 * patch * patch]: merge blocks in raster order, rows inside; channels
    outermost in a patch."""
    x = (pixels.float() / 255 - pixels.new_tensor(MEAN, dtype=torch.float)) / pixels.new_tensor(STD, dtype=torch.float)
    step = patch * merge
    x = x.unflatten(2, (-1, merge, patch)).unflatten(1, (pixels.shape[1] // step, merge, patch))
    # B, block row, row, y, block column, column, x, channel
    return x.permute(0, 1, 4, 2, 5, 7, 3, 6).flatten(5).flatten(1, 4)


def see(model, line):
    """The patches after the tower, and the grid, of one line."""
    patch = model.vc.patch_size
    pixels = torch.from_numpy(np.ascontiguousarray(line.pixels))[None].to(model.head.weight.device)
    rows, columns = HEIGHT // patch, line.pixels.shape[1] // patch
    return model.vision.look(patches_of(pixels, patch, model.vc.spatial_merge_size), rows, columns), rows, columns


@torch.no_grad()
def read_columns(model, line):
    """What the tower reads by itself: the best path of the column head."""
    best = model.columns(*see(model, line))[0].argmax(-1).tolist()
    return decode(c for i, c in enumerate(best) if c != BLANK and (i == 0 or c != best[i - 1]))


@torch.no_grad()
def read(model, line, longest=300):
    """Greedy reading of one line by the decoder: its ids, without the end."""
    patches, rows, columns = see(model, line)
    merge, device = model.vc.spatial_merge_size, patches.device
    image = model.vision.merge(patches)
    after = torch.tensor([AFTER], device=device)
    x = torch.cat((model.embed(torch.tensor([BEFORE], device=device)), image, model.embed(after)), dim=1)
    positions = model.positions(len(BEFORE), rows // merge, columns // merge, len(AFTER) + longest, device)
    cos, sin = model.angles(positions)
    caches, ids, start = [[] for _ in model.layers], [], 0
    while len(ids) < longest:
        angles = cos[start:start + x.shape[1]], sin[start:start + x.shape[1]]
        start += x.shape[1]
        for layer, cache in zip(model.layers, caches):
            x = layer(x, angles, cache=cache)
        token = int(model.head(model.norm(x[:, -1])).argmax())
        if token in (END, PAD):
            break
        ids.append(token)
        x = model.embed(torch.tensor([[token]], device=device))
    return ids


def distance(a, b):
    """Edits that turn a into b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def error_rate(texts, lines):
    """Character error rate: edits over characters."""
    return sum(distance(t, line.text) for t, line in zip(texts, lines)) / sum(len(line.text) for line in lines)


def evaluate(model, lines):
    """(texts of the decoder, its error rate, error rate of the columns)"""
    was_training = model.training
    model.eval()
    texts = [decode(read(model, line)) for line in lines]
    columns = [read_columns(model, line) for line in lines]
    model.train(was_training)
    return texts, error_rate(texts, lines), error_rate(columns, lines)
