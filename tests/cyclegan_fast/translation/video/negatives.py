"""Translates videos to their negatives, in this process or in one of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.summary import report
from cyclegan_fast.translation.translator import FunctionTranslator
from cyclegan_fast.translation.video.options import VideoOptions
from cyclegan_fast.translation.video.plans import VideoPlan, translate_all_videos

ROOT = Path(__file__).parents[4]


def negate(
    source: Path,
    out: Path,
    function: Callable[[SampleArray], SampleArray] | None = None,
    *,
    batch_size: int = 4,
    strict: bool = False,
    splits: bool = False,
    **video: Any,
) -> int:
    """Translate as the commands do; return the exit status."""
    translator = FunctionTranslator(function or (lambda samples: 255 - samples))
    options = ImageOptions((str(source),), out, batch_size=batch_size, strict=strict, video=VideoOptions(**video))

    def command() -> int:
        all_of_it = VideoPlan(options, None, 4, batch_size, "negative", splits)
        return report(translate_all_videos(translator, plan(options, []), all_of_it, are_all=True), out)

    return run_command(command)


def negate_apart(
    source: Path, out: Path, *, killed_after: int = 0, largest_file: int = 0, steady: float = 0.0
) -> "subprocess.CompletedProcess[str]":
    """Translate in a process of its own, which is killed after some batches, or may write files up to a size only."""
    arguments = [str(source), str(out), str(killed_after), str(largest_file), str(steady)]
    command = [sys.executable, "-m", "tests.cyclegan_fast.translation.video.negatives", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def _main(source: str, out: str, killed_after: str, largest_file: str, steady: str) -> int:
    if int(largest_file):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), int(largest_file)))
    batches = 0

    def negative(samples: SampleArray) -> SampleArray:
        nonlocal batches
        batches += 1
        if batches > int(killed_after) > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 255 - samples

    return negate(Path(source), Path(out), negative, steady=float(steady))


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
