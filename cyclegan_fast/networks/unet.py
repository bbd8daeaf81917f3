"""Defines the U-Net generator of pix2pix (Isola et al. 2017, arXiv 1611.07004, section 3.2.1, appendix 6.1.1)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.config.options import Norm
from cyclegan_fast.images.pixel_type import RGB
from cyclegan_fast.kernels import Impl
from cyclegan_fast.networks.layers import check_channels, check_norm, convolution_before, doubling_before, initialise
from cyclegan_fast.networks.norms import SLOPE, new_norm
from cyclegan_fast.networks.resnet import ResnetGenerator

LEAST_HALVINGS = 5
"""The least depth: innermost, three that change the number of channels, outermost; the original builds no fewer."""


class UnetGenerator(nn.Module):
    """Translates images of one domain into the other, with skip connections between layers of one resolution.

    Modules: `down.0` (outermost) to `down.{halvings - 1}` (innermost), then `up.0` (innermost) to `up.{halvings - 1}`;
    `down_norms.i` stands behind `down.{i + 1}`, because the first and the last convolution have none, and `up_norms.i`
    behind `up.i`. Norms have parameters with `norm="batch"` only.

    Args:
        inputs: channels of the images that it takes.
        outputs: channels of the images that it gives.
        width: channels of the first convolution (`ngf` in the original), 64 in the paper; at most 8 times as many.
        halvings: 8 are the original's unet_256, 7 its unet_128.
        norm: "instance", "batch" as in the paper, see `norms.BatchNorm`, or "none". Convolutions own biases as the
            original's do: all with instance norm, of which those in front of a norm are never added; the last one alone
            otherwise.
        dropout: drop half of what each of the `halvings - 5` blocks between the innermost and the four outer ones gives
            upwards, while training only: the noise of section 3.1, which the paper keeps for its translations, too.
        impl: the implementation of the fused operators that runs, see `kernels.dispatch.choose`.
    """

    def __init__(
        self,
        *,
        inputs: int = RGB.channels,
        outputs: int = RGB.channels,
        width: int = 64,
        halvings: int = 8,
        norm: Norm = "instance",
        dropout: bool = False,
        impl: Impl = "auto",
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be positive, got {width}")
        if halvings < LEAST_HALVINGS:
            raise ValueError(f"halvings must be at least {LEAST_HALVINGS}, got {halvings}")
        check_channels(inputs=inputs, outputs=outputs)
        check_norm(norm)
        self.impl: Impl = impl
        self.width = width
        self.halvings = halvings
        self.norm: Norm = norm
        self.dropout = dropout
        self.multiple = 2**halvings
        """Image sides must be multiples of this."""

        channels = [width * min(2**level, 8) for level in range(halvings)]
        biased = norm == "instance"
        self.down = nn.ModuleList(
            [
                nn.Conv2d(inputs, width, 4, stride=2, padding=1, bias=biased),
                *(convolution_before(norm, *sides, 4, stride=2, padding=1) for sides in pairwise(channels[:-1])),
                nn.Conv2d(channels[-2], channels[-1], 4, stride=2, padding=1, bias=biased),
            ]
        )
        self.down_norms = nn.ModuleList(new_norm(norm, outputs) for outputs in channels[1:-1])
        # Each layer but the innermost reads the result of the one below it and the skip connection beside it.
        self.up = nn.ModuleList(
            [
                doubling_before(norm, channels[-1], channels[-2], 4),
                *(doubling_before(norm, below * 2, above, 4) for below, above in pairwise(channels[-2::-1])),
                nn.ConvTranspose2d(width * 2, outputs, 4, stride=2, padding=1),
            ]
        )
        self.up_norms = nn.ModuleList(new_norm(norm, outputs) for outputs in channels[-2::-1])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, inputs, H, W] in [-1, 1], in the weights' dtype, to images [N, outputs, H, W] in [-1, 1].

        H and W are multiples of `multiple`.

        The original keeps `leaky_relu(x)` for a skip connection, in place of x, and the ReLU of the other end stands
        behind the concatenation. Leaky ReLU keeps signs, so that ReLU makes the same of either; and ReLU and dropout
        exchange, so that each half takes its own ReLU, the upper one's fused with its norm.
        """
        if image.size(2) % self.multiple or image.size(3) % self.multiple:
            raise ValueError(f"image sides must be multiples of {self.multiple}, got {image.size(2)}x{image.size(3)}")
        first, *middle, innermost = self.down
        skips = [F.leaky_relu(first(image), SLOPE)]
        for convolution, norm in zip(middle, self.down_norms, strict=True):
            skips.append(norm(convolution(skips[-1]), activation="leaky_relu", impl=self.impl))
        x = F.relu(innermost(skips[-1]))
        *doublings, last = self.up
        for index, (convolution, norm) in enumerate(zip(doublings, self.up_norms, strict=True)):
            x = norm(convolution(x), activation="relu", impl=self.impl)
            if self.dropout and 1 <= index <= self.halvings - LEAST_HALVINGS:
                x = F.dropout(x, 0.5, self.training)
            x = torch.cat([F.relu(skips.pop()), x], 1)
        return torch.tanh(last(x))


AnyGenerator = ResnetGenerator | UnetGenerator
