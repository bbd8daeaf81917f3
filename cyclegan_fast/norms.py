"""The norms that networks are built with, each with the activation behind it."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.config import Norm
from kernels import Impl, instance_norm

NormActivation = Literal["relu", "leaky_relu"]

SLOPE = 0.2
"""Of every leaky ReLU, in U-Nets and discriminators."""


class InstanceNorm(nn.Module):
    """An instance norm without parameters and the activation behind it, fused."""

    def forward(self, x: Tensor, activation: NormActivation, impl: Impl) -> Tensor:
        """[N, C, H, W] -> the same."""
        return instance_norm(x, activation=activation, negative_slope=SLOPE, impl=impl)


class BatchNorm(nn.BatchNorm2d):
    """A batch norm with scale and shift, without running statistics, and the activation behind it.

    In training mode statistics are those of the batch, in evaluation mode those of each image by itself: pix2pix
    translates one image at a time with the statistics of the test batch (Isola et al. 2017, section 3.3), so that an
    image's translation does not depend on its neighbours in a batch here either. PyTorch computes it, whatever `impl`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, input: Tensor, activation: NormActivation, impl: Impl) -> Tensor:  # type: ignore[override]  # one more
        """[N, C, H, W] -> the same, in the input's dtype; statistics in float32 at least."""
        wide = torch.promote_types(input.dtype, torch.float32)  # narrower weights make the CPU's statistics narrow, too
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        parts = [
            F.batch_norm(part, None, None, weight, bias, training=True, eps=self.eps)
            for part in ([input] if self.training else torch.split(input, 1))
        ]
        normalised = parts[0] if len(parts) == 1 else torch.cat(parts)
        return F.relu(normalised) if activation == "relu" else F.leaky_relu(normalised, SLOPE)


def norm_of(norm: Norm, channels: int) -> nn.Module:
    """Make a new norm of a kind: `forward(x, activation, impl)`."""
    return BatchNorm(channels) if norm == "batch" else InstanceNorm()
