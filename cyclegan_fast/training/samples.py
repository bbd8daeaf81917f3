"""Draws the sample grids of a training: a few held-out images, translated by both generators."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from cyclegan_fast.data.image_lists import Images
from cyclegan_fast.data.preparation import resize
from cyclegan_fast.data.training_images import Data
from cyclegan_fast.images.files import encoded, write_encoded
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.sheets import sample_grid
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.files import make_folder
from cyclegan_fast.translation.on_device import translate_pixels

SAMPLE_COUNT = 8


def some_of(images: Images, side: int) -> Pixels:
    """Return a few images from all over a list as squares of that side; the list's length alone decides which."""
    chosen = np.random.default_rng(0).permutation(len(images))[:SAMPLE_COUNT]
    return np.stack([np.asarray(resize(Image.fromarray(images[i]), side, side)) for i in sorted(chosen.tolist())])


@dataclass(frozen=True)
class SampleImages:
    """Holds the images that every grid of a run shows, uint8 [N, side, side, 3]."""

    pixels_A: Pixels
    pixels_B: Pixels
    truth_A: Pixels | None
    truth_B: Pixels | None

    @staticmethod
    def of(data: Data, side: int) -> "SampleImages":
        """Choose test images, or training images of a domain that has no others."""
        A, B = data.tests.A, data.tests.B
        return SampleImages(
            pixels_A=some_of(A.images if A else data.training.images_A, side),
            pixels_B=some_of(B.images if B else data.training.images_B, side),
            truth_A=some_of(A.truth, side) if A and A.truth else None,
            truth_B=some_of(B.truth, side) if B and B.truth else None,
        )

    def grids(self, model: Model) -> dict[str, dict[str, Pixels]]:
        """Return rows of pictures by their labels, for each domain."""
        G_A, G_B = model.translator("a2b"), model.translator("b2a")
        fake_B, fake_A = translate_pixels(G_A, self.pixels_A), translate_pixels(G_B, self.pixels_B)
        rows_A = {"real A": self.pixels_A, "fake B = G_A(A)": fake_B}
        if self.truth_A is not None:
            rows_A["truth"] = self.truth_A
        rows_B = {"real B": self.pixels_B, "fake A = G_B(B)": fake_A}
        if self.truth_B is not None:
            rows_B["truth"] = self.truth_B
        if not model.method.searches:
            rows_A |= {
                "reconstruction G_B(G_A(A))": translate_pixels(G_B, fake_B),
                "identity G_B(A)": translate_pixels(G_B, self.pixels_A),
            }
            rows_B |= {
                "reconstruction G_A(G_B(B))": translate_pixels(G_A, fake_A),
                "identity G_A(B)": translate_pixels(G_A, self.pixels_B),
            }
        return {"A": rows_A, "B": rows_B}


def write_samples(run: Path, step: int, rows: dict[str, dict[str, Pixels]]) -> dict[str, Path]:
    """Write `samples/step_00000250_A.png` and `..._B.png`: for each row its label and below it its pictures.

    Returns the files, by domain.

    Args:
        run: the run's folder.
        step: the number of training steps before these pictures.
        rows: for "A" and "B", pictures uint8 [N, H, W, 3] by their labels.
    """
    folder = run / "samples"
    make_folder(folder, "samples")
    files = {domain: folder / f"step_{step:08d}_{domain}.png" for domain in rows}
    for domain, pictures in rows.items():
        info = PngImagePlugin.PngInfo()
        info.add_itxt("rows", "\n".join(pictures))  # the page tells them to those who cannot see the picture
        write_encoded(encoded(sample_grid(pictures), ".png", pnginfo=info), files[domain], "samples")
    return files
