"""Defines what visitors of the demo may send."""

from dataclasses import dataclass
from typing import Annotated

from cyclegan_fast.system.ranges import Range, check_fields

_MOST_PIXELS = 2**28


@dataclass(frozen=True)
class DemoLimits:
    """Says how large pictures may be, and how many come at once."""

    max_upload_mib: Annotated[int, Range(1, 1024)] = 50
    """largest file that is sent, MiB"""
    max_pixels: Annotated[int, Range(64, _MOST_PIXELS)] = 2**26
    """most pixels of a picture that is sent, by its header, before any is decoded"""
    max_translated_pixels: Annotated[int, Range(64, _MOST_PIXELS)] = 2**21
    """most pixels of a picture as it is translated, behind the resize that the page offers; a generator needs some
    1.5 kB of memory for each"""
    max_files: Annotated[int, Range(1, 1000)] = 50
    """most files of one batch"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
