#!/usr/bin/env python3
"""Synthetic printed lines: text -> the picture of one line, as a crop from a scanned or rendered page shows it.

    lines = Lines("corpus.txt")                      or holdout=True: the faces kept for evaluation
    line = lines.sample(random.Random(1), longest=90)
    line.pixels [32, W, 3] uint8, W a multiple of 16;  line.text;  line.centres: x of every character

Every choice comes from the generator that is passed in. `lines.py CORPUS` draws a sheet of examples.
"""
import glob
import io
import math
import random
import string
import subprocess
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HEIGHT, STEP, MAX_WIDTH = 32, 16, 1152  # pixels
SIGNS = "–—‘’“”…•·§©®°±×÷€£¥«»¿¡†‡™µ½¼¾→←≤≥≠²³"
ACCENTED = ("àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßÀÁÂÄÅÆÇÈÉÊËÍÎÏÑÓÔÖØÚÜœŒšŠžŽćčđłńśźżąęğıİşțșăřěůťďňľĺ")
CHARACTERS = set(string.printable[:95]) | set(SIGNS) | set(ACCENTED)


@dataclass
class Line:
    pixels: np.ndarray
    text: str
    centres: np.ndarray  # float32 [characters], pixels from the left


# ---- faces ----

# Not text, or used by the pages on which whole documents are judged.
LEFT_OUT = (
    "emoji", "symbol", "braille", "math", "dingbat", "barcode", "icon", "music", "cursor", "webdings",
    "paratype", "vollkorn", "andika", "roboto-slab", "robotoslab", "oldstandard", "baskervald", "dosis",
)


def installed_faces():
    """(path, index) of every installed scalable face with English letters."""
    listed = subprocess.run(["fc-list", "--format", "%{file}|%{index}|%{family}|%{variable}\n", ":lang=en:scalable=true"],
                            capture_output=True, text=True, check=True).stdout
    faces = []
    for row in sorted(set(listed.splitlines())):
        path, index, family, variable = row.split("|")[:4]
        known = path.lower().endswith((".ttf", ".otf", ".ttc", ".pfb"))
        if variable != "True" and known and not any(word in (path + family).lower() for word in LEFT_OUT):
            face = (path, int(index) & 0xFFFF)
            if face not in faces[-8:]:
                faces.append(face)
    return faces


def is_held_out(path):
    """One file in twelve is for evaluation only."""
    return zlib.crc32(path.split("/")[-1].encode()) % 12 == 5


class Face:
    """A face at one size: draws, and knows which characters it has and how wide they are."""

    def __init__(self, path, index, size):
        self.font = ImageFont.truetype(path, size, index=index, layout_engine=ImageFont.Layout.BASIC)
        self.nothing = bytes(self.font.getmask("\uffff"))  # what it draws for characters that it lacks
        self.widths = {}

    def width(self, character):
        """Advance in pixels, or None without a glyph."""
        if character not in self.widths:
            mask = self.font.getmask(character)
            lacks = mask.getbbox() is None or (ord(character) > 126 and bytes(mask) == self.nothing)
            self.widths[character] = None if lacks and character != " " else self.font.getlength(character)
        return self.widths[character]

    def centres(self, text):
        """x of the middle of every character from the start of the text, or None when one is missing."""
        widths = [self.width(c) for c in text]
        if None in widths or not sum(widths):
            return None
        ends = np.cumsum(widths)
        kerned = self.font.getlength(text) / ends[-1]
        return (ends - np.array(widths) / 2) * kerned


class Faces:
    CACHED = 400

    def __init__(self, holdout):
        folders = {}
        for path, index in installed_faces():
            if is_held_out(path) == holdout:
                folders.setdefault(path.rsplit("/", 1)[0], []).append((path, index))
        if not folders:
            raise SystemExit("no faces found: install the packages of packages.txt")
        self.folders, self.cache = list(folders.values()), {}
        # by the root of their size: a family of a hundred files must not drown the others
        self.weights = [math.sqrt(len(f)) for f in self.folders]

    def pick(self, rng, size):
        while True:
            path, index = rng.choice(rng.choices(self.folders, self.weights)[0])
            key = (path, index, size)
            if key not in self.cache:
                if len(self.cache) >= self.CACHED:
                    self.cache.clear()
                try:
                    face = Face(path, index, size)
                    face.width("g")
                except OSError:  # a file that FreeType cannot draw at this size
                    face = None
                self.cache[key] = face
            if self.cache[key]:
                return self.cache[key]


# ---- texts ----

class Texts:
    WORDS_PER_LANGUAGE = 60000

    def __init__(self, corpus, dictionaries="/usr/share/dict/*"):
        with open(corpus, encoding="utf-8") as file:
            self.paragraphs = file.read().splitlines()
        self.words = []
        for path in sorted(glob.glob(dictionaries)):
            try:
                with open(path, encoding="utf-8") as file:
                    words = file.read().split()
            except (UnicodeDecodeError, OSError):
                continue
            self.words += random.Random(2).sample(words, min(len(words), self.WORDS_PER_LANGUAGE))
        self.words = self.words or ["word"]

    def line(self, rng, length):
        """A text of at most `length` characters, all of them known to the reader."""
        while True:
            text = self.excerpt(rng, length) if rng.random() < 0.72 else self.mixture(rng, length)
            if text and CHARACTERS.issuperset(text):
                return text

    def excerpt(self, rng, length):
        text = rng.choice(self.paragraphs)
        if len(text) > length:
            start = rng.randrange(len(text) - length + 1)
            if rng.random() < 0.9:
                start = text.rfind(" ", 0, start) + 1
            end = start + length
            cut = text[start:end]
            if end < len(text) and rng.random() < 0.9 and " " in cut:
                cut = cut[:cut.rfind(" ")]
            text = cut
        case = rng.random()
        text = text.strip()
        return text.upper() if case < 0.05 else text.title() if case < 0.09 else text

    def mixture(self, rng, length):
        gap, text = rng.choice([" ", " ", " ", "   ", ", "]), ""
        while len(text) < length:
            text += (gap if text else "") + self.token(rng)
        return " ".join(text[:length].split())

    def token(self, rng):
        kind = rng.random()
        if kind < 0.35:
            word, case = rng.choice(self.words), rng.random()
            return word.upper() if case < 0.15 else word.capitalize() if case < 0.4 else word
        if kind < 0.7:
            return number(rng)
        if kind < 0.8:
            return some_of(rng, string.ascii_letters + string.digits, 1, 10)
        if kind < 0.86:
            return self.address(rng)
        if kind < 0.94:
            return some_of(rng, string.punctuation + SIGNS, 1, 4)
        return some_of(rng, ACCENTED + string.ascii_letters, 2, 8)

    def address(self, rng):
        a, b = rng.choice(self.words).lower(), rng.choice(self.words).lower()
        end = rng.choice(["com", "org", "net", "de", "fr", "io"])
        file = rng.choice(["c", "py", "txt"])
        return rng.choice([f"{a}@{b}.{end}", f"https://{a}.{end}/{b}", f"{a}_{b}", f"{a}.{b}()", f"/{a}/{b}.{file}"])


def some_of(rng, characters, least, most):
    return "".join(rng.choice(characters) for _ in range(rng.randint(least, most)))


def number(rng):
    """A number in one of the shapes that documents have."""
    def digits(n):
        return some_of(rng, string.digits, n, n)

    day, month, year = f"{rng.randint(1, 31):02d}", f"{rng.randint(1, 12):02d}", rng.randint(1900, 2030)
    return rng.choice([
        lambda: digits(rng.randint(1, 6)),
        lambda: f"{rng.uniform(0, 10 ** rng.randint(0, 6)):,.2f}",
        lambda: f"{rng.choice('$€£')}{rng.randint(1, 99999):,}",
        lambda: f"{rng.randint(1, 100)}%",
        lambda: f"{day}/{month}/{year}",
        lambda: f"{year}-{month}-{day}",
        lambda: f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}",
        lambda: f"({rng.randint(1, 99)})",
        lambda: f"[{rng.randint(1, 200)}]",
        lambda: f"+{digits(2)} {digits(3)} {digits(3)} {digits(4)}",
        lambda: f"{rng.randint(1, 12)}.{rng.randint(1, 30)}" + rng.choice(["", f".{rng.randint(1, 9)}"]),
        lambda: f"{rng.uniform(-10, 10):.{rng.randint(1, 4)}f}",
    ])()


# ---- pictures ----

def chance(rng, share):
    return rng.random() < share


def to_image(pixels):
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def colours(rng):
    """Paper and ink, far enough apart to be read."""
    paper = np.full(3, 255.0)
    if chance(rng, 0.4):
        paper = np.full(3, rng.uniform(200, 255)) if chance(rng, 0.8) else np.array([rng.uniform(120, 255) for _ in "rgb"])
    ink = np.full(3, rng.uniform(0, 60)) if chance(rng, 0.8) else np.array([rng.uniform(0, 140) for _ in "rgb"])
    if abs(paper.mean() - ink.mean()) < 60:
        ink = paper - 120
    return (ink, paper) if chance(rng, 0.06) else (paper, ink)


def wear(rng, pixels):
    """What printing, scanning and storing do to a line; keeps proportions."""
    if chance(rng, 0.15):  # uneven light
        pixels = pixels + np.linspace(rng.uniform(-30, 30), rng.uniform(-30, 30), pixels.shape[1])[None, :, None]
    if chance(rng, 0.3):
        radius = rng.uniform(0.2, 1.1) * pixels.shape[0] / 40
        pixels = np.asarray(to_image(pixels).filter(ImageFilter.GaussianBlur(radius)), np.float32)
    if chance(rng, 0.12):  # a coarse source
        factor = rng.uniform(0.45, 0.8)
        height, width = (int(side * factor) for side in pixels.shape[:2])
        if height >= 11 and width >= 2:
            pixels = np.asarray(to_image(pixels).resize((width, height), Image.Resampling.BILINEAR), np.float32)
    if chance(rng, 0.3):
        noise = np.random.default_rng(rng.getrandbits(32))
        pixels = pixels + noise.normal(0, rng.uniform(1, 16), pixels.shape[:2])[..., None]
    if chance(rng, 0.05):  # specks
        noise = np.random.default_rng(rng.getrandbits(32))
        pixels = np.array(pixels)
        pixels[noise.random(pixels.shape[:2]) < rng.uniform(0.001, 0.02)] = rng.choice([0, 255])
    image = to_image(pixels)
    if chance(rng, 0.25):
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=rng.randint(25, 90))
        image = Image.open(stored)
    return image


class Lines:
    SMALLEST, LARGEST = 13, 56  # of the face, pixels

    def __init__(self, corpus, holdout=False):
        self.faces, self.texts = Faces(holdout), Texts(corpus)

    def sample(self, rng, longest=90):
        while True:
            short, middle = (1, min(12, longest)), (min(8, longest), min(45, longest))
            text = self.texts.line(rng, rng.randint(*rng.choice([short, middle, (min(30, longest), longest)])))
            size = round(math.exp(rng.uniform(math.log(self.SMALLEST), math.log(self.LARGEST))))
            fine = 2 if chance(rng, 0.35) and size < 40 else 1  # drawn larger, then reduced
            face = self.faces.pick(rng, size * fine)
            centres = face.centres(text)
            drawn = centres is not None and self.draw(rng, text, face, size * fine, fine)
            if not drawn:
                continue
            image, start, scale = drawn
            width = max(STEP, round(image.width * HEIGHT / image.height / STEP) * STEP)
            if width > MAX_WIDTH:
                continue
            final = width / image.width
            pixels = np.array(image.resize((width, HEIGHT), Image.Resampling.BICUBIC))
            return Line(pixels, text, ((start + centres) * scale * final).astype(np.float32))

    def draw(self, rng, text, face, size, fine):
        """(picture, x where the text starts before scaling, scale), or None for texts that cannot be drawn."""
        font, pad = face.font, size
        left, top, right, bottom = font.getbbox(text)
        ascent, descent = font.getmetrics()
        width, height = right - left + 2 * pad, max(ascent + descent, bottom) + 2 * pad
        if right - left < 1 or bottom - top < 1 or width > 8000:
            return None
        ink = Image.new("L", (width, height), 0)
        pen, x, y = ImageDraw.Draw(ink), pad - left, pad
        pen.text((x, y), text, font=font, fill=255)
        box = ink.getbbox()
        if box is None:
            return None
        self.draw_surroundings(rng, pen, text, font, (x, y), box, size)
        left, top, right, bottom = self.crop_box(rng, box, y, ascent, descent)
        ink = self.tilt(rng, ink, (left, top, right, bottom)).crop((left, top, right, bottom))
        if fine > 1:
            reduced = max(1, ink.width // fine), max(1, ink.height // fine)
            ink = ink.resize(reduced, Image.Resampling.LANCZOS)
        if ink.height < 8 or ink.width < 4:
            return None
        image = wear(rng, self.print(rng, ink))
        return image, x - left, image.width / (right - left)

    def draw_surroundings(self, rng, pen, text, font, at, box, size):
        x, y = at
        ascent, descent = font.getmetrics()
        if chance(rng, 0.3):  # neighbours above and below, as a crop from a page shows them
            gap = (ascent + descent) * rng.uniform(0.95, 1.4)
            other = self.texts.line(rng, max(3, len(text)))
            pen.text((x + rng.randint(-size, size), y - gap), other, font=font, fill=255)
            pen.text((x + rng.randint(-size, size), y + gap), other[::-1], font=font, fill=255)
        if chance(rng, 0.05):
            below = y + ascent + max(1, size // 12)
            pen.line((box[0], below, box[2], below), fill=255, width=max(1, size // 16))

    @staticmethod
    def crop_box(rng, box, y, ascent, descent):
        """Around the ink, or around the line that the face's measures span, with margins."""
        left, top, right, bottom = box
        if chance(rng, 0.4):
            top, bottom = min(top, y + int(ascent * 0.2)), max(bottom, y + ascent + int(descent * 0.8))
        height = bottom - top
        margins = [round(height * rng.uniform(0, most)) for most in (0.2, 0.2, 0.6, 0.6)]
        return left - margins[2], top - margins[0], right + margins[3], bottom + margins[1]

    @staticmethod
    def tilt(rng, ink, box):
        left, top, right, bottom = box
        if chance(rng, 0.35):
            most = math.degrees(0.3 * (bottom - top) / max(1, right - left))  # the ends stay inside of the box
            angle = max(-most, min(most, rng.gauss(0, 0.8)))
            ink = ink.rotate(angle, Image.Resampling.BICUBIC, center=((left + right) / 2, (top + bottom) / 2))
        if chance(rng, 0.15):
            slant = rng.uniform(-0.18, 0.18)
            shift = -slant * (top + bottom) / 2
            ink = ink.transform(ink.size, Image.Transform.AFFINE, (1, slant, shift, 0, 1, 0), Image.Resampling.BICUBIC)
        return ink

    @staticmethod
    def print(rng, ink):
        coverage, weight = np.asarray(ink, np.float32) / 255, rng.random()
        if weight < 0.12:
            coverage = np.clip(coverage * rng.uniform(1.2, 2.0), 0, 1)  # heavy
        elif weight < 0.2:
            coverage = coverage ** rng.uniform(1.2, 2.0)  # thin
        paper, ink_colour = colours(rng)
        return paper + (ink_colour - paper) * coverage[..., None]


def show_examples(corpus, out="lines.png", count=28):
    lines, rng = Lines(corpus), random.Random(0)
    sheet = Image.new("RGB", (MAX_WIDTH + 8, 44 * count), "gray")
    pen = ImageDraw.Draw(sheet)
    for i in range(count):
        line = lines.sample(rng)
        sheet.paste(Image.fromarray(line.pixels), (4, 44 * i + 2))
        for x in line.centres:
            pen.line((4 + x, 44 * i + 35, 4 + x, 44 * i + 39), fill="yellow")
    sheet.save(out)
    print(f"{out}: {count} lines from {sum(map(len, lines.faces.folders))} faces")


if __name__ == "__main__":
    import sys
    show_examples(sys.argv[1])
