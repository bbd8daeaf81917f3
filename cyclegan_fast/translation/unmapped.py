"""Treats samples that the range of a domain does not map to [-1, 1]: those without a value, and those beyond it."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.system.words import counted

Mask = npt.NDArray[np.bool_]
"""Tells of pixels, [..., H, W], whether any of their samples has no value."""


def share_beyond(samples: SampleArray, kind: PixelType) -> float:
    """Return the share of samples that lie beyond the range of `kind`, which become its ends; NaN lies nowhere."""
    if kind.dtype != "float32":
        held = np.iinfo(kind.dtype)
        if kind.low <= held.min and held.max <= kind.high:
            return 0.0
    return float(np.count_nonzero((samples < kind.low) | (samples > kind.high)) / max(1, samples.size))


def without_missing(samples: SampleArray, kind: PixelType) -> tuple[SampleArray, Mask | None]:
    """Return samples [..., H, W, C] with the range's low end in place of NaN, and where that is; None for nowhere."""
    if samples.dtype.kind != "f":
        return samples, None
    absent = np.isnan(samples)
    if not absent.any():
        return samples, None
    missing: Mask = np.asarray(absent.any(-1))
    return np.where(absent, samples.dtype.type(kind.low), samples), missing


def with_missing(samples: SampleArray, missing: Mask | None, kind: PixelType) -> SampleArray:
    """Return samples [..., H, W, C] of `kind` with NaN where pixels are missing; whole numbers stay as they are."""
    if missing is None or kind.dtype != "float32":
        return samples
    return np.where(missing[..., None], np.float32(np.nan), samples)


def resized_mask(missing: Mask, width: int, height: int) -> Mask:
    """Return a mask [S, H, W] at width x height pixels: each is as the nearest one of before."""
    across, down = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
        for new, old in ((width, missing.shape[2]), (height, missing.shape[1]))
    )
    resized: Mask = missing[:, down][:, :, across]
    return resized


def on_beyond(shares: Iterable[float], images: int, source: PixelType) -> list[str]:
    """Write the remark on images with values beyond the range, of which `shares` are so; none where there are none."""
    found = [share for share in shares if share]
    if not found:
        return []
    verb = "holds" if len(found) == 1 else "hold"
    return [
        f"{len(found)} of {counted(images, 'image')} {verb} values beyond {source.low:g} to {source.high:g}, "
        f"{_percent(sum(found) / len(found))} of all that {'it holds' if len(found) == 1 else 'they hold'}: these "
        "became the ends of that range (--range LOW HIGH gives another)"
    ]


def on_missing(shares: Iterable[float], images: int, source: PixelType, target: PixelType) -> list[str]:
    """Write the remark on images with pixels without a value, of which `shares` are so; none where there are none."""
    found = [share for share in shares if share]
    if not found:
        return []
    verb = "holds" if len(found) == 1 else "hold"
    written = (
        "and are NaN in the translation, too" if target.dtype == "float32" else "which the translation cannot show"
    )
    return [
        f"{len(found)} of {counted(images, 'image')} {verb} NaN, {_percent(sum(found) / len(found))} of their pixels: "
        f"these were translated as {source.low:g}, {written}"
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
