"""`python -m cyclegan_fast.translate`: a trained generator over image files.

Owns reading, batching and writing for any `Translator`: PyTorch's, and the engines of export/run.py, which need no
PyTorch. That is why torch is imported only where it is used; it also keeps --help quick.
"""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence

from cyclegan_fast.system.errors import run_command
from cyclegan_fast.translation.command import parse, translate


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: translate(parse(given)))


if __name__ == "__main__":
    sys.exit(main())
