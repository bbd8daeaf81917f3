"""Translates a batch of images with a network of PyTorch: samples to numbers in [-1, 1], the network, and back.

Whoever translates a batch calls `translate_batch`: `TorchTranslator` for image files, the passes of an evaluation, and
the samples of a training. on_gpu.py keeps a GPU busy, strips/ translates one large image in strips, and `export/` runs
exported files.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import as_pixels, as_tensor, images_at_once, levels, signed
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.process import available_bytes
from cyclegan_fast.system.shortage import is_out_of_memory
from cyclegan_fast.translation.translator import BatchDoesNotFit, NotFinite, images_do_not_fit

BYTES_PER_CHANNEL = 14
"""The most that a ResNet generator takes on a CPU for each pixel and channel of its first convolution: 893 bytes of 64
channels in float32, 671 in bfloat16, measured at 512x512."""
LESS_MEMORY = "add --tile, or give a smaller --size"


def prepare_network(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Take a network to a device and a precision, to translate and not to learn; it is changed, and returned."""
    # Convolutions without gradients measured faster channels last everywhere (LOG.md, 2026-11-26).
    placed: nn.Module = network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from stubs
    return placed.eval().requires_grad_(False)


def translate_batch(network: nn.Module, samples: Tensor, source: PixelType = RGB, target: PixelType = RGB) -> Tensor:
    """Translate samples [N, C, H, W] of `source`, in the precision of the network's weights, to samples of `target`.

    The images may lie on another device than the network: samples are converted where they lie, and the result returns
    there. Whole numbers are rounded. Raises NotFinite, which is a UserError.
    """
    return levels(translate_signed(network, signed(samples, source)), target)


def translate_signed(network: nn.Module, images: Tensor) -> Tensor:
    """Translate float32 [N, C, H, W] in [-1, 1] as `translate_batch` does, without its rounding to samples."""
    translated, finite = run_network(network, images)
    check_finite(finite)
    return translated.float().to(images.device)


def run_network(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Translate float32 [N, C, H, W] in [-1, 1], in the precision and on the device of the weights; waits for nothing.

    Returns the translation there, and for each image whether its translation is finite, [N].
    """
    weight, was_training = next(network.parameters()), network.training
    network.eval()  # a U-Net drops nothing then, and its batch norm takes each image by itself
    try:
        translated: Tensor = network(images.to(weight.device, weight.dtype))
    finally:
        network.train(was_training)
    return translated, translated.isfinite().flatten(1).all(1)


def check_finite(finite: Tensor) -> None:
    """Raise NotFinite for the first image of a batch that is not, of [N]; waits for the device."""
    if not bool(finite.all()):
        raise NotFinite(finite.tolist().index(False))


@torch.no_grad()
def translate_pixels(
    network: nn.Module, samples: SampleArray, source: PixelType = RGB, target: PixelType = RGB
) -> SampleArray:
    """Translate samples [N, H, W, C] on the host, as many images at once as `images_at_once` says."""
    images = as_tensor(samples, next(network.parameters()).device)
    batches = torch.split(images, images_at_once(*samples.shape[1:3]))
    return as_pixels(torch.cat([translate_batch(network, batch, source, target) for batch in batches]))


class TorchTranslator:
    """Translates by a generator in PyTorch, which is taken to `device` and computes in `dtype`.

    Args:
        source: the type of the pixels that it takes.
        target: the type of those that it gives.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        source: PixelType = RGB,
        target: PixelType = RGB,
    ) -> None:
        self.network = prepare_network(network, device, dtype)
        self.device = device
        self.source = source
        self.target = target

    def __call__(self, samples: SampleArray) -> SampleArray:
        """Translate samples [N, H, W, C]; raises NotFinite, and BatchDoesNotFit where the memory does not suffice."""
        count, height, width, _ = samples.shape
        with self._memory_for(count, height, width), torch.inference_mode():
            images = torch.from_numpy(samples.transpose(0, 3, 1, 2).copy())  # a decoded image is not writable
            return as_pixels(translate_batch(self.network, images, self.source, self.target))

    def close(self) -> None:
        """Free what it holds besides the network."""

    def translate_tensor(self, images: Tensor) -> Tensor:
        """Translate [N, C, H, W] in [-1, 1] to the same type on the same device, without rounding; see `__call__`."""
        count, _, height, width = images.shape
        # Not in inference mode: the translation may become an input of what somebody trains.
        with self._memory_for(count, height, width), torch.no_grad():
            return translate_signed(self.network, images.contiguous()).to(images.dtype)

    @contextmanager
    def _memory_for(self, count: int, height: int, width: int) -> Iterator[None]:
        """Raise BatchDoesNotFit where the memory does not hold what so many images of a size need."""
        too_large = f"{images_do_not_fit(count, height, width)} the memory of {self.device}"
        advice = LESS_MEMORY if count == 1 else f"lower --batch-size, {LESS_MEMORY}"
        # A CPU's memory is asked first: where it does not suffice, the system would end the process.
        if self.device.type == "cpu" and isinstance(self.network, ResnetGenerator):
            needed = BYTES_PER_CHANNEL * self.network.stem.out_channels * count * height * width
            free = available_bytes()
            if needed > free:
                raise BatchDoesNotFit(
                    f"{too_large}: about {needed / 2**30:.1f} GiB are needed, and {free / 2**30:.1f} GiB are free; "
                    f"{advice}"
                )
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BatchDoesNotFit(f"{too_large}; {advice}") from error
