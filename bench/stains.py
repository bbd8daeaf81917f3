"""`python -m bench.stains RUN ...`: scores runs on stained tissue beside simple fits, and draws what the first makes.

RUN is a folder of a training on what `python -m cyclegan_fast.stained_tissue` writes. Scores are means over the four
tiles of 128x128 pixels of the quarter that no training image shows, and are printed as a table in Markdown. The picture
shows the whole quarter both ways: the input, its translation, the truth, and the difference of the two.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bench.reporting.markdown import markdown_table
from cyclegan_fast.conventions import Direction
from cyclegan_fast.datasets.stains import (
    ABSORPTION,
    CELL_PX,
    DENSITIES,
    HELD_OUT_PX,
    Tissue,
    cells_of,
    held_out,
    read_tissue,
)
from cyclegan_fast.evaluation.similarity import similarity
from cyclegan_fast.images.display import COLOUR_TABLES, Display, LegendLine, legend, shown
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixel_type import RGB, DomainName, PixelType, PixelTypes, SampleArray
from cyclegan_fast.images.pixels import Pixels, as_tensor
from cyclegan_fast.images.sheets import sheet
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.translation.on_device import prepare_network, translate_pixels
from cyclegan_fast.translation.trained import load_translators

TranslateSamples = Callable[[SampleArray], SampleArray]
"""Turns samples [N, H, W, C] of one domain into those of the other."""
TISSUE_PIXELS = PixelTypes(RGB, DENSITIES)
DIRECTION_WORDS: dict[Direction, str] = {"a2b": "brightfield -> stains", "b2a": "stains -> brightfield"}
HAEMATOXYLIN, DAB = (Display((band,), window, "cubehelix") for band, window in ((1, (0.0, 0.5)), (2, (0.0, 1.2))))
STAINS = Display(window=(0.0, 1.0))
DIFFERENCE_OD, DIFFERENCE_LEVELS = 0.3, 60.0
_Floats = npt.NDArray[np.float64]


# --- what is compared ------------------------------------------------------------------------------------------------


def constant(direction: Direction, tissue: Tissue) -> TranslateSamples:
    """Return what answers everything with the mean of the target's training images, which needs no pairs."""
    target: DomainName = "B" if direction == "a2b" else "A"
    mean = _values(tissue, target, cells_of(target)).mean(axis=0)
    return lambda samples: _as(np.broadcast_to(mean, (*samples.shape[:-1], len(mean))), target)


def linear_fit(direction: Direction, tissue: Tissue) -> TranslateSamples:
    """Return the affine map of a pixel's values with the least squared error over A's cells, where pairs are known."""
    source, target = _domains(direction)
    cells = cells_of("A")
    known = _with_one(_values(tissue, source, cells))
    weights = np.linalg.lstsq(known, _values(tissue, target, cells), rcond=None)[0]
    return lambda samples: _as(_with_one(samples.astype(np.float64)) @ weights, target)


def beer_lambert(densities: SampleArray) -> SampleArray:
    """Return the colours of densities by the law that they were computed with, without what is neither stain."""
    return _as(255 * 10 ** -(densities.astype(np.float64) @ ABSORPTION), "A")


def translator_of(run: Path, direction: Direction) -> TranslateSamples:
    """Return the translation by a run; raises UserError where it was not trained on stained tissue."""
    loaded = load_translators(run, [direction], [])[0]
    source, target = (TISSUE_PIXELS.of(domain) for domain in _domains(direction))
    for given, kind in ((loaded.source, source), (loaded.target, target)):
        if (given.channels, given.dtype) != (kind.channels, kind.dtype):
            raise UserError(f"{run} was trained on images of {given}, and stained tissue has {kind}")
    network: nn.Module = prepare_network(loaded.network, torch.device("cpu"), torch.float32)

    @torch.no_grad()
    def translate(samples: SampleArray) -> SampleArray:
        return translate_pixels(network, samples, loaded.source, loaded.target)

    return translate


def _domains(direction: Direction) -> tuple[DomainName, DomainName]:
    return ("A", "B") if direction == "a2b" else ("B", "A")


def _values(tissue: Tissue, domain: DomainName, cells: Sequence[tuple[int, int]]) -> _Floats:
    """Return the values of all pixels of some cells, [pixels, channels]."""
    squares = [tissue.square(top, left, CELL_PX).samples(domain) for top, left in cells]
    values: _Floats = np.concatenate([square.reshape(-1, square.shape[-1]) for square in squares]).astype(np.float64)
    return values


def _with_one(values: _Floats) -> _Floats:
    return np.concatenate([values, np.ones((*values.shape[:-1], 1))], axis=-1)


def _as(values: _Floats, domain: DomainName) -> SampleArray:
    """Return values as samples of a domain: those beyond its range become its ends."""
    kind = TISSUE_PIXELS.of(domain)
    clipped = np.clip(values, kind.low, kind.high)
    samples: SampleArray = (np.rint(clipped) if kind.is_rgb else clipped).astype(kind.as_numpy)
    return samples


# --- scores ----------------------------------------------------------------------------------------------------------


def rows_of(direction: Direction, ways: Mapping[str, TranslateSamples], quarter: Tissue) -> list[list[str]]:
    """Return a row of the table for each way of translating: PSNR, SSIM and the mean absolute error in own units."""
    starts = range(0, HELD_OUT_PX, CELL_PX)
    tiles = [quarter.square(top, left, CELL_PX) for top in starts for left in starts]
    source, target = _domains(direction)
    truth = np.stack([tile.samples(target) for tile in tiles])
    given, kind = np.stack([tile.samples(source) for tile in tiles]), TISSUE_PIXELS.of(target)
    rows = []
    for name, translate in ways.items():
        found = translate(given)
        tensors = [as_tensor(samples, torch.device("cpu")) for samples in (found, truth)]
        scores = similarity(tensors[0], tensors[1], kind).means()
        errors = np.abs(found.astype(np.float64) - truth).mean(axis=(0, 1, 2))
        said = f"{errors.mean():.1f} levels" if kind.is_rgb else f"{errors[0]:.3f} and {errors[1]:.3f}"
        rows.append([DIRECTION_WORDS[direction], name, f"{scores['psnr_db']:.1f} dB", f"{scores['ssim']:.3f}", said])
    return rows


# --- the picture -----------------------------------------------------------------------------------------------------


def _difference(found: SampleArray, truth: SampleArray, most: float) -> tuple[Pixels, LegendLine]:
    """Return found - truth [H, W] in blue for less and red for more, and what its colours mean."""
    kind, display = PixelType(1, "float32", -most, most), Display(colours="blue-red")
    signed = (found.astype(np.float32) - truth.astype(np.float32))[..., None]
    text = f"{-most:g} and less (blue) to {most:g} and more (red)"
    return shown(signed, kind, display), LegendLine(text, COLOUR_TABLES["blue-red"])


def draw_quarter(to_stains: TranslateSamples, to_colours: TranslateSamples, quarter: Tissue) -> Pixels:
    """Return a sheet of both directions: input, translation, truth and difference of the held-out quarter."""
    stains, colours = to_stains(quarter.colours[None])[0], to_colours(quarter.densities[None])[0]
    columns: list[list[Pixels]] = []
    for band, display in enumerate((HAEMATOXYLIN, DAB)):
        difference, of_stains = _difference(stains[..., band], quarter.densities[..., band], DIFFERENCE_OD)
        views = [shown(samples, DENSITIES, display) for samples in (stains, quarter.densities)]
        columns.append([quarter.colours, *views, difference])
    difference, of_colours = _difference(colours.mean(axis=-1), quarter.colours.mean(axis=-1), DIFFERENCE_LEVELS)
    columns.append([shown(quarter.densities, DENSITIES, STAINS), colours, quarter.colours, difference])
    titles = ("brightfield to haematoxylin", "brightfield to DAB", "stains to brightfield")
    table = COLOUR_TABLES["cubehelix"]
    heading = (
        LegendLine(f"haematoxylin: {legend(DENSITIES, HAEMATOXYLIN, missing=False)}", table),
        LegendLine(f"DAB: {legend(DENSITIES, DAB, missing=False)}", table),
        LegendLine(f"both as input: {legend(DENSITIES, STAINS, missing=False)}"),
        of_stains._replace(text=f"difference of optical densities: {of_stains.text}"),
        of_colours._replace(text=f"difference of mean levels: {of_colours.text}"),
    )
    title = "A quarter of the tissue that no training image shows"
    rows = ("input", "translation", "truth", "difference")
    return sheet(title, rows, list(zip(titles, columns, strict=True)), heading)


def compare_runs(runs: Sequence[Path], file: Path) -> int:
    """Print the table, draw the picture of the first run, and return the exit status."""
    tissue = read_tissue()
    quarter = held_out(tissue)
    rows: list[list[str]] = []
    of_first: list[TranslateSamples] = []
    for direction in DIRECTION_WORDS:
        ways = {"a constant: the mean of the other domain": constant(direction, tissue)}
        if direction == "b2a":
            ways["Beer and Lambert's law alone"] = beer_lambert
        ways["a linear fit to pairs"] = linear_fit(direction, tissue)
        of_runs = {run.name: translator_of(run, direction) for run in runs}
        of_first.append(next(iter(of_runs.values())))
        rows += rows_of(direction, ways | of_runs, quarter)
    print(markdown_table(("direction", "translated by", "PSNR", "SSIM", "mean absolute error"), rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_image(draw_quarter(of_first[0], of_first[1], quarter), file, quality=75)
    print(file)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Score and draw what the command line names; return the exit status."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: compare_runs(options.runs, options.out))


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.stains", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder; the picture is of the first")
    parser.add_argument(
        "--out", type=Path, default=Path("virtual_staining.jpg"), help="the picture (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
