"""`python -m cyclegan_fast.demo RUN` shows a run's generators on a page in the browser; see demonstration/."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan_fast.demonstration.options import DemoLimits
from cyclegan_fast.runs import RUNS, newest_run
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import printable, run_command
from cyclegan_fast.system.process import check_threads
from cyclegan_fast.system.progress import waiting
from cyclegan_fast.system.ranges import Range, ThreadCount, check_fields
from cyclegan_fast.system.sockets import AllowedHosts, bound_socket


@dataclass(frozen=True)
class DemoCommand:
    """Show what a run's generators do, on a page in the browser: one picture before and after, or a batch.

    The page has the run's checkpoints, both directions and some of its test images to try. It is for this machine
    alone, unless --host says otherwise, knows no passwords, and asks no other machine for anything. Ctrl-C ends it.

    Examples:
        python -m cyclegan_fast.demo runs/x
        python -m cyclegan_fast.demo runs/x@best --port 9000 --device cpu
    """

    limits: Annotated[DemoLimits, tyro.conf.arg(name="")]
    run: tyro.conf.Positional[Path | None] = None
    """a run's folder, a checkpoint that it keeps (RUN@120 of epoch 120, RUN@best), weights of one generator, or
    hub:owner/name; by default the newest of runs/"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 is every one of this machine, for anybody who reaches it"""
    port: Annotated[int, Range(0, 65535)] = 7860
    """port to listen on; 0 is any that is free, which the printed address tells"""
    allowed_hosts: tuple[str, ...] = ()
    """names that it answers by, beside localhost; * is any, as where --host is an address that other machines reach"""
    device: str = "auto"
    """"auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1" """
    amp: bool = False
    """compute in low precision where that is faster: bfloat16, or float16 on a GPU without it"""
    threads: ThreadCount | None = None
    """threads that compute on a CPU; by default one for each processor"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def demo(command: DemoCommand) -> int:
    """Load the run, and serve the page until Ctrl-C or SIGTERM, which raise Stopped."""
    from cyclegan_fast.demonstration.server import served_page, set_up_gradio

    check_threads(command.threads)
    with (
        tempfile.TemporaryDirectory(prefix="cyclegan-fast-demo-") as folder,
        bound_socket(command.host, command.port) as listening,
    ):
        hosts = AllowedHosts.of(listening, command.allowed_hosts)
        set_up_gradio(Path(folder))
        from cyclegan_fast.api import load
        from cyclegan_fast.demonstration.examples import write_examples
        from cyclegan_fast.demonstration.page import make_page
        from cyclegan_fast.demonstration.shown_run import ShownRun

        name = command.run or newest_run(RUNS)
        load_one = partial(load, device=command.device, amp=command.amp, threads=command.threads)
        with waiting(f"loading {name}"):
            shown = ShownRun(name, load_one, command.limits)
        examples = write_examples(shown.run, Path(folder) / "examples", shown.notes)
        for note in shown.notes:
            print(f"note: {printable(note)}")
        with served_page(make_page(shown, examples, command.limits), listening, command.limits, hosts) as address:
            print(f"{name} is shown at {address} (Ctrl-C ends it)")
            threading.Event().wait()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(
        lambda: demo(parse_command(DemoCommand, "python -m cyclegan_fast.demo", arguments)), next_time="begins again"
    )


if __name__ == "__main__":
    sys.exit(main())
