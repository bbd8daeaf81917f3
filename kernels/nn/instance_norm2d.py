"""Defines the instance norm that is also activation, sum and padding."""

import functools
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments.options import check_choice, checked_eps, checked_integer, checked_number
from ..arguments.tensors import check_tensor
from ..dispatch import ACTIVATIONS, Activation, Impl, check_impl, choose
from ..instance_norm import apply_activation
from .functional import fused_norm, padded


class InstanceNorm2d(nn.InstanceNorm2d):
    """Computes reflect_pad(act(norm(x)) + residual) in one operator; without further arguments, what PyTorch's does.

    With affine parameters or running statistics PyTorch's operators compute it, one after the other; where the fused
    operator would have run otherwise, a UserWarning says so once.

    An eps of 0 makes NaN of a plane of one value, as the formula does, where PyTorch's module has 0.

    Args:
        num_features: channels of x; this, `eps`, `momentum`, `affine`, `track_running_stats`, `device` and `dtype` are
            those of `torch.nn.InstanceNorm2d`, as are the names in the state dict.
        activation: "none", "relu" or "leaky_relu".
        negative_slope: the leaky ReLU's slope below zero.
        pad: reflection padding of the result, for a convolution behind that has none of its own.
        impl: see `kernels.dispatch.choose`.

    Raises ValueError or TypeError naming the argument at fault.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Activation = "none",
        negative_slope: float = 0.2,
        pad: int = 0,
        impl: Impl = "auto",
    ) -> None:
        num_features, eps = checked_integer("num_features", num_features, 1), checked_eps(eps)
        check_choice("activation", activation, ACTIVATIONS)
        check_impl(impl)
        if impl in ("triton", "c") and (affine or track_running_stats):
            raise ValueError(f"impl={impl!r} computes neither affine parameters nor running statistics")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.activation: Activation = activation
        self.negative_slope = checked_number("negative_slope", negative_slope)
        self.pad = checked_integer("pad", pad, 0)
        self.impl: Impl = impl

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map [N, C, H, W] or [C, H, W] to [..., C, H + 2*pad, W + 2*pad]; `residual` has x's shape."""
        check_tensor("x", x)
        if residual is not None:
            check_tensor("residual", residual)
        self._check_input_dim(x)
        if self.affine or self.track_running_stats:
            return self._in_parts(x, residual)
        if x.size(-3) != self.num_features:
            warn_once(f"x has {x.size(-3)} channels where num_features is {self.num_features}; it is not used")
        return fused_norm(
            x,
            residual,
            activation=self.activation,
            negative_slope=self.negative_slope,
            pad=self.pad,
            eps=self.eps,
            impl=self.impl,
        )

    def _in_parts(self, x: Tensor, residual: Tensor | None) -> Tensor:
        if choose("instance_norm", self.impl, x) != "reference":
            warn_once("an instance norm with affine parameters or running statistics runs as PyTorch's, not fused")
        y = apply_activation(super().forward(x), self.activation, self.negative_slope)
        if residual is not None:
            y = y + residual
        return padded(y, self.pad, impl=self.impl) if self.pad else y

    def extra_repr(self) -> str:
        """Return PyTorch's description, and of the further arguments those that are not as by default."""
        further: dict[str, Any] = {}
        if self.activation != "none":
            further["activation"] = self.activation
        if self.activation == "leaky_relu":
            further["negative_slope"] = self.negative_slope
        if self.pad:
            further["pad"] = self.pad
        if self.impl != "auto":
            further["impl"] = self.impl
        described = super().extra_repr()  # type: ignore[no-untyped-call]  # untyped in torch
        return ", ".join([described, *(f"{name}={value!r}" for name, value in further.items())])


def warn_once(text: str) -> None:
    """Show a UserWarning, each text once in a process."""
    if not torch.compiler.is_compiling():
        _warn(text)


@functools.cache
def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=5)
