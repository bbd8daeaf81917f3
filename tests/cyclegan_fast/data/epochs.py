"""Opens small data sets, and compares the epochs that training reads of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.data.training_images import Data, open_data

CONFIG = DataConfig(load_size=36, crop_size=32, workers=0)
Batches = list[tuple[np.ndarray, np.ndarray]]
"""An epoch: of each step the images of A and those of B"""


def opened(root: Path, seed: int = 0, paired: bool = False, ranks: int = 1, rank: int = 0, **changes: object) -> Data:
    """Open a folder as training does, with changes to the options of `CONFIG`."""
    config = replace(CONFIG, data=root, **changes)  # type: ignore[arg-type]
    return open_data(config, seed, paired=paired, rank=rank, ranks=ranks)


def assert_same(one: Batches, other: Batches) -> None:
    """Hold two epochs to be equal, image by image."""
    assert len(one) == len(other)
    for sides in zip(one, other, strict=True):
        for images, others in zip(*sides, strict=True):
            np.testing.assert_array_equal(images, others)


def no_image(path: Path) -> None:
    """Write a file that is no image."""
    path.write_text("not an image at all")
