"""The data path alone: images a second of each domain, prepared from the cache, against what a step consumes."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from cyclegan_fast import sample_photos
from cyclegan_fast.config import DataConfig
from cyclegan_fast.data import Batch, open_data
from cyclegan_fast.images import write_image

IMAGES = 64  # of each domain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    photos = sample_photos.make_training(320, IMAGES)
    for name, images in (("trainA", photos.photographs), ("trainB", photos.drawings)):
        (root / name).mkdir()
        for index, pixels in enumerate(images):
            write_image(pixels, root / name / f"{index}.jpg", quality=90)
    return root


@pytest.mark.benchmark(group="data path, 256x256, batch 1")
@pytest.mark.parametrize("cached", [True, False], ids=["decoded images in memory", "decoded each time"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches(benchmark: BenchmarkFixture, folder: Path, workers: int, cached: bool) -> None:
    config = DataConfig(data=folder, workers=workers, cache_gib=None if cached else 0)
    training = open_data(config, seed=0).training
    batches = 200 if cached else 20

    def consume() -> int:
        taken = itertools.islice(endless(), batches)
        return sum(len(batch.to(torch.device("cpu"))[0]) for batch in taken)

    def endless() -> Iterator[Batch]:
        return itertools.chain.from_iterable(training.epoch(epoch) for epoch in itertools.count(1))

    taken = benchmark.pedantic(consume, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]  # its own lack
    assert taken == batches
    assert benchmark.stats is not None
    rate = batches / benchmark.stats.stats.median
    benchmark.extra_info["images_per_s_of_each_domain"] = rate
    print(f"\n{rate:.0f} images a second of each domain")
