"""Checks an operator's tensors: that they are tensors, dense ones, of a dtype, shape and device that fit."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .options import as_choice, value_and_type

FLOATING_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_tensor(name: str, x: object) -> None:
    """Raise TypeError where x is no tensor, or one whose values do not lie in memory by strides.

    Sparse tensors, nested ones and those of oneDNN do not; a quantised one has a dtype that is refused elsewhere.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {value_and_type(x)}")
    if x.layout is not torch.strided or x.is_nested:
        kind = "a nested one" if x.is_nested else f"one of layout {x.layout}, of which to_dense() makes one"
        raise TypeError(f"{name} must be a dense tensor, got {kind}")


def check_floating(name: str, x: object) -> None:
    """Raise TypeError where x is not a dense tensor in float16, bfloat16, float32 or float64."""
    check_tensor(name, x)
    _check_dtype(name, x)  # type: ignore[arg-type]  # it is a tensor


def _check_dtype(name: str, x: Tensor) -> None:
    if x.dtype not in FLOATING_DTYPES:
        raise TypeError(
            f"{name} must be a floating-point tensor (float16, bfloat16, float32 or float64), got {x.dtype}"
        )


def check_image_batch(name: str, x: object) -> None:
    """Raise ValueError or TypeError where x is not a dense floating-point [N, C, H, W] tensor with channels."""
    check_tensor(name, x)
    assert isinstance(x, Tensor)
    if x.dim() != 4:
        raise ValueError(f"{name} must be [N, C, H, W], got {x.dim()} dimensions: {tuple(x.shape)}")
    _check_dtype(name, x)
    if x.size(1) == 0:
        raise ValueError(f"{name} must have at least one channel, got {tuple(x.shape)}")


def check_like(name: str, other: Tensor, x: Tensor) -> None:
    """Raise TypeError where `other` has another dtype than x, or is on another device."""
    # A dtype is one object; comparing devices takes longer than all else here.
    if other.dtype is not x.dtype or other.device != x.device:
        raise TypeError(f"{name} must be {x.dtype} on {x.device} as x is, got {other.dtype} on {other.device}")


def check_beside(name: str, other: Tensor, x: Tensor) -> None:
    """Raise TypeError where `other` is on another device than x."""
    if other.device != x.device:
        raise TypeError(f"{name} must be on {x.device} as x is, got one on {other.device}")


def check_shape_and_dtype(
    name: str, x: object, dtype: torch.dtype | tuple[torch.dtype, ...], shape: Sequence[int | None], like: Tensor
) -> None:
    """Raise ValueError or TypeError where x is not a dense tensor of `dtype` and `shape` on the device of `like`.

    A tuple of dtypes stands for any of them, None in `shape` for any number.
    """
    check_tensor(name, x)
    assert isinstance(x, Tensor)
    fits = x.dim() == len(shape) and all(
        side is None or side == found for side, found in zip(shape, x.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"{name} must be [{wanted}], got {tuple(x.shape)}")
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    if x.dtype not in dtypes or x.device != like.device:
        names = as_choice([str(one) for one in dtypes])
        raise TypeError(f"{name} must be {names} on {like.device}, got {x.dtype} on {x.device}")
