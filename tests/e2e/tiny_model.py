"""A tiny random checkpoint of the GLM-OCR architecture, for tests that need a model and not what it says. Standard library only."""
import array
import json
import math
import pathlib
import random
import struct

SPECIAL = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|begin_of_image|>",
           "<|end_of_image|>", "<|image|>"]
ID = {name: 256 + i for i, name in enumerate(SPECIAL)}
HIDDEN, LAYERS, VOCAB = 32, 2, 272

CONFIG = {
    "architectures": ["GlmOcrForConditionalGeneration"], "model_type": "glm_ocr",
    "text_config": {"model_type": "glm_ocr_text", "pad_token_id": ID["<|endoftext|>"], "vocab_size": VOCAB,
                    "eos_token_id": [ID["<|endoftext|>"], ID["<|user|>"]], "attention_bias": False, "head_dim": 16,
                    "hidden_act": "silu", "hidden_size": HIDDEN, "intermediate_size": 48, "max_position_embeddings": 4096,
                    "num_attention_heads": 2, "num_hidden_layers": LAYERS, "num_nextn_predict_layers": 0,
                    "num_key_value_heads": 1, "rms_norm_eps": 1e-05, "tie_word_embeddings": False,
                    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "partial_rotary_factor": 1.0,
                                        "rope_theta": 10000}},
    "vision_config": {"model_type": "glm_ocr_vision", "hidden_size": 16, "depth": 1, "num_heads": 2, "attention_bias": True,
                      "intermediate_size": 24, "hidden_act": "silu", "patch_size": 14, "out_hidden_size": HIDDEN,
                      "rms_norm_eps": 1e-05, "spatial_merge_size": 2, "temporal_patch_size": 2},
    "image_start_token_id": ID["<|begin_of_image|>"], "image_end_token_id": ID["<|end_of_image|>"],
    "image_token_id": ID["<|image|>"]}
TEMPLATE = """[gMASK]<sop>
{%- for m in messages -%}<|user|>
{% for item in m.content -%}
{%- if item.type == 'image' -%}<|begin_of_image|><|image|><|end_of_image|>
{%- elif item.type == 'text' -%}{{ item.text }}
{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>
{% endif -%}"""


def byte_characters():
    """The byte -> printable character table of byte-level BPE."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def tokenizer():
    table = byte_characters()
    added = [{"id": ID[s], "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for s in SPECIAL]
    split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}, byte_level]},
            "post_processor": None, "decoder": dict(byte_level, use_regex=True),
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {table[b]: b for b in range(256)}, "merges": []}}


def tensors():
    """name -> shape, in the order of the checkpoint."""
    v, out = CONFIG["vision_config"], {}

    def linear(name, n, k, bias=False):
        out[f"{name}.weight"] = [n, k]
        if bias:
            out[f"{name}.bias"] = [n]
    h, inner = v["hidden_size"], v["intermediate_size"]
    out["model.visual.patch_embed.proj.weight"] = [h, 3, 2, 14, 14]
    out["model.visual.patch_embed.proj.bias"] = [h]
    for i in range(v["depth"]):
        p = f"model.visual.blocks.{i}."
        for norm in ("norm1", "norm2"):
            out[f"{p}{norm}.weight"] = [h]
        linear(p + "attn.qkv", 3 * h, h, True)
        linear(p + "attn.proj", h, h, True)
        for norm in ("attn.q_norm", "attn.k_norm"):
            out[f"{p}{norm}.weight"] = [h // v["num_heads"]]
        linear(p + "mlp.gate_proj", inner, h, True)
        linear(p + "mlp.up_proj", inner, h, True)
        linear(p + "mlp.down_proj", h, inner, True)
    out["model.visual.post_layernorm.weight"] = [h]
    out["model.visual.downsample.weight"] = [HIDDEN, h, 2, 2]
    out["model.visual.downsample.bias"] = [HIDDEN]
    linear("model.visual.merger.proj", HIDDEN, HIDDEN)
    out["model.visual.merger.post_projection_norm.weight"] = [HIDDEN]
    out["model.visual.merger.post_projection_norm.bias"] = [HIDDEN]
    linear("model.visual.merger.gate_proj", 3 * HIDDEN, HIDDEN)
    linear("model.visual.merger.up_proj", 3 * HIDDEN, HIDDEN)
    linear("model.visual.merger.down_proj", HIDDEN, 3 * HIDDEN)
    t = CONFIG["text_config"]
    out["model.language_model.embed_tokens.weight"] = [VOCAB, HIDDEN]
    for i in range(LAYERS):
        p = f"model.language_model.layers.{i}."
        for norm in ("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"):
            out[f"{p}{norm}.weight"] = [HIDDEN]
        linear(p + "self_attn.q_proj", 32, HIDDEN)
        linear(p + "self_attn.k_proj", 16, HIDDEN)
        linear(p + "self_attn.v_proj", 16, HIDDEN)
        linear(p + "self_attn.o_proj", HIDDEN, 32)
        linear(p + "mlp.gate_up_proj", 2 * t["intermediate_size"], HIDDEN)
        linear(p + "mlp.down_proj", HIDDEN, t["intermediate_size"])
    out["model.language_model.norm.weight"] = [HIDDEN]
    out["lm_head.weight"] = [VOCAB, HIDDEN]
    return out


def values(seed=1):
    """name -> (shape, numbers), small ones."""
    rng, out = random.Random(seed), {}
    for name, shape in tensors().items():
        middle, spread = (1.0, 0.1) if "norm" in name and name.endswith("weight") else (0.0, 0.2)
        out[name] = (shape, array.array("f", (middle + spread * (rng.random() - 0.5) for _ in range(math.prod(shape)))).tolist())
    return out


def write(folder, seed=1, rename=None, config=CONFIG, tensors=None):
    """Writes the checkpoint; rename: {name: other name} for models that are not what they say; tensors: others than those of
    values(seed)."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header, data = {}, bytearray()
    for name, (shape, numbers) in (values(seed) if tensors is None else tensors).items():
        begin = len(data)
        data += array.array("f", numbers).tobytes()
        header[(rename or {}).get(name, name)] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    for name, value in (("config.json", config), ("tokenizer.json", tokenizer()),
                        ("generation_config.json", {"eos_token_id": CONFIG["text_config"]["eos_token_id"]})):
        (folder / name).write_text(json.dumps(value))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
