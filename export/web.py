"""`python export/web.py`: write trained generators as a web page that translates pictures in the browser."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.ranges import check_fields
from export.browser.page import PageOptions, WrittenPage, check_page_path, write_web_page
from export.source import Directions, load_sources


@dataclass(frozen=True)
class WebCommand:
    """Write a web page that translates pictures in the visitor's browser, and sends them nowhere.

    The page computes with ONNX Runtime Web, by WebGPU or WebAssembly. Its graph, with the weights as they are stored,
    is compared with PyTorch in float32 on photographs; the status is 1 where it falls short.

    Examples:
        python export/web.py runs/x --out page.html
        python export/web.py runs/x --label-a photograph --label-b map --weights float16 --out page.html
        python export/web.py latest_net_G.pth --beside --out site/index.html
    """

    page: Annotated[PageOptions, tyro.conf.arg(name="")]
    checkpoint: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """a run's folder, a checkpoint that it keeps (RUN@120 of epoch 120, RUN@best, or a .pt file), latest_net_G.pth of
    the original, .safetensors, or hub:owner/name; by default the newest of runs/"""
    direction: Directions = "both"
    """which directions the page has; bare weights know one way only"""
    network: str | None = None
    """of weights that hold several generators, the name of the one to use, such as netG_A2B"""
    running_statistics: bool = False
    """normalise by the running statistics of batch norms; by default by each image's own"""
    out: Path = Path("page.html")
    """the page's file, which ends in .html; with --beside the folder page_files lies beside page.html"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def export_page(command: WebCommand) -> int:
    """Write the page, print what was written, and return the exit status, 1 where a parity falls short."""
    check_page_path(command.out)
    notes: list[str] = []
    sources = load_sources(
        command.checkpoint, command.direction, notes, command.network, running_statistics=command.running_statistics
    )
    for note in notes:
        print(f"note: {note}")
    written = write_web_page(sources, command.out, command.page)
    print(in_lines(written))
    for row in written.rows:
        if row.failure:
            advice = "" if command.page.weights == "float16" else ": give --weights float16"
            print(f"error: {row.name} in {command.page.weights} {row.failure}{advice}", file=sys.stderr)
    return int(any(row.failure for row in written.rows))


def in_lines(written: WrittenPage) -> str:
    """Return what was written, in a line for the page and one for each direction."""
    beside = f", and {written.beside}: {written.beside_bytes / 1e6:.1f} MB" if written.beside else ""
    lines = [f"{written.path}: {written.page_bytes / 1e6:.1f} MB{beside}"]
    lines += [f"  {row.name}: {row.packed_bytes / 1e6:.1f} MB packed, {row.parity['worst']}" for row in written.rows]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(
        lambda: export_page(parse_command(WebCommand, "python export/web.py", arguments)), next_time="begins again"
    )


if __name__ == "__main__":
    sys.exit(main())
