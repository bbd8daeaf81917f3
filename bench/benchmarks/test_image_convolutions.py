"""Measures the generator's first and last convolution, by columns and with padded channels, against PyTorch's own."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.conftest import DEVICE, Compare
from bench.measure.agreement import ALLOWED
from bench.measure.contest import Case, Contest
from bench.measure.limits import dtypes
from bench.measure.timing import Call, Contender, on_recording_stream
from cyclegan_fast.networks.image_convolutions import conv2d_to_image
from cyclegan_fast.system.device import name_of

DTYPE = dtypes(DEVICE)[-1]
ROUNDS = 10 if DEVICE.type == "cpu" else 50
PADDED = 8  # channels
BATCH, SIDE, KERNEL, WIDTH = 2, 256, 7, 64


def conv2d_of_image(image: Tensor, weight: Tensor) -> Tensor:
    """Convolve images [N, 3, H, W] with [C, 3, K, K], stride 1 and no padding: [N, C, H - K + 1, W - K + 1].

    A Kx1 convolution of the image's K shifts to the left, side by side as channels: tried, and no faster on a CPU.
    """
    outputs, channels, height, columns = weight.shape
    width = image.size(3) - columns + 1
    shifted = image.unfold(3, width, 1).permute(0, 1, 3, 2, 4).flatten(1, 2)  # [N, 3 * K, H, W - K + 1]
    return F.conv2d(shifted, weight.transpose(2, 3).reshape(outputs, channels * columns, height, 1))


def image_padded(image: Tensor, weight: Tensor) -> Tensor:
    more = PADDED - 3
    return F.conv2d(F.pad(image, (0, 0, 0, 0, 0, more)), F.pad(weight, (0, 0, 0, 0, 0, more)))


def output_padded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    more = PADDED - 3
    return F.conv2d(x, F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more)), F.pad(bias, (0, more)))[:, :3]


def plain(*operands: Tensor) -> Tensor:
    return F.conv2d(*operands)  # type: ignore[call-overload, no-any-return]  # two or three operands


def contest(layer: str) -> Contest:
    torch.manual_seed(0)
    inputs, outputs = (3, WIDTH) if layer == "first" else (WIDTH, 3)
    side = SIDE + KERNEL - 1
    x = torch.randn(BATCH, inputs, side, side, device=DEVICE, dtype=DTYPE)
    weight = torch.randn(outputs, inputs, KERNEL, KERNEL, device=DEVICE, dtype=DTYPE)
    operands = [x, weight] + ([torch.randn(3, device=DEVICE, dtype=DTYPE)] if layer == "last" else [])
    if DEVICE.type == "cuda":
        operands[:2] = (each.contiguous(memory_format=torch.channels_last) for each in operands[:2])
    dy = torch.randn(BATCH, outputs, SIDE, SIDE, device=DEVICE, dtype=DTYPE)

    def both_ways(function: Callable[..., Tensor], dtype: torch.dtype = DTYPE) -> Call:
        leaves = [each.to(dtype).detach().requires_grad_() for each in operands]
        return lambda: list(torch.autograd.grad(function(*leaves), leaves, dy.to(dtype)))

    ours, padded = (conv2d_of_image, image_padded) if layer == "first" else (conv2d_to_image, output_padded)
    with on_recording_stream(DEVICE):
        contenders = {
            "plain PyTorch": Contender([both_ways(plain)], graph=True),
            f"channels padded to {PADDED}": Contender([both_ways(padded)], graph=True),
            "ours": Contender([both_ways(ours)], graph=True),
        }
        exact = both_ways(plain, torch.float64)()
    return Contest(contenders, "ours", "plain PyTorch", exact, ALLOWED[DTYPE])


@pytest.mark.parametrize("layer", ["first", "last"])
def test_by_columns(layer: str, compare: Compare) -> None:
    pixels = BATCH * SIDE**2
    weights = 3 * WIDTH * KERNEL**2
    case = Case(
        subject="layers",
        case=f"{layer} convolution, forward and backward, {'tried by columns' if layer == 'first' else 'by columns'}",
        shape=f"{BATCH}x{3 if layer == 'first' else WIDTH}x{SIDE + KERNEL - 1}x{SIDE + KERNEL - 1}",
        dtype=name_of(DTYPE),
        batch=BATCH,
        side=SIDE,
        moved_bytes=2 * DTYPE.itemsize * (pixels * (3 + WIDTH) + weights),
        operations=3 * 2 * pixels * weights,
        make=partial(contest, layer),
    )
    comparison = compare(case, ROUNDS)
    assert not comparison.refused
