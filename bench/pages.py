#!/usr/bin/env python3
"""Quality and speed on page pictures: pagemill beside rapidocr and Tesseract, in the same run.

  bench/pages.py PAGES SCORER [--build build] [--python VENV/bin/python] [--rounds 3] [--cores 2] [--only REGEX]
                 [--apart STEM] [--readers pagemill,rapidocr,rapidocr-each,tesseract] [--keep DIR]

PAGES holds STEM.png with STEM.json or STEM.txt as truth; SCORER is the scoring program (score_pages.py: PREDICTIONS TRUTH
--json -). Readers take turns in every round, so that other load on the machine hits all of them; figures are medians.

  pagemill        build/pagemill parse PAGES: everything from process start to the last file on disk
  pagemill-mini   the same with --reader mini, the small model of the GLM-OCR architecture
  rapidocr        its default settings, one process with all cores; loading apart (peers/requirements.txt in --python)
  rapidocr-each   one single-threaded process a core; loading apart
  tesseract       one single-threaded process a core (OMP_THREAD_LIMIT=1), language as the page's truth names it

Prints a Markdown table and the command. A reader that is not there is named with the reason, never left out in silence.
"""
import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


class Missing(Exception):
    """A reader that cannot run here, with the reason."""


def run(command, cores, fine=(0,)):
    done = subprocess.run(["taskset", "-c", cores, *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode not in fine:
        raise Missing(f"exit code {done.returncode}: {done.stderr.strip()[-300:] or done.stdout.strip()[-300:]}")
    return done.stdout


def read_pagemill(args, pages, out, cores, *options):
    program = args.build / "pagemill"
    if not program.exists():
        raise Missing(f"{program} is not built")
    with tempfile.TemporaryDirectory() as work:
        begin = time.monotonic()
        run([program, "parse", *pages, "-o", work, *options], cores, fine=(0, 1))  # 1: some region was cut off
        seconds = time.monotonic() - begin
        for page in pages:
            shutil.copyfile(pathlib.Path(work) / page.stem / (page.stem + ".md"), out / (page.stem + ".md"))
    return seconds


def read_peer(args, script, pages, out, cores, *options):
    if args.python is None and script.startswith("rapidocr"):
        raise Missing("no --python with rapidocr given")
    python = args.python if script.startswith("rapidocr") else sys.executable
    text = run([python, HERE / "peers" / script, out, *pages, *options], cores)
    return json.loads(text.splitlines()[-1])["read_s"]


READERS = {
    "pagemill": read_pagemill,
    "pagemill-mini": lambda a, p, o, c: read_pagemill(a, p, o, c, "--reader", "mini"),
    "rapidocr": lambda a, p, o, c: read_peer(a, "rapidocr_pages.py", p, o, c, "--threads", a.cores),
    "rapidocr-each": lambda a, p, o, c: read_peer(a, "rapidocr_pages.py", p, o, c, "--processes", a.cores, "--threads", 1),
    "tesseract": lambda a, p, o, c: read_peer(a, "tesseract_pages.py", p, o, c, "--processes", a.cores),
}


def score(args, predictions):
    command = [sys.executable, args.scorer, predictions, args.pages, "--json", "-"]
    if args.only:
        command += ["--only", args.only]
    return json.loads(subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout)


def page_cer(pages):
    return sum(p["errors"] for p in pages) / max(1, sum(p["characters"] for p in pages))


def percent(value):
    return "" if value is None else f"{100 * value:.2f}"


def quality(result, apart):
    """Line recall, line CER and page CER of the clean and of the degraded pages, and page CER without the page set apart."""
    cells = []
    for group in ("clean", "degraded"):
        figures = result["groups"].get(group, {}).get("overall", {})
        pages = [p for stem, p in result["pages"].items()
                 if stem not in apart and (p["variant"] == "clean") == (group == "clean")]
        cells += [percent(figures.get("line_recall")), percent(figures.get("line_cer")),
                  percent(page_cer(pages)) if pages else ""]
    cells += [percent(page_cer([result["pages"][s]])) for s in apart if s in result["pages"]]
    return cells


def table(args, pages, seconds, results, missing):
    apart = [s for s in args.apart if s in {p.stem for p in pages}]
    heads = ["reader", "clean: line recall", "line CER", "page CER", "degraded: line recall", "line CER", "page CER",
             *(f"page CER of {s}" for s in apart), "pages/s", "of pagemill's"]
    print("| " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * (len(heads) - 1))
    ours = statistics.median(seconds["pagemill"]) if seconds.get("pagemill") else None
    for name in seconds:
        median = statistics.median(seconds[name])
        spread = f"{len(pages) / max(seconds[name]):.2f} to {len(pages) / min(seconds[name]):.2f}"
        cells = [name, *quality(results[name], apart), f"{len(pages) / median:.2f} ({spread})",
                 f"{ours / median:.2f}" if ours else ""]
        print("| " + " | ".join(cells) + " |")
    for name, why in missing.items():
        print(f"\n{name} did not run: {why}")
    if apart:
        print(f"\nPage CER in percent, without {', '.join(apart)}. ", end="")
    print(f"\n{len(pages)} pages, {args.cores} cores, medians of {args.rounds} rounds in turn (range in brackets).")
    print("\n    " + shlex.join(["bench/pages.py", *sys.argv[1:]]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=pathlib.Path)
    parser.add_argument("scorer", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parent / "build")
    parser.add_argument("--python", type=pathlib.Path, help="a Python that has peers/requirements.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--only", help="pages whose stem matches")
    parser.add_argument("--apart", action="append", default=[], metavar="STEM", help="page to report by itself")
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the readers' texts")
    args = parser.parse_args()
    names = args.readers.split(",")
    if unknown := set(names) - set(READERS):
        parser.error(f"no such reader: {', '.join(sorted(unknown))}")
    pages = [p for p in sorted(args.pages.glob("*.png")) if not args.only or re.search(args.only, p.stem)]
    if not pages:
        parser.error(f"{args.pages}: no pages")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < args.cores:
        parser.error(f"{args.cores} cores asked for, {len(usable)} usable")
    cores = ",".join(map(str, usable[:args.cores]))
    seconds, missing = {}, {}
    with tempfile.TemporaryDirectory() as work:
        base = args.keep or pathlib.Path(work)
        for number in range(args.rounds):
            for name in names:
                if name in missing:
                    continue
                out = base / name
                out.mkdir(parents=True, exist_ok=True)
                try:
                    seconds.setdefault(name, []).append(READERS[name](args, pages, out, cores))
                    print(f"round {number + 1}, {name}: {seconds[name][-1]:.1f} s", file=sys.stderr)
                except Missing as problem:
                    missing[name] = str(problem)
                    seconds.pop(name, None)
        results = {name: score(args, base / name) for name in seconds}
        table(args, pages, seconds, results, missing)


if __name__ == "__main__":
    main()
