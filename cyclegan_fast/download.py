"""Downloads data sets and trained generators of CycleGAN's authors: `python -m cyclegan_fast.download`.

datasets/authors.py holds the command, datasets/published.py what there is, datasets/fetch.py fetches files, for which
datasets/web.py asks servers, and datasets/archive.py checks and unpacks archives.
"""

import sys
from collections.abc import Sequence

from cyclegan_fast.datasets.authors import DownloadCommand, download
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: download(parse_command(DownloadCommand, "python -m cyclegan_fast.download", arguments)))


if __name__ == "__main__":
    sys.exit(main())
