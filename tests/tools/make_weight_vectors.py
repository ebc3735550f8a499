#!/usr/bin/env python3
"""Writes tests/data/weights/vectors.safetensors: blocks of every GGUF type and MLX groups of every width with the
values that the packages "gguf" and "mlx" read from them.

    pip install numpy gguf "mlx[cpu]" && make_weight_vectors.py tests/data/weights/vectors.safetensors"""
import sys

import gguf
import mlx.core as mx
import numpy as np
from convert_model import save

rng = np.random.default_rng(4)
out = {}
# type -> bytes of a block, its values, where its f16 scales are
BLOCKS = {"Q4_0": (18, 32, [0]), "Q4_1": (20, 32, [0, 2]), "Q5_0": (22, 32, [0]), "Q5_1": (24, 32, [0, 2]),
          "Q8_0": (34, 32, [0]), "Q4_K": (144, 256, [0, 2]), "Q5_K": (176, 256, [0, 2]), "Q6_K": (210, 256, [208])}
for name, (size, values, scales) in BLOCKS.items():
    raw = rng.integers(0, 256, (512 // values, size), dtype=np.uint8)
    for at in scales:
        raw[:, at:at + 2] = (rng.standard_normal((len(raw), 1)) * 0.02).astype("<f2").view(np.uint8)
    want = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name]).astype("<f4")
    out[name + ".blocks"] = ("U8", raw.shape, raw.tobytes())
    out[name + ".values"] = ("F32", (want.size,), want.tobytes())
mx.set_default_device(mx.cpu)
for bits, group in ((2, 32), (3, 64), (4, 128), (5, 32), (6, 64), (8, 128)):
    w = mx.array(rng.standard_normal((2, 128)).astype("<f4"))
    q, s, b = mx.quantize(w, group_size=group, bits=bits)
    want = np.array(mx.dequantize(q, s, b, group_size=group, bits=bits)).astype("<f4")
    for key, dtype, v in (("weight", "U32", q), ("scales", "F32", s), ("biases", "F32", b)):
        out[f"mlx{bits}g{group}.{key}"] = (dtype, v.shape, np.array(v).tobytes())
    out[f"mlx{bits}g{group}.values"] = ("F32", want.shape, want.tobytes())
save(sys.argv[1], out)
