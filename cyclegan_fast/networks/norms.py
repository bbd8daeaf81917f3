"""Defines what stands between two convolutions: a norm or none, its activation, a residual sum, reflection padding.

Instance norm runs as one fused operator (`kernels.instance_norm`); batch norm and none are PyTorch's own operators.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.config.options import Norm
from cyclegan_fast.kernels import Impl, instance_norm, reflection_pad
from cyclegan_fast.kernels.dispatch import Activation, is_exporting
from cyclegan_fast.kernels.instance_norm import apply_activation
from cyclegan_fast.system.errors import UserError

SLOPE = 0.2
"""The slope of a leaky ReLU below zero."""


class InstanceNorm(nn.Module):
    """Normalises each plane of each image; it has no parameters."""

    def forward(
        self, x: Tensor, *, activation: Activation = "none", pad: int = 0, residual: Tensor | None = None, impl: Impl
    ) -> Tensor:
        """Map [N, C, H, W] to [N, C, H + 2*pad, W + 2*pad]; adds `residual`, [N, C, H, W], behind the activation."""
        return instance_norm(x, activation=activation, negative_slope=SLOPE, residual=residual, pad=pad, impl=impl)


class NoNorm(nn.Module):
    """Normalises nothing, and applies only what stands behind a norm: activation, residual sum and padding."""

    def forward(
        self, x: Tensor, *, activation: Activation = "none", pad: int = 0, residual: Tensor | None = None, impl: Impl
    ) -> Tensor:
        """Map [N, C, H, W] to [N, C, H + 2*pad, W + 2*pad], see `InstanceNorm`."""
        return _finished(x, activation, pad, residual, impl)


class BatchNorm(nn.BatchNorm2d):
    """Normalises over the batch, with scale, shift and running statistics (Ioffe & Szegedy 2015, arXiv 1502.03167).

    In training mode the statistics are those of the batch, and the running ones follow them as PyTorch's do: a tenth of
    the way at each pass, the variance unbiased. In evaluation mode they are those of each image by itself: pix2pix
    translates one image at a time with the statistics of the test batch (Isola et al. 2017, section 3.3), so that an
    image's translation does not depend on its neighbours in a batch here either. After `use_running_statistics`, the
    evaluation mode uses the running statistics, as the original's test.py does with --eval.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.uses_running_statistics = False

    def forward(  # type: ignore[override]  # more arguments
        self, x: Tensor, *, activation: Activation = "none", pad: int = 0, residual: Tensor | None = None, impl: Impl
    ) -> Tensor:
        """Map [N, C, H, W] to [N, C, H + 2*pad, W + 2*pad] in x's dtype, see `InstanceNorm`.

        The statistics are computed in float32 at least.
        """
        return _finished(self._normalised(x), activation, pad, residual, impl)

    def _normalised(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)  # narrower weights make the CPU's statistics narrow, too
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        assert variance is not None
        if self.training:
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked.add_(1)
            return F.batch_norm(x, mean, variance, weight, bias, True, self.momentum, self.eps)
        if self.uses_running_statistics:
            return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.eps)
        if is_exporting():
            return F.instance_norm(x, weight=weight, bias=bias, eps=self.eps)
        parts = [F.batch_norm(part, None, None, weight, bias, True, 0.0, self.eps) for part in torch.split(x, 1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the running statistics with the network, and keep them wide where it becomes narrow."""
        wide = {"running_mean": self.running_mean, "running_var": self.running_var}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for name, statistics in wide.items():
            moved = getattr(self, name)
            assert statistics is not None
            if moved.dtype.itemsize < statistics.dtype.itemsize and moved.dtype.itemsize < torch.float32.itemsize:
                setattr(self, name, statistics.to(moved.device))
        return self


AnyNorm = InstanceNorm | BatchNorm | NoNorm


def new_norm(norm: Norm, channels: int) -> AnyNorm:
    """Return a new norm of a kind, for `channels` channels."""
    if norm == "batch":
        return BatchNorm(channels)
    return InstanceNorm() if norm == "instance" else NoNorm()


def _finished(x: Tensor, activation: Activation, pad: int, residual: Tensor | None, impl: Impl) -> Tensor:
    x = apply_activation(x, activation, SLOPE)
    if residual is not None:
        x = x + residual
    return reflection_pad(x, pad, impl=impl) if pad else x


# --- running statistics ----------------------------------------------------------------------------------------------


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    """Return all batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


def share_statistics(copy: nn.Module, network: nn.Module) -> None:
    """Let the batch norms of a copy gather their running statistics in those of `network`."""
    for ours, theirs in zip(batch_norms(copy), batch_norms(network), strict=True):
        ours.running_mean, ours.running_var = theirs.running_mean, theirs.running_var
        ours.num_batches_tracked = theirs.num_batches_tracked


def use_running_statistics(network: nn.Module, origin: str) -> None:
    """Normalise by the running statistics in evaluation mode.

    Raises UserError where there is no batch norm, and where statistics were never gathered; `origin` names the file.
    """
    found = batch_norms(network)
    if not found:
        raise UserError(f"{origin} has no batch norm, and so no running statistics: leave --running-statistics out")
    if not any(is_gathered(norm) for norm in found):
        raise UserError(
            f"{origin} holds no running statistics, its training did not gather any: leave --running-statistics out"
        )
    for norm in found:
        norm.uses_running_statistics = True


def uses_running_statistics(network: nn.Module) -> bool:
    """Tell whether a network normalises by its running statistics in evaluation mode."""
    return any(norm.uses_running_statistics for norm in batch_norms(network))


def is_gathered(norm: BatchNorm) -> bool:
    """Tell whether running statistics were gathered: whether they differ from those of a new network."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return bool(norm.running_mean.any() or (norm.running_var != 1).any())


def missing_statistics(network: nn.Module, state: dict[str, Any]) -> dict[str, Tensor]:
    """Return new running statistics for the batch norms without any in `state`; older versions here gathered none."""
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, BatchNorm) and not any(f"{name}.{kind}" in state for kind in module._buffers):
            new = nn.BatchNorm2d(module.num_features)
            found |= {f"{name}.{kind}": buffer for kind, buffer in new.named_buffers()}
    return found
