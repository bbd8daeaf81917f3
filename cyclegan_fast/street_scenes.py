"""Streets as photographs (domain A) and as label maps in Cityscapes' colours (domain B), drawn without a download.

A random street is laid out in space, with houses, trees, vehicles and people in perspective, and drawn twice: what each
pixel shows gives the label map; textures of real photographs that ship with scikit-image, under sun, shadows, haze and
clouds, give the photograph. The training folders are unpaired, no street is in both; testA and testB hold the same
streets under the same names, so that a translation of one can be scored against the other. trainA_labels holds the
label maps of trainA for the network that judges photographs (`evaluate fcn`); no generator sees it. Every image is a
function of the seed, its folder and its number alone: a set that was cut short is continued by the same command.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclegan_fast.data.layouts import TRAINING_LABELS
from cyclegan_fast.datasets.streets.data_set import write_streets
from cyclegan_fast.system.command_line import print_version_if_asked
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.words import counted


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m cyclegan_fast.street_scenes OUT`: write the data set below OUT."""
    parser = argparse.ArgumentParser(prog="python -m cyclegan_fast.street_scenes", description=__doc__)
    parser.add_argument(
        "out", type=Path, help="folder to make or to continue; its testA and testB hold pairs of one name"
    )
    parser.add_argument(
        "--size", type=int, default=128, help="height and width in pixels, from 32 (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=500, help="training images of each domain (default: %(default)s)")
    parser.add_argument("--test-count", type=int, default=100, help="test pairs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another number draws other streets (default: %(default)s)")
    print_version_if_asked(arguments)
    options = parser.parse_args(arguments)

    def command() -> int:
        write_streets(options.out, options.size, options.count, options.test_count, options.seed)
        for folder in ("trainA", TRAINING_LABELS, "trainB", "testA", "testB"):
            count = options.count if "train" in folder else options.test_count
            print(f"{options.out / folder}: {counted(count, 'image')}")
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
