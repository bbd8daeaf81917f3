"""Calls the operators in C on tensors of a CPU: instance norm, its gradient, and the gradient of reflection padding.

Results have the memory format of their input: channels last where it is, channels first otherwise.
"""

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from .compilation import library

C_DTYPES = (torch.float32, torch.bfloat16, torch.float64)
_PART_BYTES = 16384
"""The size of a part of a plane, of which moments are taken by reading it twice: half of a first-level cache."""


class _Call(ctypes.Structure):
    """Holds a call's arguments, as `Call` of operators.c defines them."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "channels", "height", "width", "pad", "channels_last")),
        *((name, ctypes.c_int64) for name in ("residual_plane", "residual_row")),
        *((name, ctypes.c_double) for name in ("eps", "slope")),
        *((name, ctypes.c_void_p) for name in ("x", "residual", "y", "dy", "dx", "statistics", "parts")),
        ("rows_of_a_part", ctypes.c_int64),
    )


def format_of(x: Tensor) -> torch.memory_format:
    """Return the memory format that results have for this x [N, C, H, W]."""
    if x.is_contiguous() or x.stride(1) != 1:
        return torch.contiguous_format
    return torch.channels_last


def norm_in_c(x: Tensor, residual: Tensor | None, slope: float, pad: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return reflect_pad(act((x - mean) * rstd) + residual), and the statistics [2, N, C], mean and rstd.

    `slope` is that of the activation below zero: 0 for ReLU, 1 for none.
    """
    layout = format_of(x)
    x = _dense(x, layout)
    batch, channels, height, width = x.shape
    y = torch.empty(
        (batch, channels, height + 2 * pad, width + 2 * pad), dtype=x.dtype, device=x.device, memory_format=layout
    )
    statistics = torch.empty((2, batch, channels), dtype=wide_dtype(x.dtype), device=x.device)
    if not x.numel():
        return y, statistics
    parts, rows = _parts(x, layout)
    call = _call(x, layout, pad=pad, eps=eps, slope=slope, rows_of_a_part=rows)
    call.x, call.y, call.statistics, call.parts = (each.data_ptr() for each in (x, y, statistics, parts))
    if residual is not None:
        residual = _with_dense_rows(_in_memory(residual), layout)
        image, channel, row, _ = residual.stride()
        # The stride of a size of 1 is arbitrary.
        call.residual_plane = image if layout is torch.channels_last or channels == 1 else channel
        call.residual_row = row
        call.residual = residual.data_ptr()
    _run("forward", x.dtype, call)
    return y, statistics


def norm_gradient_in_c(dy: Tensor, x: Tensor, statistics: Tensor, slope: float) -> Tensor:
    """Return the gradient of x, for dy [N, C, H, W] of the unpadded result."""
    layout = format_of(x)
    x, dy = (_dense(each, layout) for each in (x, dy))
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    if not x.numel():
        return dx
    parts, rows = _parts(x, layout)
    call = _call(x, layout, slope=slope, rows_of_a_part=rows)
    call.x, call.dy, call.dx, call.statistics, call.parts = (each.data_ptr() for each in (x, dy, dx, statistics, parts))
    _run("backward", x.dtype, call)
    return dx


def pad_gradient_in_c(dy: Tensor, pad: int) -> Tensor:
    """Return the gradient [N, C, H, W] of what was padded by reflection to dy's size [N, C, H + 2*pad, W + 2*pad]."""
    layout = format_of(dy)
    dy = _dense(dy, layout)
    batch, channels, height, width = dy.shape
    dx = torch.empty(
        (batch, channels, height - 2 * pad, width - 2 * pad), dtype=dy.dtype, device=dy.device, memory_format=layout
    )
    if dx.numel():
        call = _call(dx, layout, pad=pad)
        call.dy, call.dx = dy.data_ptr(), dx.data_ptr()
        _run("unpad", dy.dtype, call)
    return dx


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of statistics: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def _in_memory(x: Tensor) -> Tensor:
    """Return x itself, or a copy where its memory does not hold its values.

    PyTorch gives some views a bit by which their values have the other sign, and some zeros no memory at all.
    """
    if x._is_zerotensor():
        return torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    return x.resolve_neg() if x.is_neg() else x


def _dense(x: Tensor, layout: torch.memory_format) -> Tensor:
    return _in_memory(x).contiguous(memory_format=layout)


def _call(x: Tensor, layout: torch.memory_format, **values: Any) -> _Call:
    return _Call(*x.shape, channels_last=layout is torch.channels_last, **values)


def _parts(x: Tensor, layout: torch.memory_format) -> tuple[Tensor, int]:
    """Return room for two numbers of each channel and part of a plane, and how many rows a part has."""
    batch, channels, height, width = x.shape
    row_bytes = width * x.element_size() * (channels if layout is torch.channels_last else 1)
    rows = max(1, _PART_BYTES // row_bytes)
    return torch.empty(2 * batch * channels * -(-height // rows), dtype=wide_dtype(x.dtype), device=x.device), rows


def _with_dense_rows(residual: Tensor, layout: torch.memory_format) -> Tensor:
    """Return the residual where it lies if only its rows are apart, as in the interior of a padded buffer."""
    batch, channels, height, _ = residual.shape
    image, channel, row, column = residual.stride()
    if layout is torch.channels_last:
        is_dense = column == channels and channel == 1
    else:
        # Planes are counted through, so that images must follow one another as channels do.
        is_dense = column == 1 and (batch == 1 or channels == 1 or image == channels * channel)
    return residual if is_dense and row and (height > 1 or batch == 1) else residual.contiguous(memory_format=layout)


def _run(name: str, dtype: torch.dtype, call: _Call) -> None:
    _function(name, dtype)(ctypes.byref(call))


@functools.cache
def _function(name: str, dtype: torch.dtype) -> Any:
    return getattr(library(), f"{name}_{str(dtype).removeprefix('torch.')}")
