"""Convolutions to an image by columns are PyTorch's, and a generator's first and last by our kernels are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.kernels import plans
from cyclegan_fast.kernels.launching import Grid, launch_kernel, launching_with
from cyclegan_fast.kernels.triton_language import INTERPRETED
from cyclegan_fast.networks.image_convolutions import conv2d_to_image, convolve_image, convolve_to_image
from cyclegan_fast.networks.resnet import ResnetGenerator
from tests.kernels.conftest import DEVICE

MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


def results(function: Callable[..., Tensor], operands: list[Tensor]) -> list[Tensor]:
    """Return the result and every gradient, for a gradient of the result that is the same whatever the function."""
    leaves = [x.clone().requires_grad_(True) for x in operands]
    y = function(*leaves)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def operands_to_image(memory_format: torch.memory_format, dtype: torch.dtype, channels: int = 3) -> list[Tensor]:
    x, weight, bias = torch.randn(2, 5, 19, 26), torch.randn(channels, 5, 7, 7), torch.randn(channels)
    return [*(t.to(dtype).contiguous(memory_format=memory_format) for t in (x, weight)), bias.to(dtype)]


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 13, 16, 17])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_in_float64_it_is_the_plain_convolution(memory_format: torch.memory_format, channels: int) -> None:
    torch.manual_seed(0)
    operands = operands_to_image(memory_format, torch.float64, channels)
    for found, expected in zip(results(conv2d_to_image, operands), results(F.conv2d, operands), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_errs_no_more_than_the_plain_convolution(dtype: torch.dtype, channels: int) -> None:
    torch.manual_seed(0)
    operands = operands_to_image(torch.contiguous_format, dtype, channels)
    exact = results(F.conv2d, [x.double() for x in operands])
    for found, plain, expected in zip(
        results(conv2d_to_image, operands), results(F.conv2d, operands), exact, strict=True
    ):
        error, plain_error = ((x.double() - expected).norm() / expected.norm() for x in (found, plain))
        assert error <= 1.5 * plain_error + torch.finfo(dtype).eps / 8, (error, plain_error)


@pytest.mark.slow
@pytest.mark.skipif(not INTERPRETED and DEVICE == "cpu", reason="kernels need Triton's interpreter or a GPU")
def test_a_generator_takes_our_kernels_where_they_are_chosen_and_the_library_s_otherwise() -> None:
    torch.manual_seed(0)
    network = ResnetGenerator(width=16, blocks=1, impl="triton").to(DEVICE, torch.bfloat16)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from torch's stubs
    image = torch.randn(1, 3, 16, 16, device=DEVICE).to(torch.bfloat16)
    dy = torch.randn(1, 3, 16, 16, device=DEVICE).to(torch.bfloat16)
    weights = [network.stem.weight, network.head.weight, network.head.bias]

    def run() -> tuple[list[str], list[Tensor]]:
        launched: list[str] = []

        def note(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
            launched.append(kernel.fn.__name__)
            launch_kernel(kernel, grid, arguments, options)

        with launching_with(note):
            leaf = image.clone().requires_grad_()
            y = network(leaf)
            return launched, [y.detach(), *torch.autograd.grad(y, [leaf, *weights], dy)]

    by_library, expected = run()
    with plans.forcing(plans.ThinPlan(32, 16)):
        by_kernels, found = run()
    assert not [name for name in by_library if name.startswith("thin")]
    thin = [name for name in by_kernels if name.startswith("thin")]
    assert thin.count("thin_convolution") == 2  # the head's result and the gradient of the stem's image
    assert thin.count("thin_weight_gradient") == thin.count("thin_weight_gradient_sum") == 2
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).float().norm() / other.float().norm()) < 0.05


@pytest.mark.skipif(not INTERPRETED and DEVICE == "cpu", reason="kernels need Triton's interpreter or a GPU")
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 6), (13, 1), (17, 17)])
def test_images_of_any_channels_go_by_our_kernels_up_to_sixteen(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    stem, head = (nn.Conv2d(*sides, 3).to(DEVICE, torch.bfloat16) for sides in ((inputs, 16), (16, outputs)))
    image, x = (torch.randn(1, count, 7, 9, device=DEVICE).to(torch.bfloat16) for count in (inputs, 16))
    assert stem.bias is not None
    stem.bias.data.zero_()
    launched: list[str] = []

    def note(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        launched.append(kernel.fn.__name__)
        launch_kernel(kernel, grid, arguments, options)

    with torch.no_grad(), launching_with(note), plans.forcing(plans.ThinPlan(32, 16)):
        made, features = convolve_to_image(head, x, "triton"), convolve_image(stem, image, "triton")
    assert launched == (["thin_convolution"] if outputs <= 16 else ["bias_activation_forward"])
    wide_head, wide_stem = head.double(), stem.double()
    for found, expected in (
        (made, wide_head(x.double()).tanh().detach()),
        (features, wide_stem(image.double()).detach()),
    ):
        assert float((found.double() - expected).norm() / expected.norm()) < 0.01
