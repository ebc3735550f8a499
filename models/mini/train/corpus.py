#!/usr/bin/env python3
"""Collects the training text: corpus.py OUT writes one paragraph a line, about 48 MB.

Everything comes from documentation that Debian 12 ships (packages.txt). Pages in scripts other than Latin are
left out by their language code; single characters outside of the reader's set are sorted out later, by lines.py.
"""
import glob
import gzip
import html.parser
import random
import re
import sys

SOURCES = {
    "handbook": ["/usr/share/doc/debian-handbook/html/**/*.html"],
    "reference": ["/usr/share/debian-reference/**/*.html", "/usr/share/doc/debian-reference*/**/*.html"],
    "installation": ["/usr/share/doc/installation-guide-amd64/*/*.html"],
    "postgresql": ["/usr/share/doc/postgresql-doc-15/html/*.html"],
    "python": ["/usr/share/doc/python3*/html/**/*.html"],
    "fortunes": ["/usr/share/games/fortunes/**/*"],
    "packages": [f"/usr/share/doc/*/{name}*" for name in ("README", "NEWS", "FAQ", "copyright")],
}
OTHER_SCRIPTS = re.compile(r"/(zh|ja|ko|ru|el|uk|bg|ar|fa|he|vi)([-_][A-Z]{2})?/")
NOT_TEXT = re.compile(r"\.(dat|u8|png|gif|js|css|svg)$")
FILES_PER_SOURCE = 6000
LONGEST = 2000  # characters of a paragraph that are kept
SHORTEST = 3


class Paragraphs(html.parser.HTMLParser):
    """The text of a page, a line break wherever a block begins."""

    HIDDEN = {"script", "style", "head", "nav"}
    BLOCKS = {"p", "li", "td", "dd", "dt", "h1", "h2", "h3", "pre", "br", "div", "tr"}

    def __init__(self):
        super().__init__()
        self.pieces, self.hidden = [], 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in self.HIDDEN
        if tag in self.BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag):
        self.hidden -= tag in self.HIDDEN

    def handle_data(self, data):
        if self.hidden <= 0:
            self.pieces.append(data)


def read_file(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", errors="ignore") as file:
        text = file.read()
    if ".htm" in path:
        page = Paragraphs()
        page.feed(text)
        text = "".join(page.pieces)
    return [" ".join(line.split()) for line in text.split("\n")]


def files_of(patterns, rng):
    paths = {path for pattern in patterns for path in glob.glob(pattern, recursive=True)}
    chosen = sorted(p for p in paths if not NOT_TEXT.search(p) and not OTHER_SCRIPTS.search(p))
    rng.shuffle(chosen)
    return chosen[:FILES_PER_SOURCE]


def main(out_path):
    rng, seen = random.Random(1), set()
    with open(out_path, "w", encoding="utf-8") as out:
        for source, patterns in SOURCES.items():
            paths, written = files_of(patterns, rng), 0
            for path in paths:
                try:
                    lines = read_file(path)
                except (OSError, EOFError, AssertionError):  # folders, broken archives, broken markup
                    continue
                for line in lines:
                    if len(line) >= SHORTEST and line not in seen:
                        seen.add(line)
                        out.write(line[:LONGEST] + "\n")
                        written += len(line)
            print(f"{source}: {len(paths)} files, {written / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
