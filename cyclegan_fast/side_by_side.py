"""The layout of pix2pix's data sets (Isola et al. 2017): each file shows a pair, A on the left and B on the right.

The files are in train/, and those to test with in test/ or else in val/.
"""

from pathlib import Path

from cyclegan_fast.image_files import has_images
from cyclegan_fast.images import Half

HALVES: dict[str, Half] = {"A": "left", "B": "right"}
TRAINING = "train"
TESTING = ("test", "val")


def is_side_by_side(root: Path) -> bool:
    """Whether `root` has images in train/, and no folder of a domain of its own: where it has one, that counts."""
    domains = (root / f"{split}{domain}" for split in ("train", "test") for domain in HALVES)
    return not any(folder.is_dir() for folder in domains) and has_images(root / TRAINING)


def testing_folder(root: Path) -> Path:
    """The first one that has images."""
    return next((root / name for name in TESTING if has_images(root / name)), root / TESTING[0])
