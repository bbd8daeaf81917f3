"""Opens videos and decodes them, frame by frame, to upright 8-bit RGB; says what a user should know of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.stream import VideoStream

from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import reading
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.video.colour import CodedColours, frame_to_rgb

_DEMUXERS = ",".join(
    [
        *("mov", "matroska", "avi", "flv", "mpeg", "mpegts", "mpegvideo", "asf", "rm", "ogg", "mxf", "gxf", "dv"),
        *("yuv4mpegpipe", "nut", "ivf", "h264", "hevc", "m4v"),
    ]
)
"""FFmpeg's readers of videos that are in one file. Not among them are images, and lists of other files."""
_ONE = 1 << 16
"""One, in the fixed point of a display matrix."""


@dataclass(frozen=True)
class DecodedFrame:
    """Holds a frame, upright, and when it is shown, in units of its video's `time_base`.

    index: counts the frames of the video.
    pixels: uint8 [H, W, 3].
    """

    index: int
    time: int
    pixels: Pixels


@dataclass(frozen=True)
class _Turn:
    """Says how the pixels of a frame are made upright: first transposed, then mirrored."""

    transposed: bool = False
    mirrored: bool = False
    upside_down: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        turned = pixels.transpose(1, 0, 2) if self.transposed else pixels
        turned = turned[:, ::-1] if self.mirrored else turned
        return np.ascontiguousarray(turned[::-1] if self.upside_down else turned)


class OpenedVideo:
    """Decodes the first video stream of a file that is no cover picture; a context manager, which closes it.

    `notes` say what a user should know, and `damage` what could not be decoded, which is known when the last frame was
    given. Raises UnreadableImage on opening for what FFmpeg does not read, and where there is no such stream or no
    frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.damage: list[str] = []
        self._damaged_packets = 0
        with reading(path):
            self.container = opened_container(path)
            try:
                self.stream = _video_of(self.container)
                self.stream.thread_type = "AUTO"
                with ffmpeg_explained():
                    self._decoded = self._decode()
                    self._first = next(self._decoded, None)
                if self._first is None:
                    raise ValueError("has no frame that can be decoded")
                self.colours = CodedColours.of(self._first)
                self._turn = self._turn_of(self._first)
            except BaseException:
                self.container.close()
                raise
        self._describe(self._first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def time_base(self) -> Fraction:
        """Return the unit of times in seconds."""
        return self.stream.time_base or Fraction(1, 1000)

    @property
    def rate(self) -> Fraction:
        """Return the frames in a second, in the mean; 25 where the file does not tell."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    @property
    def size(self) -> tuple[int, int]:
        """Return the height and the width of upright frames."""
        assert self._first is not None
        height, width = self._first.height, self._first.width
        return (width, height) if self._turn.transposed else (height, width)

    @property
    def pixel_aspect(self) -> Fraction:
        """Return the width of an upright pixel by its height."""
        stored = self.stream.sample_aspect_ratio or Fraction(1)
        return (1 / stored if self._turn.transposed else stored) if stored > 0 else Fraction(1)

    @property
    def expected_frames(self) -> int | None:
        """Return how many frames the file says, or its duration, that it has; None where nothing tells."""
        if self._frames_by_header:
            return self._frames_by_header
        seconds = self.stream.duration * self.time_base if self.stream.duration else None
        if seconds is None and self.container.duration:
            seconds = Fraction(self.container.duration, av.time_base)
        return max(1, round(seconds * self.rate)) if seconds else None

    @property
    def _frames_by_header(self) -> int:
        """Return how many frames the header says that are shown; 0 where it does not tell.

        Programs that cut MP4 and MOV without encoding leave frames in the file, and say that they are not shown.
        """
        if "mov" not in self.container.format.name:
            return self.stream.frames
        return self.stream.frames - sum(entry.is_discard for entry in self.stream.index_entries)

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield all frames, once. Raises UnreadableImage where their size changes."""
        assert self._first is not None
        size = self._first.width, self._first.height
        step = max(1, round(1 / (self.rate * self.time_base)))
        time: int | None = None
        bent = count = 0
        with reading(self.path), ffmpeg_explained():
            frame: av.VideoFrame | None = self._first
            while frame is not None:
                if (frame.width, frame.height) != size:
                    raise ValueError(
                        f"its frames change from {size[0]}x{size[1]} to {frame.width}x{frame.height} after "
                        f"{counted(count, 'frame')}: cut it there, or scale it to one size first (ffmpeg -vf scale)"
                    )
                given = frame.pts if frame.pts is not None else frame.dts
                if given is None or (time is not None and given <= time):
                    bent += given is not None
                    given = 0 if time is None else time + (step if given is None else 1)
                time = given
                yield DecodedFrame(count, time, self._turn(frame_to_rgb(frame, self.colours)))
                count += 1
                frame = next(self._decoded, None)
        self._describe_end(count, bent)

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield what can be decoded: damaged packets are left out and counted, as players do."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.InvalidDataError:
                self._damaged_packets += 1
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.InvalidDataError:
                self._damaged_packets += 1
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                yield frame

    def _turn_of(self, frame: av.VideoFrame) -> _Turn:
        data = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # its stubs have names only
        if data is None:
            return _Turn()
        a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
        if {abs(a), abs(d)} == {_ONE} and (b, c) == (0, 0):
            return _Turn(mirrored=a < 0, upside_down=d < 0)
        if {abs(b), abs(c)} == {_ONE} and (a, d) == (0, 0):
            return _Turn(transposed=True, mirrored=c < 0, upside_down=b < 0)
        self.notes.append("is to be shown turned by an angle that is none of 90 degrees; it is left as it is stored")
        return _Turn()

    def _describe(self, frame: av.VideoFrame) -> None:
        colours = self.colours
        if colours.hdr is not None:
            self.notes.append(
                f"is of high dynamic range ({colours.hdr}, {colours.bits} bits): its values are rounded to 8 bits and "
                "translated as they are, without tone mapping, and the translation keeps these labels; a generator "
                "that learned from ordinary photographs wants it converted first (ffmpeg -vf zscale and tonemap)"
            )
        elif colours.bits > 8:
            self.notes.append(f"has {colours.bits} bits a sample, which are rounded to 8")
        if frame.interlaced_frame:
            self.notes.append(
                "is interlaced: the two fields of a frame are translated as one picture, and written as such; "
                "ffmpeg -vf bwdif makes frames of them first"
            )
        has_alpha = any(component.is_alpha for component in frame.format.components)
        # VP8 and VP9 have opacity in a stream of its own inside, which FFmpeg's own decoders leave out.
        if has_alpha or {key.lower(): value for key, value in self.stream.metadata.items()}.get("alpha_mode") == "1":
            self.notes.append("has opacity, which is left out")
        others = sum(_is_film(stream) for stream in self.container.streams.video) - 1
        if others:
            self.notes.append(f"has {counted(others, 'more video stream')}, left out: the first one is translated")

    def _describe_end(self, count: int, bent: int) -> None:
        if self._damaged_packets:
            packets = counted(self._damaged_packets, "packet")
            self.damage.append(f"is damaged: {packets} of it could not be decoded, and left out")
        if self._frames_by_header > count:
            self.damage.append(f"has {self._frames_by_header} frames by its header, and {count} could be decoded")
        if bent:
            self.notes.append(f"has {counted(bent, 'frame')} that would be shown before the last: moved behind it")


def opened_container(path: Path) -> InputContainer:
    """Open a file with FFmpeg, which then reads no other one. Raises ValueError where it cannot."""
    # A list of segments or a script in a film's place must not make FFmpeg fetch what it names.
    options = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
    with ffmpeg_explained():
        try:
            return av.open(f"file:{path}", container_options=options, metadata_errors="replace")
        except av.error.ArgumentError as error:
            raise ValueError("not a video, but an image, sound or a list of other files") from error


@contextmanager
def ffmpeg_explained() -> Iterator[None]:
    """Turn what FFmpeg raises on a file into a ValueError with its reason; errors of the system stay what they are."""
    try:
        yield
    except av.error.InvalidDataError as error:
        raise ValueError("not a video that FFmpeg reads, or damaged") from error
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise ValueError("its codec is none that this build of FFmpeg decodes") from error
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"FFmpeg says: {error.strerror}") from error


def _is_film(stream: VideoStream) -> bool:
    """Tell whether a stream is a film, and no cover picture of a piece of music."""
    return not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)


def _video_of(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if _is_film(stream):
            if stream.codec_context is None:
                raise ValueError("its codec is none that this build of FFmpeg decodes")
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise ValueError(f"has no video stream, but {', '.join(kinds)}" if kinds else "has no stream at all")
