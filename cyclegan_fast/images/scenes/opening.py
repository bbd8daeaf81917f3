"""Opens a scene, whatever its format."""

from pathlib import Path

from cyclegan_fast.images.folders import ending_of
from cyclegan_fast.images.formats.recognition import format_of_file
from cyclegan_fast.images.formats.stored import own_dtype
from cyclegan_fast.images.samples import FileKind
from cyclegan_fast.images.scenes.scene import CACHE_BYTES, Scene
from cyclegan_fast.images.scenes.slide_scene import SLIDE_ENDINGS, SlideScene
from cyclegan_fast.images.scenes.zarr_scene import ZarrScene, is_zarr
from cyclegan_fast.images.unreadable import UnreadableImage, reading

LARGE_PIXELS = 2**26
"""A TIFF with as many pixels is a scene, 8192 x 8192, also where it has neither tiles nor levels."""


def open_scene(path: Path, cache_bytes: int = CACHE_BYTES) -> Scene:
    """Open a file, or the folder of a Zarr, to read regions of it; use it in a `with` statement.

    Args:
        cache_bytes: the most that decoded tiles take which are kept; a row of them, where that is more.

    Raises UnreadableImage.
    """
    with reading(path):
        if is_zarr(path):
            return ZarrScene(path, cache_bytes)
        if ending_of(path.name) in SLIDE_ENDINGS:
            return SlideScene(path)
        if format_of_file(path) != "tiff":
            raise ValueError("regions are read of TIFF, Zarr and slides alone: save it as one of these")
        from cyclegan_fast.images.scenes.tiff_scene import TiffScene

        return TiffScene(path, cache_bytes)


def describe_scene(path: Path) -> FileKind:
    """Return what samples a scene has, as `describe_file` does for an image; raises UnreadableImage."""
    with open_scene(path) as scene:
        layout, (height, width) = scene.layout, scene.levels[0]
        return FileKind(
            frames=layout.images,
            height=height,
            width=width,
            channels=layout.channels,
            dtype=own_dtype(layout.dtype),
            is_colour=layout.is_colour,
            has_opacity=layout.has_opacity,
            is_georeferenced=bool(layout.place.tags),
        )


def is_scene(path: Path) -> bool:
    """Tell whether a path is that of a scene: a Zarr, a slide, or a TIFF with tiles, levels or very many pixels.

    A TIFF of a kind of which no regions are read is none. A damaged one is: whoever opens it learns what is wrong.
    """
    if is_zarr(path) or ending_of(path.name) in SLIDE_ENDINGS:
        return True
    try:
        with reading(path):
            if format_of_file(path) != "tiff":
                return False
            from cyclegan_fast.images.scenes.tiff_scene import NotByRegions, TiffScene

            try:
                with TiffScene(path) as scene:
                    height, width = scene.levels[0]
                    return scene.is_tiled or len(scene.levels) > 1 or height * width >= LARGE_PIXELS
            except NotByRegions:
                return False
    except UnreadableImage:
        return True
