"""Reads image files for tests that compare levels with their definition."""

from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_fast.images.files import read_image


def read(path: Path, **options: Any) -> np.ndarray:
    """Return the levels of a file as `read_image` gives them, float64 [H, W, 3] from 0 to 255."""
    image = read_image(path, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(float)
