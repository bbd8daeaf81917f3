"""Makes small videos with PyAV, frame by frame, and reads them again."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]


def pictures(count: int, height: int = 32, width: int = 48, seed: int = 0) -> Frames:
    """Return frames [N, H, W, 3] of coarse noise over a slope that moves."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 120, (count, height // 4 + 1, width // 4 + 1, 3)).repeat(4, 1).repeat(4, 2)
    slope = (np.arange(width)[None, :] * 2 + np.arange(count)[:, None] * 3) % 130
    return (coarse[:, :height, :width] + slope[:, None, :, None]).astype(np.uint8)


def write_clip(
    path: Path,
    frames: Frames,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12800),
    sound: bool = False,
    turn: int = 0,
    context: dict[str, Any] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write frames, at 25 a second or at `times`, with a tone where there is to be sound."""
    times = [index * 512 for index in range(len(frames))] if times is None else times
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        for name, value in (context or {}).items():
            setattr(stream.codec_context, name, value)
        if turn:
            stream.set_display_rotation(turn)
        tone = container.add_stream("aac", rate=8000) if sound else None
        container.start_encoding()
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            wave = np.sin(np.arange(8192) * 0.3).astype(np.float32)[None]
            samples = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux(tone.encode(samples))
            container.mux(tone.encode(None))
    return path


def read_clip(path: Path) -> Frames:
    """Return the frames as they are stored, converted to RGB by PyAV."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def times_of(path: Path) -> list[Fraction]:
    """Return when each frame is shown, in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def packets_of(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Return the time and the bytes of each packet of the first stream of a kind."""
    with av.open(str(path)) as container:
        (stream, *_) = [stream for stream in container.streams if stream.type == kind]
        found = container.demux(stream)
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in found if packet.pts is not None]
