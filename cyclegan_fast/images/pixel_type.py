"""Describes the pixels of a domain: how many channels, of which type, and which values become -1 and 1.

Networks see values in [-1, 1] alone. Whoever reads, writes, scores or shows images asks here what these stand for.
pixels.py does the arithmetic. Importing this needs no PyTorch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from cyclegan_fast.conventions import Direction
from cyclegan_fast.system.ranges import Range

SampleArray = npt.NDArray[Any]
"""Samples of an image [H, W, C] or of several [N, H, W, C], in the type that a file or a domain has."""
SampleDtype = Literal["uint8", "uint16", "int16", "float32"]
"""The types of samples, by NumPy's names. Files of other types are converted to one of these, or refused."""
DomainName = Literal["A", "B"]
MOST_SAMPLES_A_PIXEL = 256
ChannelCount = Annotated[int, Range(1, MOST_SAMPLES_A_PIXEL)]


@dataclass(frozen=True)
class PixelType:
    """Describes the pixels of a domain's images; the default is 8-bit RGB.

    channels: samples of a pixel.
    dtype: the type of a sample in memory, and in what is written.
    low, high: the values, in the images' own units, that become -1 and 1.

    Raises ValueError for a description that makes no sense.
    """

    channels: int = 3
    dtype: SampleDtype = "uint8"
    low: float = 0.0
    high: float = 255.0

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MOST_SAMPLES_A_PIXEL:
            raise ValueError(f"channels must be from 1 to {MOST_SAMPLES_A_PIXEL}, got {self.channels}")
        if self.dtype not in get_args(SampleDtype):
            raise ValueError(f"dtype must be one of {', '.join(get_args(SampleDtype))}, got {self.dtype}")
        if not (math.isfinite(self.high - self.low) and self.low < self.high):
            raise ValueError(f"a range goes from a low to a high value, got {self.low:g} {self.high:g}")
        if self.dtype == "uint8" and (self.low, self.high) != (0, 255):
            raise ValueError(f"uint8 samples fill 0 to 255, got {self.low:g} {self.high:g}: take another dtype")

    @staticmethod
    def with_full_range(channels: int, dtype: SampleDtype) -> "PixelType":
        """Return the type whose range is all that its samples can hold. Raises ValueError for float32."""
        if dtype == "float32":
            raise ValueError("floating-point values have no range of their own")
        held = np.iinfo(dtype)
        return PixelType(channels, dtype, float(held.min), float(held.max))

    @property
    def half_range(self) -> float:
        """Return half of the range, in the images' units: 1 of [-1, 1]."""
        return (self.high - self.low) / 2

    @property
    def held_range(self) -> tuple[float, float]:
        """Return the least and the greatest whole number of the range, which samples of whole numbers can hold, too."""
        held = np.iinfo(self.dtype)
        return max(math.ceil(self.low), held.min), min(math.floor(self.high), held.max)

    @property
    def is_rgb(self) -> bool:
        """Tells whether these are 8-bit RGB pixels, which any picture can be converted to and any program shows."""
        return self == RGB

    @property
    def as_numpy(self) -> np.dtype[Any]:
        """Return the type of samples as NumPy has it."""
        return np.dtype(self.dtype)

    def as_values(self) -> dict[str, Any]:
        """Return the description as plain values, for a card or a checkpoint; `of_values` reads them."""
        return asdict(self)

    @staticmethod
    def of_values(values: Mapping[str, Any]) -> "PixelType":
        """Return the description that `as_values` gave. Raises ValueError, TypeError or KeyError for anything else."""
        return PixelType(int(values["channels"]), values["dtype"], float(values["low"]), float(values["high"]))

    def __str__(self) -> str:
        """Say it in a phrase, such as "1 channel, uint16, 0 to 4095"."""
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        return "8-bit RGB" if self.is_rgb else f"{channels}, {self.dtype}, {self.low:g} to {self.high:g}"


RGB = PixelType()


class PixelTypes(NamedTuple):
    """Holds the pixels' types of both domains."""

    A: PixelType = RGB
    B: PixelType = RGB

    def of(self, domain: DomainName) -> PixelType:
        """Return the type of a domain's pixels."""
        return self.A if domain == "A" else self.B

    def of_direction(self, direction: Direction) -> tuple[PixelType, PixelType]:
        """Return the types of what a translation takes and of what it gives."""
        return (self.A, self.B) if direction == "a2b" else (self.B, self.A)

    @property
    def have_equal_channels(self) -> bool:
        """Tells whether a generator can be given images of its own target domain, as the identity loss does."""
        return self.A.channels == self.B.channels


BOTH_RGB = PixelTypes()
