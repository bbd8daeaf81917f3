"""Makes damaged image files: whole ones of every format that something happened to, and some that are made by hand."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

WIDTH, HEIGHT = 45, 38

Random = np.random.Generator


# --- whole files ---------------------------------------------------------------------------------------------------


def photo(channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = np.stack([np.sin(x / (3 + k) + k) * np.cos(y / (4 + k)) for k in range(channels)], -1)
    noisy = 0.5 + 0.4 * waves + np.random.default_rng(0).normal(0, 0.02, waves.shape)
    return (noisy.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def deep_png(channels: int) -> bytes:
    """Return a 16-bit PNG of 2, 3 or 4 channels, which Pillow does not write."""
    rows = b"".join(b"\0" + row.tobytes() for row in photo(channels, "uint16").astype(">u2"))
    header = png_header(WIDTH, HEIGHT, depth=16, colour={2: 4, 3: 2, 4: 6}[channels])
    return png(header, png_chunk(b"IDAT", zlib.compress(rows)))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def whole_files() -> dict[str, bytes]:
    """Return files of every format and layout that is read, by name; the ending follows the last dot."""
    image = Image.fromarray(photo())
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "maker", 0x011A: 72.0, 0x9003: "2026:01:01 00:00:00"})
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b" * 50, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    others = [Image.fromarray(photo()[::-1]), Image.fromarray(photo()[:, ::-1])]
    alpha = Image.fromarray(photo(4))
    rgb, rgb16, grey16 = photo(), photo(3, "uint16"), photo(1, "uint16")[..., 0]
    ppm16 = b"P6\n45 38\n4095\n" + (rgb16 >> 4).astype(">u2").tobytes()
    files = {
        "plain.jpg": saved(image, "JPEG"),
        "exif.jpg": saved(image, "JPEG", exif=exif, icc_profile=profile),
        "progressive.jpg": saved(image, "JPEG", progressive=True, subsampling=2),
        "cmyk.jpg": saved(image.convert("CMYK"), "JPEG"),
        "several.jpg": saved(image, "MPO", save_all=True, append_images=others),
        "plain.png": saved(image, "PNG"),
        "exif.png": saved(image, "PNG", exif=exif, icc_profile=profile, pnginfo=text),
        "palette.png": saved(image.convert("P"), "PNG", transparency=3),
        "grey16.png": saved(Image.fromarray(grey16), "PNG"),
        "rgb16.png": deep_png(3),
        "rgba16.png": deep_png(4),
        "la16.png": deep_png(2),
        "one-bit.png": saved(image.convert("1"), "PNG"),
        "alpha.png": saved(alpha, "PNG"),
        "moving.png": saved(image, "PNG", save_all=True, append_images=others),
        "lossy.webp": saved(image, "WEBP", exif=exif),
        "lossless.webp": saved(alpha, "WEBP", lossless=True),
        "moving.webp": saved(image, "WEBP", save_all=True, append_images=others),
        "plain.bmp": saved(image, "BMP"),
        "palette.bmp": saved(image.convert("P"), "BMP"),
        "plain.gif": saved(image, "GIF"),
        "moving.gif": saved(image, "GIF", save_all=True, append_images=others),
        "plain.ppm": saved(image, "PPM"),
        "deep.ppm": ppm16,
        "plain.pgm": saved(image.convert("L"), "PPM"),
        "text.ppm": b"P3\n# comment\n4 3\n255\n" + b" ".join(b"%d" % (7 * i % 256) for i in range(36)),
        "plain.tif": tiff(rgb, photometric="rgb"),
        "by-band.tif": tiff(np.moveaxis(rgb16, -1, 0), photometric="rgb", planarconfig="separate", rowsperstrip=8),
        "zip.tif": tiff(rgb16, photometric="rgb", compression="zlib", predictor=2, rowsperstrip=8),
        "tiles.tif": tiff(rgb, photometric="rgb", tile=(16, 16), compression="zlib"),
        "white-is-0.tiff": tiff(grey16, photometric="miniswhite", byteorder=">"),
        "signed.tif": tiff((grey16.astype(int) - 32768).astype(np.int16), photometric="minisblack"),
        "big.tif": tiff(rgb, photometric="rgb", bigtiff=True),
        "alpha.tif": tiff(photo(4), photometric="rgb", extrasamples=["unassalpha"]),
        "lzw.tif": saved(image, "TIFF", compression="tiff_lzw"),
        "packbits.tif": saved(image.convert("P"), "TIFF", compression="packbits"),
        "jpeg.tif": saved(image, "TIFF", compression="jpeg"),
        "fax.tif": saved(image.convert("1"), "TIFF", compression="group4"),
        "turned.tif": saved(image, "TIFF", tiffinfo={274: 6}),
        "pages.tif": tiff(np.stack([rgb, rgb[::-1]]), photometric="rgb"),
    }
    # Under a name that is always read: what decodes a file is found by its first bytes.
    for kind, options in {"AVIF": {}, "JPEG2000": {}, "TGA": {}, "QOI": {}, "PCX": {}, "ICO": {}, "SGI": {}}.items():
        if kind in Image.registered_extensions().values() and kind in Image.SAVE:
            files[f"{kind.lower()}.png"] = saved(image, kind, **options)
    return files


# --- damage --------------------------------------------------------------------------------------------------------


def flipped(content: bytes, random: Random) -> bytes:
    damaged = bytearray(content)
    for place in random.integers(0, len(damaged), int(random.integers(1, 20))):
        damaged[place] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def cut_off(content: bytes, random: Random) -> bytes:
    return content[: int(random.integers(0, len(content)))]


def random_start(content: bytes, random: Random) -> bytes:
    """Random bytes behind the magic number, where headers are."""
    kept, length = int(random.integers(2, 16)), int(random.integers(1, 60))
    return content[:kept] + random.bytes(length) + content[kept + length :]


def extreme_number(content: bytes, random: Random) -> bytes:
    """Write a number at an edge of its type: lengths of chunks, sizes, counts and offsets become it."""
    number = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF]))
    order, width = random.choice(["little", "big"]), int(random.choice([2, 4]))
    # Headers stand in front, or in TIFF behind.
    reach = min(len(content), 200)
    place = int(random.integers(0, reach)) if random.random() < 0.7 else int(len(content) - random.integers(1, reach))
    return content[:place] + (number % 256**width).to_bytes(width, order) + content[place + width :]


def moved(content: bytes, random: Random) -> bytes:
    """Take a piece out, or put it in twice."""
    first, last = sorted(random.integers(0, len(content), 2).tolist())
    return content[:first] + content[last:] if random.random() < 0.5 else content[:last] + content[first:]


def zeroed(content: bytes, random: Random) -> bytes:
    first, length = int(random.integers(0, len(content))), int(random.integers(1, 400))
    return content[:first] + bytes(len(content[first : first + length])) + content[first + length :]


def strange_exif(content: bytes, random: Random) -> bytes:
    """Return the file with a directory of random entries as its EXIF, where it is a JPEG; else flipped bits."""
    if not content.startswith(b"\xff\xd8"):
        return flipped(content, random)
    tags = [0x0112, 0x011A, 0x0100, 0x8769, 0x8825, 0x010F, 0x0201, int(random.integers(65536))]
    entries = b"".join(
        struct.pack("<HHII", int(random.choice(tags)), *(int(n) for n in random.integers(0, (15, 12, 2**32))))
        for _ in range(int(random.integers(1, 12)))
    )
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries) // 12) + entries + random.bytes(40)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    flipped,
    cut_off,
    random_start,
    extreme_number,
    moved,
    zeroed,
    strange_exif,
)


# --- files made by hand --------------------------------------------------------------------------------------------

_SIDE = 36
_PIXELS = png_chunk(b"IDAT", zlib.compress(bytes((_SIDE * 3 + 1) * _SIDE)))


def _tiff_of(*entries: tuple[int, int, int, int]) -> bytes:
    """Return a TIFF of one directory, of entries (tag, type, count, value), and 64 bytes of zeros."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(68)


def _png_with(kind: bytes, content: bytes) -> bytes:
    return png(png_header(_SIDE, _SIDE), png_chunk(kind, content), _PIXELS)


def _bmp(width: int, height: int, bits: int, colours: int = 0) -> bytes:
    head = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, colours, 0) + bytes(400)


def _exif(*entries: tuple[int, int, int, int]) -> bytes:
    return b"MM\0*" + struct.pack(">IH", 8, len(entries)) + b"".join(struct.pack(">HHII", *e) for e in entries)


def files_by_hand() -> dict[str, bytes]:
    """Return files that random damage would hardly make, by name: sizes that lie, bombs, directories without an end."""
    empty = zlib.compress(bytes(1 << 20), 9)
    few = b"\xff\xd8" + b"\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\1\x22\0\2\x11\1\3\x11\1" + b"\xff\xd9"
    webp = struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff" * 6
    return {
        "largest.png": png(png_header(2**31 - 1, 2**31 - 1), _PIXELS),
        "larger-than-its-pixels.png": png(png_header(1000, 1000), _PIXELS),
        "without-height.png": png(png_header(0, _SIDE), _PIXELS),
        "no-palette.png": png(png_header(_SIDE, _SIDE, colour=3), _PIXELS),
        "odd-palette.png": png(png_header(_SIDE, _SIDE, colour=3), png_chunk(b"PLTE", b"abcd"), _PIXELS),
        "depth-17.png": png(png_header(_SIDE, _SIDE, depth=17), _PIXELS),
        "text-bomb.png": _png_with(b"zTXt", b"k\0\0" + empty),
        "profile-bomb.png": _png_with(b"iCCP", b"p\0\0" + empty),
        "international-bomb.png": _png_with(b"iTXt", b"k\0\1\0\0\0" + empty),
        "no-transparency.png": _png_with(b"tRNS", b""),
        "orientation-of-2-to-31.png": _png_with(b"eXIf", _exif((0x112, 3, 2**31, 26))),
        "orientation-in-letters.png": _png_with(b"eXIf", _exif((0x112, 2, 4, 0x61626300))),
        "orientation-divided-by-0.png": _png_with(b"eXIf", _exif((0x112, 5, 1, 0))),
        "chunk-of-4-GiB.png": png(png_header(_SIDE, _SIDE))[:-12] + struct.pack(">I", 2**32 - 1) + b"IDAT" + bytes(9),
        "moving-for-ever.png": _png_with(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        "huge.bmp": _bmp(2**30, 2**30, 24),
        "negative.bmp": _bmp(-(2**31), -(2**31), 24),
        "colours.bmp": _bmp(_SIDE, -_SIDE, 8, 2**31 - 1),
        "huge.gif": b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x08\1\0\0;",
        "nothing.gif": b"GIF89a" + bytes(7) + b";",
        "round.tif": b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 256, 4, 1, _SIDE) + struct.pack("<I", 8),
        "entries.tif": b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 256, 4, 2**32 - 1, 8) * 65535,
        "no-bits.tif": _tiff_of((256, 3, 1, _SIDE), (257, 3, 1, _SIDE), (258, 3, 1, 0), (262, 3, 1, 1), (273, 4, 1, 8)),
        "no-tiles.tif": _tiff_of(
            (256, 3, 1, _SIDE), (257, 3, 1, _SIDE), (322, 3, 1, 0), (323, 3, 1, 0), (324, 4, 1, 8)
        ),
        "letters.tif": _tiff_of((256, 2, 1, 65), (257, 2, 1, 65), (258, 2, 1, 65), (262, 3, 1, 1)),
        "largest.jpg": few,
        "profile-without-end.jpg": b"\xff\xd8" + b"\xff\xe2\0\x10ICC_PROFILE\0\1\xff" * 3000 + few[2:],
        "largest.webp": b"RIFF" + webp,
        "longest.webp": b"RIFF"
        + struct.pack("<I", 2**32 - 1)
        + b"WEBPVP8L"
        + struct.pack("<I", 2**32 - 1)
        + b"/\xff\xff",
        "numbers.ppm": b"P6 99999999999999999999 3 255\n",
        "letters.ppm": b"P3 40 40 255\n" + b"-1 x " * 4000,
        "maximum-of-0.ppm": b"P6 40 40 0\n" + bytes(4800),
        "maximum-of-65536.ppm": b"P6 40 40 65536\n" + bytes(9600),
        "not-a-number.ppm": b"PF 40 40 -1.0\n" + struct.pack("<f", float("nan")) * 4800,
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 36 36\n%%EndComments\nshowpage\n",
        "texture.png": b"DDS |\0\0\0" + b"\xff" * 124,
        "program.png": b'/* XPM */\nstatic char *x[] = {\n"36 36 999999999 1",\n',
        "layers.png": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, _SIDE, _SIDE, 8, 3) + bytes(50),
        "icon.png": b"icns" + struct.pack(">I", 100) + b"ic07" + bytes(94),
        "nothing.png": b"",
    }


def damaged_files(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """(name, damage, content), the same for one seed; every ninth file is made by hand.

    Of the others every whole file meets every damage in turn.
    """
    files, by_hand, random = list(whole_files().items()), list(files_by_hand().items()), np.random.default_rng(seed)
    for index in range(count):
        if index % 9 == 8:
            name, content = by_hand[index // 9 % len(by_hand)]
            yield name, "by_hand", content
            continue
        index -= index // 9
        name, content = files[index % len(files)]
        damage = DAMAGES[index // len(files) % len(DAMAGES)]
        yield name, damage.__name__, damage(content, random)
