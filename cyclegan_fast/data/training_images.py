"""Draws batches of training images of two domains, unpaired or in pairs.

Every random decision about an image is a function of (seed, epoch, index): it does not depend on the number of workers,
nor on how far one of them has read ahead, and an epoch can be entered at any step.
"""

import hashlib
import itertools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from cyclegan_fast.config.options import CROPPING, DataConfig
from cyclegan_fast.data.batch import Batch, Cut
from cyclegan_fast.data.built_in import built_in_tests, built_in_training, check_built_in
from cyclegan_fast.data.domains import DomainReader
from cyclegan_fast.data.image_lists import Images
from cyclegan_fast.data.known_pixels import lines_on_pixels
from cyclegan_fast.data.layouts import check_partners, training_places
from cyclegan_fast.data.scenes.checks import check_pairs_are_no_scenes
from cyclegan_fast.data.scenes.crops import RandomCrops
from cyclegan_fast.data.test_sets import TestSets
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.fault_points import fault_point
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.system.words import counted


class TrainingImages(ABC):
    """Draws batches of two domains: an epoch visits every index once, in random order.

    Subclasses say which images an index stands for. With several `ranks`, each makes its own batches of one order of
    indices: a step takes `batch_size * ranks` indices, of which each rank gets `batch_size` in a row. So all ranks
    together see what one rank with a batch of that many images sees. The rest that is left for the last step is shared
    out equally; where it cannot be, the first indices of the epoch fill it up.

    Args:
        rank: the number of this process among the `ranks`, from 0.
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
        # It changes when files come, go, or become others: then a saved position in an epoch means nothing.
        self.fingerprint = hashlib.sha256(os.fsencode("\n".join(self._listing()))).hexdigest()[:16]
        # Names and sizes do not tell data sets apart that have uncompressed images of one size.
        self.content = f"{images_A.content()} {images_B.content()}"

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of indices in an epoch."""

    @abstractmethod
    def pair(self, epoch: int, index: int) -> tuple[Cut, Cut]:
        """Return the images of A and of B that `index` stands for in `epoch`, with their windows."""

    @abstractmethod
    def _listing(self) -> list[str]:
        """Return the names of the images, in lines that also say which of them belong together."""

    @property
    def counts(self) -> str:
        """Return how many images each domain has, or crops of scenes in an epoch."""
        domains = {"A": self.images_A, "B": self.images_B}
        nouns = {name: "crop" if isinstance(images, RandomCrops) else "image" for name, images in domains.items()}
        return ", ".join(f"{counted(len(images), nouns[name])} {name}" for name, images in domains.items())

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch; the last one may have smaller batches."""
        return math.ceil(len(self) / (self.config.batch_size * self.ranks))

    @property
    def images_in_last_batch(self) -> int:
        """Number of images of a domain in this rank's last batch of an epoch, where it is a smaller one; else 0."""
        return math.ceil(len(self) / self.ranks) % self.config.batch_size

    def _random(self, epoch: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, 1, index])

    def _image(self, images: Images, place: int, random: np.random.Generator) -> SampleArray:
        """Return an image of a domain: the one at a place, or of scenes a random crop."""
        return images.drawn(random) if isinstance(images, RandomCrops) else images[place]

    def _cut(self, pixels: SampleArray, random: np.random.Generator) -> Cut:
        """Draw a random window of an image, and whether it is mirrored."""
        height, width = pixels.shape[:2]
        top = left = 0
        if self.config.preprocess in CROPPING:
            size = self.config.crop_size
            top, left = (int(random.integers(0, extent - size + 1)) for extent in (height, width))
            height = width = size
        return Cut(pixels, top, left, height, width, mirrored=self.config.flip and random.random() < 0.5)

    def _ready(self, cut: Cut) -> Cut:
        # Windows are cut out on the device only where all images have one size: so all batches of a run have one shape,
        # as a CUDA graph needs, and no large photograph is copied for a small window.
        return cut if self.config.preprocess == "resize_and_crop" else cut.alone()

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Gather the images that `indices` stand for in `epoch`."""
        fault_point("images", "in_worker")
        cuts_A, cuts_B = zip(*(self.pair(epoch, index) for index in indices), strict=True)
        return Batch.of(cuts_A, cuts_B, pin=self.pin)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch, counted from 1, from `first_step` on; the last one may be smaller.

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
        """Yield the indices of each step of this rank."""
        random = np.random.default_rng([self.seed, epoch, 0])
        order = np.arange(len(self)) if self.config.serial else random.permutation(len(self))
        filled = np.resize(order, math.ceil(len(order) / self.ranks) * self.ranks).tolist()  # repeats the order
        step = self.config.batch_size * self.ranks
        for start in range(0, len(filled), step):
            together = filled[start : start + step]
            share = len(together) // self.ranks
            yield together[self.rank * share : (self.rank + 1) * share]


class UnpairedImages(TrainingImages):
    """Draws batches of two domains without pairs; the indices are those of the larger domain."""

    def __len__(self) -> int:
        return max(len(self.images_A), len(self.images_B))

    def pair(self, epoch: int, index: int) -> tuple[Cut, Cut]:
        """Return A's image at the index modulo |A| and one of B drawn at random, each with a window of its own.

        With `serial`, B's image is the one at the index modulo |B|. Of scenes, it is a crop drawn at random.
        """
        random = self._random(epoch, index)
        pixels_A = self._image(self.images_A, index % len(self.images_A), random)
        place_B = index % len(self.images_B) if self.config.serial else int(random.integers(len(self.images_B)))
        pixels_B = self._image(self.images_B, place_B, random)
        return self._ready(self._cut(pixels_A, random)), self._ready(self._cut(pixels_B, random))

    def _listing(self) -> list[str]:
        return [*self.images_A.names, "", *self.images_B.names]


class PairedImages(TrainingImages):
    """Draws batches of pairs: the images at one index are partners, of one size, and are cut and mirrored alike."""

    def __len__(self) -> int:
        return len(self.images_A)

    def pair(self, epoch: int, index: int) -> tuple[Cut, Cut]:
        """Return the partners at the index, with one window for both (Isola et al. 2017, section 6.2)."""
        cut_A = self._cut(self.images_A[index], self._random(epoch, index))
        cut_B = replace(cut_A, pixels=self.images_B[index])
        return self._ready(cut_A), self._ready(cut_B)

    def _listing(self) -> list[str]:
        return [f"{name_A}\t{name_B}" for name_A, name_B in zip(self.images_A.names, self.images_B.names, strict=True)]


@dataclass(frozen=True)
class Data:
    """Holds the images that a run trains on and is scored on, and lines for the user on them."""

    training: TrainingImages
    tests: TestSets
    warnings: list[str]


def check_data(config: DataConfig, *, paired: bool = False) -> None:
    """Raise UserError for faults of the data that can be seen at once, before anything is written or decoded.

    `paired` is that of `open_data`.
    """
    root = config.data
    if root is None or config.is_earth:
        check_built_in(config, paired=paired)
        return
    if not root.is_dir():
        raise UserError(f"--data {root}: no such folder")
    places = training_places(root, paired=paired)
    missing = [name for name, place in zip(("trainA", "trainB"), places, strict=True) if not place.folder.is_dir()]
    if missing:
        found = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())) or "none"
        raise UserError(
            f"--data {root} needs the folders trainA and trainB, or train with images that show A on the left and B on "
            f"the right; missing: {', '.join(missing)}; found: {found}"
        )
    if paired:
        check_pairs_are_no_scenes(places, config)
        check_partners(*places)


def open_data(
    config: DataConfig, seed: int, *, paired: bool = False, rank: int = 0, ranks: int = 1, pin: bool = False
) -> Data:
    """Open the folder `config.data`, or make a built-in data set; raises UserError for data to be mended.

    With `paired`, training images are pairs: files of one name, or images that stand side by side in one file. `rank`,
    `ranks` and `pin` are those of TrainingImages; the ranks are taken to share the memory of one machine.
    """
    check_data(config, paired=paired)

    def training(images_A: Images, images_B: Images) -> TrainingImages:
        kind = PairedImages if paired else UnpairedImages
        return kind(images_A, images_B, config, seed, rank=rank, ranks=ranks, pin=pin)

    if config.is_built_in:
        return Data(training(*built_in_training(config)), built_in_tests(config), [])
    reader = DomainReader(config, sharers=ranks)
    images = training(*(reader.training_pairs() if paired else reader.training_images()))
    tests = reader.test_sets()
    warnings = [*lines_on_pixels(config, paired=paired), *reader.warnings(), *([tests.note] if tests.note else [])]
    return Data(images, tests, warnings)
