"""Measures how far translations are from those of PyTorch in float32, in the images' own units."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import to_signed_array
from export.graphs.interface import sample_dtype
from export.library_errors import explaining
from export.pixel_ends import RGB_ENDS, PixelEnds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cyclegan_fast.networks.resnet import ResnetGenerator
    from export.pictures import Pictures

_DEEP = 1023
Values = npt.NDArray[np.float64]
"""[N, H, W, C] in the images' own units, levels from 0 to 255 for 8 bits; not rounded"""


@dataclass(frozen=True)
class Parity:
    """Holds the differences between two translations of the same images, in their own units: levels of 255 for 8 bits.

    `largest` is the largest absolute difference of any value, `mean` the mean absolute difference, `psnr_db` is
    10 log10(range^2 / mean square difference). `kind` has the range.
    """

    largest: float
    mean: float
    psnr_db: float
    kind: PixelType = RGB

    @classmethod
    def between(cls, found: Values, expected: Values, kind: PixelType = RGB) -> "Parity":
        """Measure the differences between two translations."""
        difference = np.abs(found - expected)
        square = float((difference**2).mean())
        psnr_db = math.inf if square == 0 else 10 * math.log10(_span(kind) ** 2 / square)
        return cls(float(difference.max()), float(difference.mean()), psnr_db, kind)

    @classmethod
    def worst(cls, parities: "Iterable[Parity]") -> "Parity":
        """Return the worst figures of several; one that is NaN is the worst."""
        largest, means, psnrs_db, kinds = zip(*((p.largest, p.mean, p.psnr_db, p.kind) for p in parities), strict=True)
        # Python's max and min are not used: they may pass over a NaN.
        return cls(float(np.max(largest)), float(np.max(means)), float(np.min(psnrs_db)), kinds[0])

    def figures(self) -> dict[str, float]:
        """Return the figures by their names, as a card has them."""
        return {"largest": self.largest, "mean": self.mean, "psnr_db": self.psnr_db}

    def __str__(self) -> str:
        if self.kind.dtype == "uint8":
            return f"{self.psnr_db:.1f} dB, mean {self.mean:.3f}, at most {self.largest:.2f} levels"
        return f"{self.psnr_db:.1f} dB, mean {self.mean:.4g}, at most {self.in_words(self.largest)}"

    def in_words(self, difference: float) -> str:
        """Return a difference with its unit, such as "1.25 levels" or "12 counts of 0 to 4095"."""
        if self.kind.dtype == "uint8":
            return f"{difference:.2f} levels"
        counts = "" if self.kind.dtype == "float32" else " counts"
        return f"{difference:.4g}{counts} of {self.kind.low:g} to {self.kind.high:g}"


def _span(kind: PixelType) -> float:
    return kind.high - kind.low


def _is_deep(kind: PixelType) -> bool:
    """Tell whether a range has so many steps, 10 bits, that rounding to one of them is no part of a difference."""
    return kind.dtype == "float32" or _span(kind) >= _DEEP


@dataclass(frozen=True)
class Bar:
    """Holds the figures that a precision has to reach; `math.inf` and 0 demand nothing.

    `largest` and `mean` are in levels, 255ths of the range of images of any type. `deep_psnr_db` is asked of images
    whose range has more steps than those of 8 bits.
    """

    largest: float = math.inf
    mean: float = math.inf
    psnr_db: float = 0.0
    deep_psnr_db: float = 0.0

    def failure(self, parity: Parity) -> str | None:
        """Return a phrase for the first figure that falls short, or None. A figure that is NaN falls short."""
        is_of_bytes = parity.kind.dtype == "uint8"
        level = 1.0 if is_of_bytes else _span(parity.kind) / 255
        if not parity.largest <= self.largest * level:
            return f"differs by up to {parity.in_words(parity.largest)}, allowed are {self.largest * level:g}"
        if not parity.mean <= self.mean * level:
            found = f"{parity.mean:.3f} levels" if is_of_bytes else parity.in_words(parity.mean)
            return f"differs by {found} in the mean, allowed are {self.mean * level:g}"
        psnr_db = max(self.psnr_db, self.deep_psnr_db) if _is_deep(parity.kind) else self.psnr_db
        if not parity.psnr_db >= psnr_db:
            return f"reaches a PSNR of {parity.psnr_db:.1f} dB, asked are {psnr_db:g}"
        return None


BARS = {
    # What passes through 8 bits on its way reaches 59 dB.
    "float32": Bar(largest=1.0, deep_psnr_db=65.0),
    "float16": Bar(mean=0.5, psnr_db=45.0),
    "bfloat16": Bar(psnr_db=38.0),
    "int8": Bar(psnr_db=32.0),
    "fp8": Bar(psnr_db=32.0),
}


def in_pytorch(network: "ResnetGenerator", samples: SampleArray, ends: PixelEnds = RGB_ENDS) -> Values:
    """Translate by PyTorch in float32 on the CPU, image by image: the reference."""
    import torch

    with torch.inference_mode():
        images = [network(torch.from_numpy(to_signed_array(one[None], ends.source))).numpy() for one in samples]
    return in_own_units(np.concatenate(images), ends.target)


def in_own_units(images: npt.NDArray[np.float32], kind: PixelType = RGB) -> Values:
    """Return float32 images [N, C, H, W] in [-1, 1] as values of their own units."""
    return (images.transpose(0, 2, 3, 1).astype(np.float64) + 1) * kind.half_range + kind.low


def in_onnxruntime(model: bytes, samples: SampleArray, name: str = "the graph", ends: PixelEnds = RGB_ENDS) -> Values:
    """Translate by an ONNX file's content on the CPU, with the file's own conversions where it takes samples.

    Raises UserError, which calls the content `name`, where ONNX Runtime does not compute it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of every Cast that a processor without float16 needs
    with explaining(f"ONNX Runtime cannot compute {name}", "export it anew with python export/to_onnx.py"):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (image,) = session.get_inputs()
        takes_samples = isinstance(image.shape[-1], int)  # a number of channels: sides of images are free
        taken = samples.astype(sample_dtype(ends.source)) if takes_samples else to_signed_array(samples, ends.source)
        (result,) = session.run(None, {image.name: taken})
    return result.astype(np.float64) if takes_samples else in_own_units(result, ends.target)


def shapes(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the shapes (batch, height, width) that are compared.

    None is the shape that the graph was traced with, one is no square, and one is a batch.
    """
    longer = (size * 5 // 4) // 4 * 4
    yield from ((1, size, size), (1, size, longer), (3, size, size))


def worst_parity(
    network: "ResnetGenerator",
    run: "Callable[[SampleArray], Values]",
    compared: list[tuple[int, int, int]],
    pictures: "Pictures",
    ends: PixelEnds = RGB_ENDS,
) -> dict[str, Parity]:
    """Return the parity of `run` by shape, and the worst figures of them all under "worst".

    Args:
        network: the generator that is the reference.
        run: translates samples [N, H, W, C] to values, not rounded.
        compared: the shapes, as (batch, height, width).
        pictures: returns the images of a shape.
        ends: the types of the pixels that the generator takes and gives.
    """
    by_shape = {}
    for batch, height, width in compared:
        samples = pictures(batch, height, width)
        found = Parity.between(run(samples), in_pytorch(network, samples, ends), ends.target)
        by_shape[f"{batch} of {width}x{height}"] = found
    return {**by_shape, "worst": Parity.worst(by_shape.values())}
