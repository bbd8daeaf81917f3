"""`python -m cyclegan_fast.perceptual_study` asks people which of two pictures is real, and analyses their answers.

The package study/ says how: page.py holds the command `make`, analysis.py the command `analyse`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from cyclegan_fast.study.analysis import Analyse, analyse
from cyclegan_fast.study.page import STUDY_PROGRAM, Make, make
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command


@dataclass(frozen=True)
class StudyCommand:
    """Ask people which of two images is real, as the CycleGAN paper did (Zhu et al. 2017, section 5.1.1).

    Each action has its own --help.
    """

    action: (
        Annotated[Make, tyro.conf.subcommand("make", description="Write the page that people open.", prefix_name=False)]
        | Annotated[Analyse, tyro.conf.subcommand("analyse", description="Read what they answered.", prefix_name=False)]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the action that the arguments, by default the process's own, begin with; return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: _act(words))


def _act(words: Sequence[str]) -> int:
    # Each action is parsed by itself: the help text of a subcommand would lose its examples.
    if words[:1] == ["make"]:
        return make(parse_command(Make, f"{STUDY_PROGRAM} make", words[1:]))
    if words[:1] == ["analyse"]:
        return analyse(parse_command(Analyse, f"{STUDY_PROGRAM} analyse", words[1:]))
    parse_command(StudyCommand, STUDY_PROGRAM, words)  # which prints help, or what is wrong
    return 2


if __name__ == "__main__":
    sys.exit(main())
