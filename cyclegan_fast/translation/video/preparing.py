"""Makes decoded frames ready for the network, ahead of their use."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from cyclegan_fast.data.file_reading import half_of_samples
from cyclegan_fast.data.preparation import resize
from cyclegan_fast.images.files import Half
from cyclegan_fast.images.pixels import Pixels, images_at_once
from cyclegan_fast.images.unreadable import reading
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.translation.prepared import pad_sides
from cyclegan_fast.translation.video.opening import DecodedFrame

if TYPE_CHECKING:
    from cyclegan_fast.translation.video.flow import Flow


@dataclass(frozen=True)
class PreparedFrame:
    """Holds a frame ready for the network.

    time: when it is shown, in units of its video.
    pixels: uint8 [H, W, 3] with sides that the network takes; the first `height` x `width` are the frame.
    before: the frame before it, without what is padded; None of the first.
    flow: the motion since then, where it was asked for.
    """

    source: Path
    index: int
    time: int
    pixels: Pixels
    height: int
    width: int
    before: Pixels | None = None
    flow: "Flow | None" = None

    @property
    def own(self) -> Pixels:
        """Return the frame without what is padded."""
        return self.pixels[: self.height, : self.width]


@dataclass(frozen=True)
class FramePreparation:
    """Says how the frames of a file are prepared: which half is taken, their new side, what sides are multiples of."""

    source: Path
    half: Half | None
    size: int | None
    multiple: int

    def __call__(self, frames: Iterator[DecodedFrame], skipped: int) -> Iterator[PreparedFrame]:
        """Yield all frames but the first `skipped` ones. Raises UnreadableImage for an odd width that is halved."""
        before: Pixels | None = None
        for frame in frames:
            if frame.index < skipped - 1:
                continue
            pixels = self._cut(frame.pixels)
            if frame.index >= skipped:
                height, width = pixels.shape[:2]
                padded = cast(Pixels, pad_sides(pixels, self.multiple))
                yield PreparedFrame(self.source, frame.index, frame.time, padded, height, width, before)
            before = pixels

    def _cut(self, pixels: Pixels) -> Pixels:
        if self.half is not None:
            with reading(self.source):
                pixels = cast(Pixels, half_of_samples(pixels, self.half))
        if self.size is not None:
            return np.asarray(resize(Image.fromarray(pixels), self.size, self.size))
        return pixels


def frames_ahead(frames: Iterator[PreparedFrame], depth: int) -> Generator[PreparedFrame]:
    """Yield frames that a thread decodes up to `depth` ahead."""
    with (
        ThreadPoolExecutor(1, thread_name_prefix="decoding") as pool,
        closing(ahead(pool, lambda _: next(frames, None), repeat(None), depth)) as decoded,
    ):
        for frame in decoded:
            if frame is None:
                return
            yield frame


def with_motion(frames: Iterator[PreparedFrame], threads: int) -> Generator[PreparedFrame]:
    """Yield frames with their motion, which threads estimate ahead."""
    from cyclegan_fast.translation.video.flow import backward_flow

    def moved(frame: PreparedFrame) -> PreparedFrame:
        return frame if frame.before is None else replace(frame, flow=backward_flow(frame.own, frame.before))

    with (
        ThreadPoolExecutor(threads, thread_name_prefix="motion") as pool,
        closing(ahead(pool, moved, frames, threads)) as found,
    ):
        yield from found


def batches_of(frames: Iterator[PreparedFrame], most: int | None, segment: int) -> Iterator[list[PreparedFrame]]:
    """Group frames, at most `most` or as many as `images_at_once` says; a batch lies in one segment of `segment`.

    So the batches, whose size may change the last bit of a translation, are the same after an interruption.
    """
    group: list[PreparedFrame] = []
    for frame in frames:
        group.append(frame)
        if len(group) == (most or images_at_once(*frame.pixels.shape[:2])) or (frame.index + 1) % segment == 0:
            yield group
            group = []
    if group:
        yield group
