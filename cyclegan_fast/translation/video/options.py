"""Says how videos are written."""

from dataclasses import dataclass
from typing import Annotated

from cyclegan_fast.system.ranges import Range, check_fields

DEFAULT_CRF = 18


@dataclass(frozen=True)
class VideoOptions:
    """Says how translated videos are encoded, and whether they are kept from flickering."""

    crf: Annotated[int, Range(0, 51)] | None = None
    """videos: constant rate factor of H.264, lower is better and larger; by default 18"""
    lossless: bool = False
    """videos: write every sample as it was translated, by FFV1 in Matroska (.mkv)"""
    steady: Annotated[float, Range(least=0, below=1)] = 0.0
    """videos: against flicker, how much of what the generator changes is taken from the frame before, along the
    motion that the input shows; 0.8 is a strong filter, 0 is none"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        if self.lossless and self.crf is not None:
            raise ValueError("--crf is for H.264, and --lossless writes FFV1: give one of them")
