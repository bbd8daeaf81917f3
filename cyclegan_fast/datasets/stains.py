"""Makes a data set of stained tissue: brightfield colours in domain A, how much of each stain there is in domain B.

The tissue is the immunohistochemistry image that ships with scikit-image, 512x512 pixels: human colon, in which an
antibody against FHL2 is brown (diaminobenzidine, DAB) and nuclei are blue (haematoxylin). Colour deconvolution
(Ruifrok and Johnston 2001) computes both stains of each pixel, so that every translation has a known truth.

The lower right quarter is held out for tests. The rest is a chessboard of cells of 128x128 pixels: white ones are shown
in brightfield, black ones as stains, so that no pixel is trained on both ways.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclegan_fast.data.sample_photos import bundled_photograph
from cyclegan_fast.images.pixel_type import RGB, DomainName, PixelType, SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.samples import Samples, write_samples
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.words import counted

TISSUE = "ihc.png"
CELL_PX = 128
"""The side of a cell of the chessboard, and the largest side of a training image."""
HELD_OUT_PX = 256
"""The side of the square that is held out, in the lower right corner."""
SMALLEST_TILE_PX = 32
ABSORPTION = np.array([[0.650, 0.704, 0.286], [0.268, 0.570, 0.776]])
"""How strongly haematoxylin and DAB absorb red, green and blue: unit vectors [2, 3] of optical densities.

They are those of Ruifrok and Johnston as programs for images have them, such as scikit-image's `rgb_from_hdx`.
"""
DENSITIES = PixelType(2, "float32", 0.0, 2.0)
"""The pixels of domain B: optical densities of haematoxylin and DAB, which are rarely above 2."""


@dataclass(frozen=True)
class Tissue:
    """Holds tissue both ways: brightfield colours, uint8 [H, W, 3], and densities of its stains, float32 [H, W, 2]."""

    colours: Pixels
    densities: SampleArray

    def square(self, top: int, left: int, side: int) -> "Tissue":
        """Return a square of it, whose side is in pixels."""
        place = slice(top, top + side), slice(left, left + side)
        return Tissue(self.colours[place], self.densities[place])

    def turned(self, quarters: int, *, mirrored: bool) -> "Tissue":
        """Return it turned by quarters of a circle, and mirrored: tissue has no side that is up."""
        colours, densities = (np.rot90(samples, quarters) for samples in (self.colours, self.densities))
        return Tissue(colours[:, ::-1], densities[:, ::-1]) if mirrored else Tissue(colours, densities)

    def samples(self, domain: DomainName) -> SampleArray:
        """Return what a domain shows of it."""
        return self.colours if domain == "A" else self.densities


def stain_densities(colours: Pixels) -> npt.NDArray[np.float32]:
    """Return the optical densities of haematoxylin and DAB, float32 [..., 2], of brightfield colours, uint8 [..., 3].

    This is colour deconvolution (Ruifrok and Johnston 2001, Analytical and Quantitative Cytology and Histology 23). By
    Beer and Lambert's law densities add up: -log10(I / 255) = h H + d D + r R, with the absorption vectors H and D and
    the cross product R of the two, which takes up what is neither stain. Densities h and d below 0 become 0. Levels of
    0 count as 1, because their density would be infinite.
    """
    density = -np.log10(np.maximum(colours, 1) / 255.0)
    vectors = np.vstack([ABSORPTION, np.cross(*ABSORPTION)])
    unmixed = density @ np.linalg.inv(vectors)
    densities: npt.NDArray[np.float32] = np.maximum(unmixed[..., :2], 0.0).astype(np.float32)
    return densities


def read_tissue() -> Tissue:
    """Return the whole image, 512x512 pixels, and its stains."""
    colours = np.asarray(bundled_photograph(TISSUE))
    return Tissue(colours, stain_densities(colours))


def cells_of(domain: DomainName) -> list[tuple[int, int]]:
    """Return the top and left pixel of each cell that a domain's training images are cut from: six of sixteen."""
    cells = [(row, column) for row in range(4) for column in range(4)]
    first_held_out = HELD_OUT_PX // CELL_PX
    return [
        (row * CELL_PX, column * CELL_PX)
        for row, column in cells
        if (row + column) % 2 == "AB".index(domain) and min(row, column) < first_held_out
    ]


def cut_training_tiles(
    tissue: Tissue, domain: DomainName, side: int, count: int, seed: int, *, region: DomainName | None = None
) -> Iterator[SampleArray]:
    """Cut squares out of a domain's cells in turn, at random places, turned and mirrored at random.

    Args:
        side: height and width of each in pixels, at most CELL_PX.
        count: how many.
        region: the domain whose cells and places are taken; by default its own, so that nothing is paired.
    """
    region = region or domain
    cells, random = cells_of(region), np.random.default_rng([seed, "AB".index(region)])
    for index in range(count):
        top, left = cells[index % len(cells)]
        down, right = random.integers(0, CELL_PX - side + 1, 2).tolist()
        quarters, mirrored = random.integers(0, [4, 2]).tolist()
        tile = tissue.square(top + down, left + right, side)
        yield tile.turned(quarters, mirrored=bool(mirrored)).samples(domain)


def held_out(tissue: Tissue) -> Tissue:
    """Return the quarter that no training image shows."""
    return tissue.square(HELD_OUT_PX, HELD_OUT_PX, HELD_OUT_PX)


def test_tile_side(side: int) -> int:
    """Return the side of test images for training images of a side: the power of two that is not larger."""
    return 1 << (side.bit_length() - 1)


def _files(side: int, count: int, seed: int, *, paired: bool) -> Iterator[tuple[str, DomainName, SampleArray]]:
    """Yield the name, the domain and the samples of each file of the data set."""
    tissue = read_tissue()
    domains: tuple[tuple[DomainName, str], ...] = (("A", ".png"), ("B", ".tif"))
    for domain, ending in domains:
        tiles = cut_training_tiles(tissue, domain, side, count, seed, region="A" if paired else None)
        for index, samples in enumerate(tiles):
            yield f"train{domain}/{index:04d}{ending}", domain, samples
    quarter, step = held_out(tissue), test_tile_side(side)
    for domain, ending in domains:
        places = [(top, left) for top in range(0, HELD_OUT_PX, step) for left in range(0, HELD_OUT_PX, step)]
        for index, (top, left) in enumerate(places):  # the names' endings say that they are pairs
            tile = quarter.square(top, left, step)
            yield f"test{domain}/{index:02d}_{domain}{ending}", domain, tile.samples(domain)
        yield f"quarter{domain}/held-out_{domain}{ending}", domain, quarter.samples(domain)


def write_stained_tissue(out: Path, side: int = 72, count: int = 500, *, paired: bool = False, seed: int = 0) -> None:
    """Write trainA, trainB, testA, testB, quarterA and quarterB below `out`; the same command writes the same files.

    Args:
        side: of the training images, in pixels, from SMALLEST_TILE_PX to CELL_PX.
        count: training images of each domain.
        paired: let trainB show the stains of what trainA shows, for methods that learn from pairs.
        seed: another number cuts other places.

    Raises UserError where `out` holds other files.
    """
    files = list(_files(side, count, seed, paired=paired))
    _check_folder(out, {name for name, _, _ in files})
    for name, domain, samples in progress_bar(files, desc="writing tissue", unit=" images"):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_samples(Samples(np.ascontiguousarray(samples[None])), path, RGB if domain == "A" else DENSITIES)
    for folder in dict.fromkeys(Path(name).parent for name, _, _ in files):
        print(f"{out / folder}: {counted(sum(Path(name).parent == folder for name, _, _ in files), 'image')}")


def _check_folder(out: Path, names: set[str]) -> None:
    """Raise UserError where `out` is a file, or holds files that are not among `names`: they would be trained on."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder to write to")
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    others = [name for name in found if name not in names]
    if others:
        raise UserError(f"{out} holds {others[0]}, which is not of this data set; give another folder")
