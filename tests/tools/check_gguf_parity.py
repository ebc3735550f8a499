#!/usr/bin/env python3
"""Golden cases of the engine with their models as GGUF pairs, in every precision.

    check_gguf_parity.py PARITY CASE_FOLDER...

A case's checkpoint is written as a GGUF pair (convert_model.py); without its own weights the case then runs from that pair.
From a type that loses nothing, f32, bf16, int8 and int4 must keep the very limits that they keep from safetensors, and
say the same numbers. From Q8_0 the model is another one: what each precision makes of it is held to its limits beside
f32 of the same pair. Needs numpy; exit 77 (skip) without it."""
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy  # noqa: F401
except ImportError:
    print("check_gguf_parity: numpy is not installed")
    sys.exit(77)
import convert_model as convert


def lines(parity, *args, may_fail=False):
    """Its lines, without those of the prompt (a pair's template is looked at elsewhere) and the count."""
    done = subprocess.run([parity, "engine", *args], capture_output=True, text=True, check=False)
    if done.returncode not in (0, may_fail):
        sys.exit(f"parity engine {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return [line for line in done.stdout.splitlines()[:-1] if " prompt " not in line]


def check(parity, case, work):
    name = os.path.basename(os.path.normpath(case))
    copy, pair = os.path.join(work, name), os.path.join(work, name + "-gguf")
    shutil.copytree(case, copy, ignore=shutil.ignore_patterns("model.safetensors"))
    convert.to_gguf(case, pair, "F32", 3)
    want, got = lines(parity, case), lines(parity, copy, "--model", pair)
    if want != got:
        sys.exit("\n".join([f"{name}: another result from the GGUF pair"] +
                           [f"safetensors {a}\ngguf        {b}" for a, b in zip(want, got) if a != b]))
    for precision in ("f32", "bf16", "int8", "int4"):
        count = sum(f"{name} {precision} " in line for line in got)
        if count < 5:
            sys.exit(f"{name}: only {count} comparisons in {precision}")
    shutil.rmtree(pair)
    convert.to_gguf(case, pair, "Q8_0", 3)
    beside = [line for line in lines(parity, copy, "--model", pair, may_fail=True) if "beside f32" in line]
    if len(beside) != 3 or any(not line.startswith("pass") for line in beside):
        sys.exit("\n".join([f"{name}: Q8_0 beside f32 of the same pair:"] + beside))
    print(f"{name}: {len(got)} lines are the same; of Q8_0 beside f32:", *(line.split("distance ")[2].split(";")[0] for line in beside))


def main():
    with tempfile.TemporaryDirectory() as work:
        for case in sys.argv[2:]:
            check(sys.argv[1], case, work)


if __name__ == "__main__":
    main()
