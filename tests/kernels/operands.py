"""Gives tests of operators their inputs: values, layouts, partials, and plans that divide the work of small tensors."""

from collections.abc import Callable

import torch
from torch import Tensor

from cyclegan_fast.kernels import Activation, Impl, instance_norm
from cyclegan_fast.kernels.plans import NormPlan
from tests.kernels.conftest import DEVICE

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ACTIVATIONS: tuple[Activation, ...] = ("none", "relu", "leaky_relu")
NAN = float("nan")

Operator = Callable[..., Tensor]
"""f(impl, *inputs) -> result"""


def values(
    *shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1, offset: float = 0
) -> Tensor:
    """Return normally distributed numbers, the same for a seed on every device."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale + offset).to(dtype).to(DEVICE)


def sample(
    *shape: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    requires_grad: bool = True,
) -> Tensor:
    """Return `values` in this memory format, as a leaf whose gradient is asked for."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = values(*shape, dtype=dtype, seed=seed)
    return x.contiguous(memory_format=memory_format).requires_grad_(requires_grad)


def wide(x: Tensor) -> Tensor:
    """Return the same numbers in float64, as a leaf in NCHW.

    NCHW, because PyTorch's instance norm on the CPU (torch 2.13) has a gradient that is off by its own size where the
    batch is 1 and the gradient of its result is channels last.
    """
    return x.detach().double().contiguous().requires_grad_(x.requires_grad)


# Each returns the same values (an expanded tensor its first ones), lying otherwise, with NaN in every gap.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels first": lambda t: t.contiguous(),
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "interior of a padded buffer, channels last": lambda t: interior(t, torch.channels_last),
    "interior of a padded buffer, channels first": lambda t: interior(t, torch.contiguous_format),
    "some channels of many, channels last": lambda t: some_channels(t, torch.channels_last),
    "some channels of many, channels first": lambda t: some_channels(t, torch.contiguous_format),
    "every other image": lambda t: torch.stack([t, torch.full_like(t, NAN)], 1).flatten(0, 1)[::2],
    "every other column": lambda t: torch.stack([t, torch.full_like(t, NAN)], 4).flatten(3)[..., ::2],
    "every other row": lambda t: torch.stack([t, torch.full_like(t, NAN)], 3).flatten(2, 3)[:, :, ::2],
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "images innermost": lambda t: t.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "expanded over images": lambda t: t[:1].expand_as(t),
    "expanded over channels": lambda t: t[:, :1].expand_as(t),
    "expanded over rows": lambda t: t[:, :, :1].expand_as(t),
}


def interior(t: Tensor, layout: torch.memory_format) -> Tensor:
    n, c, h, w = t.shape
    buffer = torch.full((n, c, h + 2, w + 2), NAN, dtype=t.dtype, device=t.device).contiguous(memory_format=layout)
    buffer[:, :, 1:-1, 1:-1] = t
    return buffer[:, :, 1:-1, 1:-1]


def some_channels(t: Tensor, layout: torch.memory_format) -> Tensor:
    n, c, h, w = t.shape
    buffer = torch.full((n, c + 3, h, w), NAN, dtype=t.dtype, device=t.device).contiguous(memory_format=layout)
    buffer[:, 2:-1] = t
    return buffer[:, 2:-1]


def partials_of(x: Tensor, pixels_per_tile: int) -> Tensor:
    """[N, tiles, 3, C] count, mean and M2 in float32, as `conv2d_reflect` leaves them."""
    tiles = torch.split(x.detach().double().flatten(2), pixels_per_tile, dim=2)
    rows = [
        torch.stack(
            [
                torch.full_like(tile[:, :, 0], tile.size(2)),
                tile.mean(2),
                tile.var(2, correction=0) * tile.size(2),
            ],
            dim=1,
        )
        for tile in tiles
    ]
    return torch.stack(rows, dim=1).float()


def two_phase(
    block_pixels: int,
    block_channels: int,
    tiles: float = 1,
    images_per_launch: int = 8,
    writer_tiles: float | None = None,
) -> NormPlan:
    """Each program takes `tiles` tiles after one another, in phase 2 `writer_tiles`; the last one may be partial."""
    writer_pixels = None if writer_tiles is None else int(writer_tiles * block_pixels)
    return NormPlan(
        *("two_phase", block_pixels, block_channels, 2, int(tiles * block_pixels), images_per_launch), writer_pixels
    )


def on_chip(block_pixels: int, block_channels: int, images_per_launch: int = 8) -> NormPlan:
    return NormPlan("on_chip", block_pixels, block_channels, 2, block_pixels, images_per_launch)


def norm(activation: Activation = "relu", pad: int = 1, *, slope: float = 0.3, eps: float = 1e-5) -> Operator:
    """Return the operator as a function of x and perhaps of a residual."""

    def operator(impl: Impl, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return instance_norm(
            x, activation=activation, negative_slope=slope, residual=residual, pad=pad, eps=eps, impl=impl
        )

    return operator
