"""The paper's generator and discriminator (Zhu et al. 2017, sections 4 and 7.2), and the original's other choices."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclegan_fast.config import InitType, Norm
from cyclegan_fast.image_convolutions import conv2d_to_image, go_by_columns
from cyclegan_fast.norms import SLOPE, new_norm
from kernels import Impl, reflection_pad, residual_block
from kernels.dispatch import choose, is_exporting

DOWNSAMPLING = 4  # two convolutions of stride 2


class NormalisedConv2d(nn.Conv2d):
    """A convolution in front of an instance norm, which cancels its bias: the bias is never added.

    It stays in the state dict and in the parameter count, so that files of the original implementation load and save
    without loss; its gradient, rounding noise in the original, is defined as zero.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding)
        assert self.bias is not None
        self.bias.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, None, self.stride, self.padding)


class NormalisedConvTranspose2d(nn.ConvTranspose2d):
    """Doubles both sides, in front of an instance norm; its bias is treated as `NormalisedConv2d` treats its own.

    `kernel` is 3 or 4.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(inputs, outputs, kernel, stride=2, padding=1, output_padding=4 - kernel)
        assert self.bias is not None
        self.bias.requires_grad_(False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        padding = 4 - self.weight.size(3)
        return F.conv_transpose2d(input, self.weight, None, stride=2, padding=1, output_padding=padding)


def convolution_before(
    norm: Norm, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    """Return a convolution to stand in front of a norm.

    It owns a bias where the original's does: in front of an instance norm, which cancels it, and of no other, nor where
    there is no norm.
    """
    if norm == "instance":
        return NormalisedConv2d(inputs, outputs, kernel, stride=stride, padding=padding)
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)


def doubling_before(norm: Norm, inputs: int, outputs: int, kernel: int = 3) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles both sides, see `convolution_before`; `kernel` is 3 or 4."""
    if norm == "instance":
        return NormalisedConvTranspose2d(inputs, outputs, kernel)
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=1, output_padding=4 - kernel, bias=False)


def check_norm(norm: Norm) -> None:
    """Raises ValueError for a norm that there is not."""
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")


class ResidualBlock(nn.Module):
    """Holds two convolutions and their norms; `kernels.residual_block` computes with those of instance norm."""

    def __init__(self, channels: int, norm: Norm = "instance", *, dropout: bool = False) -> None:
        super().__init__()
        self.dropout = dropout
        self.conv1 = convolution_before(norm, channels, channels, 3)
        self.norm1 = new_norm(norm, channels)
        self.conv2 = convolution_before(norm, channels, channels, 3)
        self.norm2 = new_norm(norm, channels)

    def forward(self, x: Tensor, *, pad_out: int, impl: Impl) -> Tensor:
        """[N, C, H + 2, W + 2], padded by 1 -> [N, C, H + 2*pad_out, W + 2*pad_out]; instance norm, no dropout."""
        return residual_block(x, self.conv1.weight, self.conv2.weight, pad_out=pad_out, impl=impl)

    def unpadded(self, x: Tensor, *, impl: Impl) -> Tensor:
        """Compute the block as the paper writes it, [N, C, H, W] to [N, C, H, W], with any norm and dropout."""
        middle = self.conv1(reflection_pad(x, 1, impl=impl))
        if self.dropout and self.training:
            middle = F.dropout(self.norm1(middle, activation="relu", impl=impl), 0.5)
            middle = reflection_pad(middle, 1, impl=impl)
        else:
            middle = self.norm1(middle, activation="relu", pad=1, impl=impl)
        result: Tensor = self.norm2(self.conv2(middle), residual=x, impl=impl)
        return result


class ResnetGenerator(nn.Module):
    """Translates images of one domain into the other.

    Norms have parameters with `norm="batch"` only: `stem_norm`, `down_norms`, `norm1` and `norm2` of a block,
    `up_norms`.

    Args:
        width: channels after the stem (`ngf` in the original), 64 in the paper.
        blocks: residual blocks, 9 for 256x256 and larger, 6 for 128x128.
        norm: "instance" as in the paper, "batch" (see `norms.BatchNorm`) or "none".
        dropout: drop half of what stands between the two convolutions of each block, while training only.
        impl: which implementation of the fused operators runs, see `kernels.dispatch.choose`.
        checkpoint_blocks: keep only the inputs of residual blocks, and compute the blocks once more in the backward
            pass (Chen et al. 2016, arXiv 1604.06174); not with batch norm or dropout, which would count and draw twice.
    """

    multiple = DOWNSAMPLING
    """what image sides must be multiples of"""

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "instance",
        dropout: bool = False,
        impl: Impl = "auto",
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        if width < 1 or blocks < 1:
            raise ValueError(f"width and blocks must be positive, got {width} and {blocks}")
        check_norm(norm)
        if checkpoint_blocks and (norm == "batch" or dropout):
            raise ValueError("checkpoint_blocks computes blocks twice: it goes with neither batch norm nor dropout")
        self.impl: Impl = impl
        self.norm: Norm = norm
        self.dropout = dropout
        self.checkpoint_blocks = checkpoint_blocks
        self.stem = convolution_before(norm, 3, width, 7)
        self.stem_norm = new_norm(norm, width)
        self.down = nn.ModuleList(
            convolution_before(norm, width * scale, width * scale * 2, 3, stride=2, padding=1) for scale in (1, 2)
        )
        self.down_norms = nn.ModuleList(new_norm(norm, width * scale) for scale in (2, 4))
        self.blocks = nn.ModuleList(ResidualBlock(width * 4, norm, dropout=dropout) for _ in range(blocks))
        self.up = nn.ModuleList(doubling_before(norm, width * scale, width * scale // 2) for scale in (4, 2))
        self.up_norms = nn.ModuleList(new_norm(norm, width * scale) for scale in (2, 1))
        self.head = nn.Conv2d(width, 3, 7)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> the same; H and W multiples of 4, in the weights' dtype.

        Between two convolutions stands one fused operator; its result is already padded for the next one.
        """
        if image.size(2) % DOWNSAMPLING or image.size(3) % DOWNSAMPLING:
            raise ValueError(f"image sides must be multiples of {DOWNSAMPLING}, got {image.size(2)}x{image.size(3)}")
        impl = self.impl
        x = reflection_pad(image, 3, impl=impl)
        x = self.stem_norm(self.stem(x), activation="relu", impl=impl)
        x = self.down_norms[0](self.down[0](x), activation="relu", impl=impl)
        # Buffers that flow padded save a fused operator its own pad. Plain operators, and a graph that is exported,
        # would have to slice the interior of each for the sum around its block.
        is_fused = self.norm == "instance" and not (self.dropout and self.training)
        is_padded = is_fused and choose("residual_block", impl, image) == "triton" and not is_exporting()
        x = self.down_norms[1](self.down[1](x), activation="relu", pad=int(is_padded), impl=impl)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, ResidualBlock)
            if is_padded:
                compute = partial(block, pad_out=int(index < len(self.blocks) - 1), impl=impl)
            else:
                compute = partial(block.unpadded, impl=impl)
            if self.checkpoint_blocks and torch.is_grad_enabled():
                x = checkpoint(compute, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = compute(x)
        x = self.up_norms[0](self.up[0](x), activation="relu", impl=impl)
        x = self.up_norms[1](self.up[1](x), activation="relu", pad=3, impl=impl)
        if go_by_columns(image, impl):
            assert self.head.bias is not None
            return torch.tanh(conv2d_to_image(x, self.head.weight, self.head.bias))
        return torch.tanh(self.head(x))


class Discriminator(nn.Module):
    """Convolutions in a row with leaky ReLUs between them, each but the first behind a norm; no sigmoid.

    Norms have parameters with `norm="batch"` only; `norms.i` stands behind `layers.{i + 1}`.

    Args:
        layers: two convolutions at least.
        norm: behind all but the first and the last.
        impl: which implementation of the fused operators runs, see `kernels.dispatch.choose`.
    """

    def __init__(self, layers: Sequence[nn.Conv2d], norm: Norm, impl: Impl) -> None:
        super().__init__()
        self.norm: Norm = norm
        self.impl: Impl = impl
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(new_norm(norm, layer.out_channels) for layer in layers[1:-1])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """[N, channels, H, W] in [-1, 1] -> scores [N, 1, h, w], one a patch; 256x256 gives 30x30 of 70x70 pixels."""
        first, *middle, last = self.layers
        x = F.leaky_relu(first(image), SLOPE)
        for layer, norm in zip(middle, self.norms, strict=True):
            x = norm(layer(x), activation="leaky_relu", impl=self.impl)
        scores: Tensor = last(x)
        return scores


class PatchDiscriminator(Discriminator):
    """Judges each patch of an image as real or not, of 70x70 pixels by default (Isola et al. 2017, section 3.2.2).

    Args:
        width: channels of the first convolution (`ndf` in the original), 64 in the paper.
        channels: of an image. A conditional discriminator (pix2pix) judges an image beside the one it was made from,
            6 channels.
        n_layers: convolutions of stride 2; 1 to 5 make patches of 16, 34, 70, 142 and 286 pixels.
        norm, impl: see `Discriminator`.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        channels: int = 3,
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

    def __init__(self, *, width: int = 64, channels: int = 3, norm: Norm = "instance", impl: Impl = "auto") -> None:
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
    if channels < 1:
        raise ValueError(f"channels must be positive, got {channels}")
    check_norm(norm)


def initialise(network: nn.Module, init_type: InitType = "normal", gain: float = 0.02) -> None:
    """Draw new weights, by default N(0, 0.02) (Zhu et al. 2017, section 7.1); biases become 0.

    "xavier" and "kaiming" are normal distributions, too, the latter of fan in and without a gain. Scales of batch norms
    are N(1, gain).
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if init_type == "normal":
                nn.init.normal_(module.weight, 0.0, gain)
            elif init_type == "xavier":
                nn.init.xavier_normal_(module.weight, gain)
            elif init_type == "kaiming":
                nn.init.kaiming_normal_(module.weight)
            else:
                nn.init.orthogonal_(module.weight, gain)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
