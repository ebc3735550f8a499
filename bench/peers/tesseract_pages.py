#!/usr/bin/env python3
"""Reads page pictures with Tesseract: one STEM.txt a page, one single-threaded process a core.

  tesseract_pages.py OUT PICTURE... [--processes N] [--languages eng]

The language of a page is that of STEM.json beside it ("languages"), where Tesseract has its data, else --languages.
Prints one JSON line: seconds to read all pages (each process loads its data anew), pages.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time


def languages_of(picture, installed, fallback):
    record = picture.with_suffix(".json")
    named = json.loads(record.read_text(encoding="utf-8")).get("languages", []) if record.exists() else []
    known = [language for language in named if language in installed]
    return "+".join(known) or fallback


def read_page(picture, out, languages):
    environment = dict(os.environ, OMP_THREAD_LIMIT="1")
    done = subprocess.run(["tesseract", str(picture), str(out / picture.stem), "-l", languages], env=environment,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"tesseract {picture}: {done.stderr.strip()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("pictures", nargs="+", type=pathlib.Path)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--languages", default="eng")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=True).stdout.split()
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(args.processes) as pool:
        pages = [pool.submit(read_page, p, args.out, languages_of(p, listed, args.languages)) for p in args.pictures]
        for page in pages:
            try:
                page.result()
            except RuntimeError as problem:
                sys.exit(str(problem))
    print(json.dumps({"load_s": 0.0, "read_s": time.monotonic() - begin, "pages": len(args.pictures)}))


if __name__ == "__main__":
    main()
