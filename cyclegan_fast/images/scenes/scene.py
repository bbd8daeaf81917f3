"""Defines a scene: an image of which regions are read, at several levels, each a smaller copy of the one before."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np

from cyclegan_fast.images.formats.conversion import Converted, convert
from cyclegan_fast.images.formats.stored import FilePlace, StoredSamples
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.unreadable import reading

CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SceneLayout:
    """Says what a scene's samples are; the fields are those of `StoredSamples`.

    levels: the height and width of each level, from the largest to the smallest.
    images: how many images the file holds, of which the first is read.
    microns_per_pixel: the distance of the largest level's pixels, in micrometres, where the file says it.
    """

    levels: tuple[tuple[int, int], ...]
    channels: int
    dtype: np.dtype[Any]
    bits: int
    is_colour: bool = False
    has_opacity: bool = False
    is_associated: bool = False
    place: FilePlace = field(default_factory=FilePlace)
    images: int = 1
    microns_per_pixel: float | None = None


class TileCache:
    """Keeps decoded tiles, those that were used last, up to `most_bytes`, but at least one; threads may share it."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._tiles: OrderedDict[tuple[int, ...], SampleArray] = OrderedDict()
        self._held_bytes = 0
        self._lock = Lock()

    def __call__(self, place: tuple[int, ...], decode: Callable[[], SampleArray]) -> SampleArray:
        """Return the tile of a place, which is decoded where it is not kept; nobody may write to it."""
        with self._lock:
            kept = self._tiles.get(place)
            if kept is not None:
                self._tiles.move_to_end(place)
                return kept
        tile = decode()
        with self._lock:
            if place not in self._tiles:  # another thread may have decoded it meanwhile
                self._tiles[place] = tile
                self._held_bytes += tile.nbytes
            while self._held_bytes > self.most_bytes and len(self._tiles) > 1:
                _, oldest = self._tiles.popitem(last=False)
                self._held_bytes -= oldest.nbytes
        return tile


class Scene(ABC):
    """Reads regions of an image file, for as long as it is open.

    Args:
        path: of the file, or of the folder of a Zarr.
        layout: what it holds.
    """

    def __init__(self, path: Path, layout: SceneLayout) -> None:
        self.path = path
        self.layout = layout

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """Return the height and width of each level, from the largest to the smallest."""
        return self.layout.levels

    @property
    def channels(self) -> int:
        """Return how many samples a pixel has."""
        return self.layout.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the samples that are read."""
        return self.layout.dtype

    def microns_of(self, level: int) -> float | None:
        """Return the distance of a level's pixels in micrometres; None where the file does not say it."""
        largest = self.layout.microns_per_pixel
        return None if largest is None else largest * self.levels[0][1] / self.levels[level][1]

    def read(self, top: int, left: int, height: int, width: int, level: int = 0) -> SampleArray:
        """Return a region of a level, [height, width, C], in an array of the caller's own.

        Raises ValueError for a region that reaches over the edges, and UnreadableImage for damage.
        """
        if not 0 <= level < len(self.levels):
            raise ValueError(f"{self.path} has {len(self.levels)} levels, and no level {level}")
        bottom, right = self.levels[level]
        if not (0 <= top < top + height <= bottom and 0 <= left < left + width <= right):
            raise ValueError(
                f"{self.path}: rows {top} to {top + height} and columns {left} to {left + width} are no region of the "
                f"{right}x{bottom} pixels of level {level}"
            )
        with reading(self.path):
            return self._read(top, left, height, width, level)

    def converted(self, samples: SampleArray, kind: PixelType, value_range: ValueRange | None = None) -> Converted:
        """Return a region [H, W, C] with the channels and the type of a domain, as `read_samples` converts a file.

        Raises UnreadableImage for what does not become that.
        """
        layout = self.layout
        stored = StoredSamples(
            samples[None], layout.bits, layout.is_colour, layout.has_opacity, layout.is_associated, layout.place
        )
        with reading(self.path):
            return convert(stored, kind, value_range, is_part=True)

    @abstractmethod
    def _read(self, top: int, left: int, height: int, width: int, level: int) -> SampleArray:
        """Return a region that lies inside a level; raises whatever a decoder raises."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TiledScene(Scene):
    """Reads regions of a scene whose levels are stored in tiles, or in strips as wide as the level.

    Decoded tiles are kept, those that were used last, up to `cache_bytes`, or as many as a row of pixels goes through
    where these are more: rows that are read from top to bottom decode each tile once.

    Args:
        tile_sizes: the height and width of the tiles of each level.
    """

    def __init__(
        self, path: Path, layout: SceneLayout, tile_sizes: tuple[tuple[int, int], ...], cache_bytes: int = CACHE_BYTES
    ) -> None:
        super().__init__(path, layout)
        self.tile_sizes = tile_sizes
        (rows, columns), width = tile_sizes[0], layout.levels[0][1]
        across = (-(-width // columns) + 1) * columns
        self.cache_bytes = max(cache_bytes, rows * across * layout.channels * layout.dtype.itemsize)
        self._cache, self._number = TileCache(self.cache_bytes), 0

    def share(self, cache: TileCache, number: int) -> None:
        """Keep decoded tiles in a cache that other scenes use, too, under a number of this scene's own."""
        self._cache, self._number = cache, number

    @abstractmethod
    def _tile(self, level: int, row: int, column: int) -> SampleArray:
        """Decode the tile in that row and column of tiles, [rows, columns, C]; it may reach over the edges."""

    def _read(self, top: int, left: int, height: int, width: int, level: int) -> SampleArray:
        rows, columns = self.tile_sizes[level]
        region: SampleArray = np.empty((height, width, self.channels), self.dtype)
        for row in range(top // rows, -(-(top + height) // rows)):
            for column in range(left // columns, -(-(left + width) // columns)):
                tile = self._cache((self._number, level, row, column), partial(self._tile, level, row, column))
                # The part of the tile that lies in the region, in pixels of the level.
                first, last = max(top, row * rows), min(top + height, row * rows + rows)
                begin, end = max(left, column * columns), min(left + width, column * columns + columns)
                region[first - top : last - top, begin - left : end - left] = tile[
                    first - row * rows : last - row * rows, begin - column * columns : end - column * columns
                ]
        return region
