"""Translation by a U-Net in strips: the same numbers as the whole image at once, and no more disk than was said."""

import copy
import os
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import Norm
from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.images.pixels import to_signed
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.translate import main
from cyclegan_fast.translation.strips.scratch_file import ScratchFile
from cyclegan_fast.translation.strips.unet import TiledUnetTranslator
from cyclegan_fast.translation.translator import NotFinite
from tests.cyclegan_fast.pictures import draw, pixels_of
from tests.cyclegan_fast.translations import picture

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ALL = 10**6
HALVINGS = {5: (96, 64), 7: (256, 384)}
"""Heights and widths of images, by the number of halvings: the original's unet_128 has 7."""


def make_unet(halvings: int, norm: Norm = "instance", channels: tuple[int, int] = (3, 3)) -> UnetGenerator:
    """Make a narrow U-Net whose weights are so large that the picture still shows its input."""
    torch.manual_seed(0)
    network = UnetGenerator(inputs=channels[0], outputs=channels[1], width=4, halvings=halvings, norm=norm)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, {"instance": 0.1, "batch": 0.3, "none": 0.15}[norm])
    return network.eval()


def in_strips(network: UnetGenerator, rows: int, width: int, scratch: Path) -> TiledUnetTranslator:
    translator = TiledUnetTranslator(network, CPU, torch.float32, scratch)
    translator.budget_bytes = rows * translator.strip_row_bytes(width)
    assert translator.strip_rows(width) == rows
    return translator


def joined(translator: TiledUnetTranslator, image: npt.NDArray[np.uint8]) -> Tensor:
    return torch.cat(list(translator.strips(image)), 2)


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize(("halvings", "rows"), [(5, 1), (5, 2), (5, 3), (5, 7), (5, ALL), (7, 13), (7, ALL)])
def test_strips_equal_the_image_at_once(tmp_path: Path, norm: Norm, halvings: int, rows: int) -> None:
    height, width = HALVINGS[halvings]
    network, image = make_unet(halvings, norm), picture(height, width)
    with torch.inference_mode():
        expected = copy.deepcopy(network).double()(to_signed(torch.from_numpy(image)[None]).double())
    assert expected.std() > 0.1, "a flat picture would prove nothing"
    assert (joined(in_strips(network, rows, width, tmp_path), image) - expected).abs().max() <= 1e-4


def test_parts_translated_one_by_one_would_show() -> None:
    """Shows that the test above can fail: statistics of a part instead of the whole differ by far more than 1e-4."""
    network, image = make_unet(5), to_signed(torch.from_numpy(picture(96, 64))[None])
    with torch.inference_mode():
        parts = torch.cat([network(half) for half in image.split((32, 64), 2)], 2)
        assert (parts - network(image)).abs().mean() > 0.05


@pytest.mark.parametrize("rows", [1, 5, ALL])
@pytest.mark.parametrize("halvings", [5, 7])
def test_the_disk_needed_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halvings: int, rows: int
) -> None:
    peaks: list[int] = []
    leave = ScratchFile.__exit__

    def record(self: ScratchFile, *error: object) -> None:
        peaks.append(os.fstat(self._file.fileno()).st_size)
        leave(self, *error)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(ScratchFile, "__exit__", record)
    height, width = HALVINGS[5] if halvings == 5 else (128, 256)
    translator = in_strips(make_unet(halvings), rows, width, tmp_path)
    translator(picture(height, width)[None])
    assert peaks == [translator.scratch_bytes(height, width)]
    assert peaks == [height // 2 * (width // 2) * 4 * 4]  # half of the rows, 4 channels of 4 bytes


def test_samples_of_any_type(tmp_path: Path) -> None:
    source, target = PixelType(6, "int16", -100, 900), PixelType(1, "uint16", 0, 4095)
    network = make_unet(5, channels=(6, 1))
    samples = np.random.default_rng(0).integers(-100, 901, (2, 64, 32, 6)).astype(np.int16)
    translator = TiledUnetTranslator(network, CPU, torch.float32, tmp_path, 1, source, target)
    with torch.inference_mode():
        images = network(to_signed(torch.from_numpy(samples), source))
    expected = (images[:, 0].double() + 1) * target.half_range
    found = translator(samples)
    assert (found.dtype, found.shape) == (np.dtype(np.uint16), (2, 64, 32, 1))
    assert np.abs(found[..., 0] - expected.numpy()).max() <= 0.5 + 1e-4 * target.half_range


def test_weights_that_are_not_finite_are_noticed(tmp_path: Path) -> None:
    network = make_unet(5)
    with torch.no_grad():
        network.get_parameter("down.2.weight")[0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFinite) as raised:
        list(in_strips(network, 4, 32, tmp_path).strips(picture(32, 32), 1))
    assert raised.value.index == 1


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_command_writes_the_same_picture(tmp_path: Path, norm: Norm) -> None:
    torch.save(make_unet(5, norm).state_dict(), tmp_path / "unet.pth")
    source = draw(tmp_path / "in" / "image.png", 75, 50)
    fixed = [str(source), "--checkpoint", str(tmp_path / "unet.pth"), "--device", "cpu", "--no-contact-sheet"]
    assert main([*fixed, "--out", str(tmp_path / "strips"), "--tile", "--scratch", str(tmp_path)]) == 0
    assert main([*fixed, "--out", str(tmp_path / "whole")]) == 0
    actual, expected = (pixels_of(tmp_path / out / "image.png").astype(int) for out in ("strips", "whole"))
    assert actual.shape == (50, 75, 3)
    assert expected.std() > 10
    assert np.abs(actual - expected).max() <= 1
