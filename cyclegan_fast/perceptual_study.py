"""The perceptual study of the CycleGAN paper: a page on which people say which of two pictures is real.

The protocol is that of Zhu et al. 2017, section 5.1.1, after Isola et al. 2017: a session is a sequence of pairs of one
real and one generated image, shown for one second, of one method; the first 10 are practice with feedback, the other 40
say how often the method fools people. As there, the images of a pair show different scenes unless --paired is given.
The page needs no server and sends nothing: it is `perceptual_study.html` with the study's data in it, beside a folder
of images whose names say nothing. What people answered is read by `perceptual_analysis.py`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from cyclegan_fast.study.analysis import Analyse, analyse
from cyclegan_fast.study.page import PROGRAM, Make, make
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command


@dataclass(frozen=True)
class CommandLine:
    """Ask people which of two images is real, as the CycleGAN paper did (Zhu et al. 2017, section 5.1.1).

    Each action has its own --help.
    """

    action: (
        Annotated[Make, tyro.conf.subcommand("make", description="Write the page that people open.", prefix_name=False)]
        | Annotated[Analyse, tyro.conf.subcommand("analyse", description="Read what they answered.", prefix_name=False)]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: act(words))


def act(words: Sequence[str]) -> int:
    # Each action is parsed by itself: the help text of a subcommand would lose its examples.
    if words[:1] == ["make"]:
        return make(parse_command(Make, f"{PROGRAM} make", words[1:]))
    if words[:1] == ["analyse"]:
        return analyse(parse_command(Analyse, f"{PROGRAM} analyse", words[1:]))
    parse_command(CommandLine, PROGRAM, words)  # which prints help, or what is wrong
    return 2


if __name__ == "__main__":
    sys.exit(main())
