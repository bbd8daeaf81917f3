"""`python -m cyclegan_fast.download`: the data sets and the trained generators of CycleGAN's authors.

A file is fetched in parts where need be (`fetch`), an archive is checked and unpacked (`archive`), a generator is read
without running code from it (`checkpoint`); data set or generator appear under their names when all that is done.
"""

import sys
from collections.abc import Sequence

from cyclegan_fast.datasets.authors import CommandLine, download
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(lambda: download(parse_command(CommandLine, "python -m cyclegan_fast.download", arguments)))


if __name__ == "__main__":
    sys.exit(main())
