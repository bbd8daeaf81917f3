"""Measures the data path alone, up to float tensors on the device: a batch at a time, ours and as the original does.

The original decodes each image anew, resizes it, crops, mirrors and scales it, in the worker processes of PyTorch's
DataLoader (Zhu et al. 2017's published code does this with torchvision; here Pillow and torch, which it calls).
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.measure.agreement import Disagreement
from bench.measure.contest import Case, Contest
from bench.measure.limits import UNBOUNDED
from bench.measure.timing import Contender
from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.data import sample_photos
from cyclegan_fast.data.training_images import Data, open_data
from cyclegan_fast.images.files import write_image
from cyclegan_fast.kernels.checking.accuracy import relative_error

_IMAGES = 32  # of each domain
LOAD_SIZE, CROP_SIZE = 286, 256
WORKERS = 2
LONG_TURN_S = 0.2
"""Seconds after which little is left in the workers' queues, which fill during opponents' turns."""
ORIGINAL_LOADER = f"as the original, DataLoader, {WORKERS} workers"

_Source = Literal["memory", "mapped file", "decoded each time"]


def write_folder(root: Path) -> Path:
    """Write a data set of JPEG files into the folder; return it."""
    photos = sample_photos.make_training(320, _IMAGES)
    for name, images in (("trainA", photos.photographs), ("trainB", photos.drawings)):
        (root / name).mkdir()
        for index, pixels in enumerate(images):
            write_image(pixels, root / name / f"{index:02}.jpg", quality=90)
    return root


def case(folder: Path, device: torch.device) -> Case:
    """Return the case of one batch of one image of each domain."""
    what, make = "JPEG of 320x320 to a batch on the device", partial(_contest, folder, device)
    return Case.of_images("data", what, 1, CROP_SIZE, torch.float32, UNBOUNDED, make)


def _contest(folder: Path, device: torch.device) -> Contest:
    sources: dict[str, tuple[_Source, int]] = {
        f"ours, {source}, {workers} workers": (source, workers)
        for source in ("memory", "mapped file", "decoded each time")
        for workers in (0, WORKERS)
    }
    opened = {
        name: open_data(config_for(source, folder, workers), seed=0, pin=device.type == "cuda")
        for name, (source, workers) in sources.items()
    }
    ours = f"ours, memory, {WORKERS} workers"
    check_preparation(opened[ours], folder)
    calls = {name: _next_of(_our_batches(data, device)) for name, data in opened.items()}
    calls[ORIGINAL_LOADER] = _next_of(_their_batches(folder, device))
    return Contest(
        contenders={name: Contender([call]) for name, call in calls.items()},
        ours=ours,
        plain=ORIGINAL_LOADER,
        shortest_turn_s=LONG_TURN_S,
    )


def config_for(source: _Source, folder: Path, workers: int) -> DataConfig:
    """Return the options under which training takes its images from that source."""
    config = DataConfig(data=folder, workers=workers, cache_dir=folder / "cache")
    if source == "memory":
        return config
    if source == "mapped file":
        return replace(config, cache_gib=0)
    no_folder = folder / "no folder"
    no_folder.touch()
    return replace(config, cache_gib=0, cache_dir=no_folder)


def as_the_original(path: Path, top: int, left: int, mirrored: bool) -> Tensor:
    """Return a file prepared by Pillow, step after step: float32 [3, H, W] in [-1, 1]."""
    image = Image.open(path).convert("RGB").resize((LOAD_SIZE, LOAD_SIZE), Image.Resampling.BICUBIC)
    image = image.crop((left, top, left + CROP_SIZE, top + CROP_SIZE))
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)


def check_preparation(data: Data, folder: Path) -> None:
    """Check that ours, with its random decisions handed over, is what the original makes of one of the files.

    Raises Disagreement where it is not.
    """
    batch = next(iter(data.training.epoch(1)))
    found = batch.to(torch.device("cpu"))[0][0]
    top, left, mirrored = batch.crops_A[0].tolist()
    files = sorted((folder / "trainA").iterdir())
    nearest = min(relative_error(found, as_the_original(file, top, left, bool(mirrored))) for file in files)
    if nearest > 1e-5:
        raise Disagreement(f"our batch is off by {nearest:.2g} of its size from every file of {folder / 'trainA'}")


class OriginalImages(Dataset[tuple[Tensor, Tensor]]):
    """Reads two folders as the original does: the partner of an image is drawn at random."""

    def __init__(self, folder: Path) -> None:
        self.files = [sorted((folder / name).iterdir()) for name in ("trainA", "trainB")]

    def __len__(self) -> int:
        return 1 << 30  # endless, so that no worker is started again

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        first, second = self.files
        partner = int(torch.randint(len(second), ()))
        return self._prepared(first[index % len(first)]), self._prepared(second[partner])

    def _prepared(self, file: Path) -> Tensor:
        top, left = torch.randint(LOAD_SIZE - CROP_SIZE + 1, (2,)).tolist()
        return as_the_original(file, top, left, bool(torch.rand(()) < 0.5))


def _our_batches(data: Data, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in itertools.count(1):
        for batch in data.training.epoch(epoch):
            yield batch.to(device)


def _their_batches(folder: Path, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    loader = DataLoader(OriginalImages(folder), batch_size=1, num_workers=WORKERS, pin_memory=device.type == "cuda")
    for batch in loader:
        yield tuple(images.to(device, non_blocking=True) for images in batch)


def _next_of(batches: Iterator[tuple[Tensor, ...]]) -> Callable[[], object]:
    return lambda: next(batches)
