"""Makes smooth random pictures, which JPEG and resizing change as little as a photograph, and reads picture files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_fast.images.pixels import Pixels


def photo(side: int, seed: int) -> Image.Image:
    """Return a smooth square picture, the same for a seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def draw(path: Path, width: int = 48, height: int = 40, seed: int = 0) -> Path:
    """Write a smooth picture, and the folders above it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def draw_all(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> Path:
    """Write smooth pictures of these widths and heights, by their paths below the folder, each another."""
    for seed, (name, (width, height)) in enumerate(sizes.items(), 1):
        draw(folder / name, width, height, seed)
    return folder


def pixels_of(path: Path) -> Pixels:
    """Return an image file's pixels, uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def names(folder: Path) -> set[str]:
    """Return the paths of all files below a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
