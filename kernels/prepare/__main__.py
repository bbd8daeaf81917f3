"""`python -m kernels.prepare`: compile what trainings and translations launch into Triton's cache, with no GPU present.

Without it, the first start of a training on a GPU does so. Where a machine image is built, or on a cluster's login
node, this command does it ahead: for the architectures of --sm, or the GPU that is there. All other options are those
of a training, such as --preset, --batch-size, --crop-size and --amp; by default it is the paper's training at 256x256,
and the translation of such images, in float32 and bfloat16.
"""

import argparse
import os
import sys
from importlib import import_module

from .. import triton_language
from ..gpus import GPUS


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.prepare",
        description=" ".join((__doc__ or "").partition("\n\n")[2].split()),
        epilog="The status is 0, or 1 where a kernel does not compile, or 2 where nothing can be compiled.",
        allow_abbrev=False,
    )
    parser.add_argument("--sm", type=int, nargs="+", default=[], choices=sorted(GPUS), help="architectures")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="compilers at a time")
    options, flags = parser.parse_known_args(arguments)
    if not triton_language.INSTALLED:
        print("kernels.prepare needs the triton package, which has Linux wheels only", file=sys.stderr)
        return 2
    if triton_language.INTERPRETED:
        print("kernels.prepare compiles, which Triton's interpreter does not: unset TRITON_INTERPRET", file=sys.stderr)
        return 2
    # By their names, since this floor imports nothing above it: what the networks launch, they alone know.
    errors = import_module("cyclegan_fast.system.errors")
    preparing = import_module("cyclegan_fast.training.first_use.preparing")
    try:
        return int(preparing.prepare_ahead(flags, options.sm, options.processes))
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
