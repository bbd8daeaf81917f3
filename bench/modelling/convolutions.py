"""Reads the calls of convolutions, and describes them as the matrix products that a library computes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.modelling.assumptions import CHANNEL_UNIT
from bench.modelling.nodes import MatrixProduct

_aten = torch.ops.aten


@dataclass(frozen=True)
class ConvolutionCall:
    """Describes a convolution: its operands, and its result or the gradient of it."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    y: Tensor
    """[N, C_out, H', W']"""
    transposed: bool
    stride: int
    groups: int = 1

    @property
    def operations(self) -> int:
        """Count a pass, forward, dgrad or wgrad alike: a multiply-add is two.

        Each pixel of the side that has fewer of them meets each weight once: y's, and x's where it is transposed.
        """
        pixels = self.x if self.transposed else self.y
        return 2 * pixels.size(0) * math.prod(pixels.shape[2:]) * self.weight.numel()

    @property
    def _taps(self) -> int:
        return math.prod(self.weight.shape[2:])

    def forward(self) -> MatrixProduct:
        steps = self.stride**2 if self.transposed else 1
        depth = -(-self._depth(self.x) * self._taps // steps)
        return MatrixProduct("forward", _pixels(self.y), self.y.size(1) // self.groups, depth, self.groups)

    def dgrad(self) -> MatrixProduct:
        """Describe the gradient of x; of a convolution that strides, each pixel of x meets a part of the weights."""
        steps = 1 if self.transposed else self.stride**2
        depth = -(-self._depth(self.y) * self._taps // steps)
        return MatrixProduct("dgrad", _pixels(self.x), self.x.size(1) // self.groups, depth, self.groups)

    def wgrad(self) -> MatrixProduct:
        """Describe the gradient of the weights: a sum over pixels."""
        few, many = (self.x, self.y) if self.transposed else (self.y, self.x)
        rows, columns = few.size(1) // self.groups, self._depth(many) * self._taps
        return MatrixProduct("wgrad", rows, columns, _pixels(few), self.groups)

    def _depth(self, image: Tensor) -> int:
        """Return how many channels of an image a group is multiplied with, those included that fill up a unit."""
        return -(-image.size(1) // self.groups // CHANNEL_UNIT) * CHANNEL_UNIT


def _pixels(image: Tensor) -> int:
    return image.size(0) * math.prod(image.shape[2:])


def forward_call(operator: Any, arguments: Sequence[Any], y: Any) -> ConvolutionCall | None:
    """Return what a call of a convolution computed, or None for another operator."""
    if operator is _aten.convolution.default:
        x, weight, bias, stride, _, _, transposed, _, groups = arguments
    elif operator is _aten.conv2d.default:
        x, weight, bias, stride, _, _, groups = [*arguments, *_CONV2D_DEFAULTS[len(arguments) :]]
        transposed = False
    else:
        return None
    return ConvolutionCall(x, weight, bias, y, transposed, stride[0], groups)


_CONV2D_DEFAULTS: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1], 1)


def backward_call(operator: Any, arguments: Sequence[Any]) -> ConvolutionCall | None:
    """Return which convolution a call differentiates, with the gradient of its result; None for another operator."""
    if operator is not _aten.convolution_backward.default:
        return None
    dy, x, weight, _, stride, _, _, transposed, _, groups, _ = arguments
    return ConvolutionCall(x, weight, None, dy, transposed, stride[0], groups)
