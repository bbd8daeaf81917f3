"""Says what pixels a generator takes and gives, as ONNX files and the cards of engines have it; needs no PyTorch."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cyclegan_fast.images.pixel_type import RGB, PixelType
from export.engines.card_fields import read_pixel_type

PIXEL_FIELDS = ("input_pixels", "output_pixels")
"""The names of the two descriptions in a card, and in a file's metadata. A file without them is of 8-bit RGB images."""


class PixelEnds(NamedTuple):
    """Holds the types of the pixels that a generator takes and gives, see `cyclegan_fast.images.pixel_type`."""

    source: PixelType = RGB
    target: PixelType = RGB

    @property
    def are_rgb(self) -> bool:
        """Tells whether these are 8-bit RGB images on both ends, which files say nothing of."""
        return self.source.is_rgb and self.target.is_rgb

    @property
    def are_bytes(self) -> bool:
        """Tells whether the samples of both ends are uint8."""
        return self.source.dtype == self.target.dtype == "uint8"

    @property
    def sample_range(self) -> str:
        """Return in words the values of a graph or an engine that takes and gives samples."""
        return SAMPLE_RANGES[self.are_bytes]

    def as_fields(self) -> dict[str, dict[str, Any]]:
        """Return the fields of a card: none for 8-bit RGB."""
        if self.are_rgb:
            return {}
        # An end of a range may have been given as a whole number, which JSON would write in another way.
        kinds = [PixelType.of_values(kind.as_values()).as_values() for kind in self]
        return dict(zip(PIXEL_FIELDS, kinds, strict=True))

    def as_entries(self) -> dict[str, str]:
        """Return the entries of a file's metadata: none for 8-bit RGB."""
        return {name: json.dumps(values) for name, values in self.as_fields().items()}

    @staticmethod
    def of_fields(fields: Mapping[str, Any], parse: Callable[[Any], Any] = lambda value: value) -> "PixelEnds":
        """Return what the fields of a card say, among others; without any it is 8-bit RGB.

        `parse` makes JSON's value of a field. Raises ValueError, which names the field that is wrong or missing.
        """
        if not fields.keys() & {*PIXEL_FIELDS}:
            return PixelEnds()
        kinds = []
        for name in PIXEL_FIELDS:
            if name not in fields:
                raise ValueError(f"{name} is missing")
            try:
                kinds.append(read_pixel_type(parse(fields[name])))
            except (ValueError, RecursionError) as error:  # lists nested without end are a RecursionError
                raise ValueError(f"{name} {error}") from error
        return PixelEnds(*kinds)

    @staticmethod
    def of_entries(entries: Mapping[str, str]) -> "PixelEnds":
        """Return what a file's metadata say, as `of_fields` does."""
        return PixelEnds.of_fields(entries, _parsed)

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


RGB_ENDS = PixelEnds()
SAMPLE_RANGES = {True: "0 to 255", False: "the pixels' own"}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # of digits without end, too
        raise ValueError("is no JSON") from error
