"""The paper's generator and discriminator (Zhu et al. 2017, sections 4 and 7.2)."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclegan_fast.config import InitType, Norm
from cyclegan_fast.image_convolutions import conv2d_to_image, go_by_columns
from cyclegan_fast.norms import SLOPE, norm_of
from kernels import Impl, instance_norm, reflection_pad, residual_block
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


class ResidualBlock(nn.Module):
    """Holds two convolutions; `kernels.residual_block` computes with them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = NormalisedConv2d(channels, channels, 3)
        self.conv2 = NormalisedConv2d(channels, channels, 3)

    def forward(self, x: Tensor, *, pad_out: int, impl: Impl) -> Tensor:
        """[N, C, H + 2, W + 2], padded by 1 -> [N, C, H + 2*pad_out, W + 2*pad_out]."""
        return residual_block(x, self.conv1.weight, self.conv2.weight, pad_out=pad_out, impl=impl)

    def unpadded(self, x: Tensor, *, impl: Impl) -> Tensor:
        """The same block from [N, C, H, W] to [N, C, H, W], as the paper writes it."""
        middle = instance_norm(self.conv1(reflection_pad(x, 1, impl=impl)), activation="relu", pad=1, impl=impl)
        return instance_norm(self.conv2(middle), residual=x, impl=impl)


class ResnetGenerator(nn.Module):
    """Translates images of one domain into the other.

    Args:
        width: channels after the stem (`ngf` in the original), 64 in the paper.
        blocks: residual blocks, 9 for 256x256 and larger, 6 for 128x128.
        impl: which implementation of the fused operators runs, see `kernels.dispatch.choose`.
        checkpoint_blocks: keep only the inputs of residual blocks, and compute the blocks once more in the backward
            pass (Chen et al. 2016, arXiv 1604.06174).
    """

    multiple = DOWNSAMPLING
    """what image sides must be multiples of"""

    def __init__(
        self, *, width: int = 64, blocks: int = 9, impl: Impl = "auto", checkpoint_blocks: bool = False
    ) -> None:
        super().__init__()
        if width < 1 or blocks < 1:
            raise ValueError(f"width and blocks must be positive, got {width} and {blocks}")
        self.impl: Impl = impl
        self.checkpoint_blocks = checkpoint_blocks
        self.stem = NormalisedConv2d(3, width, 7)
        self.down = nn.ModuleList(
            NormalisedConv2d(width * scale, width * scale * 2, 3, stride=2, padding=1) for scale in (1, 2)
        )
        self.blocks = nn.ModuleList(ResidualBlock(width * 4) for _ in range(blocks))
        self.up = nn.ModuleList(NormalisedConvTranspose2d(width * scale, width * scale // 2) for scale in (4, 2))
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
        x = instance_norm(self.stem(x), activation="relu", impl=impl)
        x = instance_norm(self.down[0](x), activation="relu", impl=impl)
        # Buffers that flow padded save a fused operator its own pad. Plain operators, and a graph that is exported,
        # would have to slice the interior of each for the sum around its block.
        is_padded = choose("residual_block", impl, image) == "triton" and not is_exporting()
        x = instance_norm(self.down[1](x), activation="relu", pad=int(is_padded), impl=impl)
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
        x = instance_norm(self.up[0](x), activation="relu", impl=impl)
        x = instance_norm(self.up[1](x), activation="relu", pad=3, impl=impl)
        if go_by_columns(image, impl):
            assert self.head.bias is not None
            return torch.tanh(conv2d_to_image(x, self.head.weight, self.head.bias))
        return torch.tanh(self.head(x))


class PatchDiscriminator(nn.Module):
    """Judges each 70x70 patch of an image as real or not (Isola et al. 2017, section 3.2.2).

    Args:
        width: channels of the first convolution (`ndf` in the original), 64 in the paper.
        channels: of an image. A conditional discriminator (pix2pix) judges an image beside the one it was made from,
            6 channels.
        norm: "instance", or "batch" as pix2pix has it. Convolutions in front of a batch norm own no bias.
        impl: which implementation of the fused operators runs, see `kernels.dispatch.choose`.
    """

    def __init__(self, *, width: int = 64, channels: int = 3, norm: Norm = "instance", impl: Impl = "auto") -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be positive, got {width}")
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        self.impl: Impl = impl
        sides = ((width, width * 2, 2), (width * 2, width * 4, 2), (width * 4, width * 8, 1))
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(channels, width, 4, stride=2, padding=1),
                *(_in_front_of(norm, inputs, outputs, stride) for inputs, outputs, stride in sides),
                nn.Conv2d(width * 8, 1, 4, padding=1),
            ]
        )
        self.norms = nn.ModuleList(norm_of(norm, outputs) for _, outputs, _ in sides)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """[N, channels, H, W] in [-1, 1] -> scores [N, 1, h, w], one a patch, no sigmoid; 256x256 gives 30x30."""
        first, *middle, last = self.layers
        x = F.leaky_relu(first(image), SLOPE)
        for layer, norm in zip(middle, self.norms, strict=True):
            x = norm(layer(x), "leaky_relu", self.impl)
        scores: Tensor = last(x)
        return scores


def _in_front_of(norm: Norm, inputs: int, outputs: int, stride: int) -> nn.Module:
    """Make a discriminator's convolution in front of a norm; a batch norm shifts by itself."""
    if norm == "batch":
        return nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False)
    return NormalisedConv2d(inputs, outputs, 4, stride=stride, padding=1)


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
