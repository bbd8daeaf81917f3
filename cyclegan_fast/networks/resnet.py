"""Defines the paper's generator (Zhu et al. 2017, sections 4 and 7.2), with the original's other choices.

patchgan.py has the discriminators, unet.py the U-Net of pix2pix.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclegan_fast.config.options import Norm, Upsampling
from cyclegan_fast.conventions import SIDE_MULTIPLE
from cyclegan_fast.images.pixel_type import RGB
from cyclegan_fast.kernels import Impl, reflection_pad, residual_block
from cyclegan_fast.kernels.dispatch import choose, is_exporting
from cyclegan_fast.networks.image_convolutions import (
    conv2d_to_image,
    convolve_image,
    convolve_to_image,
    go_by_columns,
)
from cyclegan_fast.networks.layers import check_channels, check_norm, convolution_before, doubling_before, initialise
from cyclegan_fast.networks.norms import new_norm


class GeneratorBlock(nn.Module):
    """Holds two convolutions and their norms; `kernels.residual_block` computes with those of instance norm."""

    def __init__(self, channels: int, norm: Norm = "instance", *, dropout: bool = False) -> None:
        super().__init__()
        self.dropout = dropout
        self.conv1 = convolution_before(norm, channels, channels, 3)
        self.norm1 = new_norm(norm, channels)
        self.conv2 = convolution_before(norm, channels, channels, 3)
        self.norm2 = new_norm(norm, channels)

    def forward(self, x: Tensor, *, pad_out: int, impl: Impl) -> Tensor:
        """Map [N, C, H + 2, W + 2], padded by 1, to [N, C, H + 2*pad_out, W + 2*pad_out]; instance norm, no dropout."""
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
        inputs: channels of the images that it takes.
        outputs: channels of the images that it gives.
        width: channels after the stem (`ngf` in the original), 64 in the paper.
        blocks: residual blocks, 9 for 256x256 and larger, 6 for 128x128.
        norm: "instance" as in the paper, "batch" (see `norms.BatchNorm`) or "none".
        upsampling: "transposed" as in the paper, or "resize": each pixel is repeated and convolved 3x3, which makes all
            pixels of the result alike, where a transposed convolution of stride 2 makes a grid of them (Odena et al.
            2016, "Deconvolution and checkerboard artifacts").
        dropout: drop half of the activations between the two convolutions of each block, while training only.
        impl: the implementation of the fused operators that runs, see `kernels.dispatch.choose`.
        checkpoint_blocks: keep only the inputs of residual blocks, and compute the blocks once more in the backward
            pass (Chen et al. 2016, arXiv 1604.06174); not with batch norm or dropout, which would count and draw twice.
    """

    multiple = SIDE_MULTIPLE
    """Image sides must be multiples of this."""

    def __init__(
        self,
        *,
        inputs: int = RGB.channels,
        outputs: int = RGB.channels,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "instance",
        upsampling: Upsampling = "transposed",
        dropout: bool = False,
        impl: Impl = "auto",
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        if width < 1 or blocks < 1:
            raise ValueError(f"width and blocks must be positive, got {width} and {blocks}")
        check_channels(inputs=inputs, outputs=outputs)
        check_norm(norm)
        if checkpoint_blocks and (norm == "batch" or dropout):
            raise ValueError("checkpoint_blocks computes blocks twice: it goes with neither batch norm nor dropout")
        self.impl: Impl = impl
        self.norm: Norm = norm
        self.upsampling: Upsampling = upsampling
        self.dropout = dropout
        self.checkpoint_blocks = checkpoint_blocks
        self.stem = convolution_before(norm, inputs, width, 7)
        self.stem_norm = new_norm(norm, width)
        self.down = nn.ModuleList(
            convolution_before(norm, width * scale, width * scale * 2, 3, stride=2, padding=1) for scale in (1, 2)
        )
        self.down_norms = nn.ModuleList(new_norm(norm, width * scale) for scale in (2, 4))
        self.blocks = nn.ModuleList(GeneratorBlock(width * 4, norm, dropout=dropout) for _ in range(blocks))
        doubling = doubling_before if upsampling == "transposed" else partial(convolution_before, kernel=3)
        self.up = nn.ModuleList(doubling(norm, width * scale, width * scale // 2) for scale in (4, 2))
        self.up_norms = nn.ModuleList(new_norm(norm, width * scale) for scale in (2, 1))
        self.head = nn.Conv2d(width, outputs, 7)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, inputs, H, W] in [-1, 1], in the weights' dtype, to images [N, outputs, H, W] in [-1, 1].

        H and W are multiples of 4. Between two convolutions stands one fused operator; its result is already padded for
        the next one.
        """
        if image.size(2) % SIDE_MULTIPLE or image.size(3) % SIDE_MULTIPLE:
            raise ValueError(f"image sides must be multiples of {SIDE_MULTIPLE}, got {image.size(2)}x{image.size(3)}")
        impl = self.impl
        x = reflection_pad(image, 3, impl=impl)
        x = self.stem_norm(convolve_image(self.stem, x, impl), activation="relu", impl=impl)
        x = self.down_norms[0](self.down[0](x), activation="relu", impl=impl)
        # Buffers that flow padded save a fused operator its own pad. Plain operators, and a graph that is exported,
        # would have to slice the interior of each for the sum around its block.
        is_fused = self.norm == "instance" and not (self.dropout and self.training)
        is_padded = is_fused and choose("residual_block", impl, image) == "triton" and not is_exporting()
        x = self.down_norms[1](self.down[1](x), activation="relu", pad=int(is_padded), impl=impl)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, GeneratorBlock)
            if is_padded:
                compute = partial(block, pad_out=int(index < len(self.blocks) - 1), impl=impl)
            else:
                compute = partial(block.unpadded, impl=impl)
            if self.checkpoint_blocks and torch.is_grad_enabled():
                x = checkpoint(compute, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = compute(x)
        x = self.up_norms[0](self._doubled(0, x), activation="relu", impl=impl)
        x = self.up_norms[1](self._doubled(1, x), activation="relu", pad=3, impl=impl)
        if self.head.groups == 1 and go_by_columns(image, impl):
            assert self.head.bias is not None
            return torch.tanh(conv2d_to_image(x, self.head.weight, self.head.bias))
        return convolve_to_image(self.head, x, impl)

    def _doubled(self, level: int, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C / 2, 2H, 2W], in front of a norm."""
        if self.upsampling == "resize":
            x = reflection_pad(F.interpolate(x, scale_factor=2, mode="nearest"), 1, impl=self.impl)
        doubled: Tensor = self.up[level](x)
        return doubled
