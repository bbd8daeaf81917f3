"""What translates a batch of images: a protocol, and the generator in PyTorch; importing it needs no PyTorch."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cyclegan_fast.images.pixels import FloatImages, Pixels, to_pixels_array, to_signed_array
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
    """Anything that translates a batch, whatever it computes with."""

    def __call__(self, pixels: Pixels) -> Pixels:
        """uint8 [N, H, W, 3] -> the same; H and W are multiples of 4 (of a U-Net's `multiple`), at least 8.

        Raises NotFinite.
        """


class NotFinite(Exception):
    """A translation that holds NaN or infinities; `index` is its place in the batch."""

    def __init__(self, index: int) -> None:
        super().__init__(f"translation {index} of its batch is not finite")
        self.index = index


class SignedTranslator:
    """A translator from a function of float32 [N, 3, H, W] in [-1, 1], which returns the same."""

    def __init__(self, function: Callable[[FloatImages], FloatImages]) -> None:
        self.function = function

    def __call__(self, pixels: Pixels) -> Pixels:
        translated = self.function(to_signed_array(pixels))
        for index, image in enumerate(translated):
            if not np.isfinite(image).all():
                raise NotFinite(index)
        return to_pixels_array(translated)


class TorchTranslator(SignedTranslator):
    """A generator in PyTorch, on `device` and computing in `dtype`."""

    def __init__(self, network: "nn.Module", device: "torch.device", dtype: "torch.dtype") -> None:
        import torch

        super().__init__(self.translate)
        # Convolutions without gradients measured faster channels last everywhere (LOG.md, 2026-11-26).
        network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from stubs
        self.network = network.eval()
        self.device = device
        self.dtype = dtype

    def translate(self, images: FloatImages) -> FloatImages:
        import torch

        self._check_memory(images)
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(images).to(self.device, self.dtype)
                translated: FloatImages = self.network(batch).float().cpu().numpy()
        except RuntimeError as error:
            from cyclegan_fast.system.device import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            raise UserError(f"{self._too_large(images)}; {LESS_MEMORY}") from error
        return translated

    def _check_memory(self, images: FloatImages) -> None:
        """Raise UserError where a CPU's memory cannot hold the activations: the system would end the process."""
        from cyclegan_fast.data.pixel_cache import available_bytes
        from cyclegan_fast.networks.resnet import ResnetGenerator

        if self.device.type != "cpu" or not isinstance(self.network, ResnetGenerator):
            return
        count, _, height, width = images.shape
        needed, free = BYTES_PER_CHANNEL * self.network.stem.out_channels * count * height * width, available_bytes()
        if needed > free:
            raise UserError(
                f"{self._too_large(images)}: about {needed / 2**30:.1f} GiB are needed, and {free / 2**30:.1f} GiB are "
                f"free; {LESS_MEMORY}"
            )

    def _too_large(self, images: FloatImages) -> str:
        count, _, height, width = images.shape
        what = f"{counted(count, 'image')} of {width}x{height} {'does' if count == 1 else 'do'} not fit"
        return f"{what} the memory of {self.device}"
