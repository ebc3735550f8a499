#!/usr/bin/env python3
"""Reads page pictures with rapidocr (onnxruntime) and its default settings: one STEM.txt a page.

  rapidocr_pages.py OUT PICTURE... [--processes 1] [--threads N]

Prints one JSON line: seconds to load (import, models, one small warm-up picture), seconds to read all pages, pages.
Reading time starts when every process has loaded.
"""
import argparse
import json
import multiprocessing
import pathlib
import sys
import time


def load(threads):
    import numpy
    from rapidocr import RapidOCR
    reader = RapidOCR(params={"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                              "EngineConfig.onnxruntime.inter_op_num_threads": 1})
    picture = numpy.full((96, 320, 3), 255, numpy.uint8)
    picture[40:56, 40:280:16] = 0
    reader(picture)
    return reader


def read_pages(threads, out, queue, ready, go):
    reader = load(threads)
    ready.release()
    go.wait()
    while (page := queue.get()) is not None:
        result = reader(page)
        (out / (pathlib.Path(page).stem + ".txt")).write_text("\n".join(result.txts or ()) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=-1, help="of each process; -1: all cores, the package's default")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    queue, ready, go = context.Queue(), context.Semaphore(0), context.Event()
    for page in args.pictures:
        queue.put(page)
    for _ in range(args.processes):
        queue.put(None)
    begin = time.monotonic()
    workers = [context.Process(target=read_pages, args=(args.threads, args.out, queue, ready, go))
               for _ in range(args.processes)]
    for worker in workers:
        worker.start()
    for _ in workers:
        while not ready.acquire(timeout=1):
            if any(worker.exitcode for worker in workers):
                sys.exit("rapidocr: a process ended while loading; is the package installed in this Python?")
    loaded = time.monotonic()
    go.set()
    for worker in workers:
        worker.join()
    end = time.monotonic()
    if any(worker.exitcode for worker in workers):
        sys.exit("rapidocr: a process ended with an error")
    print(json.dumps({"load_s": loaded - begin, "read_s": end - loaded, "pages": len(args.pictures)}))


if __name__ == "__main__":
    main()
