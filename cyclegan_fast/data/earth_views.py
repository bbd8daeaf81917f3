"""Says what part of the Earth an image shows, and which parts belong to which domain of the data set Earth."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

EARTH_RADIUS_KM = 6371.0
KM_PER_PIXEL = 36.0
OLD_WORLD = (-25.0, 180.0)
"""The western and the eastern end of the cells, in degrees."""
CELL_ROWS = ((74.0, 14.0, "ABA"), (14.0, -46.0, "BABA"))
"""The northern and the southern end of each row of cells, in degrees, and whose its cells are, from west to east.

So divided, both domains have equal shares of land, and of it equal shares are green, dark or under snow, each to 0.05.
"""
LARGEST_SIDE = 100
"""Side in pixels of the largest image that lies in each of the cells, with room to move."""
_FINER = 3  # samples of a pixel each way: 12 km, where the images that are read have 7.4 at the equator

Degrees = npt.NDArray[np.float64]
Colours = npt.NDArray[np.float64]  # [H, W, 3] in [0, 1]
Domain = Literal["A", "B"]


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
        """Return the latitude and the longitude of each sample, [finer * height, finer * width] each."""
        y, x = (_centres(extent, finer) for extent in (self.height, self.width))
        return self._unproject(x[None, :], -y[:, None])

    def border(self) -> tuple[Degrees, Degrees]:
        """Return the latitudes and the longitudes of the pixels at the border."""
        y, x = _centres(self.height), _centres(self.width)
        rows, columns = np.full_like(x, y[-1]), np.full_like(y, x[-1])
        return self._unproject(np.concatenate([x, x, columns, -columns]), np.concatenate([rows, -rows, y, y]))

    def _unproject(self, x: Degrees, y: Degrees) -> tuple[Degrees, Degrees]:
        """Return the latitudes and longitudes of places so many pixels east and north of the centre.

        Equations 20-14, 20-15, 20-18 and 24-16 of Snyder, "Map projections: a working manual", 1987.
        """
        radians = self.km_per_pixel / EARTH_RADIUS_KM
        x, y = x * radians, y * radians
        distance = np.maximum(np.hypot(x, y), 1e-12)
        angle = 2 * np.arcsin(np.minimum(distance / 2, 1))
        centre, sine, cosine = np.radians(self.latitude), np.sin(angle), np.cos(angle)
        height = cosine * np.sin(centre) + y * sine * np.cos(centre) / distance
        turn = np.arctan2(x * sine, distance * np.cos(centre) * cosine - y * np.sin(centre) * sine)
        return np.degrees(np.arcsin(np.clip(height, -1, 1))), (np.degrees(turn) + self.longitude + 180) % 360 - 180

    def of(self, world: npt.NDArray[np.generic], finer: int = _FINER) -> Colours:
        """Return this part of an image of the whole Earth, [height, width, C]; a pixel is a mean of finer^2 samples.

        Args:
            world: [H, W, C], whose 255 becomes 1, from the north pole to the south pole and from 180 degrees west to
                180 degrees east.
        """
        rows, columns = world.shape[:2]
        latitudes, longitudes = self.places(finer)
        row = np.clip(np.floor((90 - latitudes) / 180 * rows).astype(int), 0, rows - 1)
        column = np.floor((longitudes + 180) / 360 * columns).astype(int) % columns
        samples = world[row, column].reshape(self.height, finer, self.width, finer, -1)
        colours: Colours = samples.mean((1, 3)) / 255
        return colours


def _centres(extent: int, finer: int = 1) -> Degrees:
    """Return the places of samples along a side, in pixels from its middle."""
    return (np.arange(extent * finer) - (extent * finer - 1) / 2) / finer


@dataclass(frozen=True)
class Cell:
    """Holds the borders of a cell of the Old World, in degrees, and the domain that shows it."""

    south: float
    north: float
    west: float
    east: float
    domain: Domain

    def contains(self, view: View) -> bool:
        """Tell whether a view lies in this cell as a whole."""
        latitudes, longitudes = view.border()
        return bool(
            latitudes.min() >= self.south
            and latitudes.max() < self.north
            and longitudes.min() >= self.west
            and longitudes.max() < self.east
        )


def cells(domain: Domain) -> list[Cell]:
    """Return the cells of a domain."""
    found = []
    for north, south, owners in CELL_ROWS:
        borders = np.linspace(*OLD_WORLD, len(owners) + 1).tolist()
        found += [
            Cell(south, north, west, east, domain)
            for (west, east), owner in zip(pairwise(borders), owners, strict=True)
            if owner == domain
        ]
    return found


def draw_in_cells(random: np.random.Generator, domain: Domain, side: int) -> View:
    """Draw a view of side x side pixels that lies in a cell of a domain; equal areas are equally likely as centres."""
    own = cells(domain)
    south, north = min(cell.south for cell in own), max(cell.north for cell in own)
    while True:
        view = draw_centre(random, (south, north), OLD_WORLD, side)
        if any(cell.contains(view) for cell in own):
            return view


def draw_centre(
    random: np.random.Generator, latitudes: tuple[float, float], longitudes: tuple[float, float], side: int
) -> View:
    """Draw a view around any place between two latitudes and two longitudes, in degrees; equal areas equally likely."""
    south, north = np.sin(np.radians(latitudes))
    latitude = float(np.degrees(np.arcsin(random.uniform(south, north))))
    return View(latitude, random.uniform(*longitudes), side, side)
