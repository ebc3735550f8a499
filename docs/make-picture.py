#!/usr/bin/env python3
"""Draws docs/picture.png: a page with its regions beside the Markdown made from it. Needs Pillow and pdftoppm; only for the docs.

  build/pagemill parse examples/handbook.pdf -o out/ && docs/make-picture.py examples/handbook.pdf out/handbook docs/picture.png
"""
import json
import pathlib
import subprocess
import sys
import textwrap

from PIL import Image, ImageDraw, ImageFont

COLOURS = {"text": "#3465a4", "paragraph_title": "#cc0000", "doc_title": "#cc0000", "table": "#75507b", "list": "#4e9a06",
           "image": "#c17d11", "number": "#888a85", "header": "#888a85", "footer": "#888a85", "code": "#06989a"}
FONTS = "/usr/share/fonts/truetype/dejavu/"


def main():
    document, result, target = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    subprocess.run(["pdftoppm", "-r", "90", "-png", "-f", "1", "-l", "1", "-singlefile", document, "/tmp/picture-page"], check=True)
    page = Image.open("/tmp/picture-page.png").convert("RGB")
    draw = ImageDraw.Draw(page, "RGBA")
    small = ImageFont.truetype(FONTS + "DejaVuSans.ttf", 11)
    for region in json.loads((result / f"{result.name}.json").read_text())[0]:
        left, top, right, bottom = (v * s / 1000 for v, s in zip(region["bbox_2d"], page.size * 2))
        colour = COLOURS.get(region["native_label"], "#3465a4")
        draw.rectangle((left - 3, top - 3, right + 3, bottom + 3), outline=colour, width=2, fill=colour + "18")
        label = f"{region['index']} {region['native_label'].replace('paragraph_title', 'heading')}"
        width = draw.textlength(label, font=small)
        draw.rectangle((left - width - 14, top - 3, left - 6, top + 13), fill=colour)
        draw.text((left - width - 10, top - 2), label, font=small, fill="white")
    page = page.crop((0, 70, page.width, page.height - 110))

    mono = ImageFont.truetype(FONTS + "DejaVuSansMono.ttf", 12)
    lines = []
    for line in (result / f"{result.name}.md").read_text().splitlines():
        lines += textwrap.wrap(line, 84, subsequent_indent="  " if line.startswith("- ") else "") or [""]
    sheet = Image.new("RGB", (page.width + 660, page.height), "#f6f6f4")
    sheet.paste(page, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        if 20 + (i + 1) * 17 > page.height:
            break
        is_heading = line.startswith("#")
        draw.text((page.width + 22, 20 + i * 17), line, font=mono, fill="#cc0000" if is_heading else "#2e3436")
    sheet.quantize(64).save(target, optimize=True)


main()
