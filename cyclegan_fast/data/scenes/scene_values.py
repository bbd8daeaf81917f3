"""Gives the values of scenes, of which percentiles are taken."""

from pathlib import Path

import numpy as np

from cyclegan_fast.data.value_ranges import DomainFiles
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.scenes.data_mask import has_data, small_samples
from cyclegan_fast.images.scenes.opening import open_scene
from cyclegan_fast.images.unreadable import UnreadableImage


class DomainScenes(DomainFiles):
    """Names the scenes of a domain; their values are those of a small level, where it has tissue or data."""

    def values(self, path: Path) -> SampleArray | UnreadableImage:
        """Return the values of a scene's small level where there is data but those that are NaN, or the error."""
        low, high = (0, 1) if self.dtype == "float32" else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        try:
            with open_scene(path) as scene:
                samples = small_samples(scene)
                converted = scene.converted(samples, PixelType(self.channels, self.dtype, low, high)).values[0]
                values: SampleArray = converted[has_data(samples, scene)].ravel()
        except UnreadableImage as error:
            return error
        if values.dtype.kind == "f":
            values = values[~np.isnan(values)]
        return values
