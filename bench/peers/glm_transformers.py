#!/usr/bin/env python3
"""One case with transformers, bf16, sdpa: glm_transformers.py CHECKPOINT CASE THREADS (glm_peers.py runs it)."""
import sys
import time

import glm_cases


def patches(image):
    """The checkpoint's image processor on a picture whose sides are multiples of 28: normalised, in the tower's order."""
    import numpy
    import torch
    x = numpy.asarray(image, dtype=numpy.float32) / 255
    x = ((x - glm_cases.MEAN) / glm_cases.STD).transpose(2, 0, 1).astype(numpy.float32)
    rows, columns = x.shape[1] // 14, x.shape[2] // 14
    x = numpy.stack([x, x])  # two frames of one still: [time, channel, y, x]
    x = x.reshape(2, 3, rows // 2, 2, 14, columns // 2, 2, 14).transpose(2, 5, 3, 6, 1, 0, 4, 7)
    return torch.from_numpy(numpy.ascontiguousarray(x.reshape(rows * columns, -1))), (1, rows, columns)


class Clock:
    """Called with the logits of every step: when each token was known."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores):
        self.times.append(time.monotonic())
        return scores


def main():
    checkpoint, case, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    width, height, tokens, count = glm_cases.CASES[case]
    import torch
    import transformers
    from transformers import AutoModelForImageTextToText, LogitsProcessorList
    torch.set_num_threads(threads)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    config, vision = model.config, [0.0, 0.0]
    tower = model.model.visual
    tower.register_forward_pre_hook(lambda *_: vision.__setitem__(0, time.monotonic()))
    tower.register_forward_hook(lambda *_: vision.__setitem__(1, vision[1] + time.monotonic() - vision[0]))
    made = [patches(glm_cases.picture(width, height, seed)) for seed in range(count)]
    places = made[0][1][1] * made[0][1][2] // 4
    # 16 tokens around the picture, as the chat template makes them; which ids they are does not matter.
    ids = [11] * 4 + [config.image_start_token_id] + [config.image_token_id] * places + [config.image_end_token_id] + [12] * 10
    ids = torch.tensor([ids] * count)
    clock, begin = Clock(), time.monotonic()
    with torch.inference_mode():
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids),
                             mm_token_type_ids=(ids == config.image_token_id).int(),
                             pixel_values=torch.cat([m[0] for m in made]).to(torch.bfloat16),
                             image_grid_thw=torch.tensor([m[1] for m in made]), do_sample=False, min_new_tokens=tokens,
                             max_new_tokens=tokens, logits_processor=LogitsProcessorList([clock]))
    end, first = time.monotonic(), clock.times[0]
    assert out.shape[1] - ids.shape[1] == tokens
    glm_cases.tell(peer="transformers bf16", version=transformers.__version__, case=case, vision_s=vision[1],
                   prefill_s=first - begin - vision[1], decode_tokens_per_s=count * (tokens - 1) / (end - first) if tokens > 1 else None,
                   total_s=end - begin, first_s=glm_cases.since_start() - (end - first), peak_mb=glm_cases.peak_mb())


if __name__ == "__main__":
    main()
