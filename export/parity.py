"""Measures how far translations are from those of PyTorch in float32, in the levels of an 8-bit image."""

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.pixels import Pixels, to_signed_array
from export.library_errors import explaining

if TYPE_CHECKING:
    from collections.abc import Callable

    from cyclegan_fast.networks.resnet import ResnetGenerator
    from export.pictures import Pictures

Levels = npt.NDArray[np.float64]
"""[N, H, W, 3] from 0 to 255, not rounded"""


@dataclass(frozen=True)
class Parity:
    """Holds the differences between two translations of the same images, in levels of 255.

    `largest` is the largest absolute difference of any value, `mean` the mean absolute difference, `psnr_db` is
    10 log10(255^2 / mean square difference).
    """

    largest: float
    mean: float
    psnr_db: float

    @classmethod
    def between(cls, found: Levels, expected: Levels) -> "Parity":
        """Measure the differences between two translations."""
        difference = np.abs(found - expected)
        square = float((difference**2).mean())
        psnr_db = math.inf if square == 0 else 10 * math.log10(255**2 / square)
        return cls(float(difference.max()), float(difference.mean()), psnr_db)

    def __str__(self) -> str:
        return f"{self.psnr_db:.1f} dB, mean {self.mean:.3f}, at most {self.largest:.2f} levels"


@dataclass(frozen=True)
class Bar:
    """Holds the figures that a precision has to reach; `math.inf` and 0 demand nothing."""

    largest: float = math.inf
    mean: float = math.inf
    psnr_db: float = 0.0

    def failure(self, parity: Parity) -> str | None:
        """Return a phrase for the first figure that falls short, or None. A figure that is NaN falls short."""
        if not parity.largest <= self.largest:
            return f"differs by up to {parity.largest:.2f} levels, allowed are {self.largest:g}"
        if not parity.mean <= self.mean:
            return f"differs by {parity.mean:.3f} levels in the mean, allowed are {self.mean:g}"
        if not parity.psnr_db >= self.psnr_db:
            return f"reaches a PSNR of {parity.psnr_db:.1f} dB, asked are {self.psnr_db:g}"
        return None


BARS = {
    "float32": Bar(largest=1.0),
    "float16": Bar(mean=0.5, psnr_db=45.0),
    "bfloat16": Bar(psnr_db=38.0),
    "int8": Bar(psnr_db=32.0),
    "fp8": Bar(psnr_db=32.0),
}


def in_pytorch(network: "ResnetGenerator", pixels: Pixels) -> Levels:
    """Translate by PyTorch in float32 on the CPU, image by image: the reference."""
    import torch

    with torch.inference_mode():
        images = [network(torch.from_numpy(to_signed_array(one[None]))).numpy() for one in pixels]
    return levels_of(np.concatenate(images))


def levels_of(images: npt.NDArray[np.float32]) -> Levels:
    """Return float32 images [N, 3, H, W] in [-1, 1] as levels."""
    return (images.transpose(0, 2, 3, 1).astype(np.float64) + 1) * 127.5


def in_onnxruntime(model: bytes, pixels: Pixels, name: str = "the graph") -> Levels:
    """Translate by an ONNX file's content on the CPU, with the file's own conversions where it takes uint8.

    Raises UserError, which calls the content `name`, where ONNX Runtime does not compute it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of every Cast that a processor without float16 needs
    with explaining(f"ONNX Runtime cannot compute {name}", "export it anew with python export/to_onnx.py"):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (image,) = session.get_inputs()
        takes_pixels = image.type == "tensor(uint8)"
        (result,) = session.run(None, {image.name: pixels if takes_pixels else to_signed_array(pixels)})
    return result.astype(np.float64) if takes_pixels else levels_of(result)


def shapes(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the shapes (batch, height, width) that are compared.

    None is the shape that the graph was traced with, one is no square, and one is a batch.
    """
    longer = (size * 5 // 4) // 4 * 4
    yield from ((1, size, size), (1, size, longer), (3, size, size))


def worst_parity(
    network: "ResnetGenerator",
    run: "Callable[[Pixels], Levels]",
    compared: list[tuple[int, int, int]],
    pictures: "Pictures",
) -> dict[str, Any]:
    """Return the parity of `run` by shape, and the worst figures of them all under "worst".

    Args:
        network: the generator that is the reference.
        run: translates uint8 [N, H, W, 3] to levels.
        compared: the shapes, as (batch, height, width).
        pictures: returns the images of a shape.
    """
    by_shape = {}
    for batch, height, width in compared:
        pixels = pictures(batch, height, width)
        by_shape[f"{batch} of {width}x{height}"] = Parity.between(run(pixels), in_pytorch(network, pixels))
    figures = np.array([astuple(parity) for parity in by_shape.values()])
    # Python's max and min are not used: they may pass over a NaN.
    worst = Parity(float(figures[:, 0].max()), float(figures[:, 1].max()), float(figures[:, 2].min()))
    return {**by_shape, "worst": worst}
