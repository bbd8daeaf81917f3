"""Draws the sample grids of a training: a few held-out images, translated by both generators."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import PngImagePlugin

from cyclegan_fast.config.options import Config
from cyclegan_fast.data.image_lists import Images
from cyclegan_fast.data.preparation import resize_samples
from cyclegan_fast.data.training_images import Data
from cyclegan_fast.images.display import AS_RGB, DomainViews, LegendLine
from cyclegan_fast.images.files import encoded, write_encoded
from cyclegan_fast.images.pixel_type import DomainName, SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.sheets import sample_grid
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import make_folder
from cyclegan_fast.translation.on_device import translate_pixels

SAMPLE_COUNT = 8
_Row = tuple[str, DomainName, SampleArray]  # a label, and the domain that the images below it are of


def some_of(images: Images, side: int) -> SampleArray:
    """Return a few images from all over a list as squares of that side; the list's length alone decides which."""
    chosen = np.random.default_rng(0).permutation(len(images))[:SAMPLE_COUNT]
    return np.stack([resize_samples(images[i], side, side) for i in sorted(chosen.tolist())])


@dataclass(frozen=True)
class SampleGrid:
    """Holds the pictures of one domain's grid, uint8 [N, H, W, 3] by the labels of their rows, and their legend.

    legend: lines on what the colours of both domains stand for; none where both are 8-bit RGB.
    numbers: what is said of the values of a row, by its label; nothing where there is no legend.
    """

    pictures: dict[str, Pixels]
    legend: tuple[LegendLine, ...] = ()
    numbers: dict[str, str] = field(default_factory=dict)

    def drawn(self) -> Pixels:
        """Return the grid as one picture, with the numbers of a row in its label."""
        rows = {
            f"{label}: {self.numbers[label]}" if label in self.numbers else label: images
            for label, images in self.pictures.items()
        }
        return sample_grid(rows, self.legend)


@dataclass(frozen=True)
class SampleImages:
    """Holds the images that every grid of a run shows, samples [N, side, side, C] of their domains' types."""

    samples_A: SampleArray
    samples_B: SampleArray
    truth_A: SampleArray | None
    truth_B: SampleArray | None
    views: DomainViews = AS_RGB

    @staticmethod
    def of(data: Data, config: Config) -> "SampleImages":
        """Choose test images, or training images of a domain that has no others.

        Raises UserError where the images do not have the bands that are to be shown.
        """
        side = config.data.crop_size
        A, B = data.tests.A, data.tests.B
        try:
            views = config.run.views(config.data.pixel_types)
        except ValueError as error:
            raise UserError(str(error)) from error
        return SampleImages(
            samples_A=some_of(A.images if A else data.training.images_A, side),
            samples_B=some_of(B.images if B else data.training.images_B, side),
            truth_A=some_of(A.truth, side) if A and A.truth else None,
            truth_B=some_of(B.truth, side) if B and B.truth else None,
            views=views,
        )

    def grids(self, model: Model) -> dict[str, SampleGrid]:
        """Return the grid of each domain. Identity rows are left out where the domains differ in their channels."""
        kinds = self.views.kinds
        A, B = kinds
        G_A, G_B = model.translator("a2b"), model.translator("b2a")
        fake_B, fake_A = translate_pixels(G_A, self.samples_A, A, B), translate_pixels(G_B, self.samples_B, B, A)
        rows_A: list[_Row] = [("real A", "A", self.samples_A), ("fake B = G_A(A)", "B", fake_B)]
        rows_B: list[_Row] = [("real B", "B", self.samples_B), ("fake A = G_B(B)", "A", fake_A)]
        if self.truth_A is not None:
            rows_A.append(("truth", "B", self.truth_A))
        if self.truth_B is not None:
            rows_B.append(("truth", "A", self.truth_B))
        if not model.method.searches:
            rows_A.append(("reconstruction G_B(G_A(A))", "A", translate_pixels(G_B, fake_B, B, A)))
            rows_B.append(("reconstruction G_A(G_B(B))", "B", translate_pixels(G_A, fake_A, A, B)))
            if kinds.have_equal_channels:
                rows_A.append(("identity G_B(A)", "A", translate_pixels(G_B, self.samples_A, A, A)))
                rows_B.append(("identity G_A(B)", "B", translate_pixels(G_A, self.samples_B, B, B)))
        return {"A": self._grid(rows_A), "B": self._grid(rows_B)}

    def _grid(self, rows: list[_Row]) -> SampleGrid:
        legend = self.views.legend()
        return SampleGrid(
            pictures={label: self.views.of(domain)(samples) for label, domain, samples in rows},
            legend=legend,
            numbers={label: _numbers_of(samples) for label, _, samples in rows} if legend else {},
        )


def _numbers_of(samples: SampleArray) -> str:
    """Return the least, the greatest and the mean value of samples as text, and how many are no numbers."""
    values = samples[np.isfinite(samples)].astype(np.float64)
    if not values.size:
        return "no values"
    missing = f", {1 - values.size / samples.size:.1%} without a value" if values.size < samples.size else ""
    return f"{values.min():.5g} to {values.max():.5g}, mean {values.mean():.5g}{missing}"


def write_grids(run: Path, step: int, grids: Mapping[str, SampleGrid]) -> dict[str, Path]:
    """Write `samples/step_00000250_A.png` and `..._B.png`: for each row its label and below it its pictures.

    Returns the files, by domain.

    Args:
        run: the run's folder.
        step: the number of training steps before these pictures.
        grids: the grids of "A" and "B".
    """
    folder = run / "samples"
    make_folder(folder, "samples")
    files = {domain: folder / f"step_{step:08d}_{domain}.png" for domain in grids}
    for domain, grid in grids.items():
        info = PngImagePlugin.PngInfo()
        info.add_itxt("rows", "\n".join(grid.pictures))  # the page tells them to those who cannot see the picture
        if grid.legend:
            info.add_itxt("legend", "\n".join(line.text for line in grid.legend))
            info.add_itxt("numbers", "\n".join(grid.numbers.get(label, "") for label in grid.pictures))
        write_encoded(encoded(grid.drawn(), ".png", pnginfo=info), files[domain], "samples")
    return files
