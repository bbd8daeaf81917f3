"""Computes the generator's first and last convolution, from and to the few channels of an image.

On a GPU they are the library's, or those of `kernels.thin_convolution` for which a tuned table says that they are
faster, for images of up to 16 channels. On a CPU the last one goes column by column, to up to 6.

Vector units and tensor cores take channels by the 8 or 16, and three leave most of their lanes idle. Here the columns
of the kernel become channels as well: a KxK convolution to 3 channels is a Kx1 convolution to 3K, and a sum. It has
the same terms in another order; in bfloat16 each column is rounded before the sum, which gives 1.4 to 1.6 times the
error of the plain one's single rounding, with gradients that are as exact. It takes half of the plain one's time:
measured on two cores without AVX-512 (torch 2.13, float32, forward and backward, 256x256, batch 2) 0.21 s instead of
0.40. On one core (128x128, batch 1) it took 0.22 to 0.76 of the plain one's time to 1 to 4 channels, 0.66 to 0.82 to
6, 0.77 to 1.18 to 8, and 1.3 to 3.5 to 13 and 16. The same done to the first convolution, and channels padded with
zeros to 8 in either, were no faster there. Columns were not measured on a GPU;
bench/benchmarks/test_image_convolutions.py compares them there.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.dispatch import choose, is_exporting
from cyclegan_fast.kernels.thin_convolution.convolution import beats_library, conv2d_from_thin, conv2d_to_thin
from cyclegan_fast.networks.layers import activated_convolution

_MOST_BY_COLUMNS = 6
"""channels of the result; the plain convolution is faster to more"""


def convolve_image(stem: nn.Conv2d, image: Tensor, impl: Impl) -> Tensor:
    """Convolve a padded image by a generator's first convolution, whose bias the norm behind it would cancel."""
    if _go_by_kernels("conv2d_from_thin", stem, image, impl):
        return conv2d_from_thin(image, stem.weight, groups=stem.groups, impl=impl)
    result: Tensor = stem(image)
    return result


def convolve_to_image(head: nn.Conv2d, x: Tensor, impl: Impl) -> Tensor:
    """Convolve padded activations by a generator's last convolution to an image in [-1, 1]."""
    if _go_by_kernels("conv2d_to_thin", head, x, impl):
        return conv2d_to_thin(x, head.weight, head.bias, groups=head.groups, tanh=True, impl=impl)
    return activated_convolution(head, x, "tanh", impl)


def _go_by_kernels(operator: str, convolution: nn.Conv2d, x: Tensor, impl: Impl) -> bool:
    """Tell whether this project's kernels compute a convolution; torch.compile cannot look a plan up, nor an export."""
    if torch.compiler.is_compiling() or is_exporting() or choose(operator, impl, x) != "triton":
        return False
    return beats_library(operator, x, convolution.weight, convolution.groups)


def go_by_columns(image: Tensor, impl: Impl) -> bool:
    """Tell whether plain operators compute the network here, off a GPU and not for an exported graph."""
    return image.device.type != "cuda" and not is_exporting() and choose("reflection_pad", impl, image) != "triton"


def conv2d_to_image(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve [N, C, H, W] with [O, C, K, K], stride 1 and no padding, to an image [N, O, H - K + 1, W - K + 1].

    Where O is small, a Kx1 convolution makes an image for each column; their sum, each shifted to the left by its
    column, is the result. Elsewhere it is the plain convolution.
    """
    outputs, channels, height, columns = weight.shape
    if outputs > _MOST_BY_COLUMNS:
        return F.conv2d(x, weight, bias)
    by_column = weight.permute(3, 0, 1, 2).reshape(columns * outputs, channels, height, 1)
    images = F.conv2d(x, by_column)  # [N, K * O, H - K + 1, W]
    result: Tensor = _SumOfShifted.apply(images, columns)  # type: ignore[no-untyped-call]  # torch's own lack
    return result + bias.view(-1, 1, 1)


class _SumOfShifted(torch.autograd.Function):
    """Sums K images, [N, K * O, H, W] to [N, O, H, W - K + 1], image k shifted to the left by k.

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
    """Return a view [N, K, O, H, W - K + 1] of [N, K * O, H, W]; no element of one image is in it twice."""
    outputs = images.size(1) // columns
    of_image, of_channel, of_row, of_pixel = images.stride()
    return images.as_strided(
        (len(images), columns, outputs, images.size(2), images.size(3) - columns + 1),
        (of_image, of_channel * outputs + of_pixel, of_channel, of_row, of_pixel),
    )
