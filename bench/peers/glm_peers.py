#!/usr/bin/env python3
"""GLM-OCR beside its peers on one machine: the same checkpoint, pictures, tokens and threads; every case of every reader in a process
of its own, rounds interleaved, medians as a Markdown table with the ratio to pagemill's time.

  glm_peers.py CHECKPOINT --bench BUILD/bench_glm --models DIR [--precision bf16,int8]
               [--transformers VENV/bin/python] [--vllm VENV/bin/python] [--llama BIN --gguf DIR]
               [--cases line,region,regions-8,page,first] [--rounds 3] [--threads 2] [--json FILE]

CHECKPOINT   a Hugging Face folder; BUILD/full-model OUT makes one of the full size with synthetic weights
--models     packed models, DIR/glm-ocr-bf16 and so on (bench_glm --source packs them)
--llama      the folder of llama-server; --gguf: text-bf16.gguf, text-Q8_0.gguf and mmproj-bf16.gguf (see requirements-glm.txt)

Nobody may end a text by itself. A peer that fails is told with its last words, the others go on.
"""
import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import glm_cases

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = [("line", "short line, s", "total_s"), ("region", "region: vision, s", "vision_s"), ("region", "prefill, s", "prefill_s"),
           ("region", "decode, tokens/s", "decode_tokens_per_s"), ("region", "one region, s", "total_s"),
           ("regions-8", "eight in flight, s", "total_s"), ("page", "whole page, s", "total_s"),
           ("first", "start to first token, s", "first_s"), ("regions-8", "peak, eight in flight, MB", "peak_mb")]


def run_peer(command, threads):
    environment = dict(os.environ, PEER_START=str(time.monotonic()), OMP_NUM_THREADS=str(threads))
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("PEER ")]
    if not lines:
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise RuntimeError(f"{command[1]}: " + " / ".join(words[-3:])[-600:])
    return json.loads(lines[-1][5:])


def run_pagemill(a, precision, case):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run([a.bench, a.models, "--precision", precision, "--only", case, "--rounds", "1", "--threads",
                               str(a.threads), "--json", out.name], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        row = json.load(open(out.name))["precisions"][precision][case]
    if case == "first":
        return {"first_s": row["figure"]}
    width, height, tokens, count = glm_cases.CASES[case]
    return {"total_s": row["figure"], "vision_s": row["vision_s"], "prefill_s": row["prefill_s"], "peak_mb": row["peak_mb"],
            "decode_tokens_per_s": count * (tokens - 1) / row["decode_s"]}


def readers(a):
    for precision in a.precision.split(","):
        yield "pagemill " + precision, lambda case, p=precision: run_pagemill(a, p, case)
    if a.transformers:
        yield "transformers bf16", lambda case: run_peer([a.transformers, HERE / "glm_transformers.py", a.checkpoint, case, a.threads],
                                                         a.threads)
    if a.llama:
        for kind in ("bf16", "Q8_0"):
            if (a.gguf / f"text-{kind}.gguf").exists():
                yield "llama.cpp " + kind, lambda case, k=kind: run_peer([sys.executable, HERE / "glm_llama.py", a.llama,
                                                                          a.gguf / f"text-{k}.gguf", case, a.threads], a.threads)
    if a.vllm:
        yield "vLLM CPU bf16", lambda case: run_peer([a.vllm, HERE / "glm_vllm.py", a.checkpoint, case, a.threads], a.threads)


def table(samples, names):
    def middle(name, case, key):
        values = [s[key] for s in samples[name, case] if s.get(key) is not None]
        return statistics.median(values) if values else None

    print("| | " + " | ".join(title for _, title, _ in COLUMNS) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    for name in names:
        cells = []
        for case, _, key in COLUMNS:
            value, ours = middle(name, case, key), middle(names[0], case, key)
            ratio = f" ({value / ours:.2f} ×)" if value and ours and name != names[0] else ""
            cells.append("–" if value is None else f"{value:.4g}{ratio}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--transformers")
    parser.add_argument("--vllm")
    parser.add_argument("--llama", type=pathlib.Path)
    parser.add_argument("--gguf", type=pathlib.Path)
    parser.add_argument("--cases", default=",".join(glm_cases.CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path)
    a = parser.parse_args()
    samples, all_readers = collections.defaultdict(list), list(readers(a))
    failed = set()
    for number in range(a.rounds):
        for case in a.cases.split(","):
            for name, read in all_readers:
                if (name, case) in failed:
                    continue
                try:
                    samples[name, case].append(read(case))
                    print(f"round {number + 1}: {case}, {name}: {samples[name, case][-1]}", file=sys.stderr)
                except RuntimeError as error:
                    failed.add((name, case))
                    print(f"{name}, {case}: failed: {error}", file=sys.stderr)
    table(samples, [name for name, _ in all_readers])
    if a.json:
        a.json.write_text(json.dumps({f"{name}, {case}": rounds for (name, case), rounds in samples.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
