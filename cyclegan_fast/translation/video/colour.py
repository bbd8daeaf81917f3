"""Converts frames between YUV and 8-bit RGB by the matrix and range that a video says, or that players assume.

Names are numbers of ITU-T H.273 (Coding-independent code points), which FFmpeg uses as well.
"""

import re
from typing import NamedTuple, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from cyclegan_fast.images.pixels import Pixels

_BT709, _BT601, _BT2020 = 1, 6, 9
_UNSPECIFIED = 2
_RGB = 0
_MATRICES = {1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"}
"""The matrices that are converted, by their numbers of H.273, table 4."""
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""The transfer characteristics of high dynamic range, of H.273, table 3."""
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
"""Tells swscale to round right, and to give the same samples on every processor."""


class CodedColours(NamedTuple):
    """Says what the samples of a video mean, in numbers of H.273.

    matrix: of YUV; that which players assume where the file does not say it.
    primaries, transfer: those of the file, which the translation keeps.
    is_full: whether luma fills 0 to 255 in place of 16 to 235.
    bits: of a sample.
    """

    matrix: int
    primaries: int
    transfer: int
    is_full: bool
    bits: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "CodedColours":
        """Return those of a frame. Raises ValueError for a matrix that is not converted."""
        matrix, components = int(frame.colorspace), frame.format.components
        is_rgb = frame.format.is_rgb
        if is_rgb or matrix == _RGB:
            matrix = _BT709
        elif matrix == _UNSPECIFIED:
            # As players do: pictures larger than those of standard definition are BT.709.
            matrix = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
        elif matrix not in _MATRICES:
            raise ValueError(
                f"its colours are coded by a matrix that is not converted (number {matrix} of ITU-T H.273): convert "
                "it first, by ffmpeg -vf scale=out_color_matrix=bt709"
            )
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") or is_rgb
        if _is_grey(frame):  # of which FFmpeg assumes the full range
            full = frame.color_range != ColorRange.MPEG
        bits = max((component.bits for component in components), default=8)
        return cls(matrix, int(frame.color_primaries), int(frame.color_trc), full, bits)

    @property
    def hdr(self) -> str | None:
        """Return the name of the transfer characteristic of high dynamic range; None of other videos."""
        return _HDR_TRANSFERS.get(self.transfer)

    @property
    def range(self) -> int:
        """Return FFmpeg's number of the range."""
        return ColorRange.JPEG if self.is_full else ColorRange.MPEG


def frame_to_rgb(frame: av.VideoFrame, colours: CodedColours) -> Pixels:
    """Convert a frame to uint8 [H, W, 3], rounded to the nearest; opacity is left out."""
    if _is_grey(frame):
        return _grey_to_rgb(frame, colours)
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=colours.matrix,
        src_color_range=colours.range,
        dst_color_range=ColorRange.JPEG,
        interpolation=_EXACT,
        threads=1,
    )
    return cast(Pixels, converted.to_ndarray())


def _is_grey(frame: av.VideoFrame) -> bool:
    """Tell whether a frame has luma alone, as monochrome HEVC and AV1 are decoded; monochrome H.264 gets chroma."""
    return re.fullmatch(r"gray\d*([lb]e)?|ya(8|16[lb]e)", frame.format.name) is not None


def _grey_to_rgb(frame: av.VideoFrame, colours: CodedColours) -> Pixels:
    """Convert luma alone, by H.273 (8.3): swscale takes it for the full range, whatever the file says."""
    if frame.format.name.startswith("ya"):
        frame = frame.reformat(format="gray" if colours.bits == 8 else "gray16le")  # which leaves luma as it is
    luma, step = frame.to_ndarray(), 2.0 ** (colours.bits - 8)
    level = luma * (255 / (2**colours.bits - 1)) if colours.is_full else (luma / step - 16) * (255 / 219)
    return np.rint(level).clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)


def rgb_to_frame(pixels: Pixels, colours: CodedColours) -> av.VideoFrame:
    """Convert uint8 [H, W, 3] of even sides to a frame of 4:2:0 in the limited range, labelled so."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
    converted = frame.reformat(
        format="yuv420p",
        dst_colorspace=colours.matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=_EXACT,
        threads=1,
    )
    converted.colorspace, converted.color_range = colours.matrix, ColorRange.MPEG
    converted.color_primaries, converted.color_trc = colours.primaries, colours.transfer
    return converted
