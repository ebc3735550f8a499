#!/usr/bin/env python3
"""One case with vLLM's CPU build, bf16: glm_vllm.py CHECKPOINT CASE THREADS (glm_peers.py runs it).

Compiled as it compiles itself, every case with the same settings: the compiled parts are kept in its own cache, so that a first run
makes them (start it once before times are taken).
"""
import os
import pathlib
import sys
import time

import glm_cases

CONTEXT, SEQUENCES = 4096, 8  # hold every case


def preload():
    """What vLLM asks for "for best performance": Intel's OpenMP, which comes with it, and tcmalloc where it is installed."""
    wanted = [pathlib.Path(sys.prefix, "lib/libiomp5.so"), pathlib.Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")]
    found = ":".join(str(w) for w in wanted if w.exists())
    if found and "LD_PRELOAD" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], dict(os.environ, LD_PRELOAD=found))


def main():
    preload()
    checkpoint, case, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    width, height, tokens, count = glm_cases.CASES[case]
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{threads - 1}")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import vllm
    engine = vllm.LLM(model=checkpoint, dtype="bfloat16", max_model_len=CONTEXT, max_num_seqs=SEQUENCES, enable_prefix_caching=False,
                      max_num_batched_tokens=CONTEXT, limit_mm_per_prompt={"image": 1, "video": 0},
                      skip_mm_profiling=True, mm_processor_cache_gb=0, disable_log_stats=False)
    prompt = f"[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>{glm_cases.PROMPT}<|assistant|>\n"
    requests = [{"prompt": prompt, "multi_modal_data": {"image": glm_cases.picture(width, height, seed)}} for seed in range(count)]
    begin = time.monotonic()
    answers = engine.generate(requests, vllm.SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True), use_tqdm=False)
    end = time.monotonic()
    assert all(len(a.outputs[0].token_ids) == tokens for a in answers)
    m = answers[0].metrics
    decode = m.last_token_ts - m.first_token_ts if m else 0
    glm_cases.tell(peer="vLLM CPU bf16", version=vllm.__version__, case=case,
                   decode_tokens_per_s=(tokens - 1) / decode if count == 1 and tokens > 1 and decode else None,
                   vision_and_prefill_s=end - begin - decode if count == 1 else None, total_s=end - begin,
                   first_s=glm_cases.since_start() - decode if count == 1 else None, peak_mb=glm_cases.peak_mb())


if __name__ == "__main__":
    main()
