"""The data path alone, up to floating-point tensors on the device: images a second of each domain."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from cyclegan_fast import sample_photos
from cyclegan_fast.batch import Batch
from cyclegan_fast.config import DataConfig
from cyclegan_fast.data import open_data
from cyclegan_fast.images import write_image

IMAGES = 64  # of each domain
NEEDED_PER_S = 150  # steps of 256x256, batch 1: the data path must not hold up the fastest step that is aimed at

Source = Literal["memory", "mapped file", "decoded each time"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    photos = sample_photos.make_training(320, IMAGES)
    for name, images in (("trainA", photos.photographs), ("trainB", photos.drawings)):
        (root / name).mkdir()
        for index, pixels in enumerate(images):
            write_image(pixels, root / name / f"{index}.jpg", quality=90)
    return root


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Cutting and scaling on one core: the workers have the others, and tensors this small wait for their own threads
    longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_for(source: Source, folder: Path, workers: int) -> DataConfig:
    config = DataConfig(data=folder, workers=workers, cache_dir=folder / "cache")
    if source == "memory":
        return config
    if source == "mapped file":
        return replace(config, cache_gib=0)
    no_folder = folder / "no folder"
    no_folder.touch()
    return replace(config, cache_gib=0, cache_dir=no_folder)


@pytest.mark.benchmark(group="data path, 286x286 to 256x256, batch 1")
@pytest.mark.parametrize("source", ["memory", "mapped file", "decoded each time"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches(benchmark: BenchmarkFixture, folder: Path, workers: int, source: Source) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = open_data(config_for(source, folder, workers), seed=0, pin=device.type == "cuda").training
    batches = 20 if source == "decoded each time" else 400

    def consume() -> int:
        taken = itertools.islice(endless(), batches)
        total = sum(len(batch.to(device)[0]) for batch in taken)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return total

    def endless() -> Iterator[Batch]:
        return itertools.chain.from_iterable(training.epoch(epoch) for epoch in itertools.count(1))

    taken = benchmark.pedantic(consume, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]  # its own lack
    assert taken == batches
    assert benchmark.stats is not None
    rate = batches / benchmark.stats.stats.median
    benchmark.extra_info["images_per_s_of_each_domain"] = rate
    print(f"\n{source}, {workers} workers, {device.type}: {rate:.0f} images a second of each domain")
    if workers and source != "decoded each time":
        assert rate >= NEEDED_PER_S
