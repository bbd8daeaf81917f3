"""Makes a data set of stained tissue: brightfield colours in domain A, how much of each stain there is in domain B.

The tissue is the immunohistochemistry image that ships with scikit-image, 512x512 pixels: human colon, in which an
antibody against FHL2 is brown (diaminobenzidine, DAB) and nuclei are blue (haematoxylin). Colour deconvolution
(Ruifrok and Johnston 2001) computes both stains of each pixel, so that every translation has a known truth.

The lower right quarter is held out for tests. The rest is a chessboard of cells of 128x128 pixels: white ones are shown
in brightfield, black ones as stains, so that no pixel is trained on both ways.
"""

from collections.abc import Collection, Iterable, Iterator
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
MOST_TILES = 100_000
"""The largest number of training images: there are 155,952 of 72x72 pixels, and fewer of larger sides."""
TISSUE_ENDINGS: dict[DomainName, str] = {"A": ".png", "B": ".tif"}
"""The formats of the domains' files."""
ABSORPTION = np.array([[0.650, 0.704, 0.286], [0.268, 0.570, 0.776]])
"""Says how strongly haematoxylin and DAB absorb red, green and blue: unit vectors [2, 3] of optical densities.

They are those of Ruifrok and Johnston as programs for images have them, such as scikit-image's `rgb_from_hdx`.
"""
DENSITIES = PixelType(2, "float32", 0.0, 1.2)
"""The pixels of domain B: optical densities of haematoxylin and DAB; 0.35 % of all values are above the range."""


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


def write_stained_tissue(
    out: Path, side: int = CELL_PX, count: int = 500, *, paired: bool = False, seed: int = 0
) -> None:
    """Write trainA, trainB, testA, testB, quarterA and quarterB below `out`, and print what is in them.

    The same arguments write the same files, so that a set that was cut short is made whole.

    Args:
        side: of the training images, in pixels, from SMALLEST_TILE_PX to CELL_PX.
        count: training images of each domain, at most MOST_TILES.
        paired: let trainB show the stains of what trainA shows, for methods that learn from pairs.
        seed: another number cuts other places.

    Raises UserError where `out` holds other files.
    """
    tissue = read_tissue()
    quarter, tile_side = held_out(tissue), test_tile_side(side)
    starts = range(0, HELD_OUT_PX, tile_side)
    tiles = [quarter.square(top, left, tile_side) for top in starts for left in starts]
    folders: dict[str, tuple[DomainName, list[str], Iterable[SampleArray]]] = {}
    for domain, ending in TISSUE_ENDINGS.items():
        pair = f"_{domain}{ending}"  # which says that test images are pairs
        training = cut_training_tiles(tissue, domain, side, count, seed, region="A" if paired else None)
        folders[f"train{domain}"] = domain, [f"{index:04d}{ending}" for index in range(count)], training
        names = [f"{index:02d}{pair}" for index in range(len(tiles))]
        folders[f"test{domain}"] = domain, names, (tile.samples(domain) for tile in tiles)
        folders[f"quarter{domain}"] = domain, [f"held-out{pair}"], [quarter.samples(domain)]
    _check_folder(out, {f"{folder}/{name}" for folder, (_, names, _) in folders.items() for name in names})
    total = sum(len(names) for _, names, _ in folders.values())
    with progress_bar(desc="writing tissue", unit=" images", total=total) as bar:
        for folder, (domain, names, images) in folders.items():
            (out / folder).mkdir(parents=True, exist_ok=True)
            for name, samples in zip(names, images, strict=True):
                kind = RGB if domain == "A" else DENSITIES
                write_samples(Samples(np.ascontiguousarray(samples[None])), out / folder / name, kind)
                bar.update()
    for folder, (_, names, _) in folders.items():
        print(f"{out / folder}: {counted(len(names), 'image')}")


def _check_folder(out: Path, names: Collection[str]) -> None:
    """Raise UserError where `out` is a file, or holds files that are not among `names`: they would be trained on.

    Hidden ones are not: a file that was being written when the command was killed has such a name.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder to write to")
    found = sorted(
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.name[0] != "." and not path.is_dir()
    )
    other = next((name for name in found if name not in names), None)
    if other is not None:
        raise UserError(f"{out} holds {other}, which is not of this data set; give another folder")
