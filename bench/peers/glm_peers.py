#!/usr/bin/env python3
"""GLM-OCR beside its peers on one machine: the same checkpoint, pictures, tokens and threads; every case of every reader in a process
of its own, rounds interleaved, medians as a Markdown table. Behind a peer's figure: how many times pagemill's it is (as time or
bytes), once for each of --precision, the median over the rounds.

  glm_peers.py CHECKPOINT --bench BUILD/bench_glm --models DIR [--precision bf16,int8]
               [--transformers VENV/bin/python] [--vllm VENV/bin/python] [--llama BIN --gguf DIR]
               [--cases line,region,regions-8,page] [--rounds 3] [--threads 2] [--json FILE]

CHECKPOINT   a Hugging Face folder; BUILD/full-model OUT makes one of the full size with synthetic weights
--models     packed models, DIR/glm-ocr-bf16 and so on (bench_glm --source packs them)
--llama      the folder of llama-server; --gguf: text-bf16.gguf, text-Q8_0.gguf and mmproj-bf16.gguf (see requirements-glm.txt)
--json       figures of every run, written after each; runs that the file holds already are not made again

Nobody may end a text by itself. A peer that fails is told with its last words, the others go on.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import glm_cases

LONGEST_S = 900
HERE = pathlib.Path(__file__).resolve().parent
# Case, title, figure; whether more of it is better.
COLUMNS = [("line", "short line, s", "total_s", False), ("region", "region: vision, s", "vision_s", False),
           ("region", "prefill, s", "prefill_s", False), ("region", "vision + prefill, s", "front_s", False),
           ("region", "decode, tokens/s", "decode_tokens_per_s", True), ("region", "one region, s", "total_s", False),
           ("region", "start to first token, s", "first_s", False), ("regions-8", "eight in flight, s", "total_s", False),
           ("regions-8", "peak, eight in flight, MB", "peak_mb", False), ("page", "whole page, s", "total_s", False)]


def run_peer(command, threads):
    environment = dict(os.environ, PEER_START=str(time.monotonic()), OMP_NUM_THREADS=str(threads))
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, check=False,
                          timeout=LONGEST_S)
    lines = [line for line in done.stdout.splitlines() if line.startswith("PEER ")]
    if not lines:
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise RuntimeError(f"{command[1]}: " + " / ".join(words[-3:])[-600:])
    return json.loads(lines[-1][5:])


def run_pagemill(a, precision, case):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run([a.bench, a.models, "--precision", precision, "--only", case, "--rounds", "1", "--threads",
                               str(a.threads), "--json", out.name], capture_output=True, text=True, check=False,
                              timeout=LONGEST_S)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        row = json.load(open(out.name))["precisions"][precision][case]
    _, _, tokens, count = glm_cases.CASES[case]
    return dict({key: row[key] for key in ("first_s", "vision_s", "prefill_s", "peak_mb", "own_mb", "percent_of_limit")},
                total_s=row["figure"], decode_tokens_per_s=count * (tokens - 1) / row["decode_s"])


def warm(paths):
    """Weights in the page cache, whoever ran before: what is measured is not the disk."""
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                with open(file, "rb", buffering=0) as opened:
                    while opened.read(1 << 23):
                        pass


def readers(a):
    """Name, what runs a case, where the weights are."""
    for precision in a.precision.split(","):
        yield ("pagemill " + precision, lambda case, p=precision: run_pagemill(a, p, case),
               [pathlib.Path(a.models) / f"glm-ocr-{precision}"])
    if a.transformers:
        yield ("transformers bf16", lambda case: run_peer([a.transformers, HERE / "glm_transformers.py", a.checkpoint, case, a.threads],
                                                     a.threads), [a.checkpoint])
    if a.llama:
        for kind in ("bf16", "Q8_0"):
            if (a.gguf / f"text-{kind}.gguf").exists():
                yield ("llama.cpp " + kind, lambda case, k=kind: run_peer([sys.executable, HERE / "glm_llama.py", a.llama,
                                                                           a.gguf / f"text-{k}.gguf", case, a.threads], a.threads),
                       [a.gguf / f"text-{kind}.gguf", a.gguf / "mmproj-bf16.gguf"])
    if a.vllm:
        yield ("vLLM CPU bf16", lambda case: run_peer([a.vllm, HERE / "glm_vllm.py", a.checkpoint, case, a.threads], a.threads),
               [a.checkpoint])


def figures(rounds, case, key):
    """One of each round; what lies before the first token as one figure where a reader tells no more."""
    values = [dict(r, front_s=r.get("vision_and_prefill_s", r.get("vision_s", 0) + r.get("prefill_s", 0)) or None) for r in rounds]
    return [v.get(key) for v in values]


def ratio(theirs, ours, is_rate):
    """The median of the ratios of each round, as time: how many times as long, or as many bytes."""
    pairs = [(y / x if is_rate else x / y) for x, y in zip(theirs, ours) if x and y]
    return f"{statistics.median(pairs):.2f}" if pairs else "–"


def table(samples, names):
    """Behind each figure of a peer: how many times ours it is, for each of our precisions."""
    ours = [name for name in names if name.startswith("pagemill")]
    print("| | " + " | ".join(title for _, title, _, _ in COLUMNS) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    for name in names:
        cells = []
        for case, _, key, is_rate in COLUMNS:
            theirs = figures(samples.get(f"{name}, {case}", []), case, key)
            known = [v for v in theirs if v is not None]
            ratios = [ratio(theirs, figures(samples.get(f"{o}, {case}", []), case, key), is_rate) for o in ours]
            behind = f" ({', '.join(ratios)} ×)" if name not in ours and set(ratios) - {"–"} else ""
            cells.append(f"{statistics.median(known):.4g}{behind}" if known else "–")
        print(f"| {name} | " + " | ".join(cells) + " |")


def keep(path, samples):
    """After every run: what is interrupted goes on where it was."""
    if path:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(samples, indent=1) + "\n")
        part.rename(path)


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
    samples = json.loads(a.json.read_text()) if a.json and a.json.exists() else {}
    all_readers, failed = list(readers(a)), set()
    for number in range(a.rounds):
        for case in a.cases.split(","):
            for name, read, weights in all_readers:
                key = f"{name}, {case}"
                if key in failed or len(samples.get(key, [])) > number:
                    continue
                warm(weights)
                begin = time.monotonic()
                try:
                    samples.setdefault(key, []).append(read(case))
                    print(f"round {number + 1}: {key}, {time.monotonic() - begin:.0f} s with its start: {samples[key][-1]}",
                          file=sys.stderr)
                    keep(a.json, samples)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed.add(key)
                    print(f"{key}: failed: {error}", file=sys.stderr)
    table(samples, [name for name, _, _ in all_readers])


if __name__ == "__main__":
    main()
