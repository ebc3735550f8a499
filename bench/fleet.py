#!/usr/bin/env python3
"""Measures the fleet as a whole: start-up, first page, memory of the weights, and where the CPU time goes.

  bench/fleet.py PAGES... [--build build] [--rounds 5]

PAGES are picture files or folders of them. Figures (medians over rounds, each beside its limit):

  start to workers ready   `pagemill parse` start -> the last worker says "ready" (its log)
  first Markdown on disk   `pagemill parse` of one page: start -> STEM.md exists
  weights in memory        sum over 4 workers of the proportional set size (smaps) of the mapped weight file / its size
  CPU time by process      utime + stime of every process of a fleet that reads all PAGES; networks and decoding apart from
                           the rest (layout, crops, queue, files)
"""
import argparse
import collections
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")


def pictures(args):
    for a in map(pathlib.Path, args):
        yield from sorted(p for p in a.rglob("*.png")) if a.is_dir() else [a]


def below(pid):
    """pid and all its descendants."""
    children = collections.defaultdict(list)
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children[int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])].append(int(entry.name))
            except OSError:
                pass
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children[one]
    return found


def name_of(pid):
    try:
        return pathlib.Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:
        return ""


def first_markdown(program, page, work):
    out = work / "first"
    shutil.rmtree(out, ignore_errors=True)
    target = out / page.stem / f"{page.stem}.md"
    start = time.monotonic()
    process = subprocess.Popen([program, "parse", page, "-o", out, "--quiet"], stdout=subprocess.DEVNULL)
    while not target.exists() and process.poll() is None:
        time.sleep(0.002)
    seconds = time.monotonic() - start
    if process.wait() or not target.exists():
        raise SystemExit(f"parse of {page} failed")
    return seconds


def workers_ready(program, page, work, workers):
    """Start of parse to the last worker's ready line, from the fleet's log at level debug."""
    log = work / "log"
    log.unlink(missing_ok=True)
    began = time.time()
    subprocess.run([program, "parse", page, "-o", work / "ready", "--workers", str(workers), "--log", log,
                    "--log-level", "debug", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    times = [t for t in re.findall(r"(\d{4}-\d\d-\d\dT[\d:.]+)Z debug worker[^ ]* ready", log.read_text())]
    if len(times) < workers:
        raise SystemExit("the log shows fewer ready workers than there are")
    last = max(time.mktime(time.strptime(t[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(t[19:]) for t in times)
    return last - began


class Fleet:
    def __init__(self, program, work, workers):
        self.socket = work / "run" / "client.sock"
        self.program = program
        self.process = subprocess.Popen([program, "up", "--state", work / "state", "--run", work / "run", "--workers",
                                         str(workers)], stdout=subprocess.DEVNULL, stderr=open(work / "up.log", "w"))
        while not self.socket.exists():
            if self.process.poll() is not None:
                raise SystemExit((work / "up.log").read_text())
            time.sleep(0.01)

    def submit(self, pages, out):
        subprocess.run([self.program, "submit", *pages, "--wait", "-o", out, "--socket", self.socket], check=True,
                       stdout=subprocess.DEVNULL)

    def stop(self):
        subprocess.run([self.program, "down", "--socket", self.socket], check=True, stdout=subprocess.DEVNULL)
        self.process.wait()


def weight_share(program, page, work):
    """(sum of PSS, file size) of the recogniser's weight file over 4 workers that have read a page."""
    fleet = Fleet(program, work, 4)
    try:
        fleet.submit([page] * 1, work / "weights")
        pss, size, found = 0, 0, 0
        for pid in below(fleet.process.pid):
            if name_of(pid) != "pagemill-worker":
                continue
            current = None
            for line in open(f"/proc/{pid}/smaps"):
                head = re.match(r"[0-9a-f]+-[0-9a-f]+ .* (/\S+)$", line)
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    current = head.group(1) if head else None
                elif line.startswith("Pss:") and current and "/models/" in current and current.endswith(".pmw"):
                    pss += int(line.split()[1]) * 1024
                    found += 1
                    size = max(size, os.path.getsize(current))
        if not found:
            raise SystemExit("no mapped weight file found in the workers")
        return pss, size
    finally:
        fleet.stop()


def cpu_by_process(program, pages, work):
    fleet = Fleet(program, work, os.cpu_count())
    try:
        began = time.monotonic()
        fleet.submit(pages, work / "cpu")
        wall = time.monotonic() - began
        seconds = collections.Counter()
        for pid in below(fleet.process.pid):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            own = (int(fields[11]) + int(fields[12])) / TICK
            waited = (int(fields[13]) + int(fields[14])) / TICK  # ended children: decoders
            name = name_of(pid)
            seconds[name] += own
            if name == "pagemill-layoutd":
                seconds["pagemill-decode"] += waited
        return wall, seconds
    finally:
        fleet.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+")
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    program = str(pathlib.Path(args.build).resolve() / "pagemill")
    pages = list(pictures(args.pages))
    if not pages:
        parser.error("no pictures found")
    with tempfile.TemporaryDirectory(prefix="pm-bench-") as work:
        work = pathlib.Path(work)
        first = [first_markdown(program, pages[i % len(pages)], work) for i in range(args.rounds)]
        ready = [workers_ready(program, pages[0], work, os.cpu_count()) for _ in range(args.rounds)]
        pss, size = weight_share(program, pages[0], work)
        shutil.rmtree(work / "state", ignore_errors=True)
        wall, seconds = cpu_by_process(program, pages, work)
    print(f"command: {' '.join(sys.argv)}\n")
    print("| figure | median | worst | limit |\n|---|---|---|---|")
    print(f"| parse start to {os.cpu_count()} workers ready, s | {statistics.median(ready):.3f} | {max(ready):.3f} | 0.3 |")
    print(f"| first Markdown on disk, s | {statistics.median(first):.2f} | {max(first):.2f} | 3 |")
    print(f"| weights of 4 workers, PSS / file | {pss / size:.3f} | | 1.1 |")
    total = sum(seconds.values())
    print(f"\n{len(pages)} pages in {wall:.1f} s = {len(pages) / wall:.3f} pages/s; CPU {total:.1f} s = "
          f"{total / wall / os.cpu_count():.0%} of {os.cpu_count()} cores\n")
    print("| process | CPU s | share |\n|---|---|---|")
    for name, s in seconds.most_common():
        print(f"| {name} | {s:.2f} | {s / total:.1%} |")


if __name__ == "__main__":
    main()
