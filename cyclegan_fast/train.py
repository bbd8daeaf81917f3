"""Trains CycleGAN or a baseline, or continues a run that was interrupted: `python -m cyclegan_fast.train`."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence

from cyclegan_fast import api
from cyclegan_fast.config.command import parse_training
from cyclegan_fast.system.callable_module import let_be_called
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.training.history.initial_weights import settings_to_begin_with
from cyclegan_fast.training.session import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: train(*parse_training(arguments, settings_to_begin_with)))


let_be_called(__name__, api.train)  # `cyclegan_fast.train(...)` from Python

if __name__ == "__main__":
    sys.exit(main())
