"""Defines `Images`, a list of one domain's images, in memory or selected from another; image_folder.py reads files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cyclegan_fast.images.pixel_type import SampleArray

SAMPLED = 64  # the number of files that `digest_of_middles` reads
SAMPLED_BYTES = 1 << 16


class Images(Protocol):
    """Holds the prepared images of one domain, [H, W, C] in the type of its samples, before crop and flip."""

    @property
    def names(self) -> Sequence[str]:
        """Names that tell this list of images from another; where the images are files, with their sizes."""

    def content(self) -> str:
        """Return a digest of some files' content, as other files can have the same names and sizes; "" of no files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SampleArray: ...


class ImageArray:
    """Holds a domain that is in memory already, [N, H, W, C], uint8 of RGB as a rule."""

    def __init__(self, pixels: SampleArray, name: str) -> None:
        self.pixels = pixels
        self.names = [f"{name}_{index:04d}" for index in range(len(pixels))]

    def content(self) -> str:
        return ""  # no files

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> SampleArray:
        image: SampleArray = self.pixels[index]
        return image


class Selected:
    """Selects some images of a list, in an order of their own."""

    def __init__(self, images: Images, places: Sequence[int]) -> None:
        self.images = images
        self.places = places

    @property
    def names(self) -> Sequence[str]:
        return [self.images.names[place] for place in self.places]

    def content(self) -> str:
        return self.images.content()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> SampleArray:
        return self.images[self.places[index]]


def digest_of_middles(paths: Sequence[Path]) -> str:
    """Return a digest of the middle of up to SAMPLED files, spread evenly over all.

    Reading more files, or whole ones, would cost as much as decoding, at every start that finds the pixels on disk.
    """
    digest = hashlib.sha256()
    for index in np.linspace(0, len(paths) - 1, min(SAMPLED, len(paths))).astype(int):
        with open(paths[index], "rb") as file:
            file.seek(max(0, paths[index].stat().st_size - SAMPLED_BYTES) // 2)
            digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]
