"""Defines convolutions that a norm follows, and draws the weights that networks begin with; norms.py has the norms."""

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.config.options import InitType, Norm
from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.dispatch import choose
from cyclegan_fast.kernels.elementwise.bias_activation import BiasedActivation, bias_activation
from cyclegan_fast.networks.norms import SLOPE


class NormalisedConv2d(nn.Conv2d):
    """Convolves in front of an instance norm, which would cancel the bias: so the bias is never added.

    The bias stays in the state dict and in the parameter count, so that files of the original implementation load and
    save without loss; its gradient, rounding noise in the original, is defined as zero.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding)
        assert self.bias is not None
        self.bias.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W'], as `nn.Conv2d` does, without the bias."""
        return F.conv2d(input, self.weight, None, self.stride, self.padding, groups=self.groups)


class NormalisedConvTranspose2d(nn.ConvTranspose2d):
    """Doubles both sides, in front of an instance norm; its bias is treated as `NormalisedConv2d` treats its own.

    `kernel` is 3 or 4.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(inputs, outputs, kernel, stride=2, padding=1, output_padding=4 - kernel)
        assert self.bias is not None
        self.bias.requires_grad_(False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, 2H, 2W], without the bias."""
        padding = 4 - self.weight.size(3)
        return F.conv_transpose2d(
            input, self.weight, None, stride=2, padding=1, output_padding=padding, groups=self.groups
        )


def convolution_before(
    norm: Norm, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    """Return a convolution to stand in front of a norm.

    It owns a bias where the original's does: only in front of an instance norm, which cancels it.
    """
    if norm == "instance":
        return NormalisedConv2d(inputs, outputs, kernel, stride=stride, padding=padding)
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)


def doubling_before(norm: Norm, inputs: int, outputs: int, kernel: int = 3) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles both sides, see `convolution_before`; `kernel` is 3 or 4."""
    if norm == "instance":
        return NormalisedConvTranspose2d(inputs, outputs, kernel)
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=1, output_padding=4 - kernel, bias=False)


def activated_convolution(convolution: nn.Conv2d, x: Tensor, activation: BiasedActivation, impl: Impl) -> Tensor:
    """Return act(convolution(x)), [N, C, H, W], of a convolution that owns a bias.

    `impl` chooses whether bias and activation are one operator, see `kernels.dispatch.choose`.
    """
    if choose("bias_activation", impl, x) == "reference":
        y = convolution(x)
        return torch.tanh(y) if activation == "tanh" else F.leaky_relu(y, SLOPE)
    assert convolution.bias is not None
    y = convolution._conv_forward(x, convolution.weight, None)
    return bias_activation(y, convolution.bias, activation, negative_slope=SLOPE, impl=impl)


def check_norm(norm: Norm) -> None:
    """Raise ValueError for a norm that does not exist."""
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")


def check_channels(**channels: int) -> None:
    """Raise ValueError for a number of channels, by its argument's name, that no image has."""
    for name, count in channels.items():
        if count < 1:
            raise ValueError(f"{name} must be positive, got {count}")


def initialise(network: nn.Module, init_type: InitType = "normal", gain: float = 0.02) -> None:
    """Draw new weights, by default N(0, 0.02) (Zhu et al. 2017, section 7.1); biases become 0.

    "xavier" and "kaiming" are normal distributions, too, the latter of fan in and without a gain. Scales of batch norms
    are N(1, gain). Weights on PyTorch's device "meta" have no values to draw: to draw them all the same would import
    PyTorch's compiler, two seconds of each command.
    """
    for module in network.modules():
        if any(weight.is_meta for weight in module.parameters(recurse=False)):
            continue
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
