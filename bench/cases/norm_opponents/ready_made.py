"""Calls instance norms that other libraries offer as a function or a module of their own."""

import importlib
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases.norm_opponents.opponent import OPPONENTS_EPS, installed_only_on_gpus


class GroupNormOfChannels:
    """PyTorch's group norm with a group for each channel, which is what an instance norm is.

    PyTorch has kernels of it for channels last. https://github.com/pytorch/pytorch/pull/194616 has its instance norm
    use them.
    """

    name = "PyTorch's group norm, a group a channel"
    layout = torch.channels_last
    has_backward = True

    def absence(self, device: torch.device) -> str | None:
        """Return None: every PyTorch has it."""
        return None

    def __call__(self, x: Tensor) -> Tensor:
        return F.group_norm(x, x.shape[1], eps=OPPONENTS_EPS)


class ChannelsLastNorm:
    """PyTorch's own instance norm where it leaves channels last as they are, as of pull request 194616."""

    name = "PyTorch's instance norm that keeps channels last"
    layout = torch.channels_last
    has_backward = True

    def absence(self, device: torch.device) -> str | None:
        """Return that this version returns another layout, which a small norm shows."""
        probe = torch.zeros(1, 2, 2, 2, device=device).contiguous(memory_format=torch.channels_last)
        if self(probe).is_contiguous(memory_format=torch.channels_last):
            return None
        return f"torch {torch.__version__} returns channels first (its pull request 194616 changes that)"

    def __call__(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, eps=OPPONENTS_EPS)


class FlagGemsNorm:
    """FlagGems' `instance_norm`, written in Triton, forward and backward (version 5.0.2)."""

    name = "FlagGems' instance norm"
    layout = torch.contiguous_format  # it copies everything else
    has_backward = True

    def absence(self, device: torch.device) -> str | None:
        return installed_only_on_gpus("flag_gems", device)

    def __call__(self, x: Tensor) -> Tensor:
        normed: Tensor = importlib.import_module("flag_gems").instance_norm(x, eps=OPPONENTS_EPS)
        return normed


class TileNorm:
    """TileOPs' `InstanceNormFwdOp`, written in TileLang (version 0.1.0, Python 3.12); there is no backward pass."""

    name = "TileOPs' instance norm"
    layout = torch.contiguous_format
    has_backward = False

    def absence(self, device: torch.device) -> str | None:
        return installed_only_on_gpus("tileops.norm", device)

    @cached_property
    def operator(self) -> Any:
        """Return the operator, which compiles a kernel for each shape that it meets."""
        return importlib.import_module("tileops.norm").InstanceNormFwdOp(eps=OPPONENTS_EPS)

    def __call__(self, x: Tensor) -> Tensor:
        normed: Tensor = self.operator(x)
        return normed


class ApexNorm:
    """Apex's `InstanceNorm3dNVFuser`, which nvFuser compiles; images are volumes of depth 1 to it.

    https://github.com/NVIDIA/apex/pull/1564 has its Python; it also computes channels last.
    """

    name = "Apex's instance norm by nvFuser"
    layout = torch.channels_last
    has_backward = True

    def absence(self, device: torch.device) -> str | None:
        return installed_only_on_gpus("apex.normalization.instance_norm", device)

    def __call__(self, x: Tensor) -> Tensor:
        module = importlib.import_module("apex.normalization.instance_norm")
        norm = module.InstanceNorm3dNVFuser(x.shape[1], eps=OPPONENTS_EPS, affine=False, device=x.device)
        normed: Tensor = norm(x.unsqueeze(2)).squeeze(2)
        return normed
