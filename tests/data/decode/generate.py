#!/usr/bin/env python3
"""Makes the files of this folder: one small picture of a known pattern in every format and kind.

The patterns are repeated in tests/unit/decode/test_formats.c, which compares pixels. The files are committed;
this script only documents them and makes more. Needs Pillow, qpdf and ImageMagick's convert.
"""
import io
import os
import struct
import subprocess
import zlib

from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
W, H = 40, 24


def colour(x, y):
    return (x * 6, y * 10, 40 if x < 20 else 200)


def grey(x, y):
    return x * 4 + y * 3


def bit(x, y):
    """1 is white. A checkerboard with one odd corner."""
    return ((x // 4 + y // 4) % 2) ^ (1 if x < 12 and y < 8 else 0)


def index(x, y):
    return x // 10 + y // 6 * 4


def palette(i):
    return (i * 16, 255 - i * 16, i * 40 % 256)


def alpha(x, y):
    return x * 6


PIXELS = [(x, y) for y in range(H) for x in range(W)]


def path(name):
    return os.path.join(HERE, name)


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data)


# ------------------------------------------------------------------------------------------------------- PNG
def png(name, kind, depth, sample, plte=None, trns=None, interlaced=False, phys=None, exif=None, size=(W, H)):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    width, height = size

    def pack(xs, y):
        bits, out, n = 0, bytearray(), 0
        for x in xs:
            v = sample(x, y)
            for c in v if channels > 1 else (v,):
                bits = bits << depth | c
                n += depth
                while n >= 8:
                    n -= 8
                    out.append(bits >> n & 255)
                    bits &= (1 << n) - 1
        if n:
            out.append(bits << (8 - n) & 255)
        return bytes(out)

    raw = b""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for x0, y0, dx, dy in passes if interlaced else [(0, 0, 1, 1)]:
        for y in range(y0, height, dy):
            xs = range(x0, width, dx)
            if xs:
                raw += b"\0" + pack(xs, y)

    def chunk(tag, data):
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))
    if phys:
        out += chunk(b"pHYs", struct.pack(">IIB", phys, phys, 1))
    if exif:
        out += chunk(b"eXIf", exif)
    if plte:
        out += chunk(b"PLTE", b"".join(bytes(p) for p in plte))
    if trns:
        out += chunk(b"tRNS", trns)
    out += chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    write(name, out)


def pngs():
    black_white = [(0, 0, 0), (255, 255, 255)]
    colours = [palette(i) for i in range(16)]
    png("grey1.png", 0, 1, bit)
    png("grey2.png", 0, 2, lambda x, y: grey(x, y) >> 6)
    png("grey4.png", 0, 4, lambda x, y: grey(x, y) >> 4)
    png("grey8.png", 0, 8, grey, phys=11811)
    png("grey16.png", 0, 16, lambda x, y: grey(x, y) * 257)
    png("rgb8.png", 2, 8, colour)
    png("rgb16.png", 2, 16, lambda x, y: tuple(c * 257 for c in colour(x, y)))
    png("rgb8-interlaced.png", 2, 8, colour, interlaced=True)
    png("palette1.png", 3, 1, bit, plte=black_white)
    png("palette4.png", 3, 4, index, plte=colours)
    png("palette8.png", 3, 8, index, plte=colours)
    png("palette8-alpha.png", 3, 8, index, plte=colours, trns=bytes(i * 17 for i in range(16)))
    png("grey8-alpha.png", 4, 8, lambda x, y: (grey(x, y), alpha(x, y)))
    png("rgb8-alpha.png", 6, 8, lambda x, y: colour(x, y) + (alpha(x, y),))
    png("rgb16-alpha.png", 6, 16, lambda x, y: tuple(c * 257 for c in colour(x, y) + (alpha(x, y),)))
    png("grey-as-rgb.png", 2, 8, lambda x, y: (grey(x, y),) * 3)
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    png("turned6.png", 2, 8, colour, exif=exif)
    huge = open(path("grey1.png"), "rb").read()
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0)
    write("huge-60000.png", huge[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + huge[33:])


# ------------------------------------------------------------------------------------------------------ JPEG
def image(mode="RGB"):
    if mode == "RGB":
        im = Image.new("RGB", (W, H))
        im.putdata([colour(x, y) for x, y in PIXELS])
    elif mode == "RGBA":
        im = Image.new("RGBA", (W, H))
        im.putdata([colour(x, y) + (alpha(x, y),) for x, y in PIXELS])
    elif mode == "L":
        im = Image.new("L", (W, H))
        im.putdata([grey(x, y) for x, y in PIXELS])
    elif mode == "1":
        im = Image.new("1", (W, H))
        im.putdata([255 * bit(x, y) for x, y in PIXELS])
    elif mode == "P":
        im = Image.new("P", (W, H))
        im.putpalette([c for i in range(16) for c in palette(i)])
        im.putdata([index(x, y) for x, y in PIXELS])
    elif mode == "CMYK":
        im = Image.new("CMYK", (W, H))
        im.putdata([tuple(255 - c for c in colour(x, y)) + (0,) for x, y in PIXELS])
    return im


def turned(orientation):
    """Stored so that this EXIF orientation gives the pattern back."""
    undo = {1: None, 2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE,
            6: Image.ROTATE_90, 7: Image.TRANSVERSE, 8: Image.ROTATE_270}[orientation]
    return image() if undo is None else image().transpose(undo)


def jpegs():
    image().save(path("colour.jpg"), quality=97, subsampling=0, dpi=(300, 300))
    image().save(path("colour-420.jpg"), quality=97, subsampling=2)
    image().save(path("progressive.jpg"), quality=97, subsampling=0, progressive=True)
    image("L").save(path("grey.jpg"), quality=97)
    image("CMYK").save(path("cmyk-adobe.jpg"), quality=97)
    # Pillow stores 255 - ink, as Adobe does; without Adobe's marker the numbers are inks.
    plain = Image.new("CMYK", (W, H))
    plain.putdata([colour(x, y) + (255,) for x, y in PIXELS])
    plain.save(path("cmyk-plain.jpg"), quality=97)
    data = open(path("cmyk-plain.jpg"), "rb").read()
    at = data.index(b"\xff\xee")
    write("cmyk-plain.jpg", data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2:at + 4])[0]:])
    for o in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = o
        turned(o).save(path(f"turned{o}.jpg"), quality=97, subsampling=0, exif=exif)


# ------------------------------------------------------------------------------------------------------ TIFF
def tiffs():
    for name, mode, compression in (("grey-lzw", "L", "tiff_lzw"), ("colour-deflate", "RGB", "tiff_adobe_deflate"),
                                    ("colour-raw", "RGB", None), ("bits-g4", "1", "group4"),
                                    ("bits-g3", "1", "group3"), ("bits-packbits", "1", "packbits"),
                                    ("palette-lzw", "P", "tiff_lzw"), ("cmyk-lzw", "CMYK", "tiff_lzw"),
                                    ("alpha-lzw", "RGBA", "tiff_lzw")):
        image(mode).save(path(name + ".tif"), compression=compression)
    image().save(path("colour-jpeg.tif"), compression="jpeg", quality=97)
    image("1").save(path("bits-white0.tif"), tiffinfo={262: 0}, compression="group4")
    image("L").save(path("fax.tif"), compression="raw", tiffinfo={282: 204.0, 283: 102.0, 296: 2})
    Image.frombytes("I;16", (W, H), b"".join(struct.pack("<H", grey(x, y) * 257) for x, y in PIXELS)).save(
        path("grey16.tif"))
    for o in range(1, 9):
        turned(o).save(path(f"turned{o}.tif"), compression="tiff_lzw", tiffinfo={274: o})
    image("1").save(path("pages.tif"), save_all=True, append_images=[image("L"), image("RGB")], compression=None)
    subprocess.run(["convert", path("rgb8.png"), "-define", "tiff:tile-geometry=16x16", "-compress", "LZW",
                    path("tiled.tif")], check=True)


def webps():
    image().save(path("lossy.webp"), quality=100, method=6)
    image().save(path("lossless.webp"), lossless=True)
    image("RGBA").save(path("alpha.webp"), lossless=True, exact=True)
    other = Image.new("RGB", (W, H), (0, 0, 0))
    image().save(path("animation.webp"), save_all=True, append_images=[other], lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 8
    turned(8).save(path("turned8.webp"), lossless=True, exif=exif)


def gifs():
    image("P").save(path("palette.gif"))
    image("P").save(path("interlaced.gif"), interlace=1)
    image("P").save(path("transparent.gif"), transparency=5)
    other = Image.new("P", (W, H), 3)
    other.putpalette(image("P").getpalette())
    image("P").save(path("animation.gif"), save_all=True, append_images=[other], duration=100)


# ------------------------------------------------------------------------------------------------------- BMP
def bmp(name, bits, pixel, colours=None, compression=0, data=None, top_down=False, masks=None, header=40):
    def row(y):
        out, acc, n = bytearray(), 0, 0
        for x in range(W):
            acc = acc << bits | pixel(x, y) if bits < 8 else 0
            if bits < 8:
                n += bits
                if n == 8:
                    out.append(acc)
                    acc, n = 0, 0
            else:
                out += pixel(x, y).to_bytes(bits // 8, "little")
        if n:
            out.append(acc << (8 - n))
        return bytes(out) + b"\0" * (-len(out) % 4)

    rows = [row(y) for y in range(H)] if data is None else []
    body = data if data is not None else b"".join(rows if top_down else reversed(rows))
    table = b"".join(bytes((b, g, r)) + (b"" if header == 12 else b"\0") for r, g, b in colours or [])
    if header == 12:
        info = struct.pack("<IHHHH", 12, W, H, 1, bits)
        if colours:
            table += b"\0" * (3 * (1 << bits) - len(table))
    else:
        info = struct.pack("<IiiHHIIiiII", header, W, -H if top_down else H, 1, bits, compression, len(body), 11811,
                           11811, len(colours or []), 0)
        if header > 40:
            info += struct.pack("<IIII", *masks) + b"\0" * (header - 56)
        elif masks:
            info += struct.pack("<III", *masks[:3])
    at = 14 + len(info) + len(table)
    write(name, b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + info + table + body)


def rle(bits):
    """Runs, literals, a jump over background (index 0 is painted as 0) and line ends."""
    out = bytearray()
    for y in reversed(range(H)):
        x = 0
        while x < W:
            v, n = index(x, y), 1
            while x + n < W and index(x + n, y) == v and n < 255:
                n += 1
            if v == 0 and n >= 5 and x + n < W:
                out += bytes((0, 2, n, 0))
            elif v == 5 and n >= 4:
                out += bytes((0, n)) + (bytes([v] * n) if bits == 8 else bytes([v * 17] * ((n + 1) // 2)))
                if len(out) % 2:
                    out += b"\0"
            else:
                out += bytes((n, v if bits == 8 else v * 17))
            x += n
        out += b"\0\0"
    return bytes(out) + b"\0\1"


def bmps():
    colours = [palette(i) for i in range(16)]
    rgb = lambda x, y: colour(x, y)[0] << 16 | colour(x, y)[1] << 8 | colour(x, y)[2]
    bmp("bits1.bmp", 1, bit, [(0, 0, 0), (255, 255, 255)])
    bmp("palette4.bmp", 4, index, colours)
    bmp("palette8.bmp", 8, index, colours)
    bmp("os2.bmp", 8, index, colours, header=12)
    bmp("rgb555.bmp", 16, lambda x, y: colour(x, y)[0] >> 3 << 10 | colour(x, y)[1] >> 3 << 5 | colour(x, y)[2] >> 3)
    bmp("rgb565.bmp", 16, lambda x, y: colour(x, y)[0] >> 3 << 11 | colour(x, y)[1] >> 2 << 5 | colour(x, y)[2] >> 3,
        compression=3, masks=(0xf800, 0x7e0, 0x1f, 0))
    bmp("rgb24.bmp", 24, rgb)
    bmp("rgb24-topdown.bmp", 24, rgb, top_down=True)
    bmp("rgb32.bmp", 32, rgb)
    bmp("rgb32-alpha.bmp", 32, lambda x, y: alpha(x, y) << 24 | rgb(x, y), compression=3, header=108,
        masks=(0xff0000, 0xff00, 0xff, 0xff000000))
    bmp("rle8.bmp", 8, None, colours, compression=1, data=rle(8))
    bmp("rle4.bmp", 4, None, colours, compression=2, data=rle(4))


# ------------------------------------------------------------------------------------------------------- PDF
def pdf(name, pages, title=None, extra=(), count=None):
    """pages: (page dictionary entries, content). Objects 1 catalog, 2 pages, 3 info, 4 font, then the extras."""
    objects = {1: b"<< /Type /Catalog /Pages 2 0 R >>", 3: b"<< /Title (" + (title or "").encode() + b") >>",
               4: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"}
    number = 5
    for body in extra:
        objects[number] = body
        number += 1
    kids = []
    for entries, content in pages:
        objects[number] = (b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R /Resources << /Font << /F1 4 0 R >> "
                           b"/XObject << /X5 5 0 R >> >> %s >>" % (number + 1, entries))
        objects[number + 1] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)
        kids.append(b"%d 0 R" % number)
        number += 2
    objects[2] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count or len(kids), b" ".join(kids))
    out, at = b"%PDF-1.5\n", {}
    for n in sorted(objects):
        at[n] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (n, objects[n])
    xref = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % number
    out += b"".join(b"%010d 00000 n \n" % at[n] for n in range(1, number))
    out += b"trailer << /Size %d /Root 1 0 R /Info 3 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (number, xref)
    write(name, out)


def pdfs():
    # Red above left, green above right, blue below left; 144 x 72 points: 400 x 200 pixels at 200 dpi.
    flag = b"1 0 0 rg 0 36 72 36 re f 0 1 0 rg 72 36 72 36 re f 0 0 1 rg 0 0 72 36 re f"
    black = b"0 g 0 36 72 36 re f"
    text = b"BT /F1 24 Tf 10 20 Td (Helvetica) Tj ET"
    box = b"/MediaBox [0 0 144 72]"
    pdf("pages.pdf", [(box, flag), (box + b" /Rotate 90", flag), (box + b" /CropBox [36 0 144 72]", flag),
                      (box, black), (box, text), (b"/MediaBox [0 0 5000000 2500000]", b""),
                      (b"/MediaBox [0 0 0 0]", b"")], title="Seven pages")
    pdf("one.pdf", [(box, flag)], title="One")
    for bits in (128, 256):
        subprocess.run(["qpdf", "--static-id", "--allow-weak-crypto", "--encrypt", "secret", "owner", str(bits), "--",
                        path("one.pdf"), path(f"encrypted-{bits}.pdf")], check=True)
    # 40,000 x 40,000 grey pixels: 1.6 GB out of a few hundred bytes.
    data = zlib.compress(zlib.compress(zlib.compress(b"\0" * 1600000000, 9), 9), 9)
    bomb = (b"<< /Type /XObject /Subtype /Image /Width 40000 /Height 40000 /BitsPerComponent 8 /ColorSpace "
            b"/DeviceGray /Filter [/FlateDecode /FlateDecode /FlateDecode] /Length %d >>\nstream\n%s\nendstream"
            % (len(data), data))
    pdf("bomb-image.pdf", [(box, b"q 144 0 0 72 0 0 cm /X5 Do Q")], extra=[bomb])
    # A form that draws itself through others, 10^30 times.
    forms = [b"<< /Type /XObject /Subtype /Form /BBox [0 0 144 72] /Resources << /XObject << /N %d 0 R >> >> /Length "
             b"%d >>\nstream\n%s\nendstream" % (6 + i, 6 * 10 - 1, b"/N Do " * 9 + b"/N Do") for i in range(30)]
    forms.append(b"<< /Type /XObject /Subtype /Form /BBox [0 0 144 72] /Length 20 >>\nstream\n0 g 0 0 72 36 re f   \n"
                 b"endstream")
    pdf("bomb-forms.pdf", [(box, b"/X5 Do")], extra=forms)
    # A page tree that claims a million pages, each kid the same subtree.
    levels = [b"<< /Type /Pages /Parent 2 0 R /Count %d /Kids [%s] >>" % (10 ** (6 - i), b"%d 0 R " % (6 + i) * 10)
              for i in range(6)]
    levels.append(b"<< /Type /Page /Parent 10 0 R /MediaBox [0 0 144 72] >>")
    pdf("bomb-pages.pdf", [(box, flag)], extra=levels)
    data = open(path("bomb-pages.pdf"), "rb").read()
    kids = data[data.index(b"/Kids ["):data.index(b"]", data.index(b"/Kids ["))]
    write("bomb-pages.pdf", data.replace(b"/Count 1 " + kids, b"/Count 1000000 /Kids [5 0 R"))


if __name__ == "__main__":
    pngs()
    jpegs()
    tiffs()
    webps()
    gifs()
    bmps()
    pdfs()
