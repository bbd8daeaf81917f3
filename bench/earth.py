"""`python -m bench.earth`: trains on the data set Earth with several seeds, and writes scores and pictures.

A run is what `python -m cyclegan_fast.train --data earth --seed N --name earth-N` makes; runs that are finished are
scored only, and those that were interrupted go on. Scores are printed as a table in Markdown, a row for each seed.
Pictures show the Americas, which no training saw, translated in strips by the first seed's run.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from bench.reporting.markdown import markdown_table
from cyclegan_fast.config.keywords import training_settings
from cyclegan_fast.config.options import MetricName
from cyclegan_fast.conventions import Direction
from cyclegan_fast.data.earth import CONTINENTS, map_of, photograph_of, read_world
from cyclegan_fast.evaluation.command import EvaluateCommand, scores_of_run
from cyclegan_fast.evaluation.score_table import scalars
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.sheets import BACKGROUND, CAPTION_COLOUR, GRID_GAP_PX, LINE_PX
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.training.session import train
from cyclegan_fast.translation.strips.resnet import TiledTranslator
from cyclegan_fast.translation.trained import load_translators

SCORED_BY: tuple[MetricName, ...] = ("truth", "lookup")
SCORES = {
    "untranslated": "{way}.untranslated",
    "best lookup of colours": "{way}.lookup",
    "translated": "{way}.truth",
}
CAPTION_PX = 18


def translate_whole(run: Path, direction: Direction, pixels: Pixels) -> Pixels:
    """Translate an image, uint8 [H, W, 3], in strips on the CPU, as `translate --tile` does."""
    network = load_translators(run, [direction], [])[0].network
    assert isinstance(network, ResnetGenerator)
    translator = TiledTranslator(network, torch.device("cpu"), torch.float32, Path(tempfile.gettempdir()))
    translated: Pixels = translator(pixels[None])[0]
    return translated


def side_by_side(columns: dict[str, Pixels]) -> Pixels:
    """Return pictures of one size beside each other, each under its caption."""
    height, width = next(iter(columns.values())).shape[:2]
    whole = Image.new("RGB", (len(columns) * (width + GRID_GAP_PX) - GRID_GAP_PX, LINE_PX + height), BACKGROUND)
    for index, (caption, pixels) in enumerate(columns.items()):
        left = index * (width + GRID_GAP_PX)
        place = (left + width // 2, LINE_PX // 2)
        ImageDraw.Draw(whole).text(place, caption, CAPTION_COLOUR, ImageFont.load_default(CAPTION_PX), anchor="mm")
        whole.paste(Image.fromarray(pixels), (left, LINE_PX))
    return np.asarray(whole)


def write_pictures(run: Path, folder: Path) -> list[Path]:
    """Write the Americas as photograph, map by the run and true map, and the way back; return the files."""
    world, view = read_world(), CONTINENTS["americas"]
    photograph, chart = photograph_of(world, view), map_of(world, view)
    pictures = {
        "earth_maps.jpg": {
            "photograph": photograph,
            "translated to a map": translate_whole(run, "a2b", photograph),
            "the true map": chart,
        },
        "earth_photographs.jpg": {
            "map": chart,
            "translated to a photograph": translate_whole(run, "b2a", chart),
            "the true photograph": photograph,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in pictures.items():
        write_image(side_by_side(columns), folder / name, quality=90)
    return [folder / name for name in pictures]


def score_rows(scores: dict[int, dict[str, float]]) -> list[list[str]]:
    """Return a row for each direction and kind of image: PSNR and SSIM against the truth, for each seed.

    What does not depend on the seed stands in one row of its own.
    """
    rows = []
    for way, words in {"a2b": "photograph -> map", "b2a": "map -> photograph"}.items():
        for kind, pattern in SCORES.items():
            name = pattern.format(way=way)
            of_seeds = [
                f"{found[f'{name}.psnr_db']:.1f} dB, {found[f'{name}.ssim']:.3f}"
                for found in scores.values()
                if f"{name}.psnr_db" in found
            ]
            rows.append([words, kind, "; ".join(dict.fromkeys(of_seeds))])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score, draw, and print what was written; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.earth", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run each (default: 0 1 2)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("earth-results"), help="for pictures (default: %(default)s)")
    options = parser.parse_args(arguments)
    return run_command(lambda: compare_seeds(options.seeds, options.runs, options.out))


def compare_seeds(seeds: Sequence[int], runs: Path, out: Path) -> int:
    """Do what the command does; return the exit status, that of a training which was interrupted where one was."""
    found: dict[int, dict[str, float]] = {}
    for seed in seeds:
        flags = {"data": "earth", "seed": seed, "runs": runs, "name": f"earth-{seed}", "metrics": SCORED_BY}
        if status := train(*training_settings(flags)):
            return status
        found[seed] = scalars(scores_of_run(EvaluateCommand(checkpoint=runs / f"earth-{seed}", metrics=SCORED_BY)))
    titles = ("direction", "compared with the truth", f"PSNR, SSIM of seeds {', '.join(map(str, seeds))}")
    print(markdown_table(titles, score_rows(found)))
    for path in write_pictures(runs / f"earth-{seeds[0]}", out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
