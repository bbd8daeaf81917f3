"""Makes small networks and pictures, and translates them at once and in strips."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cyclegan_fast.config.options import Norm, Upsampling
from cyclegan_fast.images.pixels import Pixels, to_signed_array
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.translation.on_device import prepare_network, translate_signed
from cyclegan_fast.translation.strips.resnet import TiledTranslator

CPU = torch.device("cpu")


def make_generator(
    seed: int,
    blocks: int = 6,
    norm: Norm = "instance",
    upsampling: Upsampling = "transposed",
    channels: tuple[int, int] = (3, 3),
) -> ResnetGenerator:
    """Make a narrow generator whose weights are so large that the picture still shows its input."""
    torch.manual_seed(seed)
    inputs, outputs = channels
    network = ResnetGenerator(inputs=inputs, outputs=outputs, width=4, blocks=blocks, norm=norm, upsampling=upsampling)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.1 if norm == "instance" else 0.2)
    # In memory as the command has it, so that convolutions add up in the same order.
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def in_strips(
    network: ResnetGenerator,
    rows: int,
    width: int,
    scratch: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> TiledTranslator:
    """Return a translator whose budget gives strips of `rows` rows of an image of that width."""
    translator = TiledTranslator(network, device, dtype, scratch)
    translator.budget_bytes = rows * translator.strip_row_bytes(width)
    assert translator.strip_rows(width) == rows
    return translator


def joined(translator: TiledTranslator, image: Pixels) -> npt.NDArray[np.float32]:
    """Return the strips of a translation as one image, [3, H, W] in [-1, 1]."""
    result: npt.NDArray[np.float32] = torch.cat([strip.float().cpu() for strip in translator.strips(image)], 2)[
        0
    ].numpy()
    return result


def at_once(
    network: ResnetGenerator, image: Pixels, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        images = torch.from_numpy(to_signed_array(image[None]))
        result: npt.NDArray[np.float32] = translate_signed(prepare_network(network, device, dtype), images)[0].numpy()
    return result


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Dark above and bright below, so that no part has the statistics of the whole."""
    noise = np.random.default_rng(seed).integers(0, 100, (height, width, 3))
    slope: npt.NDArray[np.float64] = np.linspace(0, 155, height)[:, None, None]
    return (noise + slope).astype(np.uint8)
