"""Unpaired images of two domains as batches in [-1, 1].

Every random decision about an image is a function of (seed, epoch, index): it does not depend on the number of workers,
nor on how far one of them has read ahead, and an epoch can be entered at any step.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cyclegan_fast import sample_photos
from cyclegan_fast.config import CROPPING, SMALLEST_SIDE, DataConfig
from cyclegan_fast.errors import UserError
from cyclegan_fast.images import Pixels, UnreadableImage, find_images, read_image, to_signed
from cyclegan_fast.networks import DOWNSAMPLING
from cyclegan_fast.prefetch import ahead


class Images(Protocol):
    """One domain: prepared images, uint8 [H, W, 3], before crop and flip."""

    @property
    def names(self) -> Sequence[str]:
        """What tells one list of images from another: names, and sizes where they are files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pixels: ...


class ImageArray:
    """A domain that is in memory already, uint8 [N, H, W, 3]."""

    def __init__(self, pixels: Pixels, name: str) -> None:
        self.pixels = pixels
        self.names = [f"{name}_{index:04d}" for index in range(len(pixels))]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Pixels:
        image: Pixels = self.pixels[index]
        return image


class ImageFolder:
    """A domain read from files, each decoded and prepared once and kept as long as `cache_bytes` lasts.

    All files are decoded when the object is made, so that one that cannot be read is found before training and not in
    its middle: it is left out and named in `unreadable`, or with `strict` refused.

    Args:
        folder: searched with its subfolders.
        prepare: resizes a decoded image.
        cache_bytes: memory for prepared images; later ones are decoded again at each use.
        workers: threads to decode with; Pillow decodes and resizes outside Python's lock.

    Raises UserError for a missing folder, one without images, or an unreadable image with `strict`.
    """

    def __init__(
        self,
        folder: Path,
        prepare: Callable[[Image.Image], Image.Image],
        *,
        cache_bytes: int,
        workers: int,
        strict: bool,
    ) -> None:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: put images of this domain there")
        candidates = find_images(folder)
        if not candidates:
            raise UserError(f"no images in {folder}")
        self.prepare = prepare
        self.paths: list[Path] = []
        self.unreadable: list[str] = []
        self._cache: dict[int, Pixels] = {}
        self.cached_bytes = 0
        with ThreadPoolExecutor(max(1, workers)) as pool:
            results = pool.map(self._try_to_decode, candidates)
            progress = tqdm(results, total=len(candidates), desc=f"reading {folder.name}", unit="image", leave=False)
            for path, result in zip(candidates, progress, strict=True):
                self._take(path, result, cache_bytes, strict)
        if not self.paths:
            raise UserError(
                f"none of the {len(candidates)} images in {folder} can be read; the first: {self.unreadable[0]}"
            )
        self.names = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in self.paths]

    def _take(self, path: Path, result: Pixels | UnreadableImage, cache_bytes: int, strict: bool) -> None:
        if isinstance(result, UnreadableImage):
            if strict:
                raise UserError(f"{result} (leave --strict out to skip such files)")
            self.unreadable.append(str(result))
            return
        if self.cached_bytes + result.nbytes <= cache_bytes:
            self._cache[len(self.paths)] = result
            self.cached_bytes += result.nbytes
        self.paths.append(path)

    def _try_to_decode(self, path: Path) -> Pixels | UnreadableImage:
        try:
            return self._decode(path)
        except UnreadableImage as error:
            return error

    def _decode(self, path: Path) -> Pixels:
        image = read_image(path)
        try:
            return np.asarray(self.prepare(image))
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        cached = self._cache.get(index)
        return self._decode(self.paths[index]) if cached is None else cached


def preparation(config: DataConfig) -> Callable[[Image.Image], Image.Image]:
    """What is done to a training image once, before the random crop (bicubic, as the original does)."""

    def prepare(image: Image.Image) -> Image.Image:
        width, height = image.size
        if config.preprocess == "resize_and_crop":
            return resize(image, config.load_size, config.load_size)
        if config.preprocess in ("none", "scale_width"):
            scale = config.load_size / width if config.preprocess == "scale_width" else 1.0
            sides = multiple_of_4(width * scale), multiple_of_4(height * scale)
            if min(sides) < SMALLEST_SIDE:
                raise ValueError(
                    f"becomes {sides[0]}x{sides[1]}, and a discriminator needs {SMALLEST_SIDE} pixels each way: use "
                    "--preprocess resize_and_crop"
                )
            return resize(image, *sides)
        if config.preprocess == "scale_width_and_crop":
            image = resize(image, config.load_size, max(round(config.load_size * height / width), config.crop_size))
        if min(image.size) < config.crop_size:
            raise ValueError(
                f"{image.width}x{image.height} is smaller than the crop of {config.crop_size}: lower --crop-size, "
                "or use --preprocess resize_and_crop"
            )
        return image

    return prepare


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def multiple_of_4(side: float) -> int:
    """The nearest side that two halvings divide, as the generator needs."""
    return round(side / DOWNSAMPLING) * DOWNSAMPLING


@dataclass(frozen=True)
class Batch:
    """One step's images, uint8 [N, H, W, 3]: prepared on the host, made floating point on the device."""

    pixels_A: Tensor
    pixels_B: Tensor

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """float32 [N, 3, H, W] in [-1, 1] on `device`."""
        return (
            to_signed(self.pixels_A.to(device)),
            to_signed(self.pixels_B.to(device)),
        )


class UnpairedImages:
    """Two domains without pairs: an epoch visits every index of the larger one, in random order."""

    def __init__(self, images_A: Images, images_B: Images, config: DataConfig, seed: int) -> None:
        self.images_A = images_A
        self.images_B = images_B
        self.config = config
        self.seed = seed
        listing = "\n".join([*images_A.names, "", *images_B.names])
        # Changes when files come, go, or become others: then a saved position in an epoch means nothing.
        self.fingerprint = hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]

    def __len__(self) -> int:
        return max(len(self.images_A), len(self.images_B))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self) / self.config.batch_size)

    def pair(self, epoch: int, index: int) -> tuple[Pixels, Pixels]:
        """The images that `index` stands for in `epoch`: A is the index modulo |A|, B is drawn at random."""
        random = np.random.default_rng([self.seed, epoch, 1, index])
        pixels_A = self.images_A[index % len(self.images_A)]
        pixels_B = self.images_B[int(random.integers(len(self.images_B)))]
        return self._augment(pixels_A, random), self._augment(pixels_B, random)

    def _augment(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        if self.config.preprocess in CROPPING:
            size = self.config.crop_size
            top, left = (int(random.integers(0, extent - size + 1)) for extent in pixels.shape[:2])
            pixels = pixels[top : top + size, left : left + size]
        if self.config.flip and random.random() < 0.5:
            pixels = pixels[:, ::-1]
        return pixels

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        pairs = [self.pair(epoch, index) for index in indices]
        return Batch(
            pixels_A=torch.from_numpy(np.stack([a for a, _ in pairs])),
            pixels_B=torch.from_numpy(np.stack([b for _, b in pairs])),
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 1, from `first_step` on; the last one may be smaller.

        With workers, threads prepare a few batches ahead.
        """
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self)).tolist()
        size = self.config.batch_size
        groups = [order[start : start + size] for start in range(first_step * size, len(order), size)]
        workers = self.config.workers
        if workers == 0:
            yield from (self.batch(epoch, group) for group in groups)
            return
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="images") as pool,
            closing(ahead(pool, lambda group: self.batch(epoch, group), groups, 2 * workers)) as batches,
        ):
            yield from batches


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


def open_data(config: DataConfig, seed: int) -> Data:
    """The embedded photographs, or the folder `config.data`. Raises UserError where it cannot be trained on."""
    check_data(config)
    return _embedded(config, seed) if config.data is None else _from_folder(config.data, config, seed)


def _embedded(config: DataConfig, seed: int) -> Data:
    photos = sample_photos.make_training(config.load_size)
    held_out = sample_photos.make_test(config.crop_size)
    return Data(
        training=UnpairedImages(ImageArray(photos.photographs, "A"), ImageArray(photos.drawings, "B"), config, seed),
        test_A=HeldOut(ImageArray(held_out.photographs, "A"), truth=ImageArray(held_out.drawings, "B")),
        test_B=HeldOut(ImageArray(held_out.drawings, "B"), truth=None),
        warnings=[],
    )


def _from_folder(root: Path, config: DataConfig, seed: int) -> Data:
    remaining = available_bytes() // 2 if config.cache_gib is None else int(config.cache_gib * 2**30)
    folders: dict[str, ImageFolder] = {}
    for name in ("trainA", "trainB", "testA", "testB"):
        if name.startswith("test") and not find_images(root / name):
            continue
        folders[name] = ImageFolder(
            root / name,
            preparation(config) if name.startswith("train") else held_out_preparation(config.crop_size),
            cache_bytes=remaining,
            workers=config.workers,
            strict=config.strict,
        )
        remaining -= folders[name].cached_bytes
    unreadable = [line for folder in folders.values() for line in folder.unreadable]
    warnings = [f"skipped {line}" for line in unreadable]
    if unreadable:
        warnings.append(f"skipped {len(unreadable)} unreadable images; --strict refuses them")
    return Data(
        training=UnpairedImages(folders["trainA"], folders["trainB"], config, seed),
        test_A=HeldOut(folders["testA"]) if "testA" in folders else None,
        test_B=HeldOut(folders["testB"]) if "testB" in folders else None,
        warnings=warnings,
    )


def held_out_preparation(size: int) -> Callable[[Image.Image], Image.Image]:
    """Test images are resized to the training crop's square, not cropped and not flipped."""
    return lambda image: resize(image, size, size)


def available_bytes() -> int:
    """Memory that is free now, on the machine and in the container that this process runs in (control groups v2)."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return free  # no such limit here
    return free if limit == "max" else min(free, max(0, int(limit) - int(used)))
