#!/usr/bin/env python3
"""Converts a checkpoint into every format, has the engine read each, and compares value for value.

    check_formats.py WEIGHTS_DUMP [SOURCE_FOLDER] [--keep FOLDER]

Without SOURCE_FOLDER a small checkpoint with an extra layer is made up. Plain types and what the formats' own
arithmetic gives must come back exactly (bit for bit); the side files of a GGUF pair must say what the source
says. Needs numpy; exit 77 (skip) without it. With the package "gguf", its block types are checked, too."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("check_formats: numpy is not installed")
    sys.exit(77)
import convert_model as convert


def made_up(folder):
    """A checkpoint of the family's names with sizes of a doll's house."""
    text = {"model_type": "glm_ocr_text", "vocab_size": 80, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_nextn_predict_layers": 1, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096,
            "eos_token_id": [64, 65], "pad_token_id": 64, "tie_word_embeddings": False, "attention_bias": False,
            "hidden_act": "silu", "rope_parameters": {"rope_type": "default", "rope_theta": 10000,
                                                      "partial_rotary_factor": 1.0, "mrope_section": [4, 6, 6]}}
    vision = {"model_type": "glm_ocr_vision", "hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2,
              "patch_size": 14, "image_size": 336, "temporal_patch_size": 2, "spatial_merge_size": 2,
              "out_hidden_size": 64, "rms_norm_eps": 1e-5, "attention_bias": True, "hidden_act": "silu"}
    rng = np.random.default_rng(7)
    tensors = {}

    def add(name, *shape):
        v = (rng.standard_normal(shape) * 0.1).astype("<f4")
        tensors[name] = ("F32", shape, v.tobytes())

    h, d, i = text["hidden_size"], text["head_dim"], text["intermediate_size"]
    for n in range(3):
        p = f"model.language_model.layers.{n}."
        add(p + "self_attn.q_proj.weight", 4 * d, h)
        add(p + "self_attn.k_proj.weight", 2 * d, h)
        add(p + "self_attn.v_proj.weight", 2 * d, h)
        add(p + "self_attn.o_proj.weight", h, 4 * d)
        add(p + "mlp.gate_up_proj.weight", 2 * i, h)
        add(p + "mlp.down_proj.weight", h, i)
        for norm in ("input_", "post_self_attn_", "post_attention_", "post_mlp_"):
            add(p + norm + "layernorm.weight", h)
    add(p + "eh_proj.weight", h, 2 * h)
    for norm in ("enorm", "hnorm", "shared_head.norm"):
        add(p + norm + ".weight", h)
    for table in (p + "embed_tokens", p + "shared_head.head", "model.language_model.embed_tokens", "lm_head"):
        add(table + ".weight", text["vocab_size"], h)
    add("model.language_model.norm.weight", h)
    v, o = vision["hidden_size"], vision["out_hidden_size"]
    for n in range(2):
        p = f"model.visual.blocks.{n}."
        for name, rows, columns in (("attn.qkv", 3 * v, v), ("attn.proj", v, v), ("mlp.gate_proj", 64, v),
                                    ("mlp.up_proj", 64, v), ("mlp.down_proj", v, 64)):
            add(p + name + ".weight", rows, columns)
            add(p + name + ".bias", rows)
        for name, n_values in (("norm1", v), ("norm2", v), ("attn.q_norm", 16), ("attn.k_norm", 16)):
            add(p + name + ".weight", n_values)
    add("model.visual.patch_embed.proj.weight", v, 3, 2, 14, 14)
    add("model.visual.patch_embed.proj.bias", v)
    add("model.visual.post_layernorm.weight", v)
    add("model.visual.downsample.weight", o, v, 2, 2)
    add("model.visual.downsample.bias", o)
    add("model.visual.merger.proj.weight", o, o)
    for name in ("gate", "up"):
        add(f"model.visual.merger.{name}_proj.weight", 3 * o, o)
    add("model.visual.merger.down_proj.weight", o, 3 * o)
    for kind in ("weight", "bias"):
        add("model.visual.merger.post_projection_norm." + kind, o)
    convert.save(os.path.join(folder, "model.safetensors"), tensors)

    names = ["<|endoftext|>", "<|user|>", "<|image|>", "<|begin_of_image|>", "<|end_of_image|>", "<think>"]
    added = [{"id": 64 + k, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": t != "<think>"} for k, t in enumerate(names)]
    vocabulary = {chr(ord("!") + k): k for k in range(62)} | {"ab": 62, "abc": 63}
    documents = {
        "config.json": {"architectures": ["GlmOcrForConditionalGeneration"], "model_type": "glm_ocr",
                        "text_config": text, "vision_config": vision, "image_token_id": 66,
                        "image_start_token_id": 67, "image_end_token_id": 68},
        "generation_config.json": {"do_sample": False, "eos_token_id": [64, 65], "pad_token_id": 64},
        "preprocessor_config.json": {"size": {"shortest_edge": 12544, "longest_edge": 9633792}, "patch_size": 14,
                                     "temporal_patch_size": 2, "merge_size": 2,
                                     "image_mean": [0.48145466, 0.4578275, 0.40821073],
                                     "image_std": [0.26862954, 0.26130258, 0.27577711]},
        "tokenizer.json": {"added_tokens": added, "model": {"type": "BPE", "vocab": vocabulary,
                                                            "merges": [["a", "b"], ["ab", "c"]]}},
    }
    for name, document in documents.items():
        with open(os.path.join(folder, name), "w") as f:
            json.dump(document, f)
    with open(os.path.join(folder, "chat_template.jinja"), "w") as f:
        f.write("[gMASK]<sop>\n{{ messages }}\n")


def expected_mlx(source, a):
    """What MLX's arithmetic gives: q * scale + bias, all in f32."""
    config = json.load(open(os.path.join(source, "config.json")))
    extra = f"layers.{config['text_config']['num_hidden_layers']}."
    out = {}
    for name, v in convert.load(source).items():
        group = next((g for g in (a["group"], 64, 32) if g <= a["group"] and v.shape[-1] % g == 0), None)
        if extra in name:
            continue
        if v.ndim == 2 and name.endswith(".weight") and group and not (a["plain_vision"] and "visual" in name):
            bits = 8 if a["mixed"] and "down_proj" in name else a["bits"]
            packed, s, b = convert.mlx_quantise(v, bits, group)
            s, b = (convert.widen(convert.narrow(x, a["scales"]), a["scales"]).reshape(x.shape) for x in (s, b))
            stream = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little").reshape(*v.shape, bits)
            q = (stream * (1 << np.arange(bits))).sum(-1).astype("<f4")
            v = q * np.repeat(s, group, 1) + np.repeat(b, group, 1)
        out[name] = v
    return out


def expected_gguf(source, kind):
    out = {}
    for name, v in convert.load(source).items():
        own = kind if v.ndim == 2 and (kind[0] != "Q" or v.shape[-1] % 32 == 0) else "F32"
        if own == "F32" and v.ndim == 2 and kind != "F32":
            own = "F16"
        raw = convert.quantise(v, own)
        if own == "Q8_0":
            blocks = np.frombuffer(raw, np.uint8).reshape(-1, 34)
            d = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype("<f4")
            v = (np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype("<f4") * d).reshape(v.shape)
        elif own[0] == "Q":
            import gguf
            v = gguf.quants.dequantize(np.frombuffer(raw, np.uint8).reshape(v.shape[0], -1),
                                       gguf.GGMLQuantizationType[own]).reshape(v.shape)
        else:
            v = convert.widen(raw, own).reshape(v.shape)
        out[name] = v
    return out


def compare(label, dump, folder, work, want):
    out = os.path.join(work, "dump-" + label)
    subprocess.run([dump, folder, out], check=True, stdout=subprocess.DEVNULL)
    os.rename(os.path.join(out, "tensors.safetensors"), os.path.join(out, "model.safetensors"))
    got = convert.load(out)
    assert sorted(got) == sorted(want), (label, sorted(set(got) ^ set(want)))
    for name, v in want.items():
        assert got[name].shape == v.shape, (label, name, got[name].shape, v.shape)
        assert np.array_equal(got[name].view("<u4"), np.ascontiguousarray(v, "<f4").view("<u4")), (label, name)
    print(f"{label}: {len(want)} tensors are equal")
    return out


def same(a, b, path):
    """b says what a says: numbers to f32."""
    if isinstance(a, dict):
        for k in a:
            assert k in b, path + "." + k
            same(a[k], b[k], path + "." + k)
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for k, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{path}[{k}]")
    elif isinstance(a, float) or isinstance(b, float):
        assert np.float32(a) == np.float32(b), (path, a, b)
    else:
        assert a == b, (path, a, b)


def compare_documents(source, out):
    """The documents that are made from GGUF metadata, against the source's."""
    def read(folder, name):
        with open(os.path.join(folder, name)) as f:
            return json.load(f)

    config = read(source, "config.json")
    keep = {"text_config": ("vocab_size eos_token_id pad_token_id attention_bias head_dim hidden_act hidden_size "
                            "intermediate_size max_position_embeddings num_attention_heads num_hidden_layers "
                            "num_nextn_predict_layers num_key_value_heads rms_norm_eps rope_parameters "
                            "tie_word_embeddings model_type").split(),
            "vision_config": ("model_type hidden_size depth num_heads attention_bias intermediate_size hidden_act "
                              "patch_size out_hidden_size rms_norm_eps spatial_merge_size "
                              "temporal_patch_size").split()}
    made = read(out, "config.json")
    for part, names in keep.items():
        same({k: config[part][k] for k in names}, made[part], part)
    same({k: config[k] for k in config if k.endswith("_token_id")}, made, "config")
    generation = read(source, "generation_config.json")
    same({k: generation[k] for k in ("eos_token_id", "pad_token_id", "do_sample")},
         read(out, "generation_config.json"), "generation")
    processor = read(source, "preprocessor_config.json")
    same({k: processor[k] for k in "patch_size temporal_patch_size merge_size image_mean image_std size".split()},
         read(out, "preprocessor_config.json"), "preprocessor")
    a, b = read(source, "tokenizer.json"), read(out, "tokenizer.json")
    same(a["added_tokens"], b["added_tokens"], "added_tokens")
    same(a["model"]["vocab"], b["model"]["vocab"], "vocab")
    same([m if isinstance(m, list) else m.split(" ") for m in a["model"]["merges"]], b["model"]["merges"], "merges")
    if "pre_tokenizer" in a:
        same(a["pre_tokenizer"], b["pre_tokenizer"], "pre_tokenizer")
        same(a["decoder"], b["decoder"], "decoder")
    with open(os.path.join(source, "chat_template.jinja"), newline="") as f, \
            open(os.path.join(out, "chat_template.jinja"), newline="") as g:
        assert f.read() == g.read(), "chat_template"
    print("documents of a GGUF pair say what the source says")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dump")
    p.add_argument("source", nargs="?")
    p.add_argument("--keep", help="converted models stay in this folder")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = a.keep or temporary
        os.makedirs(work, exist_ok=True)
        source = a.source
        if not source:
            source = os.path.join(work, "source")
            os.makedirs(source, exist_ok=True)
            made_up(source)
        original = convert.load(source)
        for dtype in ("F32", "F16", "BF16"):
            label = "sharded-" + dtype.lower()
            folder = os.path.join(work, label)
            convert.to_safetensors(source, folder, dtype, 3 if dtype != "BF16" else 1)
            compare(label, a.dump, folder, work, {n: convert.widen(convert.narrow(v, dtype), dtype).reshape(v.shape)
                                                  for n, v in original.items()})
        for options in ({"bits": 8, "group": 64, "scales": "F16"}, {"bits": 4, "group": 64, "scales": "BF16"},
                        {"bits": 4, "group": 32, "scales": "F32", "channels_first": True},
                        {"bits": 6, "group": 64, "scales": "F16", "mixed": True},
                        {"bits": 3, "group": 32, "scales": "F16", "plain_vision": True},
                        {"bits": 5, "group": 64, "scales": "F16"}, {"bits": 2, "group": 32, "scales": "F16"}):
            options = {"channels_first": False, "plain_vision": False, "mixed": False} | options
            label = f"mlx-{options['bits']}bit-{options['group']}" + ("-first" if options["channels_first"] else "")
            folder = os.path.join(work, label)
            convert.to_mlx(source, folder, **options)
            out = compare(label, a.dump, folder, work, expected_mlx(source, options))
            with open(os.path.join(out, "config.json")) as f:
                assert json.load(f)["text_config"]["num_nextn_predict_layers"] == 0, label
        kinds = ["F32", "F16", "BF16", "Q8_0"]
        try:
            import gguf  # noqa: F401
            kinds += ["Q4_0", "Q4_1", "Q5_0", "Q5_1"]
        except ImportError:
            pass
        for kind in kinds:
            folder = os.path.join(work, "gguf-" + kind)
            convert.to_gguf(source, folder, kind, 3 if kind != "F16" else 2)
            out = compare("gguf-" + kind, a.dump, folder, work, expected_gguf(source, kind))
        compare_documents(source, out)


if __name__ == "__main__":
    main()
