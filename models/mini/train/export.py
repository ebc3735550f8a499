#!/usr/bin/env python3
"""Turns a training checkpoint into model folders.

    export.py run/last.pt OUT [--corpus corpus.txt --check 60] [--reference]

OUT/hugging-face  bf16, as the reference implementation loads it
OUT/mlx           linears and tables in 8 bits, a scale and a bias (f16) for every 64 values, as MLX stores them; norms
                  and biases f32, convolutions bf16. Unlike MLX's own converter it keeps the extra layer, without its
                  copies of table and head: a reader takes the main ones. This is what the source tree keeps.

--check reads that many lines in faces never trained on: with the weights as trained, and with those of OUT/mlx, read
back from the file and rounded to bf16 as a packed model has them. --reference compares with transformers' texts, too.
"""
import argparse
import json
import os
import random

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import tokens
from lines import HEIGHT, MAX_WIDTH, STEP, Lines
from model import Reader, TextConfig, VisionConfig
from reading import MEAN, STD, evaluate, patches_of, read
from tokens import AFTER, BEFORE, END, ID, PAD

GROUP, LEVELS = 64, 255
MOST_TOKENS, MOST_CHARACTERS = 300, 90
MLX_NAMES = (("model.visual.", "vision_tower."), ("model.language_model.", "language_model.model."),
             ("lm_head.", "language_model.lm_head."))


# ---- 8 bits ----

def half(x):
    """Rounded to f16, as it will be stored."""
    return x.astype(np.float16).astype(np.float32)


def levels_of(groups, scale, bias):
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.rint((groups - bias) / scale)
    return np.clip(np.nan_to_num(levels), 0, LEVELS)


def quantise(values):
    """[rows, columns] f32 -> levels u8, scales and biases f16. Every group takes the best of several ranges, each
    fitted once more to the levels that it gave (least squares)."""
    groups = values.reshape(values.shape[0], -1, GROUP).astype(np.float32)
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    best = None
    for narrower in (None, 0, 0.002, 0.004, 0.008, 0.015):
        scale = half((high - low) * (1 - (narrower or 0)) / LEVELS)
        bias = half(low if narrower is None else (high + low) / 2 - scale * LEVELS / 2)
        for _ in range(3):
            levels = levels_of(groups, scale, bias)
            error = ((levels * scale + bias - groups) ** 2).sum(-1, keepdims=True)
            if best is None:
                best = [error, levels, scale, bias]
            else:
                better = error < best[0]
                best = [np.where(better, new, old) for new, old in zip((error, levels, scale, bias), best)]
            centred = levels - levels.mean(-1, keepdims=True)
            spread = (centred ** 2).sum(-1, keepdims=True)
            fitted = (centred * groups).sum(-1, keepdims=True) / np.maximum(spread, 1e-9)
            scale = half(np.where(spread > 0, fitted, scale))
            bias = half(groups.mean(-1, keepdims=True) - scale * levels.mean(-1, keepdims=True))
    _, levels, scale, bias = best
    return (levels.astype(np.uint8).reshape(values.shape), scale[..., 0].astype(np.float16),
            bias[..., 0].astype(np.float16))


def dequantise(levels, scales, biases):
    groups = levels.reshape(levels.shape[0], -1, GROUP).astype(np.float32)
    return (groups * scales.astype(np.float32)[..., None] + biases.astype(np.float32)[..., None]).reshape(levels.shape)


# ---- tensors ----

def is_quantised(value):
    return value.ndim == 2 and value.shape[1] % GROUP == 0


def checkpoint_tensors(model):
    """Under the checkpoint's names and shapes, f32; both temporal halves of the patch kernel, the extra layer's
    copies of table and head."""
    out = {name: view.detach().float().contiguous() for name, view in model.views()}
    patch = "model.visual.patch_embed.proj.weight"
    frames = model.vc.temporal_patch_size
    out[patch] = (out[patch] / frames).expand(-1, -1, frames, -1, -1).contiguous()
    extra = f"model.language_model.layers.{model.tc.num_hidden_layers}."
    out[extra + "embed_tokens.weight"] = out["model.language_model.embed_tokens.weight"].clone()
    out[extra + "shared_head.head.weight"] = out["lm_head.weight"].clone()
    return out


def mlx_name(name):
    return next(mlx + name[len(ours):] for ours, mlx in MLX_NAMES if name.startswith(ours))


def mlx_tensors(model):
    out = {}
    extra = f"model.language_model.layers.{model.tc.num_hidden_layers}."
    for name, value in checkpoint_tensors(model).items():
        if name in (extra + "embed_tokens.weight", extra + "shared_head.head.weight"):
            continue
        name = mlx_name(name)
        if is_quantised(value):
            levels, scales, biases = quantise(value.numpy())
            module = name.removesuffix(".weight")
            out[name] = torch.from_numpy(levels.view("<u4").astype(np.uint32))
            out[module + ".scales"], out[module + ".biases"] = torch.from_numpy(scales), torch.from_numpy(biases)
        elif value.ndim > 2:  # a convolution: channels last
            out[name] = value.movedim(1, -1).contiguous().bfloat16()
        else:
            out[name] = value
    return out


def set_from_mlx(model, path):
    """Puts the weights of an MLX file into the model, every matrix rounded to bf16."""
    stored = load_file(path)
    with torch.no_grad():
        for name, view in model.views():
            name = mlx_name(name)
            value, module = stored[name], name.removesuffix(".weight")
            if module + ".scales" in stored:
                levels = value.numpy().view(np.uint8)
                value = torch.from_numpy(dequantise(levels, stored[module + ".scales"].numpy(),
                                                    stored[module + ".biases"].numpy())).bfloat16()
            elif value.ndim > 2:
                value = value.float().movedim(-1, 1)
                if "patch_embed" in name:
                    value = value.sum(2, keepdim=True)
            view.copy_(value)


# ---- the other files ----

def config_json(vc, tc):
    text = {
        "model_type": "glm_ocr_text", "vocab_size": tc.vocab_size, "hidden_size": tc.hidden_size,
        "intermediate_size": tc.intermediate_size, "num_hidden_layers": tc.num_hidden_layers,
        "num_nextn_predict_layers": 1, "num_attention_heads": tc.num_attention_heads,
        "num_key_value_heads": tc.num_key_value_heads, "head_dim": tc.head_dim, "hidden_act": "silu",
        "rms_norm_eps": tc.rms_norm_eps, "max_position_embeddings": 8192, "attention_bias": False,
        "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": tc.rope_theta, "partial_rotary_factor": 1.0,
                            "mrope_section": list(tc.mrope_section)},
        "pad_token_id": PAD, "eos_token_id": [PAD, END], "dtype": "bfloat16",
    }
    vision = {
        "model_type": "glm_ocr_vision", "depth": vc.depth, "hidden_size": vc.hidden_size,
        "intermediate_size": vc.intermediate_size, "num_heads": vc.num_heads, "patch_size": vc.patch_size,
        "temporal_patch_size": vc.temporal_patch_size, "spatial_merge_size": vc.spatial_merge_size,
        "in_channels": vc.in_channels, "out_hidden_size": vc.out_hidden_size, "image_size": MAX_WIDTH,
        "hidden_act": "silu", "hidden_dropout_prob": 0.0, "rms_norm_eps": vc.rms_norm_eps, "attention_bias": True,
        "initializer_range": 0.02,
    }
    frame = {"image_token_id": "<|image|>", "image_start_token_id": "<|begin_of_image|>",
             "image_end_token_id": "<|end_of_image|>", "video_token_id": "<|video|>",
             "video_start_token_id": "<|begin_of_video|>", "video_end_token_id": "<|end_of_video|>"}
    return {"architectures": ["GlmOcrForConditionalGeneration"], "model_type": "glm_ocr", "text_config": text,
            "vision_config": vision, **{key: ID[token] for key, token in frame.items()},
            "tie_word_embeddings": False, "dtype": "bfloat16"}


def side_files(vc, tc, seen):
    """File name -> content, the same in both folders but for config.json."""
    merge = vc.spatial_merge_size
    return {
        "config.json": config_json(vc, tc),
        "generation_config.json": {"eos_token_id": [PAD, END], "pad_token_id": PAD, "do_sample": False},
        "preprocessor_config.json": {
            "image_processor_type": "Glm46VImageProcessor", "processor_class": "Glm46VProcessor",
            # no line of the fixed height may be scaled again
            "size": {"shortest_edge": HEIGHT * STEP, "longest_edge": HEIGHT * MAX_WIDTH * 8},
            "do_rescale": True, "patch_size": vc.patch_size, "temporal_patch_size": vc.temporal_patch_size,
            "merge_size": merge, "image_mean": list(MEAN), "image_std": list(STD)},
        "tokenizer.json": tokens.tokenizer_json(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
            "model_max_length": 8192, "clean_up_tokenization_spaces": False, "padding_side": "left",
            "extra_special_tokens": [t for t in tokens.SPECIAL if t.startswith(("<|", "["))]},
        "pagemill.json": {
            "name": "mini", "family": "glm_ocr", "region": "line", "tasks": ["text"],
            "prompts": {"text": tokens.PROMPT},
            "description": "a small line reader in the GLM-OCR architecture, trained on synthetic Latin print",
            "licence": "Apache-2.0", "script": "Latin", "line_height_px": HEIGHT, "width_multiple_px": STEP,
            "max_width_px": MAX_WIDTH, "max_chars": MOST_CHARACTERS, "max_tokens": MOST_TOKENS,
            "drafts_see_pictures": True, "lines_seen": seen},
    }


def write_folder(path, files, weights):
    os.makedirs(path, exist_ok=True)
    for name, content in files.items():
        with open(os.path.join(path, name), "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    with open(os.path.join(path, "chat_template.jinja"), "w", encoding="utf-8") as file:
        file.write(tokens.TEMPLATE)
    target = os.path.join(path, "model.safetensors")
    save_file(weights, target, metadata={"format": "pt"})
    os.chmod(target, 0o644)
    print(f"{target}: {os.path.getsize(target) / 1e6:.2f} MB, {len(weights)} tensors")
    return target


# ---- checks ----

def quantisation_error(model, path):
    """Root mean square over the matrices, relative to their own."""
    before = {name: view.detach().clone() for name, view in model.views()}
    set_from_mlx(model, path)
    worst, error, total = ("", 0.0), 0.0, 0.0
    for name, view in model.views():
        if view.ndim == 2:
            e, t = ((view - before[name]) ** 2).sum().item(), (before[name] ** 2).sum().item()
            error, total = error + e, total + t
            worst = max(worst, (name, (e / t) ** 0.5), key=lambda x: x[1])
    print(f"8 bits, then bf16: relative error {(error / total) ** 0.5:.5f}, worst {worst[0]} {worst[1]:.5f}")


def compare_with_reference(model, folder, lines):
    """transformers on OUT/hugging-face beside this code with the same bf16 weights."""
    from transformers import AutoTokenizer, GlmOcrForConditionalGeneration
    reference = GlmOcrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode(tokens.PROMPT, add_special_tokens=False) == list(tokens.PROMPT.encode())
    patch, merge, same = model.vc.patch_size, model.vc.spatial_merge_size, 0
    for line in lines:
        rows, columns = HEIGHT // patch, line.pixels.shape[1] // patch
        pixels = patches_of(torch.from_numpy(line.pixels)[None], patch)[0].unflatten(-1, (3, 1, -1))
        pixels = pixels.expand(-1, -1, model.vc.temporal_patch_size, -1).flatten(1)
        ids = torch.tensor([BEFORE + [ID["<|image|>"]] * (rows * columns // merge ** 2) + AFTER])
        with torch.no_grad():
            out = reference.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels,
                                     image_grid_thw=torch.tensor([[1, rows, columns]]),
                                     mm_token_type_ids=(ids == ID["<|image|>"]).int(), max_new_tokens=MOST_TOKENS,
                                     do_sample=False)[0, ids.shape[1]:].tolist()
        same += read(model, line, MOST_TOKENS) == [t for t in out if t not in (END, PAD)]
    print(f"same ids as the reference implementation on {same} of {len(lines)} lines")


def load(path, kind):
    saved = torch.load(path, weights_only=False, map_location="cpu")
    model = Reader(VisionConfig(**saved["vision"]), TextConfig(**saved["text"]))
    model.load_state_dict(saved["average"] if kind == "average" and "average" in saved else saved["model"])
    return model.eval(), saved["seen"]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("checkpoint")
    p.add_argument("out")
    p.add_argument("--weights", choices=("average", "last"), default="average",
                   help="the running average, where the checkpoint has one, or the last step's")
    p.add_argument("--corpus")
    p.add_argument("--check", type=int, default=60, help="lines to read, with --corpus")
    p.add_argument("--reference", action="store_true", help="compare with transformers, with --corpus")
    args = p.parse_args()
    model, seen = load(args.checkpoint, args.weights)
    files = side_files(model.vc, model.tc, seen)
    folder = os.path.join(args.out, "hugging-face")
    write_folder(folder, files, {name: value.bfloat16() for name, value in checkpoint_tensors(model).items()})
    scheme = {"group_size": GROUP, "bits": 8, "mode": "affine"}
    files["config.json"] = {**files["config.json"], "quantization": scheme, "quantization_config": scheme}
    path = write_folder(os.path.join(args.out, "mlx"), files, mlx_tensors(model))
    lines = []
    if args.corpus:
        held, rng = Lines(args.corpus, holdout=True), random.Random(4321)
        lines = [held.sample(rng) for _ in range(args.check)]
        _, decoder, columns = evaluate(model, lines)
        print(f"{seen} lines seen; {len(lines)} lines in faces never seen, as trained: "
              f"decoder CER {decoder:.4f}, columns CER {columns:.4f}")
    if lines and args.reference:
        with torch.no_grad():
            for _, view in model.views():
                view.copy_(view.bfloat16())
        compare_with_reference(model, folder, lines[:12])
        model, _ = load(args.checkpoint, args.weights)
    quantisation_error(model, path)
    if lines:
        texts, decoder, columns = evaluate(model, lines)
        print(f"the same lines with the weights of {path} in bf16: decoder CER {decoder:.4f}, "
              f"columns CER {columns:.4f}")
        for line, text in list(zip(lines, texts))[:8]:
            print(f"  {line.text!r} -> {text!r}")


if __name__ == "__main__":
    main()
