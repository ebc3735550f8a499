#!/usr/bin/env python3
"""Writes a GLM-OCR checkpoint folder (model.safetensors and its side files) in the other formats that the
engine reads. Needs numpy only.

    convert_model.py SOURCE OUT safetensors --dtype f16 --shards 3
    convert_model.py SOURCE OUT mlx --bits 4 --group 64 --scales f16 [--channels-first] [--plain-vision]
    convert_model.py SOURCE OUT gguf --type Q8_0 [--version 2]

The GGUF pair has llama.cpp's names, orders and metadata; types other than F32, F16, BF16 and Q8_0 need the
package "gguf" (its quantisers: Q4_0, Q4_1, Q5_0, Q5_1)."""
import argparse
import json
import os
import shutil
import struct

import numpy as np

SIDE_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
              "tokenizer_config.json", "chat_template.jinja")


# ---- safetensors ----

def widen(raw, dtype):
    """Stored bytes -> f32 values."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[dtype]).astype("<f4")


def narrow(values, dtype):
    """f32 values -> bytes of that type."""
    values = np.ascontiguousarray(values, "<f4")
    if dtype == "BF16":
        bits = values.view("<u4")
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def load(folder):
    """name -> f32 array."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        start = f.tell()
        out = {}
        for name, t in header.items():
            if name == "__metadata__":
                continue
            f.seek(start + t["data_offsets"][0])
            raw = f.read(t["data_offsets"][1] - t["data_offsets"][0])
            out[name] = widen(raw, t["dtype"]).reshape(t["shape"])
        return out


def save(path, tensors):
    """tensors: name -> (dtype, shape, bytes)"""
    header, at = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, raw in tensors.values():
            f.write(raw)
    return at


def side_files(source, out):
    os.makedirs(out, exist_ok=True)
    for name in SIDE_FILES:
        if os.path.exists(os.path.join(source, name)):
            shutil.copyfile(os.path.join(source, name), os.path.join(out, name))


def to_safetensors(source, out, dtype, shards):
    side_files(source, out)
    tensors = {n: (dtype, v.shape, narrow(v, dtype)) for n, v in load(source).items()}
    if shards == 1:
        save(os.path.join(out, "model.safetensors"), tensors)
        return
    names, total, weight_map = list(tensors), 0, {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {n: tensors[n] for n in names[i::shards]}
        total += save(os.path.join(out, file), part)
        weight_map.update({n: file for n in part})
    with open(os.path.join(out, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, f, indent=1)


# ---- MLX ----

def mlx_quantise(w, bits, group):
    """-> packed u32, scales, biases: the smallest and largest of a group map to the ends."""
    rows, columns = w.shape
    g = w.reshape(rows, columns // group, group)
    low, high = g.min(-1), g.max(-1)
    scales = np.maximum((high - low) / (2**bits - 1), np.float32(1e-7)).astype("<f4")
    q = np.clip(np.rint((g - low[..., None]) / scales[..., None]), 0, 2**bits - 1).astype(np.uint8)
    stream = np.unpackbits(q.reshape(rows, columns, 1), axis=2, count=bits, bitorder="little")
    packed = np.packbits(stream.reshape(rows, -1), axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u4"), scales, low


def mlx_name(name):
    for ours, theirs in (("model.visual.", "vision_tower."),
                         ("model.language_model.", "language_model.model."), ("lm_head", "language_model.lm_head")):
        if name.startswith(ours):
            return theirs + name[len(ours):]
    return name


def to_mlx(source, out, bits, group, scales, channels_first, plain_vision, mixed=False):
    side_files(source, out)
    with open(os.path.join(source, "config.json")) as f:
        config = json.load(f)
    extra = f"layers.{config['text_config']['num_hidden_layers']}."
    table = {"group_size": group, "bits": bits, "mode": "affine"}
    tensors, total = {}, 0
    for name, v in load(source).items():
        if extra in name:
            continue
        to = mlx_name(name)
        module = to.removesuffix(".weight")
        own_group = next((g for g in (group, 64, 32) if g <= group and v.shape[-1] % g == 0), None)
        if v.ndim == 2 and name.endswith(".weight") and own_group and not (plain_vision and "visual" in name):
            own_bits = 8 if mixed and "down_proj" in name else bits
            if (own_bits, own_group) != (bits, group):
                table[module] = {"group_size": own_group, "bits": own_bits}
            q, s, b = mlx_quantise(v, own_bits, own_group)
            tensors[to] = ("U32", q.shape, q.tobytes())
            tensors[module + ".scales"] = (scales, s.shape, narrow(s, scales))
            tensors[module + ".biases"] = (scales, b.shape, narrow(b, scales))
            continue
        if v.ndim == 2 and name.endswith(".weight"):
            table[module] = False
        if v.ndim >= 4 and not channels_first:
            v = np.moveaxis(v, 1, -1)
        tensors[to] = ("F32", v.shape, np.ascontiguousarray(v).tobytes())
    total = save(os.path.join(out, "model.safetensors"), tensors)
    with open(os.path.join(out, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": {n: "model.safetensors" for n in tensors}}, f)
    config["quantization"] = config["quantization_config"] = table
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=1)


# ---- GGUF ----

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "BF16": 30}
U32, F32, BOOL, TEXT, ARRAY, I32 = 4, 6, 7, 8, 9, 5


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def field(kind, value):
    if kind == TEXT:
        return text(value)
    return struct.pack({U32: "<I", F32: "<f", BOOL: "<?", I32: "<i"}[kind], value)


def key(name, kind, value):
    if isinstance(value, (list, tuple)):
        body = struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(field(kind, v) for v in value)
    else:
        body = struct.pack("<I", kind) + field(kind, value)
    return text(name) + body


def quantise(v, kind):
    if kind in ("F32", "F16", "BF16"):
        return narrow(v, kind)
    if kind == "Q8_0":
        blocks = v.reshape(-1, 32)
        d = (np.abs(blocks).max(1, keepdims=True) / 127).astype("<f4")
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(d == 0, 0, 1 / d)
        q = np.rint(blocks * inverse).astype(np.int8)
        return np.concatenate([d.astype("<f2").view(np.uint8), q.view(np.uint8)], 1).tobytes()
    import gguf
    return gguf.quants.quantize(v, gguf.GGMLQuantizationType[kind]).tobytes()


def write_gguf(path, version, keys, tensors):
    """tensors: [(name, f32 array, type)]"""
    infos, blobs, at = b"", [], 0
    for name, v, kind in tensors:
        raw = quantise(np.ascontiguousarray(v), kind)
        infos += text(name) + struct.pack("<I", v.ndim) + struct.pack(f"<{v.ndim}Q", *v.shape[::-1])
        infos += struct.pack("<IQ", TYPES[kind], at)
        raw += b"\0" * (-len(raw) % 32)
        blobs.append(raw)
        at += len(raw)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + infos
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32) + b"".join(blobs))


LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "post_self_attn_layernorm": "post_attention_norm", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "post_mlp_layernorm": "post_ffw_norm",
         "eh_proj": "nextn.eh_proj", "enorm": "nextn.enorm", "hnorm": "nextn.hnorm",
         "embed_tokens": "nextn.embed_tokens", "shared_head.norm": "nextn.shared_head_norm",
         "shared_head.head": "nextn.shared_head_head"}
BLOCK = {"norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn_qkv", "attn.proj": "attn_out",
         "attn.q_norm": "attn_q_norm", "attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
OTHER = {"model.language_model.embed_tokens": "token_embd", "model.language_model.norm": "output_norm",
         "lm_head": "output", "model.visual.patch_embed.proj": "v.patch_embd",
         "model.visual.post_layernorm": "v.post_ln", "model.visual.downsample": "mm.patch_merger",
         "model.visual.merger.proj": "mm.model.fc", "model.visual.merger.post_projection_norm": "mm.post_norm",
         "model.visual.merger.gate_proj": "mm.gate", "model.visual.merger.up_proj": "mm.up",
         "model.visual.merger.down_proj": "mm.down"}


def gguf_name(name):
    base, kind = name.rsplit(".", 1)
    for prefix, table, to in (("model.language_model.layers.", LAYER, "blk."),
                              ("model.visual.blocks.", BLOCK, "v.blk.")):
        if base.startswith(prefix):
            number, rest = base[len(prefix):].split(".", 1)
            return f"{to}{number}.{table[rest]}.{kind}"
    return f"{OTHER[base]}.{kind}"


def halves(v, head_dim, rotary):
    """Rows of every head: the rotary part's even ones, its odd ones, the rest."""
    v = v.reshape(v.shape[0] // head_dim, head_dim, -1)
    return np.concatenate([v[:, 0:rotary:2], v[:, 1:rotary:2], v[:, rotary:]], 1)


def model_keys(source, config):
    t = config["text_config"]
    rope = t["rope_parameters"]
    rotary = int(t["head_dim"] * rope.get("partial_rotary_factor", 1.0))
    extra = t.get("num_nextn_predict_layers", 0)
    with open(os.path.join(source, "tokenizer.json")) as f:
        tokenizer = json.load(f)
    size = t["vocab_size"]
    tokens, types = [f"[PAD{i}]" for i in range(size)], [5] * size
    for token, i in tokenizer["model"]["vocab"].items():
        tokens[i], types[i] = token, 1
    for a in tokenizer["added_tokens"]:
        tokens[a["id"]], types[a["id"]] = a["content"], 3 if a["special"] else 4
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    ends = t["eos_token_id"]
    keys = [key("general.architecture", TEXT, "glm4"), key("glm4.block_count", U32, t["num_hidden_layers"] + extra),
            key("glm4.context_length", U32, t["max_position_embeddings"]),
            key("glm4.embedding_length", U32, t["hidden_size"]),
            key("glm4.feed_forward_length", U32, t["intermediate_size"]),
            key("glm4.attention.head_count", U32, t["num_attention_heads"]),
            key("glm4.attention.head_count_kv", U32, t["num_key_value_heads"]),
            key("glm4.attention.layer_norm_rms_epsilon", F32, t["rms_norm_eps"]),
            key("glm4.attention.key_length", U32, t["head_dim"]),
            key("glm4.attention.value_length", U32, t["head_dim"]),
            key("glm4.rope.freq_base", F32, rope["rope_theta"]),
            key("glm4.rope.dimension_sections", I32, rope["mrope_section"] + [0]),
            key("glm4.rope.dimension_count", U32, rotary), key("glm4.nextn_predict_layers", U32, extra),
            key("tokenizer.ggml.model", TEXT, "gpt2"), key("tokenizer.ggml.pre", TEXT, "glm4"),
            key("tokenizer.ggml.tokens", TEXT, tokens), key("tokenizer.ggml.token_type", I32, types),
            key("tokenizer.ggml.merges", TEXT, merges), key("tokenizer.ggml.eos_token_id", U32, ends[0]),
            key("tokenizer.ggml.eot_token_id", U32, ends[1]), key("tokenizer.ggml.padding_token_id", U32, ends[0])]
    template = os.path.join(source, "chat_template.jinja")
    if os.path.exists(template):
        with open(template, newline="") as f:
            keys.append(key("tokenizer.chat_template", TEXT, f.read()))
    return keys, rotary


def projector_keys(source, config):
    v = config["vision_config"]
    with open(os.path.join(source, "preprocessor_config.json")) as f:
        processor = json.load(f)
    size = processor["size"]
    limits = []
    if (size["shortest_edge"], size["longest_edge"]) != (12544, 9633792):  # GGUF counts one of the two frames
        limits = [key("clip.vision.image_min_pixels", U32, size["shortest_edge"] // 2),
                  key("clip.vision.image_max_pixels", U32, size["longest_edge"] // 2)]
    return limits + [key("general.architecture", TEXT, "clip"), key("clip.has_vision_encoder", BOOL, True),
            key("clip.projector_type", TEXT, "glm4v"), key("clip.use_silu", BOOL, True),
            key("clip.vision.image_size", U32, v["image_size"]), key("clip.vision.patch_size", U32, v["patch_size"]),
            key("clip.vision.embedding_length", U32, v["hidden_size"]),
            key("clip.vision.feed_forward_length", U32, v["intermediate_size"]),
            key("clip.vision.block_count", U32, v["depth"]),
            key("clip.vision.attention.head_count", U32, v["num_heads"]),
            key("clip.vision.attention.layer_norm_epsilon", F32, v["rms_norm_eps"]),
            key("clip.vision.projection_dim", U32, config["text_config"]["hidden_size"]),
            key("clip.vision.image_mean", F32, processor["image_mean"]),
            key("clip.vision.image_std", F32, processor["image_std"])]


def to_gguf(source, out, kind, version):
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(source, "config.json")) as f:
        config = json.load(f)
    keys, rotary = model_keys(source, config)
    model, projector = [], []
    for name, v in load(source).items():
        own = kind if v.ndim == 2 and (kind[0] != "Q" or v.shape[-1] % 32 == 0) else "F32"
        if own == "F32" and v.ndim == 2 and kind != "F32":
            own = "F16"  # as llama.cpp falls back
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            v = halves(v, config["text_config"]["head_dim"], rotary).reshape(v.shape)
        to = gguf_name(name)
        if name == "model.visual.patch_embed.proj.weight":
            projector += [(to, v[:, :, 0], "F32"), (to + ".1", v[:, :, 1], "F32")]
        elif name.startswith("model.visual."):
            projector.append((to, v, own))
        else:
            model.append((to, v, own))
    write_gguf(os.path.join(out, "model.gguf"), version, keys, model)
    write_gguf(os.path.join(out, "mmproj-model.gguf"), version, projector_keys(source, config), projector)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source")
    p.add_argument("out")
    kinds = p.add_subparsers(dest="format", required=True)
    s = kinds.add_parser("safetensors")
    s.add_argument("--dtype", choices=["f32", "f16", "bf16"], default="f32")
    s.add_argument("--shards", type=int, default=1)
    s = kinds.add_parser("mlx")
    s.add_argument("--bits", type=int, choices=[2, 3, 4, 5, 6, 8], default=4)
    s.add_argument("--group", type=int, choices=[32, 64, 128], default=64)
    s.add_argument("--scales", choices=["f32", "f16", "bf16"], default="f16")
    s.add_argument("--channels-first", action="store_true")
    s.add_argument("--plain-vision", action="store_true")
    s.add_argument("--mixed", action="store_true", help="8 bits for down_proj, by an override")
    s = kinds.add_parser("gguf")
    s.add_argument("--type", choices=sorted(TYPES), default="F16")
    s.add_argument("--version", type=int, choices=[2, 3], default=3)
    a = p.parse_args()
    if a.format == "safetensors":
        to_safetensors(a.source, a.out, a.dtype.upper(), a.shards)
    elif a.format == "mlx":
        to_mlx(a.source, a.out, a.bits, a.group, a.scales.upper(), a.channels_first, a.plain_vision, a.mixed)
    else:
        to_gguf(a.source, a.out, a.type, a.version)


if __name__ == "__main__":
    main()
