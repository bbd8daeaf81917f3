"""`python -m bench.steady`: what `translate --steady` does to flicker, on a pan over a photograph, of known motion.

Each frame is cut out of a photograph of scikit-image, with the noise of a camera, and translated by a trained
generator. Nothing else moves, so what differs along the motion is flicker: the warping error of Lai et al. 2018.
The PSNR is that against the translation of the whole photograph, cut out where each frame was, which does not flicker.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data

from bench.reporting.markdown import markdown_table
from cyclegan_fast.conventions import SIDE_MULTIPLE
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.translation.on_device import TorchTranslator
from cyclegan_fast.translation.trained import load_generator
from cyclegan_fast.translation.video.flow import backward_flow
from cyclegan_fast.translation.video.steady import SteadyFilter

_SIZE = (128, 192)
_CORNER = (100, 60)
_STEPS = ((1.0, 3.0), (0.7, 2.6))
"""Rows and columns that the picture moves by from frame to frame."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.steady", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/sample-photos-demo"))
    parser.add_argument("--direction", choices=["a2b", "b2a"], default="a2b")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--noise", type=float, default=3.0, help="standard deviation of the noise, levels of 255")
    options = parser.parse_args(arguments)
    network = load_generator(options.checkpoint, options.direction, []).network
    translator = TorchTranslator(network, torch.device("cpu"), torch.float32)
    photograph: Pixels = (data.astronaut if options.direction == "a2b" else data.coffee)()  # type: ignore[no-untyped-call]
    height, width = (side // SIDE_MULTIPLE * SIDE_MULTIPLE for side in photograph.shape[:2])
    whole = translator(photograph[None, :height, :width])[0]
    rows = []
    for step in _STEPS:
        random = np.random.default_rng(0)
        cuts = [_cut(photograph, step, index) for index in range(options.frames)]
        frames = [_levels(cut + random.normal(0, options.noise, cut.shape)) for cut in cuts]
        flows = [backward_flow(frame, before) for before, frame in pairwise(frames)]
        translations = [translator(frame[None])[0] for frame in frames]
        still = [_cut(whole, step, index) for index in range(options.frames)]
        for strength in (0.0, 0.5, 0.8, 0.9):
            steady, found = SteadyFilter(strength), []
            for index, translation in enumerate(translations):
                moved = (frames[index - 1], flows[index - 1]) if index else (None, None)
                found.append(steady(translation, frames[index], *moved))
            changed = "-" if not strength else f"{_psnr(found, translations):.1f} dB"
            error = f"{1e3 * _warping_error(found, step):.2f}"
            motion = f"{step[0]:g} down, {step[1]:g} right"
            rows.append([motion, f"{strength:g}", error, f"{_psnr(found, still):.1f} dB", changed])
            print(", ".join(rows[-1]), file=sys.stderr, flush=True)
    heads = [
        "motion",
        "`--steady`",
        "warping error, 1e-3",
        "PSNR of the still translation",
        "PSNR of the unfiltered one",
    ]
    print(markdown_table(heads, rows))
    return 0


def _cut(picture: Pixels, step: tuple[float, float], index: int) -> Pixels:
    """Return the frame of an index; between pixels it is interpolated by cubic splines."""
    rows, columns = np.indices(_SIZE, np.float64)
    places = [rows + _CORNER[0] + step[0] * index, columns + _CORNER[1] + step[1] * index]
    return _levels(np.stack([ndimage.map_coordinates(picture[..., c].astype(float), places) for c in range(3)], -1))


def _levels(values: NDArray[np.float64]) -> Pixels:
    levels: Pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    return levels


def _warping_error(frames: Sequence[Pixels], step: tuple[float, float]) -> float:
    """Return the mean over pixels of the squared difference of neighbours, summed over RGB in [0, 1]."""
    rows, columns = np.indices(_SIZE, np.float64)
    errors = []
    for before, frame in pairwise(frames):
        places = [rows + step[0], columns + step[1]]
        moved = [ndimage.map_coordinates(before[..., c] / 255, places, order=1, cval=np.nan) for c in range(3)]
        errors.append(np.nanmean(((np.stack(moved, -1) - frame / 255) ** 2).sum(-1)))
    return float(np.mean(errors))


def _psnr(frames: Sequence[Pixels], others: Sequence[Pixels]) -> float:
    """Return the PSNR over all frames but the first, which is never filtered."""
    difference = np.stack(frames[1:]).astype(float) - np.stack(others[1:])
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


if __name__ == "__main__":
    sys.exit(main())
