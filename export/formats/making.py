"""Makes a generator in one format, compares it with PyTorch and times both: what a process of `jobs` does."""

import os
import shutil
import statistics
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan_fast.images.pixels import FloatImages, to_signed_array
from cyclegan_fast.system.errors import UserError, system_message
from cyclegan_fast.system.shortage import sentence_on_shortage
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial
from export.formats.table import FormatRow
from export.library_errors import reason_of

if TYPE_CHECKING:
    from export.parity import Parity
    from export.pictures import Pictures

WARM_UPS = 2


@dataclass(frozen=True)
class FormatJob:
    """Says which generator is made in which format, into which folder, and how it is timed."""

    of_format: ExportFormat
    material: ExportMaterial
    out: Path
    rounds: int

    @property
    def name(self) -> str:
        """Return what to call it: the generator's name and the format's."""
        return f"{self.material.source.name}, {self.of_format.name}"

    @property
    def log(self) -> Path:
        """Return the file in the common folder that takes what the converter prints."""
        return self.material.folder / f"{self.material.source.name}-{self.of_format.name}.log"

    @property
    def staging(self) -> Path:
        """Return the hidden folder that files are made in."""
        return self.out / f".{self.material.source.name}-{self.of_format.name}.partial"

    def row(self) -> FormatRow:
        """Return the row of the table before anything was made."""
        source, of_format = self.material.source, self.of_format
        side = self.material.side
        return FormatRow(
            format=of_format.name,
            generator=source.name,
            checkpoint_sha256=source.sha256,
            taken=of_format.taken if of_format.taken != "one shape" else f"one image of {side}x{side}",
            runs_with=of_format.runs_with,
            side=side,
            threads=self.material.threads,
            rounds=self.rounds,
            pixels=source.ends.as_fields(),
        )


def make_and_measure(job: FormatJob) -> FormatRow:
    """Make the files of a job and put them into its folder, run them where that can be done, and return their row.

    What a converter raises is a failure in the row; the log has the rest of its words.
    """
    import torch

    torch.set_num_threads(job.material.threads)
    of_format, row = job.of_format, job.row()
    if reason := of_format.why_not_made():
        return replace(row, failure=reason)
    try:
        paths, parity = _made(job)
    except Exception as error:
        return replace(row, failure=f"could not be made: {_in_words(error)}")
    row = replace(
        row,
        files=tuple(path.name for path in paths),
        size_mb=sum(map(_bytes_of, paths)) / 1e6,
        versions=_versions(of_format.modules),
    )
    if reason := of_format.why_not_run():
        row = replace(row, not_run=reason)
        return row if parity is None else replace(_with_parity(row, parity), compared_by=of_format.compared_by)
    try:
        return _measured(job, row)
    except Exception as error:
        return replace(row, failure=f"was made and cannot be run: {_in_words(error)}")


def _made(job: FormatJob) -> "tuple[list[Path], Parity | None]":
    """Make the files in a hidden folder, and rename them to their names when they are whole.

    Returns them, and the parity where making them measured it.
    """
    name, staging = job.material.source.name, job.staging
    shutil.rmtree(staging, ignore_errors=True)  # what a kill left
    staging.mkdir()
    try:
        parity = job.of_format.make(job.material, staging / name)
        made = job.of_format.paths(staging / name)
        if missing := [path.name for path in made if not path.exists()]:
            raise UserError(f"the converter wrote no {', '.join(missing)}")
        return [_put(path, job.out / path.name) for path in made], parity
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(path: Path, goal: Path) -> Path:
    """Bring a file or a folder to the disk, and give it its name."""
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
    if goal.is_dir() and not goal.is_symlink():
        shutil.rmtree(goal)
    return path.replace(goal)


def _bytes_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _measured(job: FormatJob, row: FormatRow) -> FormatRow:
    """Return a row with the parity and the times of files that were made."""
    from export.parity import BARS, in_own_units, worst_parity
    from export.pictures import compared_with

    source, of_format, side = job.material.source, job.of_format, job.material.side
    pictures, ends = compared_with(source), source.ends
    run = of_format.open(job.out / source.name, job.material.threads)
    parity = worst_parity(
        source.network,
        lambda samples: in_own_units(run(to_signed_array(samples, ends.source)), ends.target),
        list(of_format.shapes_compared(side)),
        pictures,
        ends,
    )["worst"]
    milliseconds, of_pytorch, ratio = _times(job, run, pictures)
    return replace(
        _with_parity(row, parity),
        ms=milliseconds,
        pytorch_ms=of_pytorch,
        ratio=ratio,
        failure=BARS[of_format.precision].failure(parity),
    )


def _with_parity(row: FormatRow, parity: "Parity") -> FormatRow:
    unit = parity.in_words(0).partition(" ")[2]
    unit = "levels of 255" if unit == "levels" else unit
    return replace(row, psnr_db=parity.psnr_db, largest=parity.largest, unit=unit)


def _times(job: FormatJob, run: ImageFunction, pictures: "Pictures") -> tuple[float, float, float]:
    """Return the median milliseconds of one image, those of PyTorch in turn with it, and the median of their ratio.

    A machine that is busy otherwise slows both of a round.
    """
    from export.formats.torchscript import in_numpy

    source, side = job.material.source, job.material.side
    image = to_signed_array(pictures(1, side, side), source.ends.source)
    in_pytorch = in_numpy(source.network)
    for _ in range(WARM_UPS):
        run(image)
        in_pytorch(image)
    pairs = [(_milliseconds(run, image), _milliseconds(in_pytorch, image)) for _ in range(job.rounds)]
    ours, pytorchs = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(pytorchs), statistics.median(a / b for a, b in pairs)


def _milliseconds(run: ImageFunction, image: FloatImages) -> float:
    started = time.perf_counter()
    run(image)
    return (time.perf_counter() - started) * 1e3


def _in_words(error: Exception) -> str:
    """Return an error in one line, and print the whole of it into the log where it is none that a user can mend."""
    if isinstance(error, UserError):
        return str(error)
    if said := sentence_on_shortage(error):
        return said
    if isinstance(error, OSError):
        return system_message(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {reason_of(error)}"


def _versions(modules: Sequence[str]) -> dict[str, str]:
    """Return the versions of the packages that modules are of, and PyTorch's."""
    packages = packages_distributions()
    found = {}
    for module in ("torch", *modules):
        for package in packages.get(module, [])[:1]:
            try:
                found[package] = version(package)
            except PackageNotFoundError:  # its files are there, and its metadata are not
                continue
    return found
