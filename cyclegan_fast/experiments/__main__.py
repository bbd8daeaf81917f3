"""`python -m cyclegan_fast.experiments` says which experiments there are, and runs the one that is asked for."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence

from cyclegan_fast.experiments.plan import EXPERIMENTS_PROGRAM, parse_tables
from cyclegan_fast.system.command_line import print_version_if_asked
from cyclegan_fast.system.errors import run_command

TABLES = "tables"
HELP = f"""usage: {EXPERIMENTS_PROGRAM} {TABLES} --data DATA --out OUT [OPTIONS]

The paper's experiments, run anew:

  {TABLES}    the comparisons of Zhu et al. 2017, tables 2 to 5: trains every method and every variant of the loss,
            scores them, and writes a report

`{EXPERIMENTS_PROGRAM} {TABLES} --help` tells of its options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment that the arguments, by default the process's own, begin with; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [TABLES]:
        return run_command(lambda: _tables(given[1:]))
    print_version_if_asked(given)
    if given in ([], ["-h"], ["--help"]):
        print(HELP)
        return 0
    print(f"error: no experiment {given[0]!r}: there is {TABLES}; --help tells of it", file=sys.stderr)
    return 2


def _tables(arguments: Sequence[str]) -> int:
    plan = parse_tables(arguments)
    from cyclegan_fast.experiments.tables import run_tables

    return run_tables(plan)


if __name__ == "__main__":
    sys.exit(main())
