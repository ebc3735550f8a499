"""What every GLM-OCR peer reads: the same sizes, tokens and pictures as bench_glm's regions, and how a peer tells its figures.

A peer script runs one case in a process of its own and prints one JSON line. PEER_START, seconds of the monotonic clock, is
when the process was started.
"""
import json
import os
import pathlib
import random
import struct
import time
import zlib

# width, height, tokens to write, regions at once
CASES = {"line": (840, 56, 60, 1), "region": (1008, 392, 200, 1), "regions-8": (1008, 392, 200, 8),
         "page": (1288, 1708, 50, 1)}
PROMPT = "Text Recognition:"
MEAN, STD = (.48145466, .4578275, .40821073), (.26862954, .26130258, .27577711)


def strokes(width, height, seed):
    """Dark strokes on paper, a byte a pixel; another picture for each seed: nothing can be reused."""
    return bytes(v if v < 36 else 255 for v in random.Random(seed).randbytes(width * height))


def picture(width, height, seed):
    from PIL import Image
    return Image.frombytes("L", (width, height), strokes(width, height, seed)).convert("RGB")


def png(width, height, seed):
    """The same as a file."""
    grey, rows = strokes(width, height, seed), bytearray()
    for y in range(height):
        rows += b"\0" + grey[y * width:(y + 1) * width]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


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
