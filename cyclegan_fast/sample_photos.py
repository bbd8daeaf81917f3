"""Writes the embedded data set: `python -m cyclegan_fast.sample_photos OUT`; data/sample_photos.py says how."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan_fast.conventions import LONGEST_SIDE
from cyclegan_fast.data.sample_photos import write_sample_photos
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.ranges import MOST_COUNTED, Range, check_fields


@dataclass(frozen=True)
class SamplePhotosCommand:
    """Write the embedded data set: photographs and cyanotype drawings, unpaired for training, paired to score with.

    Domain A is crops of real photographs that ship with scikit-image, domain B crops of other photographs under a
    known transformation. Test crops come from photographs in neither domain, and because the transformation is known,
    a translation of them can be scored against the truth. `--data OUT` trains on the folders.
    """

    out: tyro.conf.Positional[Path]
    """folder to make, with trainA, trainB, testA and testB; the last two hold pairs of one name"""
    side: Annotated[int, Range(1, LONGEST_SIDE)] = 72
    """side of each image in pixels"""
    count: Annotated[int, Range(1, MOST_COUNTED)] = 350
    """training images of each domain"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def command() -> int:
        given = parse_command(SamplePhotosCommand, "python -m cyclegan_fast.sample_photos", arguments)
        return write_sample_photos(given.out, given.side, given.count)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
