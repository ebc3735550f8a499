"""What every GLM-OCR peer reads: the same sizes, tokens and pictures as bench_glm's regions, and how a peer tells its figures.

A peer script runs one case in a process of its own and prints one JSON line. PEER_START, seconds of the monotonic clock, is
when the process was started.
"""
import json
import os
import pathlib
import random
import time

# width, height, tokens to write, regions at once
CASES = {"line": (840, 56, 60, 1), "region": (1008, 392, 200, 1), "regions-8": (1008, 392, 200, 8),
         "page": (1288, 1708, 50, 1), "first": (1008, 392, 1, 1)}
PROMPT = "Text Recognition:"
MEAN, STD = (.48145466, .4578275, .40821073), (.26862954, .26130258, .27577711)


def picture(width, height, seed):
    """Dark strokes on paper, another picture for each seed: nothing can be reused."""
    from PIL import Image
    noise = random.Random(seed).randbytes(width * height)
    return Image.frombytes("L", (width, height), bytes(v if v < 36 else 255 for v in noise)).convert("RGB")


def since_start():
    return time.monotonic() - float(os.environ.get("PEER_START", "nan"))


def peak_mb(pid="self"):
    """Of a process and all that it has started."""
    status = pathlib.Path(f"/proc/{pid}/status")
    try:
        own = [int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        tasks = list(pathlib.Path(f"/proc/{pid}/task").iterdir())
        children = [c for t in tasks for c in (t / "children").read_text().split()]
    except OSError:
        return 0
    return sum(own) + sum(peak_mb(child) for child in children)


def tell(**figures):
    print("PEER " + json.dumps({k: v for k, v in figures.items() if v is not None}), flush=True)
