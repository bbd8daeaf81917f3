"""Normalises rows by QuACK's layer norm: a channel of an image that lies channels first is a row of pixels."""

import importlib
from typing import Any

import torch
from torch import Tensor

from bench.cases.norm_opponents.opponent import OPPONENTS_EPS, installed_only_on_gpus


class QuackRowNorm:
    """QuACK's `layernorm_fwd` and `layernorm_bwd`, written in CuTe (quack-kernels 0.6.5).

    Its weight is one for each place in a row, 1 here; backward computes the weight's gradient as well, since there is
    no way to leave it out. Rows that its kernels cannot hold make it fail, and it is then named without a time.
    """

    name = "QuACK's layer norm, a row a channel"
    layout = torch.contiguous_format
    has_backward = True

    def __init__(self) -> None:
        self._ones: dict[tuple[int, torch.device], Tensor] = {}

    def absence(self, device: torch.device) -> str | None:
        return installed_only_on_gpus("quack.rmsnorm", device)

    def __call__(self, x: Tensor) -> Tensor:
        pixels = x.shape[2] * x.shape[3]
        if (pixels, x.device) not in self._ones:
            self._ones[pixels, x.device] = torch.ones(pixels, device=x.device)
        # A view, or an error: another layout would have to be copied.
        normed: Tensor = _RowNorm.apply(x.view(-1, pixels), self._ones[pixels, x.device])  # type: ignore[no-untyped-call]
        return normed.view_as(x)


class _RowNorm(torch.autograd.Function):
    """Computes the layer norm of rows [M, N] with a weight [N] in float32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        kernels = importlib.import_module("quack.rmsnorm")
        y, rstd, mean = kernels.layernorm_fwd(rows, weight, eps=OPPONENTS_EPS, return_rstd=True, return_mean=True)
        ctx.save_for_backward(rows, weight, rstd, mean)
        normed: Tensor = y
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        kernels = importlib.import_module("quack.rmsnorm")
        rows, weight, rstd, mean = ctx.saved_tensors
        dy = gradients[0].contiguous()
        return kernels.layernorm_bwd(rows, weight, dy, rstd, mean, has_bias=False)[0], None
