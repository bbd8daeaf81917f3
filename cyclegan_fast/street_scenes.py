"""Draws a data set of streets: `python -m cyclegan_fast.street_scenes OUT`; datasets/streets/ draws it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan_fast.conventions import LONGEST_SIDE
from cyclegan_fast.data.layouts import TRAINING_LABELS
from cyclegan_fast.datasets.streets.data_set import SMALLEST_STREET, write_streets
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.ranges import MOST_COUNTED, Range, RunSeed, check_fields
from cyclegan_fast.system.words import counted


@dataclass(frozen=True)
class StreetScenesCommand:
    """Draw streets as photographs (domain A) and as label maps in Cityscapes' colours (domain B), without a download.

    A random street is laid out in space, with houses, trees, vehicles and people in perspective, and drawn twice: what
    each pixel shows gives the label map; textures of real photographs that ship with scikit-image, under sun, shadows,
    haze and clouds, give the photograph. The training folders are unpaired, no street is in both; testA and testB hold
    the same streets under the same names, so that a translation of one can be scored against the other. trainA_labels
    holds the label maps of trainA for the network that judges photographs (`evaluate fcn`); no generator sees it. Every
    image is a function of the seed, its folder and its number alone: the same command continues a set that was cut
    short.
    """

    out: tyro.conf.Positional[Path]
    """folder to make or to continue; its testA and testB hold pairs of one name"""
    size: Annotated[int, Range(SMALLEST_STREET, LONGEST_SIDE)] = 128
    """height and width in pixels, from 32"""
    count: Annotated[int, Range(1, MOST_COUNTED)] = 500
    """training images of each domain"""
    test_count: Annotated[int, Range(0, MOST_COUNTED)] = 100
    """test pairs"""
    seed: RunSeed = 0
    """another number draws other streets"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def draw_streets(options: StreetScenesCommand) -> int:
    """Write the data set and print the folders; return the exit status."""
    write_streets(options.out, options.size, options.count, options.test_count, options.seed)
    for folder in ("trainA", TRAINING_LABELS, "trainB", "testA", "testB"):
        count = options.count if "train" in folder else options.test_count
        print(f"{options.out / folder}: {counted(count, 'image')}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    program = "python -m cyclegan_fast.street_scenes"
    return run_command(lambda: draw_streets(parse_command(StreetScenesCommand, program, arguments)))


if __name__ == "__main__":
    sys.exit(main())
