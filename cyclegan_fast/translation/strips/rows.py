"""Computes a network's layers as streams of rows: a layer that is asked for rows asks the one before it.

A stream is a function from (first, last) to the rows [1, C, last - first, W] of an activation. It is asked from top to
bottom, for each row once, and what it returns is the caller's own, who may write to it. Activations are channels last,
so that a row is contiguous; on a CPU that is as fast as NCHW (2 cores with AVX2, torch 2.13). What strips of equal rows
become is computed once, see repeated_strips.py.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import to_signed
from cyclegan_fast.networks.norms import BatchNorm, InstanceNorm
from cyclegan_fast.translation.strips.repeated_strips import repeating
from cyclegan_fast.translation.strips.scratch_file import StoredActivation

Rows = Callable[[int, int], Tensor]
Edges = Literal["reflect", "constant"]  # F.pad's names; the constant is zero

EPS = 1e-5  # as in `kernels.instance_norm`


class Statistics:
    """Gathers count, mean and M2 (sum of squared deviations) of each channel, strip after strip.

    Strips are combined by Chan et al. 1979 ("Updating formulae and a pairwise algorithm for computing sample
    variances", eq. 2.1) in float64: the sums of a large image are too long for float32.
    """

    def __init__(self) -> None:
        self.shift: Tensor | None = None
        """Holds what is added behind the scale, [1, C, 1, 1], where a norm has parameters."""
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)  # [1, C, 1, 1] from the first strip on
        self.m2 = torch.zeros((), dtype=torch.float64)
        self._measured = repeating(_mean_and_m2)

    def add(self, strip: Tensor) -> None:
        """Count a strip [1, C, rows, W], which is left as it is."""
        mean, m2 = self._measured(strip).chunk(2, 1)
        count = strip.size(2) * strip.size(3)
        total = self.count + count
        delta = mean.double() - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2.double() + delta.square() * (self.count * count / total)
        self.count = total

    def scale(self) -> tuple[Tensor, Tensor]:
        """Return the mean and 1 / sqrt(biased variance + eps), float32 [1, C, 1, 1] each."""
        return self.mean.float(), (self.m2 / self.count + EPS).rsqrt().float()

    def is_finite(self) -> bool:
        """Say whether neither NaN nor infinities were among the numbers."""
        return bool((self.mean.isfinite() & self.m2.isfinite()).all())

    def state(self) -> dict[str, Any]:
        """Return what was gathered as plain numbers, exactly: `restore` takes it back."""
        return {"count": self.count, "mean": self.mean.flatten().tolist(), "m2": self.m2.flatten().tolist()}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Put back what `state` gave."""
        self.count = int(state["count"])
        self.mean, self.m2 = (
            torch.tensor(state[name], dtype=torch.float64, device=device).view(1, -1, 1, 1) for name in ("mean", "m2")
        )


def _mean_and_m2(strip: Tensor) -> Tensor:
    """Return the mean and M2 of each channel, float32 [1, 2C, 1, 1], one behind the other."""
    wide = strip.float()
    mean = wide.mean((0, 2, 3), keepdim=True)
    # Not torch.var_mean: it takes seven times as long on a CPU (torch 2.13).
    m2 = (wide - mean).square_().sum((0, 2, 3), keepdim=True)
    return torch.cat((mean, m2), 1)


class BatchNormStatistics(Statistics):
    """Gathers the statistics of an image for a batch norm, which has a scale and a shift of its own.

    It normalises by the running statistics where the norm does.
    """

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        self._norm = norm
        self.shift = _wide(norm.bias)

    def scale(self) -> tuple[Tensor, Tensor]:
        """Return the mean, and what to multiply by, float32 [1, C, 1, 1] each."""
        mean, scale = super().scale()
        if self._norm.uses_running_statistics:
            mean, scale = _wide(self._norm.running_mean), (_wide(self._norm.running_var) + EPS).rsqrt()
        return mean, scale * _wide(self._norm.weight)


def _wide(values: Tensor | None) -> Tensor:
    assert values is not None
    return values.detach().float().view(1, -1, 1, 1)


class NoStatistics(Statistics):
    """Stands for the statistics where there is no norm: it changes nothing, and only sees what is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self._is_finite = True

    def add(self, strip: Tensor) -> None:
        """Look at a strip [1, C, rows, W]."""
        self._is_finite &= bool(strip.isfinite().all())

    def scale(self) -> tuple[Tensor, Tensor]:
        """Return 0 and 1."""
        return torch.zeros(()), torch.ones(())

    def is_finite(self) -> bool:
        """Say whether neither NaN nor infinities were among the numbers."""
        return self._is_finite

    def state(self) -> dict[str, Any]:
        """Return nothing: a pass with numbers that are not finite is never complete."""
        return {}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Put back nothing."""


class Window:
    """Holds the rows that a convolution looks at as it moves down, so that each is asked for once.

    The last `overlap` rows are held until the next look, which begins no higher. A look may reach beyond the edges, by
    rows and by `pad` columns, which are there by reflection, or zero.
    """

    def __init__(self, rows: Rows, height: int, *, overlap: int, pad: int, edges: Edges) -> None:
        self._rows = rows
        self._height = height
        self._overlap = overlap
        self._pad = pad
        self._edges = edges
        self._held: Tensor | None = None  # the last rows above self._end
        self._end = 0

    def __call__(self, first: int, last: int) -> Tensor:
        """Return rows `first` to `last`, [1, C, last - first, W + 2*pad]; neither is ever less than before."""
        above, below = max(-first, 0), max(last - self._height, 0)
        inside = self._move(first + above, last - below)
        # A copy: a view would hold all of the strip while the next one is made.
        self._held = inside[:, :, -self._overlap :].clone(memory_format=torch.channels_last)
        return F.pad(inside, (self._pad, self._pad, above, below), mode=self._edges)

    def _move(self, first: int, last: int) -> Tensor:
        begin, self._end = self._end, last
        if self._held is None:
            return self._rows(begin, last)
        held = self._held[:, :, self._held.size(2) - (begin - first) :]
        return torch.cat((held, self._rows(begin, last)), 2) if last > begin else held


def new_statistics(norm: nn.Module) -> Statistics:
    """Return what gathers the statistics that a norm needs."""
    if isinstance(norm, BatchNorm):
        return BatchNormStatistics(norm)
    return Statistics() if isinstance(norm, InstanceNorm) else NoStatistics()


# --- the streams of a generator ------------------------------------------------------------------------------------


class RowSource(Protocol):
    """Gives rows of an image [H, W, C], as an array does, without having all of them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> SampleArray: ...


def image_rows(samples: RowSource, device: torch.device, dtype: torch.dtype, source: PixelType = RGB) -> Rows:
    """Stream samples [H, W, C] of `source` in [-1, 1]; only the rows asked for are ever converted."""

    def rows(first: int, last: int) -> Tensor:
        strip = to_signed(torch.tensor(samples[first:last], device=device)[None], source).to(dtype)
        return strip.contiguous(memory_format=torch.channels_last)

    return rows


def normalised_rows(rows: Rows, statistics: Statistics, *, residual: Rows | None = None, slope: float = 0.0) -> Rows:
    """Stream a norm, then ReLU or the sum with `residual`, rounded to the dtype of `rows` as PyTorch does.

    `slope` is that of a leaky ReLU below zero.
    """
    (mean, scale), shift = statistics.scale(), statistics.shift

    def normalise(strip: Tensor, *around: Tensor) -> Tensor:
        wide = strip.float().sub_(mean).mul_(scale)
        result = (wide if shift is None else wide.add_(shift)).to(strip.dtype)
        if around:
            return result.add_(*around)
        return F.leaky_relu_(result, slope) if slope else result.relu_()

    normalised = repeating(normalise)
    if residual is None:
        return lambda first, last: normalised(rows(first, last))
    return lambda first, last: normalised(rows(first, last), residual(first, last))


def measured_rows(rows: Rows, statistics: Statistics) -> Rows:
    """Stream `rows`, and add them to `statistics` as they pass."""

    def gather(first: int, last: int) -> Tensor:
        strip = rows(first, last)
        statistics.add(strip)
        return strip

    return gather


def stored_rows(rows: Rows, activation: StoredActivation) -> Rows:
    """Stream `rows`, and append them to `activation` as they pass."""

    def keep(first: int, last: int) -> Tensor:
        strip = rows(first, last)
        activation.append(strip)
        return strip

    return keep


def convolved_rows(
    rows: Rows, height: int, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, edges: Edges = "reflect"
) -> Rows:
    """Stream a convolution of an activation of `height` rows, padded to keep its sides, or halve them by a stride of 2.

    `weight` [C_out, C_in, K, K], K odd, or 4 with a stride of 2.
    """
    kernel = weight.size(2)
    pad = (kernel - 1) // 2
    window = Window(rows, height, overlap=kernel - stride, pad=pad, edges=edges)
    convolved = repeating(lambda strip: F.conv2d(strip, weight, bias, stride))
    return lambda first, last: convolved(window(first * stride - pad, (last - 1) * stride - pad + kernel))


def resized_rows(rows: Rows, height: int) -> Rows:
    """Stream an activation of `height` rows with each pixel four times, which doubles both sides."""
    window = Window(rows, height, overlap=1, pad=0, edges="constant")

    def repeat(first: int, last: int) -> Tensor:
        above = first // 2
        strip = F.interpolate(window(above, (last + 1) // 2), scale_factor=2, mode="nearest")
        return strip[:, :, first - 2 * above : last - 2 * above]

    return repeat


def doubled_rows(rows: Rows, height: int, weight: Tensor) -> Rows:
    """Stream the transposed convolution of `NormalisedConvTranspose2d`, which doubles both sides.

    Its row 2i is made from row i, its row 2i + 1 from rows i and i + 1.
    """
    window = Window(rows, height, overlap=2, pad=0, edges="constant")  # 2 where a strip ends on an odd row

    def doubled(strip: Tensor, first: int, last: int) -> Tensor:
        # The last two rows lack their share of what lies below.
        return F.conv_transpose2d(strip, weight, None, stride=2, padding=1, output_padding=1)[:, :, first:last]

    repeated = repeating(doubled)

    def double(first: int, last: int) -> Tensor:
        above, below = first // 2, (last + 1) // 2
        return repeated(window(above, below + 1), first - 2 * above, last - 2 * above)

    return double
