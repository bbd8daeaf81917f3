"""Writes the embedded data set: photographs and cyanotype drawings, unpaired for training, paired to score with.

Domain A is crops of real photographs that ship with scikit-image, domain B crops of *other* photographs under
`cyanotype_drawing`, a known transformation. Test crops come from photographs in neither domain, and because the
transformation is known, a translation of them can be scored against the truth. `python -m cyclegan_fast.sample_photos
OUT` writes the data set as folders that `--data` reads.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclegan_fast.data.sample_photos import write_sample_photos
from cyclegan_fast.system.command_line import print_version_if_asked
from cyclegan_fast.system.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m cyclegan_fast.sample_photos OUT`: write the data set as trainA, trainB, testA and testB."""
    parser = argparse.ArgumentParser(prog="python -m cyclegan_fast.sample_photos", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to make; its testA and testB hold pairs of one name")
    parser.add_argument("--side", type=int, default=72, help="side of each image in pixels (default: %(default)s)")
    parser.add_argument("--count", type=int, default=350, help="training images of each domain (default: %(default)s)")
    print_version_if_asked(arguments)
    options = parser.parse_args(arguments)
    return run_command(lambda: write_sample_photos(options.out, options.side, options.count))


if __name__ == "__main__":
    sys.exit(main())
