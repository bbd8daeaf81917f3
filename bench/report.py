"""`python -m bench.report`: tables and plots of what is recorded in `bench/results/*.json`.

For each device the newest comparison of each task is shown; older ones stay in the file. `docs/benchmarks.md` gets the
lowest precision measured, between two markers; `bench/results/<device>.md` gets everything.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure.machine import ROOT
from bench.measure.records import RESULTS_FOLDER, path_for
from bench.reporting.device_results import Device, devices
from bench.reporting.plots import Plot
from bench.reporting.tables import for_readme, section
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.system.files import write_atomically

BEGIN, END = "<!-- bench.report: begin -->", "<!-- bench.report: end -->"
COMMAND = "python -m bench.report"
PAGE = ROOT / "docs" / "benchmarks.md"
NOTHING = "Nothing is recorded yet; `pytest bench/ --benchmark-only --bench-record` does it.\n"
READING = f"""\
Written by `{COMMAND}`. Contenders take turns, after their results were compared: times are medians of a
call in ms with quartiles, ratios are medians of the ratios within the rounds, and above 1 ours is faster. The limit is
what moving each input and output once and computing each operation once takes at the speed of the device's own copies
and matrix products; what stays in a cache may pass it. On a GPU times are by events; "kernels"
are those of the kernels of a call, added up by the profiler, without what lies between them. "Ours against itself" is
ours measured twice in each round: what a ratio cannot tell from 1.
"""


@dataclass(frozen=True)
class ReportFiles:
    """Says what should be in which file, and writes it."""

    texts: dict[Path, str]
    plots: dict[Path, Plot]

    def outdated(self) -> list[Path]:
        """Return the files that are missing or show something else."""
        texts = [path for path, text in self.texts.items() if not path.exists() or path.read_bytes() != text.encode()]
        return texts + [path for path, plot in self.plots.items() if not plot.is_drawn_in(path)]

    def write(self) -> list[Path]:
        """Write the files that are outdated; return them."""
        outdated = self.outdated()
        for path in outdated:
            if path in self.plots:
                self.plots[path].write(path)
            else:
                write_atomically(path, self.texts[path].encode())
        return outdated


def make_report(readme: Path, results: Path) -> ReportFiles:
    found = devices(results)
    plots = {results / "plots" / plot.file: plot for device in found for plot in device.plots}
    texts = {path_for(device.name, results).with_suffix(".md"): device_page(device, results) for device in found}
    texts[readme] = spliced(readme, readme_block(found, results, readme.parent))
    return ReportFiles(texts, plots)


def readme_block(found: Sequence[Device], results: Path, base: Path) -> str:
    """Return what stands between the markers of a page in the folder `base`."""
    if not found:
        return NOTHING
    parts = [READING]
    for device in found:
        heading, provenance, *tables = section(device, 3, for_readme)
        path = path_for(device.name, results)
        parts += [heading, provenance, *_pictures(device, results, base), *tables]
        parts.append(f"Everything measured there: [{path.stem}]({_link(path.with_suffix('.md'), base)}).\n")
    return "\n".join(parts)


def device_page(device: Device, results: Path) -> str:
    """Return everything of one device as Markdown."""
    parts = [*section(device, 1, lambda everything: everything), *_pictures(device, results, results)]
    parts.insert(1, READING)
    return "\n".join(parts)


def _pictures(device: Device, results: Path, base: Path) -> list[str]:
    return [f"![{plot.caption}]({_link(results / 'plots' / plot.file, base)})\n" for plot in device.plots]


def _link(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def spliced(readme: Path, block: str) -> str:
    """Return the page with `block` between its markers; nothing else is changed.

    Raises UserError unless each marker is there once, in their order.
    """
    text = readme.read_bytes().decode()
    if not text.count(BEGIN) == text.count(END) == 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{readme} needs a line {BEGIN} and below it a line {END}, each once, for tables between them")
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    return f"{before}{BEGIN}\n\n{block}\n{END}{after}"


def _run(options: argparse.Namespace) -> int:
    made = make_report(options.readme, options.results)
    if options.check:
        if outdated := made.outdated():
            print(f"out of date: {', '.join(map(str, outdated))}; run {COMMAND}", file=sys.stderr)
        return bool(outdated)
    for path in made.write():
        print(f"wrote {path}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Write tables and plots of the results recorded by `pytest bench/ --benchmark-only "
        "--bench-record`: for each device the newest comparison of each task. The page's tables go between the "
        f"lines {BEGIN} and {END}; all precisions and batches go to <device>.md beside the results, plots to plots/ "
        "there. What is up to date is left as it is. Plots need matplotlib, --check does not.",
        epilog="Exit status: 0 done or up to date; 1 --check found a file out of date; 2 an error, said in one line.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where anything is out of date")
    parser.add_argument("--readme", type=Path, default=PAGE, metavar="PATH", help="the page; default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER, metavar="FOLDER", help="default: %(default)s")
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
