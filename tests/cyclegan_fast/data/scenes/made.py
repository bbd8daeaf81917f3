"""Makes scenes whose values tell where a crop was cut from, and stained tissue on glass."""

from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.scenes.data_mask import DataMask
from tests.cyclegan_fast.images.scenes.made import make_pyramid

TILES: dict[str, Any] = {"tile": (32, 48), "compression": "zlib"}


def places(height: int, width: int, *, dtype: str = "uint16", number: int = 0) -> SampleArray:
    """Return samples [H, W, 3]: the row, the column and the number of the scene."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number)], -1).astype(dtype)


def disc(height: int, width: int, *, radius: float) -> np.ndarray:
    """Return where there is a disc in the middle, bool [H, W]."""
    rows, columns = np.mgrid[:height, :width]
    inside: np.ndarray = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2
    return inside


def tissue(side: int, seed: int, *, radius: float) -> SampleArray:
    """Return stained tissue on glass, uint8 [side, side, 3]."""
    random = np.random.default_rng(seed)
    samples = random.integers(236, 244, (side, side, 3), dtype=np.uint8)
    stained = disc(side, side, radius=radius)
    colour = [(170, 90, 160), (90, 140, 60)][seed % 2]
    samples[stained] = np.array(colour) + random.integers(-20, 20, (stained.sum(), 3))
    return samples


def write_scene(path: Path, samples: SampleArray, **options: Any) -> SampleArray:
    """Write samples as tiles with two smaller levels; return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_picture = samples.dtype == np.uint8 and samples.shape[-1] == 3
    kind = {"photometric": "rgb"} if is_picture else {"photometric": "minisblack", "planarconfig": "contig"}
    make_pyramid(path, samples, **TILES | kind | options)
    return samples


def share_of(mask: DataMask, top: int, left: int, side: int) -> float:
    """Return which part of a crop has data, by the function that is documented for it."""
    return mask.fraction(slice(top, top + side), slice(left, left + side))
