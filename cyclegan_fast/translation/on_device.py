"""Translates a batch of images with a network of PyTorch: pixels to numbers in [-1, 1], the network, and back.

Whoever translates a batch calls `translate_batch`: `TorchTranslator` for image files, the passes of an evaluation, and
the samples of a training. tiled.py translates one large image in strips, translator.py by files that were exported.
"""

import torch
from torch import Tensor, nn

from cyclegan_fast.images.pixels import Pixels, as_pixels, as_tensor, images_at_once, levels, signed
from cyclegan_fast.translation.translator import NotFinite


def prepare_network(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Take a network to a device and a precision, to translate and not to learn; it is changed, and returned."""
    # Convolutions without gradients measured faster channels last everywhere (LOG.md, 2026-11-26).
    placed: nn.Module = network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from stubs
    return placed.eval().requires_grad_(False)


def translate_batch(network: nn.Module, images: Tensor) -> Tensor:
    """Translate uint8 [N, 3, H, W], in the precision of the network's weights; the result is rounded to 8 bits.

    The images may lie on another device than the network: pixels are converted where they lie, and the result returns
    there. Raises NotFinite, which is a UserError.
    """
    return levels(translate_signed(network, signed(images)))


def translate_signed(network: nn.Module, images: Tensor) -> Tensor:
    """Translate float32 [N, 3, H, W] in [-1, 1] as `translate_batch` does, without its rounding to 8 bits."""
    weight, was_training = next(network.parameters()), network.training
    network.eval()  # a U-Net drops nothing then, and its batch norm takes each image by itself
    try:
        translated: Tensor = network(images.to(weight.device, weight.dtype))
    finally:
        network.train(was_training)
    finite = translated.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        raise NotFinite(finite.tolist().index(False))
    return translated.float().to(images.device)


@torch.no_grad()
def translate_pixels(network: nn.Module, pixels: Pixels) -> Pixels:
    """Translate uint8 [N, H, W, 3] on the host, as many images at once as `images_at_once` says."""
    images = as_tensor(pixels, next(network.parameters()).device)
    batches = torch.split(images, images_at_once(*pixels.shape[1:3]))
    return as_pixels(torch.cat([translate_batch(network, batch) for batch in batches]))
