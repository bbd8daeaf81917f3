"""Reads regions of the slides of microscopes' makers, by the package openslide."""

from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_fast.images.levels import over_white
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.scenes.resolution import microns_of
from cyclegan_fast.images.scenes.scene import Scene, SceneLayout

SLIDE_ENDINGS = (".bif", ".mrxs", ".ndpi", ".scn", ".svslide", ".vms", ".vmu")
"""Endings of files that OpenSlide reads; its other ones, .svs and .tif, are read as the TIFF that they are."""


class SlideScene(Scene):
    """Reads regions of a slide as 8-bit RGB; where nothing was scanned, it is white.

    Raises ValueError without the package.
    """

    def __init__(self, path: Path) -> None:
        try:
            import openslide
        except ModuleNotFoundError as error:
            raise ValueError(
                "slides of this kind are read with openslide, which is not installed: pip install openslide-python "
                "openslide-bin"
            ) from error
        self._slide: Any = openslide.OpenSlide(str(path))
        levels = tuple((height, width) for width, height in self._slide.level_dimensions)
        microns = microns_of(self._slide.properties.get("openslide.mpp-x"), "µm")
        layout = SceneLayout(levels, 3, np.dtype(np.uint8), 8, is_colour=True, microns_per_pixel=microns)
        super().__init__(path, layout)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def _read(self, top: int, left: int, height: int, width: int, level: int) -> SampleArray:
        scale = self._slide.level_downsamples[level]
        place = round(left * scale), round(top * scale)  # OpenSlide takes it in pixels of the largest level
        pixels = np.asarray(self._slide.read_region(place, level, (width, height)))
        return over_white(pixels[..., :3], pixels[..., 3], associated=False)
