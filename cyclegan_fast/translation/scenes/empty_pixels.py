"""Tells which pixels of a scene are empty glass or have no data, and what is written there instead of a translation."""

from collections.abc import Iterable, Iterator

import numpy as np

from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.scenes.data_mask import data_mask
from cyclegan_fast.images.scenes.scene import Scene, SceneLayout
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.prepared import Mask


class EmptyPixels:
    """Finds the empty pixels of a scene, and writes one value over their translation; everything else stays.

    They are those outside of `data_mask`, which is made one of its pixels wider since it is smaller than the scene; and
    those without a value, as floating-point ones with NaN, and those whose channels all have the file's value for no
    data.

    Args:
        target: the type of the translation's samples.
    """

    def __init__(self, scene: Scene, target: PixelType) -> None:
        self._scene = scene
        self._mask = _widened(data_mask(scene).mask)
        self.value, self.is_no_data = value_of_empty(scene.layout, target)
        self.count = 0
        """Counts the empty pixels that were written."""
        self.count_equal = 0
        """Counts the other pixels that have the value that stands for no data, which programs will not tell apart."""

    def of_rows(self, first: int, last: int) -> Mask:
        """Return which pixels of some rows are empty, bool [rows, W]."""
        height, width = self._scene.levels[0]
        rows, columns = (
            np.minimum((np.arange(begin, end) + 0.5) * small / side, small - 1).astype(int)
            for begin, end, small, side in (
                (first, last, self._mask.shape[0], height),
                (0, width, self._mask.shape[1], width),
            )
        )
        empty = ~self._mask[np.ix_(rows, columns)]
        samples = self._scene.read(first, 0, last - first, width)
        no_data = self._scene.layout.place.no_data
        is_floating = samples.dtype.kind == "f"
        if is_floating:
            empty |= np.isnan(samples).any(-1)
        if no_data is not None:
            gaps = samples == no_data
            empty |= gaps.any(-1) if is_floating else gaps.all(-1)  # of floating-point ones as `fill_missing` has it
        return empty

    def lines(self) -> list[str]:
        """Return what a user should know of what was written."""
        share = 100 * self.count / np.prod(self._scene.levels[0], dtype=float)
        lines = [f"{share:.3g} % of its pixels are empty: {self.value:g} was written there"]
        if self.count_equal:
            lines.append(
                f"{counted(self.count_equal, 'other pixel')} became {self.value:g}, too, the file's value for no data: "
                "programs will take that for no data"
            )
        return lines

    def written(self, strips: Iterable[SampleArray]) -> Iterator[SampleArray]:
        """Yield strips [rows, W, C] of a translation, from top to bottom, with the value in place of empty pixels."""
        first = 0
        for strip in strips:
            empty = self.of_rows(first, first + len(strip))
            if self.is_no_data:
                self.count_equal += int(((strip == self.value).all(-1) & ~empty).sum())
            self.count += int(empty.sum())
            yield np.where(empty[..., None], strip.dtype.type(self.value), strip)
            first += len(strip)


def value_of_empty(layout: SceneLayout, target: PixelType) -> tuple[float, bool]:
    """Return what is written where a scene is empty, and whether that is the file's value for no data.

    That is taken where samples of `target` hold it. Otherwise it is NaN where they are of floating point, white where
    they are 8-bit colours, and the low end of their range elsewhere.
    """
    no_data = layout.place.no_data
    if no_data is not None and _holds(target, no_data):
        return no_data, True
    if target.dtype == "float32":
        return float("nan"), False
    if target.dtype == "uint8":
        return (255 if target.channels == 3 else 0), False
    return target.held_range[0], False


def _holds(target: PixelType, value: float) -> bool:
    if target.dtype == "float32":
        with np.errstate(over="ignore"):
            return not np.isinf(np.float32(value))  # NaN and all that rounds to a number
    held = np.iinfo(target.dtype)
    return value.is_integer() and held.min <= value <= held.max


def _widened(mask: Mask) -> Mask:
    """Return a mask with all pixels beside those that it has."""
    framed = np.pad(mask, 1)
    height, width = mask.shape
    shifts = [framed[down : down + height, right : right + width] for down in range(3) for right in range(3)]
    wide: Mask = np.any(shifts, 0)
    return wide
