"""Defines the discriminators: PatchGAN (Isola et al. 2017, section 3.2.2) and the same authors' pixel discriminator."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from cyclegan_fast.config.options import Norm
from cyclegan_fast.images.pixel_type import RGB
from cyclegan_fast.kernels import Impl
from cyclegan_fast.networks.layers import (
    activated_convolution,
    check_channels,
    check_norm,
    convolution_before,
    initialise,
)
from cyclegan_fast.networks.norms import new_norm


class Discriminator(nn.Module):
    """Scores images by convolutions in a row, with leaky ReLUs between them, each but the first behind a norm.

    No sigmoid follows. Norms have parameters with `norm="batch"` only; `norms.i` stands behind `layers.{i + 1}`.

    Args:
        layers: two convolutions at least.
        norm: stands behind all layers but the first and the last.
        impl: the implementation of the fused operators that runs, see `kernels.dispatch.choose`.
    """

    def __init__(self, layers: Sequence[nn.Conv2d], norm: Norm, impl: Impl) -> None:
        super().__init__()
        self.norm: Norm = norm
        self.impl: Impl = impl
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(new_norm(norm, layer.out_channels) for layer in layers[1:-1])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, channels, H, W] in [-1, 1] to scores [N, 1, h, w], one a patch: 30x30 of 70x70 pixels of 256x256."""
        first, *middle, last = self.layers
        assert isinstance(first, nn.Conv2d)
        x = activated_convolution(first, image, "leaky_relu", self.impl)
        for layer, norm in zip(middle, self.norms, strict=True):
            x = norm(layer(x), activation="leaky_relu", impl=self.impl)
        scores: Tensor = last(x)
        return scores


class PatchDiscriminator(Discriminator):
    """Judges each patch of an image as real or not, of 70x70 pixels by default (Isola et al. 2017, section 3.2.2).

    Args:
        width: channels of the first convolution (`ndf` in the original), 64 in the paper.
        channels: of an image; where a conditional discriminator (pix2pix) judges an image beside the one that it was
            made from, those of both.
        n_layers: convolutions of stride 2; 1 to 5 make patches of 16, 34, 70, 142 and 286 pixels.
        norm, impl: see `Discriminator`.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        channels: int = RGB.channels,
        n_layers: int = 3,
        norm: Norm = "instance",
        impl: Impl = "auto",
    ) -> None:
        _check_discriminator(width, channels, norm)
        if n_layers < 1:
            raise ValueError(f"n_layers must be positive, got {n_layers}")
        widths = [width * min(2**level, 8) for level in range(n_layers + 1)]
        strides = [2] * (n_layers - 1) + [1]
        super().__init__(
            [
                nn.Conv2d(channels, width, 4, stride=2, padding=1),
                *(
                    convolution_before(norm, inputs, outputs, 4, stride=stride, padding=1)
                    for (inputs, outputs), stride in zip(pairwise(widths), strides, strict=True)
                ),
                nn.Conv2d(widths[-1], 1, 4, padding=1),
            ],
            norm,
            impl,
        )


class PixelDiscriminator(Discriminator):
    """Judges each pixel by itself: the 1x1 PatchGAN, or PixelGAN (Isola et al. 2017, section 4.4 and appendix 6.1.2).

    Args: those of `PatchDiscriminator`. The last convolution owns a bias with instance norm only, as in the original.
    """

    def __init__(
        self, *, width: int = 64, channels: int = RGB.channels, norm: Norm = "instance", impl: Impl = "auto"
    ) -> None:
        _check_discriminator(width, channels, norm)
        super().__init__(
            [
                nn.Conv2d(channels, width, 1),
                convolution_before(norm, width, width * 2, 1),
                nn.Conv2d(width * 2, 1, 1, bias=norm == "instance"),
            ],
            norm,
            impl,
        )


def _check_discriminator(width: int, channels: int, norm: Norm) -> None:
    if width < 1:
        raise ValueError(f"width must be positive, got {width}")
    check_channels(channels=channels)
    check_norm(norm)
