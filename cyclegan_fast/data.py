"""Unpaired images of two domains as batches in [-1, 1].

Every random decision about an image is a function of (seed, epoch, index): it does not depend on the number of workers,
nor on how far one of them has read ahead, and an epoch can be entered at any step.
"""

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from cyclegan_fast import sample_photos
from cyclegan_fast.batch import Batch, Cut
from cyclegan_fast.config import CROPPING, DataConfig
from cyclegan_fast.domains import DomainReader, Preparation, TestSets, embedded_test_sets, place_of
from cyclegan_fast.errors import UserError
from cyclegan_fast.image_folder import ImageArray, Images
from cyclegan_fast.pixels import Pixels
from cyclegan_fast.prefetch import ahead


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
class Data:
    """What a run trains on and is scored on, and what the user should know of it."""

    training: UnpairedImages
    tests: TestSets
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
    missing = [name for name in ("trainA", "trainB") if not place_of(root, name)[0].is_dir()]
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
        photos = sample_photos.make_training(config.load_size)
        training = unpaired(ImageArray(photos.photographs, "A"), ImageArray(photos.drawings, "B"))
        tests = embedded_test_sets(config.crop_size)
        return Data(training, tests, [])
    reader = DomainReader(config, sharers=ranks)
    prepare = Preparation(config.preprocess, config.load_size, config.crop_size)
    images_A, images_B = reader.open("trainA", prepare), reader.open("trainB", prepare)
    tests = reader.test_sets()
    warnings = [*reader.warnings(), *([tests.note] if tests.note else [])]
    return Data(unpaired(images_A, images_B), tests, warnings)
