"""Makes samples of what a Python program gives, and of a translation what its image was; needs no PyTorch."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from PIL import Image

from cyclegan_fast.images.decoding import decode_opened
from cyclegan_fast.images.formats.conversion import counted_gaps
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.system.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST = 1.001
"""The largest magnitude of a tensor in [-1, 1], whatever its precision."""


def images_taken(source: PixelType) -> str:
    """Return in words what a translator of samples of `source` takes."""
    kind, channels = source.dtype, source.channels
    flat = " ([H, W], too)" if channels == 1 else ""
    return (
        f"a picture of Pillow's, a file's path, {'an' if kind[0] in 'aeio' else 'a'} {kind} array "
        f"[H, W, {channels}] or [N, H, W, {channels}]{flat}, a floating-point tensor [{channels}, H, W] or "
        f"[N, {channels}, H, W] in [-1, 1], or a list of pictures, paths and arrays"
    )


def is_tensor(images: object) -> "TypeGuard[Tensor]":
    """Tell whether something is a tensor of PyTorch's."""
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(images, torch.Tensor)


def checked_tensor(images: "Tensor", source: PixelType) -> "Tensor":
    """Return images as [N, C, H, W]; raises UserError unless they are such, and in [-1, 1]."""
    shape, channels = list(images.shape), source.channels
    if not images.is_floating_point() or images.dim() not in (3, 4) or shape[-3] != channels or 0 in shape[-2:]:
        raise UserError(
            f"a translator takes {images_taken(source)}; got a tensor {images.dtype} {shape}".replace("torch.", "")
        )
    largest = float(images.detach().abs().max()) if images.numel() else 0.0
    if not largest <= _LARGEST:
        middle, half = source.low + source.half_range, source.half_range
        way = "images / 127.5 - 1" if source.dtype == "uint8" else f"(images - {middle:g}) / {half:g}"
        raise UserError(
            f"a tensor's values must lie in [-1, 1], and one has the magnitude {largest:g}: those of "
            f"{'8 bits' if source.dtype == 'uint8' else source.dtype} become that by {way}"
        )
    return images if images.dim() == 4 else images[None]


def checked_samples(image: Any, source: PixelType) -> SampleArray:
    """Return an array as [H, W, C]; raises UserError unless it has the type and channels of `source`."""
    samples: SampleArray = image[..., None] if image.ndim == 2 and source.channels == 1 else image
    if samples.dtype != source.as_numpy or samples.shape[2:] != (source.channels,) or not samples.size:
        raise UserError(f"a translator takes {images_taken(source)}; got an array {image.dtype} {list(image.shape)}")
    if isinstance(samples, np.ma.MaskedArray):
        raise UserError("a translator does not know which pixels of a masked array count: give its .filled(...)")
    return _with_values(samples)


def _with_values(samples: SampleArray) -> SampleArray:
    """Return samples; raises UserError where some are infinite or none is a number, as of files."""
    if samples.dtype.kind != "f":
        return samples
    try:
        counted_gaps(samples)
    except ValueError as error:
        raise UserError(f"the image cannot be translated: {error}") from error
    return samples


def samples_of_picture(image: Image.Image, source: PixelType, value_range: ValueRange | None) -> SampleArray:
    """Return a picture of Pillow's as samples [H, W, C] of `source`; `value_range` is that of `decode_opened`.

    8 bits of colours become grey by their luma, and grey becomes colours. Deeper samples are taken from pictures of one
    channel that hold them exactly. Raises UserError for others.
    """
    if source.dtype != "uint8":
        return _deep_samples_of(image, source)
    try:
        rgb = decode_opened(image, value_range).image
    except ValueError as error:  # the range of its values is not known, or it is of no mode that is RGB
        raise UserError(f"the picture of mode {image.mode} cannot be converted to 8 bits: {error}") from error
    if source.channels == 1:
        return np.asarray(rgb.convert("L"))[..., None]
    if source.channels != 3:
        raise UserError(f"a picture of Pillow's does not hold {source}: give an array [H, W, {source.channels}]")
    return np.asarray(rgb)


def _deep_samples_of(image: Image.Image, source: PixelType) -> SampleArray:
    is_deep = image.mode == "F" or image.mode.startswith("I")
    values = np.asarray(image) if is_deep else np.empty(0)
    samples = values.astype(source.as_numpy)[..., None]
    if source.channels != 1 or not is_deep or not np.array_equal(samples[..., 0], values, equal_nan=True):
        raise UserError(
            f"a picture of mode {image.mode} does not hold {source}: give {source.dtype} arrays [H, W, "
            f"{source.channels}]"
        )
    return _with_values(samples)


def like_given(image: object, samples: SampleArray, target: PixelType) -> SampleArray | Image.Image:
    """Return a translation as what its image was, where that can hold it."""
    if isinstance(image, np.ndarray):
        return samples[..., 0] if image.ndim == 2 and target.channels == 1 else samples
    if target.channels == 1 and target.dtype != "int16":
        return Image.fromarray(np.ascontiguousarray(samples[..., 0]))
    if target.channels == 3 and target.dtype == "uint8":
        return Image.fromarray(np.ascontiguousarray(samples))
    return samples
