"""Computes the mean errors that losses are made of, each in one launch, or in two where there are many elements.

Every mean is over [N, C, H, W], or over each of several directions' blocks of channels.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .. import plans
from ..arguments.options import check_choice, checked_integer, checked_number
from ..arguments.tensors import check_beside, check_floating, check_image_batch
from ..dispatch import Impl, choose, wide
from ..launching import run_kernel
from ..layout import empty_channels_last
from ..registration import FusedFunction, below_autograd, define, differentiable_once, differentiate
from ..triton_language import tl, triton
from .partial_sums import elements_per_program, sum_of_columns

ErrorKind = Literal["absolute", "from 1", "from 0", "from 1 and 0"]
"""|x - y|, (x - 1)^2, x^2, or the sum of (x - 1)^2 and y^2"""
_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


def mean_by_direction(x: Tensor, directions: int) -> Tensor:
    """Return the mean of x, a scalar, or of each direction's block of channels, [directions]."""
    return x.mean() if directions == 1 else x.unflatten(1, (directions, -1)).mean((0, 2, 3, 4))


def weighted(weight: float, loss: Tensor) -> Tensor:
    """Return weight * loss, without an operation where the weight is 1."""
    return loss if weight == 1 else weight * loss


def mean_error_reference(x: Tensor, y: Tensor | None, kind: ErrorKind, weight: float, directions: int) -> Tensor:
    """Compute `mean_error` in plain PyTorch."""
    if kind == "from 0":
        mean = mean_by_direction(wide(x).square(), directions)
    elif kind == "from 1":
        mean = mean_by_direction((wide(x) - 1).square(), directions)
    else:
        assert y is not None
        if kind == "absolute":
            mean = mean_by_direction((wide(x) - wide(y)).abs(), directions)
        else:
            mean = mean_by_direction((wide(x) - 1).square(), directions)
            mean = mean + mean_by_direction(wide(y).square(), directions)
    return weighted(weight, mean)


# --- kernels ---------------------------------------------------------------------------------------------------------


# Sizes are specialised here: only where a number of elements is known to be a multiple of 16 are accesses wide.
@triton.jit(do_not_specialize=["channels"])
def mean_error_sums(
    x_ptr,  # [N, H, W, C]
    y_ptr,  # [N, H, W, C], in a precision of its own; not read where one tensor has the error
    sums_ptr,  # [PROGRAMS, DIRECTIONS], float32: written
    elements,
    elements_per_program,
    channels,
    scale,
    KIND: tl.constexpr,
    READS_Y: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    BLOCK_ELEMENTS: tl.constexpr,
):
    """Write the sums of the errors of a program's elements, times `scale`; the grid is (programs, 1, 1)."""
    first = tl.program_id(0).to(tl.int64) * elements_per_program
    last = tl.minimum(first + elements_per_program, elements)
    for direction in tl.static_range(DIRECTIONS):
        total = tl.zeros((BLOCK_ELEMENTS,), tl.float32)
        for start in range(first, last, BLOCK_ELEMENTS):
            element = start + tl.arange(0, BLOCK_ELEMENTS)
            mask = element < last
            if DIRECTIONS > 1:
                mask = mask & ((element % channels) // (channels // DIRECTIONS) == direction)
            x = tl.load(x_ptr + element, mask=mask, other=0.0).to(tl.float32)
            if READS_Y:
                y = tl.load(y_ptr + element, mask=mask, other=0.0).to(tl.float32)
            if KIND == "absolute":
                error = tl.abs(x - y)
            elif KIND == "from 0":
                error = x * x
            elif KIND == "from 1":
                error = (x - 1.0) * (x - 1.0)
            else:
                error = (x - 1.0) * (x - 1.0) + y * y
            total += tl.where(mask, error, 0.0)
        tl.store(sums_ptr + tl.program_id(0) * DIRECTIONS + direction, tl.sum(total, axis=0) * scale)


@triton.jit(do_not_specialize=["channels"])
def mean_error_backward(
    x_ptr,  # [N, H, W, C]
    y_ptr,  # [N, H, W, C]; not read where one tensor has the error
    upstream_ptr,  # [DIRECTIONS], float32: the gradient of the mean
    dx_ptr,  # [N, H, W, C]: written with WANTS_DX
    dy_ptr,  # [N, H, W, C]: written with WANTS_DY
    elements,
    channels,
    scale,
    KIND: tl.constexpr,
    READS_X: tl.constexpr,
    READS_Y: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    WANTS_DX: tl.constexpr,
    WANTS_DY: tl.constexpr,
    BLOCK_ELEMENTS: tl.constexpr,
):
    """Write the gradients by x and y; the grid is (blocks of BLOCK_ELEMENTS elements, 1, 1)."""
    element = tl.program_id(0).to(tl.int64) * BLOCK_ELEMENTS + tl.arange(0, BLOCK_ELEMENTS)
    mask = element < elements
    factor = tl.load(upstream_ptr) * scale
    if DIRECTIONS > 1:
        direction = (element % channels) // (channels // DIRECTIONS)
        factor = tl.load(upstream_ptr + direction, mask=mask, other=0.0) * scale
    if READS_X:
        x = tl.load(x_ptr + element, mask=mask, other=0.0).to(tl.float32)
    if READS_Y:
        y = tl.load(y_ptr + element, mask=mask, other=0.0).to(tl.float32)
    if KIND == "absolute":
        sign = tl.where(x > y, 1.0, tl.where(x < y, -1.0, 0.0))
    if WANTS_DX:
        if KIND == "absolute":
            dx = sign * factor
        elif KIND == "from 0":
            dx = 2.0 * x * factor
        else:
            dx = 2.0 * (x - 1.0) * factor
        tl.store(dx_ptr + element, dx.to(dx_ptr.dtype.element_ty), mask=mask)
    if WANTS_DY:
        dy = -sign * factor if KIND == "absolute" else 2.0 * y * factor
        tl.store(dy_ptr + element, dy.to(dy_ptr.dtype.element_ty), mask=mask)


_BLOCK = 2048
_BLOCKS_ALONE = 8


def _sums(x: Tensor, y: Tensor | None, kind: ErrorKind, weight: float, directions: int) -> Tensor:
    """Launch the errors' sums; return the weighted means, float32 [directions]."""
    elements = x.numel()
    if elements == 0:
        return torch.full((directions,), float("nan"), device=x.device)
    per_program = elements_per_program(elements, _BLOCK, alone=_BLOCKS_ALONE)
    programs = plans.ceil_div(elements, per_program)
    sums = torch.empty((programs, directions), dtype=torch.float32, device=x.device)
    arguments = _operands(x, y, kind, weight, directions)
    arguments |= {"READS_Y": y is not None, "sums_ptr": sums, "elements_per_program": per_program}
    run_kernel(mean_error_sums, (programs, 1, 1), arguments, num_warps=8)
    return sums[0] if programs == 1 else sum_of_columns(sums, torch.float32)


def _gradients(
    upstream: Tensor,
    x: Tensor,
    y: Tensor | None,
    kind: ErrorKind,
    weight: float,
    directions: int,
    wants_x: bool,
    wants_y: bool,
) -> list[Tensor]:
    """Launch the gradients by x and y, channels last; return those that are wanted, x's first."""
    dx = empty_channels_last(x.shape, like=x) if wants_x else None
    dy = empty_channels_last(y.shape, like=y) if wants_y and y is not None else None
    found = [gradient for gradient in (dx, dy) if gradient is not None]
    if found and x.numel():
        arguments = _operands(x, y, kind, weight, directions)
        arguments |= {
            "upstream_ptr": upstream.contiguous(),
            "dx_ptr": found[0] if dx is None else dx,
            "dy_ptr": found[0] if dy is None else dy,
            "READS_X": dx is not None or kind == "absolute",
            "READS_Y": dy is not None or kind == "absolute",
            "WANTS_DX": dx is not None,
            "WANTS_DY": dy is not None,
        }
        run_kernel(mean_error_backward, (plans.ceil_div(x.numel(), _BLOCK), 1, 1), arguments, num_warps=8)
    return found


def _operands(x: Tensor, y: Tensor | None, kind: ErrorKind, weight: float, directions: int) -> dict[str, Any]:
    x = x.contiguous(memory_format=torch.channels_last)
    return {
        "x_ptr": x,
        "y_ptr": x if y is None else y.contiguous(memory_format=torch.channels_last),
        "elements": x.numel(),
        "channels": x.size(1),
        "scale": weight * directions / x.numel(),
        "KIND": kind,
        "DIRECTIONS": directions,
        "BLOCK_ELEMENTS": _BLOCK,
    }


# --- the operator ----------------------------------------------------------------------------------------------------


def _fake_sums(x: Tensor, y: Tensor | None, kind: str, weight: float, directions: int) -> Tensor:
    return x.new_empty(directions, dtype=torch.float32)


def _fake_gradients(
    upstream: Tensor,
    x: Tensor,
    y: Tensor | None,
    kind: str,
    weight: float,
    directions: int,
    wants_x: bool,
    wants_y: bool,
) -> list[Tensor]:
    return [
        empty_channels_last(t.shape, like=t) for t, wanted in ((x, wants_x), (y, wants_y)) if wanted and t is not None
    ]


_ARGUMENTS = "Tensor x, Tensor? y, str kind, float weight, int directions"
MEAN_ERROR = define(f"mean_error({_ARGUMENTS}) -> Tensor", _sums, _fake_sums)
MEAN_ERROR_BACKWARD = define(
    f"mean_error_backward(Tensor upstream, {_ARGUMENTS}, bool wants_x, bool wants_y) -> Tensor[]",
    _gradients,
    _fake_gradients,
)


class _MeanErrorFunction(FusedFunction):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None, kind: ErrorKind, weight: float, directions: int) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.options = kind, weight, directions
        with below_autograd():
            means: Tensor = MEAN_ERROR(x, y, kind, weight, directions)
        return means

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        found = iter(MEAN_ERROR_BACKWARD(upstream, x, y, *ctx.options, *wanted))
        dx, dy = (next(found) if is_wanted else None for is_wanted in wanted)
        return dx, dy, None, None, None


differentiate(MEAN_ERROR, _MeanErrorFunction)


def mean_error(
    x: Tensor,
    y: Tensor | None,
    kind: ErrorKind,
    *,
    weight: float = 1.0,
    directions: int = 1,
    impl: Impl = "auto",
) -> Tensor:
    """Return weight * the mean error of x.

    Args:
        x: images or scores in any floating dtype: [N, directions * C, H, W], or of any shape for one direction.
        y: what "absolute" compares x with; what "from 1 and 0" adds the squares of; None otherwise. Of x's shape, in a
            floating dtype of its own.
        kind: the error, see `ErrorKind`.
        weight: a factor of the mean, which costs nothing here.
        directions: how many blocks of channels have a mean of their own.
        impl: the implementation, see `kernels.dispatch.choose`.

    Returns a scalar, or [directions] where there are several; float32, and float64 where an input is. Raises ValueError
    or TypeError where the operands or the kind do not fit, and what `choose` raises.
    """
    check_floating("x", x)
    check_choice("kind", kind, _KINDS)
    weight, directions = checked_number("weight", weight), checked_integer("directions", directions, 1)
    if y is not None:
        check_floating("y", y)
        check_beside("y", y, x)
    if (y is None) != (kind in ("from 1", "from 0")):
        raise ValueError(f"{kind!r} is an error of {'one tensor' if y is not None else 'two tensors, got one'}")
    if y is not None and y.shape != x.shape:
        raise ValueError(f"y must have x's shape {tuple(x.shape)}, got {tuple(y.shape)}")
    if directions > 1:
        check_image_batch("x", x)
        if x.size(1) % directions:
            raise ValueError(f"directions must divide x's {x.size(1)} channels, got {directions}")
    widest = y if y is not None and y.dtype == torch.float64 else x
    if choose("mean_error", impl, widest) == "reference":
        return mean_error_reference(x, y, kind, weight, directions)
    if x.dim() != 4:  # the mean does not depend on the shape
        x, y = x.reshape(1, 1, -1, 1), None if y is None else y.reshape(1, 1, -1, 1)
    means: Tensor = MEAN_ERROR(x, y, kind, weight, directions)
    return means.view(()) if directions == 1 else means
