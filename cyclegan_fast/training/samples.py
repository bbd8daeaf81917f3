"""A few held-out images under both generators: the sample grids of a training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import nn

from cyclegan_fast.data.image_lists import Images
from cyclegan_fast.data.preparation import resize
from cyclegan_fast.data.training_images import Data
from cyclegan_fast.evaluation import passes as evaluation
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixels import Pixels, as_pixels, as_tensor, images_at_once
from cyclegan_fast.images.sheets import sample_grid
from cyclegan_fast.methods.model import Model

SAMPLES = 8


@torch.no_grad()
def translated(generator: nn.Module, pixels: Pixels) -> Pixels:
    """uint8 [N, H, W, 3] -> the same through a generator, in the precision of its weights."""
    device = next(generator.parameters()).device
    batches = torch.split(as_tensor(pixels, device), images_at_once(*pixels.shape[1:3]))
    return as_pixels(torch.cat([evaluation.translated(generator, batch) for batch in batches]))


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
    truth_B: Pixels | None

    @staticmethod
    def of(data: Data, side: int) -> "Samples":
        A, B = data.tests.A, data.tests.B
        return Samples(
            pixels_A=some_of(A.images if A else data.training.images_A, side),
            pixels_B=some_of(B.images if B else data.training.images_B, side),
            truth_A=some_of(A.truth, side) if A and A.truth else None,
            truth_B=some_of(B.truth, side) if B and B.truth else None,
        )

    def grids(self, model: Model) -> dict[str, dict[str, Pixels]]:
        """Rows of pictures by label, for each domain."""
        G_A, G_B = model.translator("a2b"), model.translator("b2a")
        fake_B, fake_A = translated(G_A, self.pixels_A), translated(G_B, self.pixels_B)
        rows_A = {"real A": self.pixels_A, "fake B = G_A(A)": fake_B}
        if self.truth_A is not None:
            rows_A["truth"] = self.truth_A
        rows_B = {"real B": self.pixels_B, "fake A = G_B(B)": fake_A}
        if self.truth_B is not None:
            rows_B["truth"] = self.truth_B
        if not model.method.searches:
            rows_A |= {
                "reconstruction G_B(G_A(A))": translated(G_B, fake_B),
                "identity G_B(A)": translated(G_B, self.pixels_A),
            }
            rows_B |= {
                "reconstruction G_A(G_B(B))": translated(G_A, fake_A),
                "identity G_A(B)": translated(G_A, self.pixels_B),
            }
        return {"A": rows_A, "B": rows_B}


def write_samples(run: Path, step: int, rows: dict[str, dict[str, Pixels]]) -> None:
    """Write `samples/step_00000250_A.png` and `..._B.png`: for each row its label and below it its pictures.

    Args:
        run: the run's folder.
        step: training steps behind these pictures.
        rows: for "A" and "B", label -> uint8 [N, H, W, 3].
    """
    folder = run / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    for domain, pictures in rows.items():
        info = PngImagePlugin.PngInfo()
        info.add_itxt("rows", "\n".join(pictures))  # the page tells them to those who cannot see the picture
        write_image(sample_grid(pictures), folder / f"step_{step:08d}_{domain}.png", pnginfo=info)
