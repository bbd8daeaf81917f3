"""Constant parts of an image are computed once, and give the bits that computing every strip gives."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.translation.strips import resnet, rows as row_streams
from cyclegan_fast.translation.strips.repeated_strips import repeating
from cyclegan_fast.translation.strips.unet import TiledUnetTranslator
from tests.cyclegan_fast.translations import CPU, in_strips, joined, make_generator, picture

pytestmark = pytest.mark.usefixtures("one_thread")


def with_borders(height: int, width: int) -> Pixels:
    """Return a picture whose first and last quarters of rows are white."""
    image = picture(height, width)
    image[: height // 4] = image[-height // 4 :] = 255
    return image


@pytest.mark.parametrize("rows", [1, 3, 8, 16])
@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_bits_are_those_of_computing_every_strip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, upsampling: str
) -> None:
    network, image = make_generator(0, blocks=1, upsampling=upsampling), with_borders(480, 20)  # type: ignore[arg-type]
    calls = {True: Counter[str](), False: Counter[str]()}
    translated = []
    for repeats in (True, False):

        def counting(
            *arguments: object, name: str, call: object, counts: Counter[str] = calls[repeats], **options: object
        ) -> object:
            counts[name] += 1
            return call(*arguments, **options)  # type: ignore[operator]

        with monkeypatch.context() as patch:
            for name in ("conv2d", "conv_transpose2d"):
                call = getattr(row_streams.F, name)
                patch.setattr(
                    row_streams.F, name, lambda *a, n=name, c=call, count=counting, **o: count(*a, name=n, call=c, **o)
                )
            if not repeats:
                patch.setattr(row_streams, "repeating", lambda operator: operator)
            translated.append(joined(in_strips(network, rows, 20, tmp_path), image))
    assert np.array_equal(*translated)
    assert translated[0].std() > 0.1
    assert calls[True]["conv2d"] < 0.75 * calls[False]["conv2d"]


def test_bits_of_a_unet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = UnetGenerator(halvings=5, width=4).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    translated = []
    for repeats in (True, False):
        if not repeats:
            monkeypatch.setattr(row_streams, "repeating", lambda operator: operator)
        translator = TiledUnetTranslator(network, CPU, torch.float32, tmp_path)
        translator.budget_bytes = 16 * translator.strip_row_bytes(32)
        translated.append(torch.cat([*translator.strips(with_borders(512, 32))], 2))
    assert torch.equal(*translated)


def test_what_is_repeated_and_what_is_not() -> None:
    computed = []

    def double(strip: Tensor, first: int) -> Tensor:
        computed.append(first)
        return strip.mul_(2)[:, :, first:]  # writes to what it is given

    def strip(*rows: float, last: float = 0.0) -> Tensor:
        values = torch.tensor(rows).view(1, 1, -1, 1).repeat(1, 2, 1, 3)
        values[0, 1, -1, 1] += last
        return values.to(memory_format=torch.channels_last)

    operate = repeating(double)
    alike = [1.0] * 8
    for _ in range(3):
        assert torch.equal(operate(strip(*alike), 0), strip(*[2.0] * 8))
    assert len(computed) == 2, "the first one is looked at, the second one is kept, the third one is that again"
    mine = operate(strip(*alike), 0)
    mine.zero_()
    assert torch.equal(operate(strip(*alike), 0), strip(*[2.0] * 8)), "what is returned is the caller's own"
    assert len(computed) == 2
    for other in (
        (strip(*alike), 1),
        (strip(*alike, last=0.5), 0),
        (strip(*alike[1:]), 0),
        (strip(*alike).contiguous(), 0),  # another layout may be computed in another order
        (-strip(*[0.0] * 8), 0),
    ):
        expected = double(other[0].clone(memory_format=torch.preserve_format), other[1])
        count = len(computed)
        assert torch.equal(operate(*other), expected)
        assert len(computed) == count + 1
    alternating = [1.0, 2.0] * 4
    for _ in range(3):
        assert torch.equal(operate(strip(*alternating), 0), strip(*[2.0, 4.0] * 4))
    count = len(computed)
    operate(strip(*alternating), 0)
    assert len(computed) == count
    operate(strip(2.0, *alternating[:-1]), 0)
    assert len(computed) == count + 1, "it begins with the other row"


def test_strips_of_many_rows_begin_with_the_same_one_of_those_that_alternate(tmp_path: Path) -> None:
    translator = resnet.TiledTranslator(make_generator(0), CPU, torch.float32, tmp_path)
    a_row = translator.strip_row_bytes(64)
    for rows, expected in ((1, 1), (3, 3), (15, 15), (16, 16), (19, 16), (21, 20)):
        translator.budget_bytes = rows * a_row
        assert translator.strip_rows(64) == expected
