"""Damaged image files by the thousand, through the data path and through `translate`: each is read, or named.

    python -m tests.fuzz_images --count 10000

One assertion: whatever the damage, a file is read or ends in UnreadableImage. Prints how many files of each format and
kind of damage were read, and what the decoders raised on the others. A file that takes over HANG_S ends the process
with the stack of where it was.
"""

import argparse
import faulthandler
import io
import shutil
import struct
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from cyclegan_fast.data.image_folder import ImageFolder
from cyclegan_fast.data.preparation import Preparation
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.plan import ImageOptions, plan

WIDTH, HEIGHT = 45, 38
MOST_PIXELS = 2**20  # instead of Pillow's limit: a damaged size then costs some MiB, not GiB
BATCH = 200  # files that are in the folder at once
HANG_S = 60.0

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
    import zlib

    rows = b"".join(b"\0" + row.tobytes() for row in photo(channels, "uint16").astype(">u2"))
    kind = {2: 4, 3: 2, 4: 6}[channels]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


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


def damaged_files(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """(name of the whole file, damage, content), the same for one seed; every file meets every damage in turn."""
    files, random = list(whole_files().items()), np.random.default_rng(seed)
    for index in range(count):
        name, content = files[index % len(files)]
        damage = DAMAGES[index // len(files) % len(DAMAGES)]
        yield name, damage.__name__, damage(content, random)


# --- what becomes of it --------------------------------------------------------------------------------------------


def cause_of(path: Path) -> str | None:
    """Return the exception of a decoder that ended as UnreadableImage; None where the file is read."""
    try:
        decode(path)
    except UnreadableImage as error:
        return type(error.__cause__).__name__
    return None


def through_the_data_path(folder: Path, cache: Path) -> set[str]:
    """Return the names of the files that training would use."""
    images = ImageFolder(
        folder, Preparation("resize_and_crop", 36, 32), cache_bytes=2**30, cache_dir=cache, workers=2, strict=False
    )
    assert len(images.files) + len(images.unreadable) == len(list(folder.iterdir()))
    return {*images.files}


def through_translate(folder: Path, out: Path) -> set[str]:
    """Return the names of the files that are translated, into their negatives."""

    def negative(pixels: Pixels) -> Pixels:
        return 255 - pixels

    options = ImageOptions((str(folder),), out, format="png")
    jobs = plan(options)
    summary = translate_images(negative, jobs, options, None)
    translated = {job.source.name for job in jobs if job.target.exists()}
    assert summary.translated == len(translated)
    assert len(translated) + len(summary.unreadable) == len(jobs)
    return translated


def fuzz(count: int, seed: int, place: Path) -> Counter[tuple[str, str, str]]:
    """(ending, damage, outcome) of `count` damaged files, which lie in `place` for a while.

    The outcome is "read" or the exception that a decoder raised. Raises AssertionError where the two ways or decoding
    alone do not agree on which files can be read, and whatever leaves them but UnreadableImage.
    """
    outcomes: Counter[tuple[str, str, str]] = Counter()
    files = damaged_files(count, seed)
    whole = whole_files()["plain.png"]
    for first in range(0, count, BATCH):
        folder = place / f"from-{first}"
        folder.mkdir()
        (folder / "whole.png").write_bytes(whole)  # of nothing but unreadable files either way is an error
        kinds = {}
        for index in range(first, min(first + BATCH, count)):
            name, damage, content = next(files)
            path = folder / f"{index}-{damage}-{name}"
            path.write_bytes(content)
            kinds[path.name] = (path.suffix[1:], damage)
        faulthandler.dump_traceback_later(HANG_S * 3, exit=True)
        causes = {name: cause_of(folder / name) for name in kinds}
        read = {name for name, cause in causes.items() if cause is None} | {"whole.png"}
        assert through_the_data_path(folder, place / "cache") == read
        assert through_translate(folder, place / "out" / folder.name) == read
        faulthandler.cancel_dump_traceback_later()
        outcomes.update((*kind, causes[name] or "read") for name, kind in kinds.items())
        shutil.rmtree(folder)
        shutil.rmtree(place / "out")
    return outcomes


def table(outcomes: Counter[tuple[str, str, str]], column: int) -> str:
    """Counts by one of the columns, files read and not."""
    rows = sorted({key[column] for key in outcomes})
    lines = []
    for row in rows:
        read = sum(n for key, n in outcomes.items() if key[column] == row and key[2] == "read")
        every = sum(n for key, n in outcomes.items() if key[column] == row)
        lines.append(f"{row:20} {read:6} read {every - read:6} UnreadableImage")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
    warnings.filterwarnings("ignore", module=r"PIL\.")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = fuzz(options.count, options.seed, Path(folder))
    print(table(outcomes, 0), table(outcomes, 1), sep="\n\n")
    print("\nwhat decoders raised:")
    raised: Counter[str] = Counter()
    for (_, _, outcome), number in outcomes.items():
        raised[outcome] += number
    print("\n".join(f"{outcome:24} {number:6}" for outcome, number in raised.most_common()))
    print(f"\n{options.count} files, 0 tracebacks, 0 hangs, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
