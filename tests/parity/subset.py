#!/usr/bin/env python3
"""Copies chosen golden cases: subset.py SOURCE TARGET FILE=CASE,CASE... [FILE=...]

FILE is a golden file's name without extension; CASE a case number or a page name. "*" takes all.
Writes TARGET/FILE.jsonl and, where SOURCE has it, TARGET/FILE.safetensors with the chosen cases' tensors.
"""
import json
import os
import struct
import sys


def copy_cases(source, target, name, wanted):
    kept = []
    with open(os.path.join(source, name + ".jsonl"), encoding="ascii") as lines:
        for line in lines:
            case = json.loads(line)
            key = str(case.get("case", case.get("page")))
            if "*" in wanted or key in wanted:
                kept.append((key, line.rstrip("\n")))
    missing = wanted - {key for key, _ in kept} - {"*"}
    if missing:
        sys.exit(f"{name}: no case {', '.join(sorted(missing))}")
    with open(os.path.join(target, name + ".jsonl"), "w", encoding="ascii") as out:
        out.writelines(line + "\n" for _, line in kept)
    return {key for key, _ in kept}


def copy_tensors(source, target, name, cases):
    path = os.path.join(source, name + ".safetensors")
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    chosen, pieces, at = {}, [], 0
    for key, tensor in header.items():
        if key == "__metadata__":
            chosen[key] = tensor
        elif key.split(".")[0] in cases:
            begin, end = tensor["data_offsets"]
            pieces.append(data[begin:end])
            chosen[key] = dict(tensor, data_offsets=[at, at + end - begin])
            at += end - begin
    text = json.dumps(chosen, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(target, name + ".safetensors"), "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + b"".join(pieces))


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    source, target = sys.argv[1:3]
    os.makedirs(target, exist_ok=True)
    for choice in sys.argv[3:]:
        name, cases = choice.split("=", 1)
        copy_tensors(source, target, name, copy_cases(source, target, name, set(cases.split(","))))


if __name__ == "__main__":
    main()
