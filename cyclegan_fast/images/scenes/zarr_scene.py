"""Reads regions of Zarr: the levels of an OME-Zarr, or a single array, by the package zarr."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_fast.images.formats.stored import own_dtype
from cyclegan_fast.images.pixel_type import MOST_SAMPLES_A_PIXEL, SampleArray
from cyclegan_fast.images.scenes.resolution import microns_of_zarr
from cyclegan_fast.images.scenes.scene import CACHE_BYTES, SceneLayout, TiledScene

_DESCRIPTIONS = ("zarr.json", ".zgroup", ".zarray")  # one of them lies in every Zarr, of version 3 or 2


def is_zarr(path: Path) -> bool:
    """Tell whether a path is the folder of a Zarr."""
    return any((path / name).is_file() for name in _DESCRIPTIONS)


class ZarrScene(TiledScene):
    """Reads regions of a Zarr; a chunk that is not there has the array's fill value, as Zarr has it.

    Raises ValueError for what is no flat image, and ModuleNotFoundError without the package.
    """

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        import zarr

        opened: Any = zarr.open(str(path), mode="r")
        self._arrays, self._axes, microns = _levels(opened)
        first = self._arrays[0]
        sizes = dict(zip(self._axes, first.shape, strict=True))
        for axis, size in sizes.items():
            if axis not in "yxc" and size != 1:
                raise ValueError(f"it has {size} images along its axis {axis}: save one of them")
        channels = sizes.get("c", 1)
        if not 1 <= channels <= MOST_SAMPLES_A_PIXEL:
            raise ValueError(f"it has {channels} channels")
        own_dtype(first.dtype)
        levels = tuple((self._side(array, "y"), self._side(array, "x")) for array in self._arrays)
        if min(map(min, levels)) < 1:
            raise ValueError("it has no pixels")
        tiles = tuple(tuple(array.chunks[self._axes.index(axis)] for axis in "yx") for array in self._arrays)
        dtype = first.dtype.newbyteorder("=")
        is_colour = channels == 3 and dtype == np.uint8
        layout = SceneLayout(levels, channels, dtype, 8 * dtype.itemsize, is_colour, microns_per_pixel=microns)
        super().__init__(path, layout, tiles, cache_bytes)

    def close(self) -> None:
        """Let the arrays go; their files are open only while they are read."""
        self._arrays = []

    def _side(self, array: Any, axis: str) -> int:
        return int(array.shape[self._axes.index(axis)])

    def _tile(self, level: int, row: int, column: int) -> SampleArray:
        rows, columns = self.tile_sizes[level]
        places = {
            "y": slice(row * rows, row * rows + rows),
            "x": slice(column * columns, column * columns + columns),
            "c": slice(None),
        }
        order = [axis for axis in self._axes if axis in places]
        tile = np.asarray(self._arrays[level][tuple(places.get(axis, 0) for axis in self._axes)])
        ordered = tile.transpose([order.index(axis) for axis in "yxc" if axis in order])
        return ordered if "c" in order else ordered[..., None]


def _levels(opened: Any) -> tuple[list[Any], str, float | None]:
    """Return the arrays of the levels, from the largest to the smallest, and their axes, a letter each.

    The third is the distance of pixels in micrometres, where it is said.
    """
    if hasattr(opened, "shape"):
        axes = {2: "yx", 3: "yxc"}.get(len(opened.shape))
        if axes is None:
            raise ValueError(f"its array has {len(opened.shape)} dimensions: an image is [H, W] or [H, W, channels]")
        return [opened], axes, None
    attributes = dict(opened.attrs)
    described = attributes.get("ome", attributes).get("multiscales")
    if not described:
        raise ValueError("it is a group without multiscales, as an OME-Zarr has: give the path of an array in it")
    image = described[0]
    named = [axis if isinstance(axis, str) else axis["name"] for axis in image.get("axes", "tczyx")]
    axes = "".join(named)
    if not {"y", "x"} <= set(axes) or len(axes) != len(named):
        raise ValueError(f"its axes are {', '.join(named)}: an image has y and x")
    arrays = []
    for dataset in image["datasets"]:
        try:
            arrays.append(opened[dataset["path"]])
        except (KeyError, FileNotFoundError, json.JSONDecodeError) as error:
            raise ValueError(
                f"its level {len(arrays)}, {dataset['path']}, is not there: copy the whole folder"
            ) from error
        if arrays[-1].ndim != len(axes) or arrays[-1].dtype != arrays[0].dtype:
            raise ValueError(f"its level {dataset['path']} has other axes or samples than the first")
    return arrays, axes, microns_of_zarr(image, axes)
