"""Trainings on images of other channels and bits than 8-bit RGB: the step's images, and a run that goes on."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.config.options import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig, RunConfig
from cyclegan_fast.config.presets import of_method
from cyclegan_fast.data.image_lists import ImageArray
from cyclegan_fast.data.training_images import PairedImages, TrainingImages, UnpairedImages
from cyclegan_fast.images.pixel_type import PixelType, PixelTypes
from cyclegan_fast.images.pixels import to_signed
from cyclegan_fast.system.distributed import ALONE
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.history.resumable import check_resumable
from cyclegan_fast.training.log import RunLog
from cyclegan_fast.training.state import TrainingState
from tests.slow import slow_but

SIDE = 28
CPU = torch.device("cpu")
GREY16 = PixelType(1, "uint16", 100, 4000)
BASE = Config(
    data=DataConfig(load_size=SIDE, crop_size=24, workers=0, serial=True),
    networks=NetworkConfig(generator="resnet_6", ngf=2, ndf=2),
    loss=LossConfig(pool_size=2),
    optimizer=OptimizerConfig(ema=0.5),
)


def config_of(A: PixelType, B: PixelType, base: Config = BASE) -> Config:
    data = replace(
        base.data,
        **{"channels_a": A.channels, "dtype_a": A.dtype, "range_a": (A.low, A.high) if A.dtype != "uint8" else ()},
        **{"channels_b": B.channels, "dtype_b": B.dtype, "range_b": (B.low, B.high) if B.dtype != "uint8" else ()},
    )
    config = replace(base, data=data)
    assert config.data.pixel_types == PixelTypes(A, B)
    return config


def samples(kind: PixelType, count: int, seed: int) -> np.ndarray:
    """Return images [N, SIDE, SIDE, C] of values in and a little beyond the range."""
    random = np.random.default_rng(seed)
    beyond = 0 if kind.dtype == "uint8" else 50
    return random.integers(kind.low - beyond, kind.high + beyond, (count, SIDE, SIDE, kind.channels)).astype(kind.dtype)  # type: ignore[no-any-return]  # NumPy's stubs


def images_of(config: Config) -> TrainingImages:
    kinds = config.data.pixel_types
    A, B = ImageArray(samples(kinds.A, 4, 0), "A"), ImageArray(samples(kinds.B, 4, 1), "B")
    kind = PairedImages if config.loss.method == "pix2pix" else UnpairedImages
    return kind(A, B, config.data, config.run.seed)


def state_of(config: Config) -> TrainingState:
    return TrainingState(config, images_of(config), CPU, torch.float32, ALONE)


def losses_of(state: TrainingState, config: Config, first_step: int, count: int) -> Iterator[dict[str, torch.Tensor]]:
    """Train so many steps on the batches of the run's first epochs."""
    engine = TrainingEngine(state.step, config, print)
    length = state.images.steps_per_epoch
    for number in range(first_step, first_step + count):
        batch = next(islice(state.images.epoch(1 + number // length, number % length), 1))
        yield engine(batch)


CASES = {
    "1 and 3 channels, 16 and 8 bits": config_of(GREY16, PixelType()),
    "6 and 1 channels": config_of(PixelType(6, "int16", -1000, 1000), PixelType(1)),
    "13 and 3 channels, floats": config_of(PixelType(13, "float32", 0, 100), PixelType(3, "uint16", 0, 65535)),
    "4 and 4 channels, paired": config_of(
        PixelType(4, "uint16", 0, 4095), PixelType(4, "uint16", 0, 4095), replace(BASE, run=RunConfig(paired=True))
    ),
    "pix2pix": config_of(GREY16, PixelType(), of_method(BASE, "pix2pix")),
}
QUICK = ("1 and 3 channels, 16 and 8 bits", "4 and 4 channels, paired")


@pytest.mark.parametrize("config", slow_but(QUICK, CASES))
def test_a_run_goes_on_from_its_checkpoint_with_the_same_bits(config: Config, tmp_path: Path) -> None:
    whole = state_of(config)
    expected = [{name: loss.clone() for name, loss in losses.items()} for losses in losses_of(whole, config, 0, 6)]
    assert ("idt_A" in expected[0]) == config.has_equal_channels

    begun = state_of(config)
    log = RunLog(tmp_path, 100, None)
    for losses in losses_of(begun, config, 0, 4):
        log.add(losses)
    begun.save(tmp_path, log, prepared=None, best=None, finished=False)
    log.close()
    found = checkpoint.load_newest(tmp_path, [], partial(check_resumable, of_run=config, went_back=0))
    assert found is not None
    again = state_of(replace(config, run=replace(config.run, seed=5)))
    again.images.seed = config.run.seed
    again.restore(found, tmp_path)
    for losses, due in zip(losses_of(again, config, 4, 2), expected[4:], strict=True):
        assert all(torch.equal(losses[name], due[name]) for name in due)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_batch_has_the_samples_of_each_domain_scaled_by_its_range() -> None:
    config = CASES["1 and 3 channels, 16 and 8 bits"]
    images = images_of(config)
    kinds = config.data.pixel_types
    batch = images.batch(1, [0, 1])
    assert (batch.pixels_A.dtype, batch.pixels_B.dtype) == (torch.uint16, torch.uint8)
    found = batch.to(CPU, kinds=kinds)
    for side, (kind, tensor) in enumerate(zip(kinds, found, strict=True)):
        expected = []
        for cut in (images.pair(1, index)[side] for index in (0, 1)):
            window = cut.alone().pixels
            expected.append(to_signed(torch.from_numpy(window[None, :, :: -1 if cut.mirrored else 1].copy()), kind))
        assert torch.equal(tensor, torch.cat(expected))
    assert found[0].min() == -1
    assert found[0].max() == 1
