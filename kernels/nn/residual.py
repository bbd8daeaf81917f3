"""Defines the residual block of CycleGAN's generator as one operator."""

import torch
from torch import Tensor, nn

from ..arguments.options import checked_eps, checked_integer
from ..arguments.tensors import check_tensor
from ..dispatch import Impl, check_impl
from .functional import fused_block, padded
from .instance_norm2d import InstanceNorm2d
from .padding import ReflectionPad2d


class ResidualBlock(nn.Module):
    """Computes x + norm(conv(pad(relu(norm(conv(pad(x))))))) with 3x3 convolutions, as one operator.

    The state dict has the names of the block in the original implementation (`conv_block.1.weight`, ...), so that its
    weights fit. Biases are there for that alone: a norm subtracts them again, and their gradient is zero.

    Args:
        channels: of x.
        bias: whether the convolutions have one.
        eps: added to the biased variance.
        device: of the parameters, as is `dtype`.
        dtype: any floating one.
        impl: see `kernels.dispatch.choose`; there is none in C.

    Raises ValueError or TypeError naming the argument at fault.
    """

    def __init__(
        self,
        channels: int,
        *,
        bias: bool = True,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        impl: Impl = "auto",
    ) -> None:
        super().__init__()
        check_impl(impl)
        if impl == "c":
            raise ValueError("impl must be auto, triton or reference, got 'c': there is no residual block in C")
        channels, eps = checked_integer("channels", channels, 1), checked_eps(eps)
        self.impl: Impl = impl
        self.eps = eps
        self.conv_block = nn.Sequential(
            ReflectionPad2d(1, impl=impl),
            nn.Conv2d(channels, channels, 3, bias=bias, device=device, dtype=dtype),
            InstanceNorm2d(channels, eps, activation="relu", impl=impl),
            nn.Identity(),  # the norm's ReLU has its place here in the original
            ReflectionPad2d(1, impl=impl),
            nn.Conv2d(channels, channels, 3, bias=bias, device=device, dtype=dtype),
            InstanceNorm2d(channels, eps, impl=impl),
        )

    def forward(self, x: Tensor, *, is_padded: bool = False, pad_out: int = 0) -> Tensor:
        """Map [N, C, H, W] or [C, H, W] to the same shape, padded by `pad_out`, which is 0 or 1.

        `is_padded` says that x is padded by 1 already, as the result of a block with a `pad_out` of 1 is.
        """
        check_tensor("x", x)
        buffer = x if is_padded else padded(x, 1, impl=self.impl)
        convolution1, convolution2 = self.conv_block[1], self.conv_block[5]
        assert isinstance(convolution1, nn.Conv2d)
        assert isinstance(convolution2, nn.Conv2d)
        return fused_block(buffer, convolution1, convolution2, pad_out=pad_out, eps=self.eps, impl=self.impl)
