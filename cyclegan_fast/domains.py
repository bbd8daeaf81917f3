"""The folders of a data set: which images they have, how these are prepared, and which of them are pairs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from cyclegan_fast import sample_photos
from cyclegan_fast.cityscapes import Labels, best_of, is_cityscapes, read_labels
from cyclegan_fast.config import SMALLEST_SIDE, DataConfig, Preprocess
from cyclegan_fast.errors import UserError
from cyclegan_fast.image_folder import ImageArray, ImageFolder, Images, Selected
from cyclegan_fast.images import find_images
from cyclegan_fast.networks import DOWNSAMPLING
from cyclegan_fast.pairs import match, names_say_pairs, pair_key
from cyclegan_fast.pixel_cache import default_cache_dir
from cyclegan_fast.street_scenes import MARK as STREETS

CITYSCAPES = {
    "trainA": ("leftImg8bit/train", "_leftImg8bit"),
    "trainB": ("gtFine/train", "_gtFine_color"),
    "testA": ("leftImg8bit/val", "_leftImg8bit"),
    "testB": ("gtFine/val", "_gtFine_color"),
}
"""Where Cityscapes' archives have what trainA and the others are elsewhere, and how its files' names end."""


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


@dataclass(frozen=True)
class HeldOut:
    """Held-out images of one domain, all [crop_size, crop_size, 3], and their known translation where there is one."""

    images: Images
    truth: Images | None = None


def place_of(root: Path, name: str) -> tuple[Path, str]:
    """The folder of "trainA", "trainB", "testA" or "testB", and the ending of its images' names."""
    if is_cityscapes(root):
        folder, ending = CITYSCAPES[name]
        return root / folder, ending
    return root / name, ""


class DomainReader:
    """Opens the folders of a data set one after another, within one budget of memory.

    Args:
        config: its `data`, `cache_gib`, `cache_dir`, `workers` and `strict` count.
        sharers: processes that share the memory of the machine.
    """

    def __init__(self, config: DataConfig, sharers: int = 1) -> None:
        assert config.data is not None
        self.root, self.config = config.data, config
        gib = config.cache_gib
        self.cache_bytes = available_bytes() // 2 // sharers if gib is None else int(gib * 2**30)
        self.opened: list[ImageFolder] = []

    def open(self, name: str, prepare: Preparation) -> ImageFolder:
        folder, ending = place_of(self.root, name)
        opened = ImageFolder(
            folder,
            prepare,
            cache_bytes=self.cache_bytes,
            cache_dir=self.config.cache_dir or default_cache_dir(),
            workers=self.config.workers,
            strict=self.config.strict,
            ending=ending,
        )
        self.cache_bytes -= opened.memory_bytes
        self.opened.append(opened)
        return opened

    def warnings(self) -> list[str]:
        unreadable = [line for folder in self.opened for line in folder.unreadable]
        warnings = [f"skipped {line}" for line in unreadable]
        if unreadable:
            warnings.append(f"skipped {len(unreadable)} unreadable images; --strict refuses them")
        return warnings + [folder.note for folder in self.opened if folder.note]

    def test_sets(self) -> "TestSets":
        """testA and testB as far as they are there, resized to the crop's square, with the truth if they are pairs.

        Raises UserError where they must be pairs (`pairs` is "yes") and are not.
        """
        prepare = held_out_preparation(self.config.crop_size)
        found = {
            name: self.open(name, prepare) for name in ("testA", "testB") if find_images(place_of(self.root, name)[0])
        }
        A, B = found.get("testA"), found.get("testB")
        paired, note = self._are_pairs(A, B)
        if A is None or B is None or not paired:
            return TestSets(HeldOut(A) if A else None, HeldOut(B) if B else None, note)
        partners = Selected(B, match(A.files, B.files, A.folder, B.folder))
        return TestSets(HeldOut(A, partners), HeldOut(partners, A), note)  # both in the order of A

    def _are_pairs(self, A: ImageFolder | None, B: ImageFolder | None) -> tuple[bool, str | None]:
        wanted = self.config.pairs
        if A is None or B is None:
            if wanted == "yes":
                raise UserError(f"{self.root} needs images in both testA and testB, which are to be pairs")
            return False, None
        if wanted != "auto":
            return wanted == "yes", None
        if is_cityscapes(self.root) or (self.root / STREETS).exists() or names_say_pairs(A.files, B.files):
            return True, None
        if {*map(pair_key, A.files)} == {*map(pair_key, B.files)}:
            return (
                False,
                f"testA and testB of {self.root} have the same names: if they are pairs, --pairs yes scores them",
            )
        return False, None


@dataclass(frozen=True)
class TestSets:
    """The held-out images of both domains, None where there are none, and a remark for the user."""

    A: HeldOut | None
    B: HeldOut | None
    note: str | None = None

    __test__ = False  # not for pytest


def embedded_test_sets(size: int) -> TestSets:
    held_out = sample_photos.make_test(size)
    photographs, drawings = ImageArray(held_out.photographs, "A"), ImageArray(held_out.drawings, "B")
    return TestSets(HeldOut(photographs, truth=drawings), HeldOut(drawings))


def open_test_sets(config: DataConfig) -> tuple[TestSets, list[str]]:
    """The test images of `config.data`, or the embedded ones, and what the user should know of them.

    Raises UserError where there are none.
    """
    if config.data is None:
        return embedded_test_sets(config.crop_size), []
    if not config.data.is_dir():
        raise UserError(f"--data {config.data}: no such folder")
    reader = DomainReader(config)
    tests = reader.test_sets()
    if tests.A is None and tests.B is None:
        raise UserError(f"--data {config.data} has no images in testA or testB: nothing to score")
    return tests, [*reader.warnings(), *([tests.note] if tests.note else [])]


def label_maps(tests: TestSets, size: int) -> dict[str, Labels]:
    """Train ids [N, size, size] of the test images: of "B", which are label maps, and of "A" where they are pairs.

    Raises UserError where domain B has none, or holds something else.
    """
    maps = tests.B.images if tests.B is not None else None
    paired = isinstance(maps, Selected)  # in the order of their photographs
    folder = maps.images if isinstance(maps, Selected) else maps
    if maps is None or not isinstance(folder, ImageFolder):
        raise UserError("labels are read from the files in testB: --data needs a folder with label maps there")
    places = maps.places if isinstance(maps, Selected) else range(len(folder.paths))
    labels = np.stack([read_labels(best_of(folder.paths[place]), size) for place in places])
    return {"B": labels, "A": labels} if paired else {"B": labels}


def available_bytes() -> int:
    """Memory that is free now, on the machine and in the container that this process runs in (control groups v2)."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return free  # no such limit here
    return free if limit == "max" else min(free, max(0, int(limit) - int(used)))
