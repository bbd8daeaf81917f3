"""Writes a data set of stained tissue: `python -m cyclegan_fast.stained_tissue OUT`; datasets/stains.py says how."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan_fast.datasets.stains import CELL_PX, MOST_TILES, SMALLEST_TILE_PX, write_stained_tissue
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.ranges import Range, RunSeed, check_fields


@dataclass(frozen=True)
class StainedTissueCommand:
    """Write stained tissue in brightfield (domain A) and as the amounts of its stains (domain B), without a download.

    A is 8-bit RGB; B has 2 channels of optical density in float32. The image ships with scikit-image: colon, 512x512
    pixels, nuclei blue by haematoxylin and a protein brown by DAB. Colour deconvolution gives the stains, so the truth
    of each translation is known. Training images of A and of B show other cells of a chessboard; test images show a
    quarter that neither has, as pairs, in tiles and as a whole.
    """

    out: tyro.conf.Positional[Path]
    """folder to make, with trainA, trainB, testA, testB, quarterA and quarterB; all but the first two hold pairs"""
    side: Annotated[int, Range(SMALLEST_TILE_PX, CELL_PX)] = CELL_PX
    """height and width of training images in pixels, from 32 to 128, which is a whole cell; test images have the power
    of two that is not larger"""
    count: Annotated[int, Range(1, MOST_TILES)] = 500
    """training images of each domain, 100000 at most"""
    paired: bool = False
    """let trainB show the same places as trainA, both those of A, for methods that learn from pairs"""
    seed: RunSeed = 0
    """another number cuts other places"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def write_tissue(options: StainedTissueCommand) -> int:
    """Write the data set and print the folders; return the exit status."""
    write_stained_tissue(options.out, options.side, options.count, paired=options.paired, seed=options.seed)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    program = "python -m cyclegan_fast.stained_tissue"
    return run_command(lambda: write_tissue(parse_command(StainedTissueCommand, program, arguments)))


if __name__ == "__main__":
    sys.exit(main())
