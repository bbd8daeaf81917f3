"""`python -m cyclegan_fast.evaluate` measures a trained run on test images; `evaluate fcn` gives the paper's FCN score.

evaluation/command.py and evaluation/fcn/command.py hold the two commands.
"""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence

from cyclegan_fast import api
from cyclegan_fast.evaluation.command import EVALUATE_PROGRAM, EvaluateCommand, evaluate_run
from cyclegan_fast.system.callable_module import let_be_called
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command

FCN = "fcn"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments, by default the process's own, ask for; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [FCN]:
        return run_command(lambda: _fcn(given[1:]))
    return run_command(
        lambda: evaluate_run(parse_command(EvaluateCommand, EVALUATE_PROGRAM, given)), next_time="begins again"
    )


def _fcn(arguments: Sequence[str]) -> int:
    from cyclegan_fast.evaluation.fcn.command import EvaluateFcnCommand, evaluate_fcn

    return evaluate_fcn(parse_command(EvaluateFcnCommand, f"{EVALUATE_PROGRAM} {FCN}", arguments))


let_be_called(__name__, api.evaluate)  # `cyclegan_fast.evaluate(...)` from Python

if __name__ == "__main__":
    sys.exit(main())
