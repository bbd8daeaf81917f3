"""`python -m cyclegan_fast.evaluate`: what a trained run is worth, in one table, one JSON file and pictures."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence

from cyclegan_fast.evaluation.command import FCN, PROGRAM, CommandLine, evaluate
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [FCN]:
        from cyclegan_fast.evaluation.fcn.command import FcnCommandLine, evaluate_fcn

        return run_command(lambda: evaluate_fcn(parse_command(FcnCommandLine, f"{PROGRAM} {FCN}", given[1:])))
    return run_command(lambda: evaluate(parse_command(CommandLine, PROGRAM, given)), next_time="begins again")


if __name__ == "__main__":
    sys.exit(main())
