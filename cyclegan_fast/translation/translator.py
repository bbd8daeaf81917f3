"""Defines `Translator`, which translates a batch of images, for generators in PyTorch and for exported files.

Importing it needs no PyTorch. on_device.py runs a network of PyTorch, tiled.py does so for images of any size.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cyclegan_fast.images.pixels import FloatImages, Pixels, as_pixels, to_pixels_array, to_signed_array
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted

if TYPE_CHECKING:
    import torch
    from torch import nn


BYTES_PER_CHANNEL = 14
"""The most that a ResNet generator takes on a CPU for each pixel and channel of its first convolution: 893 bytes of 64
channels in float32, 671 in bfloat16, measured at 512x512."""
LESS_MEMORY = "add --tile, give a smaller --size, or lower --batch-size"


class Translator(Protocol):
    """Translates a batch of images, whatever it computes with."""

    def __call__(self, pixels: Pixels) -> Pixels:
        """Translate uint8 [N, H, W, 3]; H and W are multiples of 4 (of a U-Net's `multiple`), at least 8.

        Raises NotFinite.
        """


class NotFinite(UserError):
    """Says that a translation holds NaN or infinities; `index` is its place in the batch."""

    def __init__(self, index: int) -> None:
        super().__init__(
            "the generator's translation is not finite: its weights are damaged, or this precision is too low for them"
        )
        self.index = index


class SignedTranslator:
    """Translates by a function that takes float32 [N, 3, H, W] in [-1, 1] and returns the same; needs no PyTorch."""

    def __init__(self, function: Callable[[FloatImages], FloatImages]) -> None:
        self.function = function

    def __call__(self, pixels: Pixels) -> Pixels:
        translated = self.function(to_signed_array(pixels))
        for index, image in enumerate(translated):
            if not np.isfinite(image).all():
                raise NotFinite(index)
        return to_pixels_array(translated)


class TorchTranslator:
    """Translates by a generator in PyTorch, which is taken to `device` and computes in `dtype`."""

    def __init__(self, network: "nn.Module", device: "torch.device", dtype: "torch.dtype") -> None:
        from cyclegan_fast.translation.on_device import prepare_network

        self.network = prepare_network(network, device, dtype)
        self.device = device

    def __call__(self, pixels: Pixels) -> Pixels:
        """Translate uint8 [N, H, W, 3]; raises NotFinite, and UserError where the memory does not suffice."""
        import torch

        from cyclegan_fast.system.device import is_out_of_memory
        from cyclegan_fast.translation.on_device import translate_batch

        self._check_memory(pixels)
        try:
            with torch.inference_mode():
                images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())  # a decoded image is not writable
                return as_pixels(translate_batch(self.network, images))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"{self._too_large(pixels)}; {LESS_MEMORY}") from error

    def _check_memory(self, pixels: Pixels) -> None:
        """Raise UserError where a CPU's memory cannot hold the activations: the system would end the process."""
        from cyclegan_fast.data.pixel_cache import available_bytes
        from cyclegan_fast.networks.resnet import ResnetGenerator

        if self.device.type != "cpu" or not isinstance(self.network, ResnetGenerator):
            return
        count, height, width, _ = pixels.shape
        needed, free = BYTES_PER_CHANNEL * self.network.stem.out_channels * count * height * width, available_bytes()
        if needed > free:
            raise UserError(
                f"{self._too_large(pixels)}: about {needed / 2**30:.1f} GiB are needed, and {free / 2**30:.1f} GiB are "
                f"free; {LESS_MEMORY}"
            )

    def _too_large(self, pixels: Pixels) -> str:
        count, height, width, _ = pixels.shape
        what = f"{counted(count, 'image')} of {width}x{height} {'does' if count == 1 else 'do'} not fit"
        return f"{what} the memory of {self.device}"
