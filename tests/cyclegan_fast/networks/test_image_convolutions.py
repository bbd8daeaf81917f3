"""Convolutions to an image by columns are PyTorch's."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast.networks.image_convolutions import conv2d_to_image

MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


def results(function: Callable[..., Tensor], operands: list[Tensor]) -> list[Tensor]:
    """Return the result and every gradient, for a gradient of the result that is the same whatever the function."""
    leaves = [x.clone().requires_grad_(True) for x in operands]
    y = function(*leaves)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def operands_to_image(memory_format: torch.memory_format, dtype: torch.dtype) -> list[Tensor]:
    x, weight, bias = torch.randn(2, 5, 19, 26), torch.randn(3, 5, 7, 7), torch.randn(3)
    return [*(t.to(dtype).contiguous(memory_format=memory_format) for t in (x, weight)), bias.to(dtype)]


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_in_float64_it_is_the_plain_convolution(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    operands = operands_to_image(memory_format, torch.float64)
    for found, expected in zip(results(conv2d_to_image, operands), results(F.conv2d, operands), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_errs_no_more_than_the_plain_convolution(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    operands = operands_to_image(torch.contiguous_format, dtype)
    exact = results(F.conv2d, [x.double() for x in operands])
    for found, plain, expected in zip(
        results(conv2d_to_image, operands), results(F.conv2d, operands), exact, strict=True
    ):
        error, plain_error = ((x.double() - expected).norm() / expected.norm() for x in (found, plain))
        assert error <= 1.5 * plain_error + torch.finfo(dtype).eps / 8, (error, plain_error)
