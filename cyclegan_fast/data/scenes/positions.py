"""Says where crops of a scene may lie: where its mask has enough tissue or data."""

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.scenes.data_mask import DataMask

_Places = npt.NDArray[np.int64]


class CropPositions:
    """Draws positions of square crops of a level, of each of which at least a share has data.

    Corners are looked at on a lattice as fine as the mask, or as the level where that is coarser. One of those that
    are allowed is drawn, each as often as any other, and moved by less than a step of the lattice; where too little has
    data there, it stays at the corner.

    Args:
        mask: that of the level: its height and width are the level's.
        side: of the crops, at most the level's height and width.
        least: the share.
    """

    def __init__(self, mask: DataMask, side: int, least: float) -> None:
        self.height, self.width, self.side, self.least = mask.height, mask.width, side, least
        self._scale = mask.mask.shape[0] / mask.height, mask.mask.shape[1] / mask.width
        self.data_pixels = float(mask.mask.mean()) * mask.height * mask.width
        """the area of the level that has data, in its pixels"""
        self._steps = max(1, int(1 / self._scale[0])), max(1, int(1 / self._scale[1]))
        self._rows = np.arange(0, mask.height - side + 1, self._steps[0])
        self._columns = np.arange(0, mask.width - side + 1, self._steps[1])
        allowed = _shares(mask.mask, self._spans(self._rows, 0), self._spans(self._columns, 1)) >= least
        self._ends = np.cumsum(allowed.sum(1))  # of each row of corners among all that are allowed
        # Bits, since there may be many scenes: half a megabyte for 4 million of them.
        self._allowed, self._mask = np.packbits(allowed, axis=1), np.packbits(mask.mask, axis=1)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def drawn(self, random: np.random.Generator) -> tuple[int, int]:
        """Return the top and the left of a crop; there must be a position."""
        chosen = int(random.integers(len(self)))
        row = int(np.searchsorted(self._ends, chosen, side="right"))
        before = int(self._ends[row - 1]) if row else 0
        column = int(np.flatnonzero(np.unpackbits(self._allowed[row]))[chosen - before])
        top, left = int(self._rows[row]), int(self._columns[column])
        moved = (
            top + int(random.integers(min(self._steps[0], self.height - self.side + 1 - top))),
            left + int(random.integers(min(self._steps[1], self.width - self.side + 1 - left))),
        )
        return moved if self.share(*moved) >= self.least else (top, left)

    def share(self, top: int, left: int) -> float:
        """Return which part of a crop has data."""
        (first, last), (begin, end) = (
            (int(starts[0]), int(stops[0]))
            for starts, stops in (self._spans(np.array([top]), 0), self._spans(np.array([left]), 1))
        )
        window = np.unpackbits(self._mask[first:last], axis=1)[:, begin:end]
        return float(window.mean())

    def grid(self) -> list[tuple[int, int]]:
        """Return the positions of crops side by side, from the upper left corner on, that have enough data."""
        rows = np.arange(0, self.height - self.side + 1, self.side)
        columns = np.arange(0, self.width - self.side + 1, self.side)
        mask = np.unpackbits(self._mask, axis=1).astype(np.bool_)  # its last columns are beyond those of any crop
        allowed = _shares(mask, self._spans(rows, 0), self._spans(columns, 1)) >= self.least
        return [(int(rows[down]), int(columns[across])) for down, across in np.argwhere(allowed)]

    def _spans(self, places: _Places, axis: int) -> tuple[_Places, _Places]:
        """Return the first pixel of the mask on an axis that crops at these places lie on, and the one behind the last.

        They are those of `DataMask.fraction`.
        """
        starts = (places * self._scale[axis]).astype(np.int64)
        stops = np.maximum(starts + 1, np.rint((places + self.side) * self._scale[axis]).astype(np.int64))
        return starts, stops


def _shares(
    mask: npt.NDArray[np.bool_], rows: tuple[_Places, _Places], columns: tuple[_Places, _Places]
) -> npt.NDArray[np.float64]:
    """Return which part of a mask is true in the windows of all pairs of spans of rows and spans of columns."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, axis=0, dtype=np.int32, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    (tops, bottoms), (lefts, rights) = rows, columns
    strips = sums[bottoms] - sums[tops]
    counts = strips[:, rights] - strips[:, lefts]
    return np.asarray(counts / ((bottoms - tops)[:, None] * (rights - lefts)), np.float64)
