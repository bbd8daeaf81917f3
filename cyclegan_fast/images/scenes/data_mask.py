"""Tells where in a scene there is tissue or data, and where empty glass or a border without values."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.scenes.scene import Scene

MASK_PIXELS = 2**22
_BAND_ROWS = 256
_BINS = 256
_LEAST_SATURATION = 0.05  # below it, nothing that was stained stands out from glass


class DataMask(NamedTuple):
    """Holds a mask, bool [h, w], of a scene of `height` x `width` pixels."""

    mask: npt.NDArray[np.bool_]
    height: int
    width: int

    def fraction(self, rows: slice, columns: slice) -> float:
        """Return which part of a region of the largest level has data; its slices have a start and a stop."""
        down, across = self.mask.shape[0] / self.height, self.mask.shape[1] / self.width
        top, left = int(rows.start * down), int(columns.start * across)
        bottom, right = max(top + 1, round(rows.stop * down)), max(left + 1, round(columns.stop * across))
        return float(self.mask[top:bottom, left:right].mean())


def data_mask(scene: Scene, level: int | None = None) -> DataMask:
    """Return where a scene has data, at a level, by default the largest one of at most 4 million pixels.

    Of 8-bit colours it is what Otsu's threshold (1979) on saturation separates from the glass. Elsewhere, and where the
    file says which place on the Earth it shows, it is all but NaN, the file's value for no data, and a border of one
    value that all of the outermost pixels have. A scene without a small level is read in bands of rows, of which each
    n-th pixel is taken.
    """
    return DataMask(has_data(small_samples(scene, level), scene), *scene.levels[0])


def small_samples(scene: Scene, level: int | None = None) -> SampleArray:
    """Return the samples that `data_mask` looks at, [h, w, C], as the scene has them."""
    if level is None:
        small = [index for index, (height, width) in enumerate(scene.levels) if height * width <= MASK_PIXELS]
        level = small[0] if small else len(scene.levels) - 1
    height, width = scene.levels[level]
    step = 1
    while (height // step) * (width // step) > MASK_PIXELS:
        step += 1
    bands, at_once = [], max(step, _BAND_ROWS // step * step)
    for top in range(0, height, at_once):
        rows = min(at_once, height - top)
        bands.append(scene.read(top, 0, rows, width, level)[::step, ::step].copy())
    return np.concatenate(bands)


def has_data(samples: SampleArray, scene: Scene) -> npt.NDArray[np.bool_]:
    """Return where samples of a scene, [h, w, C], are tissue or data, as `data_mask` says it."""
    is_photograph = scene.layout.is_colour and samples.dtype == np.uint8 and not scene.layout.place.tags
    return _stained(samples) if is_photograph else _has_value(samples, scene)


def _stained(samples: SampleArray) -> npt.NDArray[np.bool_]:
    colours = samples[..., :3]
    greatest, least = colours.max(-1).astype(np.float32), colours.min(-1)
    saturation = (greatest - least) / np.maximum(greatest, 1)
    if saturation.max() - saturation.min() < _LEAST_SATURATION:  # all glass, or all tissue of one stain
        return np.full(saturation.shape, bool(saturation.mean() > _LEAST_SATURATION))
    from skimage.filters import threshold_otsu  # brings scipy, which takes most of a second to import

    # The threshold is the middle of a histogram's bin, and the whole bin belongs to the glass.
    bin_width = float(saturation.max() - saturation.min()) / _BINS
    mask: npt.NDArray[np.bool_] = saturation > threshold_otsu(saturation, _BINS) + bin_width / 2
    return mask


def _has_value(samples: SampleArray, scene: Scene) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = np.ones(samples.shape[:2], bool)
    if samples.dtype.kind == "f":
        mask &= ~np.isnan(samples).any(-1)
    if scene.layout.place.no_data is not None:
        mask &= (samples != scene.layout.place.no_data).any(-1)
    corner = samples[0, 0]
    edges = (samples[0], samples[-1], samples[:, 0], samples[:, -1])
    if all(bool((edge == corner).all()) for edge in edges):
        from skimage.measure import label

        border = label((samples == corner).all(-1), connectivity=1)
        mask &= border != border[0, 0]
    return mask
