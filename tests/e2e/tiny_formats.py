"""tiny_model in the other formats that the engine reads: a GGUF pair (Q8_0, F16 and F32) and an MLX folder (4 bits).

Quantising loses something, so each writer also writes, as a plain checkpoint, the values that its files stand for: both must
read alike, word for word. Standard library only."""
import json
import pathlib
import struct

import tiny_model

LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "post_self_attn_layernorm": "post_attention_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "post_mlp_layernorm": "post_ffw_norm"}
BLOCK = {"norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn_qkv", "attn.proj": "attn_out", "attn.q_norm": "attn_q_norm",
         "attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
OTHER = {"model.language_model.embed_tokens": "token_embd", "model.language_model.norm": "output_norm", "lm_head": "output",
         "model.visual.patch_embed.proj": "v.patch_embd", "model.visual.post_layernorm": "v.post_ln",
         "model.visual.downsample": "mm.patch_merger", "model.visual.merger.proj": "mm.model.fc",
         "model.visual.merger.post_projection_norm": "mm.post_norm", "model.visual.merger.gate_proj": "mm.gate",
         "model.visual.merger.up_proj": "mm.up", "model.visual.merger.down_proj": "mm.down"}
F32, F16, Q8_0 = 0, 1, 8


def rounded(kind, value):
    """As a type of struct holds it."""
    return struct.unpack(kind, struct.pack(kind, value))[0]


def groups_of(values, size):
    return (values[i:i + size] for i in range(0, len(values), size))


# ---- GGUF ----

def gguf_name(name):
    base, kind = name.rsplit(".", 1)
    for prefix, table, to in (("model.language_model.layers.", LAYER, "blk."), ("model.visual.blocks.", BLOCK, "v.blk.")):
        if base.startswith(prefix):
            number, rest = base[len(prefix):].split(".", 1)
            return f"{to}{number}.{table[rest]}.{kind}"
    return f"{OTHER[base]}.{kind}"


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def one(value):
    """Type and bytes of a single value."""
    for kind, number, code in ((bool, 7, "<?"), (int, 4, "<I"), (float, 6, "<f")):
        if isinstance(value, kind):
            return number, struct.pack(code, value)
    return 8, text(value)


def key(name, value):
    if not isinstance(value, list):
        kind, body = one(value)
        return text(name) + struct.pack("<I", kind) + body
    kind = one(value[0])[0] if value else 8
    return text(name) + struct.pack("<IIQ", 9, kind, len(value)) + b"".join(one(v)[1] for v in value)


def encode(kind, values):
    """-> bytes, and the values that they stand for."""
    if kind == F32:
        return struct.pack(f"<{len(values)}f", *values), values
    if kind == F16:
        raw = struct.pack(f"<{len(values)}e", *values)
        return raw, list(struct.unpack(f"<{len(values)}e", raw))
    raw, back = b"", []
    for block in groups_of(values, 32):
        d = rounded("<e", max(map(abs, block)) / 127) or 1.0
        q = [max(-127, min(127, round(v / d))) for v in block]
        raw += struct.pack("<e32b", d, *q)
        back += [d * n for n in q]
    return raw, back


def write_one_gguf(path, keys, tensors):
    infos, data = b"", b""
    for name, shape, kind, raw in tensors:
        infos += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, len(data))
        data += raw + b"\0" * (-len(raw) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(key(k, v) for k, v in keys.items()) + infos
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)


def halves(values, columns, head):
    """Rows of every head: the even ones, then the odd ones."""
    rows = list(groups_of(values, columns))
    return [v for h in groups_of(rows, head) for row in h[0::2] + h[1::2] for v in row]


def keys_of_model():
    t = tiny_model.CONFIG["text_config"]
    tokens, kinds = [f"[PAD{i}]" for i in range(t["vocab_size"])], [5] * t["vocab_size"]
    for byte, character in tiny_model.byte_characters().items():
        tokens[byte], kinds[byte] = character, 1
    for name, number in tiny_model.ID.items():
        tokens[number], kinds[number] = name, 3
    return {"general.architecture": "glm4", "glm4.block_count": t["num_hidden_layers"],
            "glm4.context_length": t["max_position_embeddings"], "glm4.embedding_length": t["hidden_size"],
            "glm4.feed_forward_length": t["intermediate_size"], "glm4.attention.head_count": t["num_attention_heads"],
            "glm4.attention.head_count_kv": t["num_key_value_heads"],
            "glm4.attention.layer_norm_rms_epsilon": t["rms_norm_eps"], "glm4.attention.key_length": t["head_dim"],
            "glm4.rope.freq_base": float(t["rope_parameters"]["rope_theta"]), "glm4.rope.dimension_count": t["head_dim"],
            "glm4.rope.dimension_sections": t["rope_parameters"]["mrope_section"] + [0], "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "glm4", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds,
            "tokenizer.ggml.merges": [], "tokenizer.ggml.eos_token_id": t["eos_token_id"][0],
            "tokenizer.ggml.eot_token_id": t["eos_token_id"][1], "tokenizer.chat_template": tiny_model.TEMPLATE}


def keys_of_projector():
    v = tiny_model.CONFIG["vision_config"]
    return {"general.architecture": "clip", "clip.projector_type": "glm4v", "clip.has_vision_encoder": True,
            "clip.vision.image_size": 336, "clip.vision.patch_size": v["patch_size"],
            "clip.vision.embedding_length": v["hidden_size"], "clip.vision.feed_forward_length": v["intermediate_size"],
            "clip.vision.block_count": v["depth"], "clip.vision.attention.head_count": v["num_heads"],
            "clip.vision.attention.layer_norm_epsilon": v["rms_norm_eps"],
            "clip.vision.projection_dim": tiny_model.CONFIG["text_config"]["hidden_size"]}


def write_gguf(folder, plain):
    """The pair in folder; its values as a checkpoint in plain."""
    folder, model, projector, back = pathlib.Path(folder), [], [], {}
    folder.mkdir(parents=True)
    for name, (shape, values) in tiny_model.values().items():
        kind = F32 if len(shape) != 2 else F16 if shape[1] % 32 else Q8_0
        back[name] = (shape, encode(kind, values)[1])
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = halves(values, shape[1], tiny_model.CONFIG["text_config"]["head_dim"])
        to = gguf_name(name)
        if to == "v.patch_embd.weight":  # the two frames
            n = shape[3] * shape[4]
            for frame, ending in ((0, ""), (1, ".1")):
                part = [v for i, plane in enumerate(groups_of(values, n)) if i % 2 == frame for v in plane]
                projector.append((to + ending, shape[:2] + shape[3:], F32, encode(F32, part)[0]))
        else:
            (projector if name.startswith("model.visual.") else model).append((to, shape, kind, encode(kind, values)[0]))
    write_one_gguf(folder / "tiny-Q8_0.gguf", keys_of_model(), model)
    write_one_gguf(folder / "mmproj-tiny.gguf", keys_of_projector(), projector)
    tiny_model.write(plain, tensors=back)
    return folder


# ---- MLX ----

def mlx_name(name):
    for ours, theirs in (("model.visual.", "vision_tower."), ("model.language_model.", "language_model.model."),
                         ("lm_head.", "language_model.lm_head.")):
        if name.startswith(ours):
            return theirs + name[len(ours):]
    return name


def affine(values):
    """Four bits in groups of 32: packed words, scales, biases, and the values that they stand for."""
    words, scales, biases, back = b"", [], [], []
    for group in groups_of(values, 32):
        bias = rounded("<e", min(group))
        scale = rounded("<e", (max(group) - bias) / 15) or 1.0
        q = [max(0, min(15, round((v - bias) / scale))) for v in group]
        words += bytes(q[i] | q[i + 1] << 4 for i in range(0, 32, 2))
        scales.append(scale)
        biases.append(bias)
        back += [rounded("<f", n * scale + bias) for n in q]
    return words, scales, biases, back


def write_mlx(folder, plain):
    """The folder; its values as a checkpoint in plain."""
    table, stored, back = {"bits": 4, "group_size": 32}, {}, {}
    for name, (shape, values) in tiny_model.values().items():
        to, back[name] = mlx_name(name), (shape, values)
        if len(shape) == 2 and shape[1] % 32 == 0:
            words, scales, biases, values = affine(values)
            back[name], rows, module = (shape, values), shape[0], to.removesuffix(".weight")
            stored[to] = ("U32", [rows, shape[1] // 8], words)
            for ending, numbers in ((".scales", scales), (".biases", biases)):
                stored[module + ending] = ("F16", [rows, shape[1] // 32], struct.pack(f"<{len(numbers)}e", *numbers))
            continue
        if len(shape) == 2:
            table[to.removesuffix(".weight")] = False
        if len(shape) >= 4:  # channels last
            places = len(values) // (shape[0] * shape[1])
            values = [v for output in groups_of(values, shape[1] * places) for p in range(places) for v in output[p::places]]
            shape = [shape[0], *shape[2:], shape[1]]
        stored[to] = ("F32", shape, struct.pack(f"<{len(values)}f", *values))
    tiny_model.write(plain, tensors=back)
    folder = tiny_model.write(folder, config=dict(tiny_model.CONFIG, quantization=table), tensors={})
    header, at = {}, 0
    for name, (kind, shape, raw) in stored.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    words = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(words)) + words + b"".join(s[2] for s in stored.values()))
    return folder
