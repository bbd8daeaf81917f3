"""`python export/to_formats.py`: make trained generators in every format of deployment, and tabulate them."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import printable, run_command
from cyclegan_fast.system.process import check_threads
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.ranges import Range, ThreadCount, TranslatedSide, check_fields
from export.formats.export_format import ExportFormat
from export.formats.registry import chosen_formats
from export.formats.table import in_columns, joined_rows, read_table, write_table
from export.source import Directions, load_sources

if TYPE_CHECKING:
    from export.formats.making import FormatJob


@dataclass(frozen=True)
class ToFormatsCommand:
    """Export trained generators in the formats of deployment, compare each with PyTorch, time it, and print a table.

    Formats are onnx, openvino, tensorrt-rtx, tensorrt, triton, web, torchscript, pt2, executorch, coreml, ncnn and
    litert, all in float32 but for a web page's weights. What can be run on this machine is run. The status is 1 where
    one that was asked for could not be made, or misses its bar; the others are made all the same.

    Examples:
        cyclegan-fast export runs/x --format onnx,ncnn --out exported
        cyclegan-fast export runs/x --format all --direction a2b
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """a run's folder, a checkpoint that it keeps, latest_net_G.pth of the original, .safetensors, or hub:owner/name; by
    default the newest of runs/"""
    format: str = "installed"
    """names with commas between them; all makes all of them, installed those whose packages are installed here"""
    out: Path = Path("exported")
    """folder for what is written; files of the same name are replaced; formats.md and formats.json have the table"""
    direction: Directions = "both"
    """a2b makes images like those of trainA into those of trainB, b2a the reverse; bare weights know one way only"""
    network: str | None = None
    """of weights that hold several generators, the name of the one to use, such as netG_A2B"""
    size: TranslatedSide | None = None
    """side in pixels of the image that is timed, and that files of one shape take; by default what the network was
    trained with"""
    rounds: Annotated[int, Range(1, 10**6)] = 10
    """how many times each is timed, in turn with PyTorch; the table has medians"""
    threads: ThreadCount | None = None
    """threads that compute; by default one on each of the processors"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def export_formats(command: ToFormatsCommand) -> int:
    """Make every format, print and write the table, and return the exit status, 1 where one asked for is not right."""
    formats = chosen_formats(command.format)
    check_threads(command.threads)
    kept = read_table(command.out)

    from export.formats.jobs import run_job

    with tempfile.TemporaryDirectory(prefix="cyclegan-fast-") as common:
        jobs = _jobs(command, formats, Path(common))
        command.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=command.out).close()  # what cannot be written to is refused before any work
        rows = []
        for job in (bar := progress_bar(jobs, desc="exporting", unit=" files")):
            bar.set_postfix_str(job.name)
            rows.append(row := run_job(job, tick=lambda: bar.update(0)))
            bar.write(f"{job.name}: {row.outcome}", file=sys.stdout)
            write_table(command.out, joined_rows(kept, rows, command.out))
    print(in_columns(rows))
    print(f"written to {command.out}: formats.md and formats.json have this table")
    failures = [row for row in rows if row.failure]
    for row in failures:
        print(f"error: {row.generator}, {row.format}: {printable(row.failure or '')}", file=sys.stderr)
    return int(bool(failures))


def _jobs(command: ToFormatsCommand, formats: Sequence[ExportFormat], common: Path) -> "list[FormatJob]":
    """Load the generators, and return what is to be done: every format of each."""
    import torch

    from export.formats.making import FormatJob
    from export.formats.material import ExportMaterial

    notes: list[str] = []
    sources = load_sources(command.run, command.direction, notes, command.network)
    for note in notes:
        print(f"note: {printable(note)}")
    threads = command.threads or torch.get_num_threads()
    materials = [ExportMaterial(source, command.size or source.size, common, threads) for source in sources]
    out = command.out.resolve()
    return [FormatJob(of_format, material, out, command.rounds) for of_format in formats for material in materials]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(
        lambda: export_formats(parse_command(ToFormatsCommand, "python export/to_formats.py", arguments)),
        next_time="begins again",
    )


if __name__ == "__main__":
    sys.exit(main())
