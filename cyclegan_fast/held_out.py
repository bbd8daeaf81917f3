"""Held-out images under both generators: sample grids while training, scores at its end."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cyclegan_fast.data import Data, resize
from cyclegan_fast.image_folder import Images
from cyclegan_fast.model import CycleGAN
from cyclegan_fast.networks import ResnetGenerator
from cyclegan_fast.pixels import Pixels, to_pixels, to_signed
from cyclegan_fast.scores import Score, best_colour_lookup, score

SAMPLES = 8
SCORED = 64
PIXELS = 8 * 256 * 256
"""Of all images that are translated at once: large ones go one by one, beside what a CUDA graph keeps."""


@torch.no_grad()
def translated(generator: ResnetGenerator, pixels: Pixels) -> Pixels:
    """uint8 [N, H, W, 3] -> the same through a generator, in the precision of its weights."""
    device = next(generator.parameters()).device
    at_once = max(1, PIXELS // (pixels.shape[1] * pixels.shape[2]))
    batches = np.array_split(pixels, range(at_once, len(pixels), at_once))
    return np.concatenate([to_pixels(generator(to_signed(torch.from_numpy(batch).to(device)))) for batch in batches])


def first(images: Images, count: int) -> Pixels:
    return np.stack([images[index] for index in range(min(count, len(images)))])


def some_of(images: Images, side: int) -> Pixels:
    """A few images from all over a list, always the same ones for one length, as squares of that side."""
    chosen = np.random.default_rng(0).permutation(len(images))[:SAMPLES]
    return np.stack([np.asarray(resize(Image.fromarray(images[i]), side, side)) for i in sorted(chosen.tolist())])


@dataclass(frozen=True)
class Samples:
    """The images that every grid of a run shows, [N, side, side, 3]: held out where there are any."""

    pixels_A: Pixels
    pixels_B: Pixels
    truth_A: Pixels | None

    @staticmethod
    def of(data: Data, side: int) -> "Samples":
        truth = data.test_A.truth if data.test_A else None
        return Samples(
            pixels_A=some_of(data.test_A.images if data.test_A else data.training.images_A, side),
            pixels_B=some_of(data.test_B.images if data.test_B else data.training.images_B, side),
            truth_A=some_of(truth, side) if truth else None,
        )

    def grids(self, model: CycleGAN) -> dict[str, dict[str, Pixels]]:
        """Rows of pictures by label, for each domain."""
        G_A, G_B = model.translator("a2b"), model.translator("b2a")
        fake_B, fake_A = translated(G_A, self.pixels_A), translated(G_B, self.pixels_B)
        rows_A = {"real A": self.pixels_A, "fake B = G_A(A)": fake_B}
        if self.truth_A is not None:
            rows_A["truth"] = self.truth_A
        rows_A |= {
            "reconstruction G_B(G_A(A))": translated(G_B, fake_B),
            "identity G_B(A)": translated(G_B, self.pixels_A),
        }
        rows_B = {
            "real B": self.pixels_B,
            "fake A = G_B(B)": fake_A,
            "reconstruction G_A(G_B(B))": translated(G_A, fake_A),
            "identity G_A(B)": translated(G_A, self.pixels_B),
        }
        return {"A": rows_A, "B": rows_B}


def scores(model: CycleGAN, data: Data) -> tuple[list[Score], list[str]]:
    """The rows of the final table, and remarks on what could not be scored."""
    G_A, G_B = model.translator("a2b"), model.translator("b2a")
    rows: list[Score] = []
    notes: list[str] = []
    if data.test_A:
        images = first(data.test_A.images, SCORED)
        fake = translated(G_A, images)
        if data.test_A.truth:
            truth = first(data.test_A.truth, SCORED)
            rows += [
                score("translated, G_A(A) against the truth", fake, truth),
                score("untranslated, A against the truth", images, truth),
                score(
                    "best colour lookup (32 levels), fitted with the truth", best_colour_lookup(images, truth), truth
                ),
            ]
        else:
            notes.append("the true translation of these images is not known: only reconstructions are scored")
        rows.append(score("reconstructed, G_B(G_A(A)) against A", translated(G_B, fake), images))
    if data.test_B:
        images = first(data.test_B.images, SCORED)
        rows.append(score("reconstructed, G_A(G_B(B)) against B", translated(G_A, translated(G_B, images)), images))
    for name, held_out in (("testA", data.test_A), ("testB", data.test_B)):
        if held_out and len(held_out.images) > SCORED:
            notes.append(f"scored are the first {SCORED} of the {len(held_out.images)} images in {name}")
    missing = [name for name, images in (("testA", data.test_A), ("testB", data.test_B)) if images is None]
    if missing:
        notes.append(f"no images in {' and '.join(missing)}: nothing held out to score there")
    return rows, notes
