"""Makes the file of a translation: joins its segments, and copies sound, subtitles and chapters from the source."""

import heapq
import io
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.error
from av.container import Flags, InputContainer, OutputContainer
from av.container.streams import StreamContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from cyclegan_fast.images.folders import ending_of
from cyclegan_fast.images.unreadable import reading
from cyclegan_fast.system.files import replacing
from cyclegan_fast.system.words import counted, listed
from cyclegan_fast.translation.video.encoding import times_beside
from cyclegan_fast.translation.video.opening import opened_container

_FORMATS = {".mkv": "matroska", ".mov": "mov"}
_COPIED_KINDS = ("audio", "subtitle")
_AnyPacket: TypeAlias = "Packet[Any]"


def fits_mp4(path: Path) -> bool:
    """Tell whether MP4 takes the sound of a video. Raises UnreadableImage."""
    with reading(path), opened_container(path) as container:
        return all(_codec_of(stream) in _codecs_of("mp4") for stream in container.streams.audio)


def join_segments(
    source: Path, segments: Sequence[Path], target: Path, time_base: Fraction, rate: Fraction
) -> list[str]:
    """Write the video of the segments to `target`, with what is copied of the source; return lines on what is not.

    Each frame is shown when the source shows it, by times in `time_base`; Matroska rounds these to milliseconds. Raises
    OSError where the disk takes no more.

    Args:
        rate: frames in a second, of which the last one's duration is taken.
    """
    container_format = _FORMATS.get(ending_of(target.name), "mp4")
    with (
        _source_of_copies(source) as given,
        av.open(f"file:{segments[0]}") as first,
        replacing(target) as file,
        av.open(file, "w", format=container_format) as output,
    ):
        # Matroska's numbers of a file and of its streams are random otherwise.
        output.flags |= int(Flags.bitexact.value)  # type: ignore[call-overload]  # its stubs give it another type
        output.metadata.update(given.metadata)
        film = output.add_stream_from_template(first.streams.video[0])
        film.time_base = time_base
        copies, notes = _add_copies(given.streams, output, target)
        if chapters := given.chapters():
            output.set_chapters(chapters)
        packets = [_film_packets(segments, film, time_base, rate), _copied_packets(given, copies)]
        for packet in heapq.merge(*packets, key=_moment):
            output.mux_one(packet)
    return notes


def _add_copies(streams: StreamContainer, output: OutputContainer, target: Path) -> tuple[dict[int, Stream], list[str]]:
    """Add a stream for each that is copied; return the sources by their index, and a line on those left out."""
    copies: dict[int, Stream] = {}
    left_out: list[str] = []
    for stream in streams:
        if stream.type == "video":
            continue
        if stream.type in _COPIED_KINDS and _codec_of(stream) in _codecs_of(output.format.name):
            copy = output.add_stream_from_template(stream)
            copy.metadata.update(stream.metadata)
            copies[stream.index] = copy
        else:
            codec = _codec_of(stream)
            left_out.append(f"{stream.type}{f' ({codec})' if codec else ''}")
    if not left_out:
        return copies, []
    what = f"{counted(len(left_out), 'stream')} of {listed(sorted({*left_out}))}"
    return copies, [f"{what} left out, which {target.suffix} does not take"]


def _film_packets(
    segments: Sequence[Path], film: VideoStream, time_base: Fraction, rate: Fraction
) -> Iterator[_AnyPacket]:
    """Yield the packets of the segments, in the order in which they are decoded, with times that go on.

    Packet i is decoded when the frame i - k is shown, with the least k for which none is shown before it is decoded.
    """
    shown = [time for path in segments for time in _times_of(path)]
    in_order = sorted(shown)
    place = {time: index for index, time in enumerate(in_order)}
    delay = max(index - place[time] for index, time in enumerate(shown))
    last_step = max(1, round(1 / (rate * time_base)))
    steps = [after - before for before, after in pairwise(in_order)] + [last_step]
    index = 0
    for path in segments:
        with av.open(f"file:{path}") as container:
            for packet in container.demux(video=0):
                if packet.pts is None:
                    continue  # the mark of the end
                time = shown[index]
                packet.stream = film
                packet.time_base, packet.pts = time_base, time
                packet.dts = in_order[index - delay] if index >= delay else in_order[0] - (delay - index) * last_step
                packet.duration = steps[place[time]]
                yield packet
                index += 1


def _times_of(segment: Path) -> list[int]:
    """Return when the frames of a segment are shown, in the order in which they are decoded."""
    times: list[int] = json.loads(times_beside(segment).read_bytes())
    with av.open(str(segment)) as container:
        places = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    time_at = dict(zip(sorted(places), times, strict=True))
    return [time_at[place] for place in places]


def _copied_packets(given: InputContainer, copies: dict[int, Stream]) -> Iterator[_AnyPacket]:
    """Yield the packets that are copied, in the order of the source; a damaged end is where they end."""
    if not copies:
        return
    last: dict[int, int] = {}
    packets = given.demux(*(given.streams[index] for index in copies))
    while True:
        try:
            packet = next(packets, None)
        except av.error.InvalidDataError:
            return
        if packet is None:
            return
        shown, decoded, index = packet.pts, packet.dts, packet.stream_index
        if shown is None and decoded is None:
            continue  # the mark of the end
        decoded = int(shown or 0) if decoded is None else decoded
        if index in last:
            decoded = max(decoded, last[index] + 1)  # a muxer refuses what does not go on
        packet.dts = last[index] = decoded
        packet.pts = decoded if shown is None else max(shown, decoded)
        packet.stream = copies[index]
        yield packet


def _source_of_copies(path: Path) -> InputContainer:
    with reading(path):
        return opened_container(path)


def _moment(packet: _AnyPacket) -> Fraction:
    return (packet.dts or 0) * (packet.time_base or Fraction(0))


def _codec_of(stream: Stream) -> str | None:
    """Return the name of a stream's codec; None of data that no codec reads."""
    return stream.codec_context.codec.name if stream.codec_context is not None else None


@cache
def _codecs_of(container_format: str) -> set[str]:
    with av.open(io.BytesIO(), "w", format=container_format) as container:
        return container.supported_codecs
