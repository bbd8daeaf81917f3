"""The generator's first and last convolution, by columns and with padded channels, against PyTorch's own."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.timing import interleaved
from cyclegan_fast.device import choose_device, working_dtype
from cyclegan_fast.image_convolutions import conv2d_to_image

DEVICE = choose_device("auto")
DTYPE, _ = working_dtype(DEVICE, amp=True, amp_dtype="auto")
ROUNDS = 10 if DEVICE.type == "cpu" else 200
PADDED = 8  # channels


def conv2d_of_image(image: Tensor, weight: Tensor) -> Tensor:
    """[N, 3, H, W] with [C, 3, K, K], stride 1 and no padding: [N, C, H - K + 1, W - K + 1].

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


@pytest.mark.benchmark(group="first and last layer, forward and backward, batch 2")
@pytest.mark.parametrize("layer", ["first", "last"])
def test_by_columns(benchmark: BenchmarkFixture, layer: str) -> None:
    channels = (3, 64) if layer == "first" else (64, 3)
    x = torch.randn(2, channels[0], 262, 262, device=DEVICE, dtype=DTYPE, requires_grad=True)
    weight = torch.randn(channels[1], channels[0], 7, 7, device=DEVICE, dtype=DTYPE, requires_grad=True)
    operands = [x, weight]
    if layer == "last":
        operands.append(torch.randn(3, device=DEVICE, dtype=DTYPE, requires_grad=True))
    if DEVICE.type == "cuda":
        x.data, weight.data = (t.data.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    ours, padded = (conv2d_of_image, image_padded) if layer == "first" else (conv2d_to_image, output_padded)
    dy = torch.randn_like(plain(*operands))

    def both_ways(function: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad(function(*operands), operands, dy)
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        return run

    interleaved(
        benchmark,
        both_ways(ours),
        {"plain": both_ways(plain), f"channels padded to {PADDED}": both_ways(padded)},
        rounds=ROUNDS,
    )
