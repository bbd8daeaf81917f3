"""Computes once what strips of equal rows become: empty glass of one colour, and parts of a scene without data.

An operator that is given a strip of the same bits and the same layout again gives the same bits again. So its last
result is repeated where rows are constant, and such a part of an image costs little more than its rows' way through the
memory; whatever is around it stays as it is. One row of each strip is kept, and one of what it became. Behind a
transposed convolution rows are not equal but alternate, two by two behind one and four by four behind two.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_PERIODS = (1, 2, 4)  # rows repeat after so many, where a constant part of an image went through two doublings at most
ROWS_THAT_REPEAT = max(_PERIODS)
"""Strips of a multiple of so many rows begin with the same one of those that alternate."""
_GLANCE = 64  # numbers of a row that tell most strips apart
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes; as bits, NaN are equal


class _Repetition(NamedTuple):
    """Holds the rows that a strip [1, C, H, W] repeats, and the shape and strides of the strip."""

    rows: Tensor
    shape: torch.Size
    strides: tuple[int, ...]

    def equals(self, other: "_Repetition") -> bool:
        """Say whether another strip has the same bits, in the same layout: an operator may choose its way by that."""
        alike = (self.shape, self.strides) == (other.shape, other.strides)
        return alike and _have_equal_bits(self.rows, other.rows)

    def kept(self) -> "_Repetition":
        """Return what stays as it is when the strip is written to."""
        return self._replace(rows=self.rows.clone())

    def repeated(self) -> Tensor:
        """Return the strip anew."""
        strip = torch.empty_strided(self.shape, self.strides, dtype=self.rows.dtype, device=self.rows.device)
        period = self.rows.size(2)
        for row in range(period):
            strip[:, :, row::period] = self.rows[:, :, row : row + 1]
        return strip


def repeating(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return an operator that repeats its last result where it is given the same strips of repeated rows again.

    Its arguments are strips [1, C, rows, W], to which it may write, and whole numbers. What it returns is the caller's
    own.
    """
    glances: list[Tensor] = []
    kept: tuple[list[_Repetition], list[int], _Repetition] | None = None

    def operate(*arguments: Tensor | int) -> Tensor:
        nonlocal glances, kept
        strips = [argument for argument in arguments if isinstance(argument, Tensor)]
        numbers = [argument for argument in arguments if isinstance(argument, int)]
        before, glances = glances, [_glance_at(strip) for strip in strips]
        if not (before and all(map(_have_equal_bits, before, glances))):
            return operator(*arguments)
        found = _repetitions(strips)
        if found is None:
            return operator(*arguments)
        if kept is not None and kept[1] == numbers and all(map(_Repetition.equals, kept[0], found)):
            return kept[2].repeated()
        found = [each.kept() for each in found]
        result = operator(*arguments)
        made = _repetitions([result])
        kept = None if made is None else (found, numbers, made[0].kept())
        return result

    return operate


def _glance_at(strip: Tensor) -> Tensor:
    """Return a few numbers of a strip's last row."""
    step = max(1, strip.size(3) // _GLANCE)
    return strip[:, :1, -1:, ::step].clone()


def _repetitions(strips: Sequence[Tensor]) -> list[_Repetition] | None:
    """Return what each strip repeats, as views of it; None where rows of one do not repeat."""
    found = []
    for strip in strips:
        period = _period_of(strip)
        if period is None:
            return None
        found.append(_Repetition(strip[:, :, :period], strip.shape, strip.stride()))
    return found


def _period_of(strip: Tensor) -> int | None:
    """Return after how many rows those of a strip repeat, twice at least unless it is a single row; None for never."""
    count = strip.size(2)
    for period in _PERIODS:
        if (
            count == 1
            or (
                count >= 2 * period
                and _have_equal_bits(strip[:, :, :1], strip[:, :, period : period + 1])  # which is seldom so
                and _have_equal_bits(strip[:, :, period:], strip[:, :, :-period])
            )
        ):
            return period
    return None


def _have_equal_bits(some: Tensor, others: Tensor) -> bool:
    bits = _BITS[some.element_size()]
    return some.shape == others.shape and torch.equal(some.view(bits), others.view(bits))
