"""Computes the generator's last convolution, from many channels to the three of an image, column by column.

Vector units and tensor cores take channels by the 8 or 16, and three leave most of their lanes idle. Here the columns
of the kernel become channels as well: a KxK convolution to 3 channels is a Kx1 convolution to 3K, and a sum. It has
the same terms in another order; in bfloat16 each column is rounded before the sum, which gives 1.4 to 1.6 times the
error of the plain one's single rounding, with gradients that are as exact. It takes half of the plain one's time:
measured on two cores without AVX-512 (torch 2.13, float32, forward and backward, 256x256, batch 2) 0.21 s instead of
0.40. The same done to the first convolution, and channels padded with zeros to 8 in either, were no faster there.
Nothing was measured on a GPU, where the plain convolutions run; bench/test_image_convolutions.py compares them there.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.dispatch import choose, is_exporting


def go_by_columns(image: Tensor, impl: Impl) -> bool:
    """Tell whether plain operators compute the network here, off a GPU and not for an exported graph."""
    return image.device.type != "cuda" and not is_exporting() and choose("reflection_pad", impl, image) != "triton"


def conv2d_to_image(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve [N, C, H, W] with [3, C, K, K], stride 1 and no padding, to an image [N, 3, H - K + 1, W - K + 1].

    A Kx1 convolution makes an image for each column; their sum, each shifted to the left by its column, is the result.
    """
    outputs, channels, height, columns = weight.shape
    by_column = weight.permute(3, 0, 1, 2).reshape(columns * outputs, channels, height, 1)
    images = F.conv2d(x, by_column)  # [N, K * 3, H - K + 1, W]
    result: Tensor = _SumOfShifted.apply(images, columns)  # type: ignore[no-untyped-call]  # torch's own lack
    return result + bias.view(-1, 1, 1)


class _SumOfShifted(torch.autograd.Function):
    """Sums K images, [N, K * 3, H, W] to [N, 3, H, W - K + 1], image k shifted to the left by k.

    PyTorch's own gradient of such a view adds up element by element, in case elements overlap.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, columns: int) -> Tensor:
        ctx.columns, ctx.shape, ctx.strides = columns, images.shape, images.stride()
        return _shifted(images, columns).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        images = gradient.new_empty_strided(ctx.shape, ctx.strides).zero_()
        _shifted(images, ctx.columns).copy_(gradient.unsqueeze(1))
        return images, None


def _shifted(images: Tensor, columns: int) -> Tensor:
    """Return a view [N, K, 3, H, W - K + 1] of [N, K * 3, H, W]; no element of one image is in it twice."""
    outputs = images.size(1) // columns
    of_image, of_channel, of_row, of_pixel = images.stride()
    return images.as_strided(
        (len(images), columns, outputs, images.size(2), images.size(3) - columns + 1),
        (of_image, of_channel * outputs + of_pixel, of_channel, of_row, of_pixel),
    )
