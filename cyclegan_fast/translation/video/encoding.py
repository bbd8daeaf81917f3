"""Encodes translated frames, H.264 or FFV1, into segments that begin with a key frame and need no other one."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags
from av.video.stream import VideoStream

from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import replacing
from cyclegan_fast.translation.video.colour import CodedColours, rgb_to_frame
from cyclegan_fast.translation.video.options import DEFAULT_CRF, VideoOptions

SEGMENT_FORMAT = "nut"
"""A container that holds both codecs, and any time base."""
_FIRST = 64
"""The place in time of a segment's first frame, so large that no container meets a time below 0."""


@dataclass(frozen=True)
class Encoding:
    """Says how the frames of a video are encoded.

    size: the height and the width of the translation.
    rate: how many there are in a second, in the mean.
    pixel_aspect: the width of a pixel by its height.
    longest_segment: the frames of a segment, at most.
    """

    options: VideoOptions
    size: tuple[int, int]
    rate: Fraction
    pixel_aspect: Fraction
    colours: CodedColours
    longest_segment: int

    @property
    def codec(self) -> str:
        """Return FFmpeg's name of the encoder."""
        return "ffv1" if self.options.lossless else "libx264"

    @property
    def notes(self) -> list[str]:
        """Return a line where the frames that are written are larger than the translation."""
        height, width = self.size
        if self.options.lossless or not (height % 2 or width % 2):
            return []
        even = f"{width + width % 2}x{height + height % 2}"
        return [f"is {width}x{height}, and H.264 takes even sides: the last column or row is doubled to {even}"]

    def check(self) -> None:
        """Raise UserError where the encoder is not part of the FFmpeg that PyAV brings."""
        try:
            Codec(self.codec, "w")
        except UnknownCodecError:
            raise UserError(
                f"this build of PyAV has no encoder {self.codec}: install its wheel (pip install --only-binary av av)"
                + ("" if self.options.lossless else ", or give --lossless")
            ) from None

    def frame_of(self, pixels: Pixels, place: int) -> av.VideoFrame:
        """Return a frame to encode, by its place in its segment.

        For H.264 a last odd column and row are doubled, since 4:2:0 has pairs of them.
        """
        if self.options.lossless:
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame = rgb.reformat(format="bgr0")
            frame.color_primaries, frame.color_trc = self.colours.primaries, self.colours.transfer
        else:
            even = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), "edge")
            frame = rgb_to_frame(even, self.colours)
        frame.pts, frame.time_base = _FIRST + place, 1 / self.rate
        return frame


class SegmentEncoder:
    """Encodes one segment into the file `path`, which appears when it is whole; see `finish` and `abandon`.

    A file beside it, see `times_beside`, has the times of its frames: the container knows their order only, because a
    time base that is not its own would be rounded.

    Its methods raise OSError where the disk takes no more.
    """

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self._encoding = encoding
        self._path = path
        self._times: list[int] = []
        self._stack = ExitStack()
        file = self._stack.enter_context(replacing(path))
        try:
            self._container = self._stack.enter_context(av.open(file, "w", format=SEGMENT_FORMAT))
        except BaseException:
            self.abandon()
            raise
        self._stream: VideoStream | None = None

    def add(self, pixels: Pixels, time: int) -> None:
        """Encode a frame, uint8 [H, W, 3], that is shown at `time`, which is later than the one before."""
        frame = self._encoding.frame_of(pixels, len(self._times))
        self._times.append(time)
        if self._stream is None:
            self._stream = self._begin(frame)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write the rest, and give the file its name."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        with replacing(times_beside(self._path)) as file:
            file.write(json.dumps(self._times).encode())
        self._stack.close()

    def abandon(self) -> None:
        """Leave no file."""
        try:
            with self._stack:
                raise _Abandoned
        except (_Abandoned, OSError):
            pass

    def _begin(self, frame: av.VideoFrame) -> VideoStream:
        encoding, options = self._encoding, self._encoding.options
        if options.lossless:
            settings = {"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}
        else:
            crf = DEFAULT_CRF if options.crf is None else options.crf
            settings = {"crf": str(crf), "preset": "medium", "g": str(encoding.longest_segment)}
        stream = self._container.add_stream(encoding.codec, rate=encoding.rate, options=settings)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = frame.width, frame.height, frame.format.name
        context.time_base = stream.time_base = 1 / encoding.rate
        context.sample_aspect_ratio = encoding.pixel_aspect
        context.flags |= Flags.global_header
        context.color_primaries, context.color_trc = encoding.colours.primaries, encoding.colours.transfer
        if not options.lossless:
            context.colorspace, context.color_range = frame.colorspace, frame.color_range
        return stream


def times_beside(segment: Path) -> Path:
    """Return the file of the times of a segment's frames, in the order in which they are shown."""
    return segment.with_suffix(".json")


class _Abandoned(Exception):
    """Makes `replacing` remove what it has written."""
