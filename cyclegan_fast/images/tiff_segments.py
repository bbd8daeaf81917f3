"""Reads the first page of a TIFF file in its strips or tiles, decompressed; tiff.py says what their samples mean.

tifffile parses the file. It decompresses what it can without the package imagecodecs; Pillow's libtiff decompresses LZW
and ZSTD, strip by strip.
"""

import io
import logging
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, PREDICTOR, TiffPage

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.unreadable import check_size, parsing

# Errors that matter are raised; what tifffile logs beside them, such as a damaged date, does not change the pixels.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

OF_PYTHON = (COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.LZMA, COMPRESSION.PACKBITS)
OF_LIBTIFF = (COMPRESSION.LZW, COMPRESSION.ZSTD)
MOST_GAIN: dict[int, int] = {
    COMPRESSION.NONE: 1,
    COMPRESSION.PACKBITS: 64,
    COMPRESSION.ADOBE_DEFLATE: 1100,
    COMPRESSION.DEFLATE: 1100,
    COMPRESSION.LZW: 3000,
}
"""The most bytes that one compressed byte stands for; a file that claims more is refused. Others have no bound."""

REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@contextmanager
def first_page(file: BinaryIO) -> Iterator[TiffPage]:
    """Open the first page of an open file; raises ValueError where its header claims what the file cannot hold."""
    with parsing():
        tiff = tifffile.TiffFile(file)
        page = tiff.pages.first
        check_page(page)
    with tiff:
        yield page


def check_page(page: TiffPage) -> None:
    """Raise ValueError where the header of a page claims what the file cannot hold, or more than is read at once."""
    width, height = page.imagewidth, page.imagelength
    if not width or not height or page.imagedepth != 1:
        raise ValueError(f"it is no flat image: {width}x{height} pixels, {page.imagedepth} deep")
    check_size(width, height)
    check_claims(page)


def check_claims(page: TiffPage) -> None:
    """Raise ValueError where the header of a page claims more pixels than the bytes of its file can hold."""
    size, width, height = page.parent.filehandle.size, page.imagewidth, page.imagelength
    claimed = width * height * page.samplesperpixel * bits_of(page) // 8
    if page.compression in MOST_GAIN and claimed > MOST_GAIN[page.compression] * size:
        raise ValueError(f"it claims {width}x{height} pixels, which its {size} bytes cannot hold")


def bits_of(page: TiffPage) -> int:
    """Return the bits of a sample; raises ValueError where samples of a pixel have different numbers of bits."""
    if not isinstance(page.bitspersample, int):
        raise ValueError(f"its samples have different numbers of bits, {page.bitspersample}")
    return page.bitspersample


def segments(page: TiffPage) -> Iterator[tuple[int, int, int, SampleArray]]:
    """Yield the top row, left column, first sample and samples [rows, columns, samples] of each strip or tile.

    A tile may reach over the edge of the image. Where the channels are stored one after another, each strip or tile has
    one of them.
    """
    decoder = SegmentDecoder(page)
    for index in range(len(decoder)):
        yield decoder(index)


def check_compression(page: TiffPage) -> None:
    """Raise ValueError where a page is compressed in a way for which a package is missing."""
    if is_own(page):
        return
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
    except KeyError as error:
        name = getattr(page.compression, "name", page.compression)
        raise ValueError(
            f"its compression, {name}, needs a package: pip install imagecodecs, or save it with zlib"
        ) from error


class SegmentDecoder:
    """Decodes the strips or tiles of a page, each on its own; see `segments`.

    Raises ValueError where some are missing, and where a package is. A page has one decoder, once.
    """

    def __init__(self, page: TiffPage) -> None:
        expected = math.prod(page.chunked)
        self._page = page
        self._offsets, self._counts = page.dataoffsets[:expected], page.databytecounts[:expected]
        if len(self._offsets) < expected or len(self._counts) < expected or not all(self._counts):
            raise ValueError(f"it is cut off: of {expected} strips or tiles some are missing")
        self._compression, self._bits_reversed, self._bits = page.compression, page.fillorder == 2, bits_of(page)
        self._own = is_own(page)
        check_compression(page)
        if self._own:
            # tifffile would ask for imagecodecs: it gets bytes that are decompressed already.
            page.compression, page.fillorder = COMPRESSION.NONE, 1
        self._is_differences = self._own and page.predictor == PREDICTOR.FLOATINGPOINT
        if self._is_differences:
            page.predictor = PREDICTOR.NONE  # for which tifffile would ask, too

    def __len__(self) -> int:
        return len(self._offsets)

    def __call__(self, index: int) -> tuple[int, int, int, SampleArray]:
        """Return the top row, left column, first sample and samples [rows, columns, samples] of a strip or tile."""
        page, bits = self._page, self._bits
        encoded = encoded_segment(page, index)
        _, place, shape = page.decode(None, index)
        if self._own:
            encoded = encoded.translate(REVERSED_BITS) if self._bits_reversed else encoded
            row_bytes = math.ceil(shape[2] * shape[3] * bits / 8)
            encoded = _decompressed(encoded, self._compression, shape[1] * row_bytes)
            if self._is_differences:
                encoded = _summed(encoded, shape[1], shape[3], bits // 8, page.parent.byteorder)
        if bits in (8, 16, 32, 64) or not self._own:
            samples, _, _ = page.decode(encoded, index, jpegtables=page.jpegtables)
            assert samples is not None
        else:
            if page.dtype is None or page.dtype.kind == "f" or bits > 32:
                raise ValueError(f"its samples of {bits} bits are not read: save them in 16 or 32")
            samples = _unpacked(encoded, shape[1], shape[2] * shape[3], bits)
        return place[2], place[3], place[0], samples.reshape(-1, *shape[2:])


def is_own(page: TiffPage) -> bool:
    """Tell whether a page is decompressed without the package imagecodecs."""
    return page.compression in (COMPRESSION.NONE, *OF_PYTHON, *OF_LIBTIFF)


def encoded_segment(page: TiffPage, index: int) -> bytes:
    """Return the bytes of a strip or tile as the file has them. Raises ValueError where the file ends before."""
    page.parent.filehandle.seek(page.dataoffsets[index])
    count = page.databytecounts[index]
    encoded = page.parent.filehandle.read(count)
    if len(encoded) < count:
        raise ValueError("it is cut off")
    return encoded


def _decompressed(encoded: bytes, compression: int, size: int) -> bytes:
    if compression in OF_LIBTIFF:
        return _through_libtiff(encoded, compression, size)
    decompressed = encoded
    if compression != COMPRESSION.NONE:
        decompressed = tifffile.TIFF.DECOMPRESSORS[compression](encoded)
    if len(decompressed) < size:
        raise ValueError(f"it is cut off: a strip or tile has {len(decompressed)} bytes of {size}")
    return decompressed[:size]


def _through_libtiff(encoded: bytes, compression: int, size: int) -> bytes:
    """Let Pillow's libtiff decompress a strip, as that of a greyscale image of `size` x 1 pixels."""
    fields = [(256, size), (257, 1), (258, 8), (259, compression), (262, 1), (277, 1), (278, 1), (279, len(encoded))]
    start = 8 + 2 + 12 * (len(fields) + 1) + 4
    fields = sorted([*fields, (273, start)])
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    header = b"II*\0" + struct.pack("<IH", 8, len(fields)) + directory + bytes(4)
    with Image.open(io.BytesIO(header + encoded), formats=["TIFF"]) as strip:
        return strip.tobytes()


def _summed(differences: bytes, rows: int, channels: int, sample_bytes: int, order: str) -> bytes:
    """Undo the predictor of floating-point samples (Adobe Photoshop TIFF Technical Note 3).

    In each row the highest bytes of all samples stand first, and each byte is the difference from the pixel before.
    """
    steps = np.frombuffer(differences, np.uint8).reshape(rows, -1, channels)
    planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(rows, sample_bytes, -1)
    samples = planes.transpose(0, 2, 1)  # the highest byte first
    return (samples if order == ">" else samples[..., ::-1]).tobytes()


def _unpacked(packed: bytes, rows: int, samples: int, bits: int) -> SampleArray:
    """Return integers of `bits` bits, the highest bit first, of rows that begin on a byte, as [rows, samples]."""
    in_bits = np.unpackbits(np.frombuffer(packed, np.uint8).reshape(rows, -1), axis=1)[:, : samples * bits]
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(
        np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    )
    integers: SampleArray = np.dot(in_bits.reshape(rows, samples, bits), weights)
    return integers
