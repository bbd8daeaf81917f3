"""Unpaired images of two domains as batches in [-1, 1].

Every random decision about an image is a function of (seed, epoch, index): it does not depend on the number of workers,
nor on how far one of them has read ahead, and an epoch can be entered at any step.
"""

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from cyclegan_fast import sample_photos
from cyclegan_fast.batch import Batch, Cut
from cyclegan_fast.config import CROPPING, SMALLEST_SIDE, DataConfig, Preprocess
from cyclegan_fast.errors import UserError
from cyclegan_fast.image_folder import ImageArray, ImageFolder, Images
from cyclegan_fast.images import find_images
from cyclegan_fast.networks import DOWNSAMPLING
from cyclegan_fast.pixel_cache import default_cache_dir
from cyclegan_fast.pixels import Pixels
from cyclegan_fast.prefetch import ahead


@dataclass(frozen=True)
class Preparation:
    """What is done to a training image once, before the random crop (bicubic, as the original does)."""

    preprocess: Preprocess
    load_size: int
    crop_size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if self.preprocess == "resize_and_crop":
            return resize(image, self.load_size, self.load_size)
        if self.preprocess in ("none", "scale_width"):
            scale = self.load_size / width if self.preprocess == "scale_width" else 1.0
            sides = multiple_of_4(width * scale), multiple_of_4(height * scale)
            if min(sides) < SMALLEST_SIDE:
                raise ValueError(
                    f"becomes {sides[0]}x{sides[1]}, and a discriminator needs {SMALLEST_SIDE} pixels each way: use "
                    "--preprocess resize_and_crop"
                )
            return resize(image, *sides)
        if self.preprocess == "scale_width_and_crop":
            image = resize(image, self.load_size, max(round(self.load_size * height / width), self.crop_size))
        if min(image.size) < self.crop_size:
            raise ValueError(
                f"{image.width}x{image.height} is smaller than the crop of {self.crop_size}: lower --crop-size, "
                "or use --preprocess resize_and_crop"
            )
        return image


def held_out_preparation(size: int) -> Preparation:
    """Test images are resized to the training crop's square, not cropped and not flipped."""
    return Preparation("resize_and_crop", load_size=size, crop_size=size)


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def multiple_of_4(side: float) -> int:
    """The nearest side that two halvings divide, as the generator needs."""
    return round(side / DOWNSAMPLING) * DOWNSAMPLING


class UnpairedImages:
    """Two domains without pairs: an epoch visits every index of the larger one, in random order.

    With several `ranks`, each makes its own batches of one order of indices: a step takes `batch_size * ranks` indices,
    of which each rank gets `batch_size` in a row. So all ranks together see what one rank with a batch of that many
    images sees. The rest that is left for the last step is shared out equally; where it cannot be, the first indices of
    the epoch fill it up.

    Args:
        rank: which of the `ranks` this is, from 0.
        pin: gather batches in pinned memory, from where they are copied to a CUDA device while the host goes on.
    """

    def __init__(
        self,
        images_A: Images,
        images_B: Images,
        config: DataConfig,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        pin: bool = False,
    ) -> None:
        self.images_A = images_A
        self.images_B = images_B
        self.config = config
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.pin = pin
        listing = "\n".join([*images_A.names, "", *images_B.names])
        # Changes when files come, go, or become others: then a saved position in an epoch means nothing.
        self.fingerprint = hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]

    def __len__(self) -> int:
        return max(len(self.images_A), len(self.images_B))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self) / (self.config.batch_size * self.ranks))

    def pair(self, epoch: int, index: int) -> tuple[Cut, Cut]:
        """What `index` stands for in `epoch`: of A the image at the index modulo |A|, of B one drawn at random."""
        random = np.random.default_rng([self.seed, epoch, 1, index])
        pixels_A = self.images_A[index % len(self.images_A)]
        pixels_B = self.images_B[int(random.integers(len(self.images_B)))]
        return self._cut(pixels_A, random), self._cut(pixels_B, random)

    def _cut(self, pixels: Pixels, random: np.random.Generator) -> Cut:
        height, width = pixels.shape[:2]
        top = left = 0
        if self.config.preprocess in CROPPING:
            size = self.config.crop_size
            top, left = (int(random.integers(0, extent - size + 1)) for extent in (height, width))
            height = width = size
        cut = Cut(pixels, top, left, height, width, mirrored=self.config.flip and random.random() < 0.5)
        # Cut on the device only where all images have one size: so all batches of a run have one shape, as a CUDA graph
        # needs, and no large photograph is copied for a small window.
        return cut if self.config.preprocess == "resize_and_crop" else cut.alone()

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        cuts_A, cuts_B = zip(*(self.pair(epoch, index) for index in indices), strict=True)
        return Batch.of(cuts_A, cuts_B, pin=self.pin)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch, counted from 1, from `first_step` on; the last one may be smaller.

        With workers, threads prepare a few batches ahead.
        """
        groups = list(itertools.islice(self._groups(epoch), first_step, None))
        workers = self.config.workers
        if workers == 0:
            yield from (self.batch(epoch, group) for group in groups)
            return
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="images") as pool,
            closing(ahead(pool, lambda group: self.batch(epoch, group), groups, 2 * workers)) as batches,
        ):
            yield from batches

    def _groups(self, epoch: int) -> Iterator[list[int]]:
        """The indices of each step of this rank."""
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self))
        filled = np.resize(order, math.ceil(len(order) / self.ranks) * self.ranks).tolist()  # repeats the order
        step = self.config.batch_size * self.ranks
        for start in range(0, len(filled), step):
            together = filled[start : start + step]
            share = len(together) // self.ranks
            yield together[self.rank * share : (self.rank + 1) * share]


@dataclass(frozen=True)
class HeldOut:
    """Held-out images of one domain, all [crop_size, crop_size, 3], and their known translation where there is one."""

    images: Images
    truth: Images | None = None


@dataclass(frozen=True)
class Data:
    """What a run trains on and is scored on; `test_A` and `test_B` are None where there are no such images."""

    training: UnpairedImages
    test_A: HeldOut | None
    test_B: HeldOut | None
    warnings: list[str]


def check_data(config: DataConfig) -> None:
    """Refuse with UserError what can be seen at a glance, before anything is written or decoded."""
    root = config.data
    if root is None:
        if config.preprocess != "resize_and_crop":
            raise UserError(
                f"the embedded photographs come at one size: --preprocess {config.preprocess} needs --data FOLDER"
            )
        return
    if not root.is_dir():
        raise UserError(f"--data {root}: no such folder")
    missing = [name for name in ("trainA", "trainB") if not (root / name).is_dir()]
    if missing:
        found = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())) or "none"
        raise UserError(
            f"--data {root} needs the folders trainA and trainB; missing: {', '.join(missing)}; found: {found}"
        )


def open_data(config: DataConfig, seed: int, *, rank: int = 0, ranks: int = 1, pin: bool = False) -> Data:
    """The embedded photographs, or the folder `config.data`. Raises UserError where it cannot be trained on.

    `rank`, `ranks` and `pin` are those of UnpairedImages; the ranks are taken to share the memory of one machine.
    """
    check_data(config)

    def unpaired(images_A: Images, images_B: Images) -> UnpairedImages:
        return UnpairedImages(images_A, images_B, config, seed, rank=rank, ranks=ranks, pin=pin)

    if config.data is None:
        return _embedded(config, unpaired)
    cache_bytes = available_bytes() // 2 // ranks if config.cache_gib is None else int(config.cache_gib * 2**30)
    return _from_folder(config.data, config, cache_bytes, unpaired)


def _embedded(config: DataConfig, unpaired: Callable[[Images, Images], UnpairedImages]) -> Data:
    photos = sample_photos.make_training(config.load_size)
    held_out = sample_photos.make_test(config.crop_size)
    return Data(
        training=unpaired(ImageArray(photos.photographs, "A"), ImageArray(photos.drawings, "B")),
        test_A=HeldOut(ImageArray(held_out.photographs, "A"), truth=ImageArray(held_out.drawings, "B")),
        test_B=HeldOut(ImageArray(held_out.drawings, "B"), truth=None),
        warnings=[],
    )


def _from_folder(
    root: Path, config: DataConfig, cache_bytes: int, unpaired: Callable[[Images, Images], UnpairedImages]
) -> Data:
    training = Preparation(config.preprocess, config.load_size, config.crop_size)
    folders: dict[str, ImageFolder] = {}
    for name in ("trainA", "trainB", "testA", "testB"):
        if name.startswith("test") and not find_images(root / name):
            continue
        folders[name] = ImageFolder(
            root / name,
            training if name.startswith("train") else held_out_preparation(config.crop_size),
            cache_bytes=cache_bytes,
            cache_dir=config.cache_dir or default_cache_dir(),
            workers=config.workers,
            strict=config.strict,
        )
        cache_bytes -= folders[name].memory_bytes
    unreadable = [line for folder in folders.values() for line in folder.unreadable]
    warnings = [f"skipped {line}" for line in unreadable]
    if unreadable:
        warnings.append(f"skipped {len(unreadable)} unreadable images; --strict refuses them")
    warnings += [folder.note for folder in folders.values() if folder.note]
    return Data(
        training=unpaired(folders["trainA"], folders["trainB"]),
        test_A=HeldOut(folders["testA"]) if "testA" in folders else None,
        test_B=HeldOut(folders["testB"]) if "testB" in folders else None,
        warnings=warnings,
    )


def available_bytes() -> int:
    """Memory that is free now, on the machine and in the container that this process runs in (control groups v2)."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return free  # no such limit here
    return free if limit == "max" else min(free, max(0, int(limit) - int(used)))
