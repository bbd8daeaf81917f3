"""`python -m cyclegan_fast.translate` translates image files with a trained generator; see translation/command.py."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence

from cyclegan_fast.system.errors import run_command
from cyclegan_fast.translation.command import parse_translate, translate


def main(arguments: Sequence[str] | None = None) -> int:
    """Translate as the arguments, by default the process's own, ask; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: translate(parse_translate(given)))


if __name__ == "__main__":
    sys.exit(main())
