"""Defines flat surfaces in space, of which everything in a street is made, and their looks.

World coordinates are metres: x to the right, y up from the ground, z ahead. A position on the ground is (x, z).
"""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cyclegan_fast.datasets.streets.silhouettes import Silhouette
from cyclegan_fast.images.labels import TRAIN_ID

Vector = npt.NDArray[np.float64]
Colour = tuple[float, float, float]
Random = np.random.Generator

UP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Facade:
    """Describes the windows of a wall: lengths in metres, and the share of a bay and of a storey that one takes."""

    bay: float
    storey: float
    window_width: float
    window_height: float
    shop: float
    """height of the shop windows at the bottom; 0 without"""
    seed: int


@dataclass(frozen=True, eq=False)
class Look:
    """Describes what a surface is made of; colours in sRGB from 0 to 1."""

    colour: Colour
    second: Colour = (0.5, 0.5, 0.5)
    """the colour of trousers, window frames and other parts with a colour of their own"""
    texture: str = "gloss"
    tile: float = 2.0
    """metres that the texture covers"""
    contrast: float = 1.0
    gloss: float = 0.0
    silhouette: Silhouette | None = None
    facade: Facade | None = None


@dataclass(frozen=True, eq=False)
class Surface:
    """Describes a parallelogram from `origin` along `across` and `up`, or its part inside its look's silhouette."""

    label: int
    origin: Vector
    across: Vector
    up: Vector
    look: Look
    normal: Vector
    """points away from the inside of a solid, which hides it from behind; zero for a surface seen from both sides"""
    facing: bool
    """whether `across` turns towards the viewer, as that of round things does"""
    shift: float
    """the place in the texture at which the surface begins, in metres"""


@dataclass(frozen=True)
class Footprint:
    """Says where a thing stands: a rectangle by its centre, its heading clockwise from ahead, and half its sides."""

    x: float
    z: float
    heading: float
    half_length: float
    half_width: float


class Things:
    """Collects the surfaces of one street."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.surfaces: list[Surface] = []
        self.footprints: list[Footprint] = []

    def quad(
        self,
        label: str,
        origin: Vector,
        across: Vector,
        up: Vector,
        look: Look,
        *,
        inside: Vector | None = None,
        facing: bool = False,
    ) -> None:
        """Add a surface; `inside` is a point of the solid that it bounds."""
        normal = np.zeros(3)
        if inside is not None:
            (ax, ay, az), (bx, by, bz) = across, up
            normal = np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])  # np.cross takes 30 us
            normal /= math.sqrt(normal @ normal)
            if normal @ (origin + (across + up) / 2 - inside) < 0:
                normal = -normal
        shift = float(self.random.uniform(0, 50))
        self.surfaces.append(Surface(TRAIN_ID[label], origin, across, up, look, normal, facing, shift))

    def cut_out(
        self, label: str, x: float, z: float, width: float, height: float, look: Look, base: float = 0.0
    ) -> None:
        """Add something round, or flat and turned to the viewer, that stands on (x, z), `base` above the ground.

        A negative width shows it mirrored.
        """
        across = np.array([width, 0.0, 0.0])
        self.quad(label, np.array([x, base, z]) - across / 2, across, height * UP, look, facing=True)

    def box(self, label: str, corners: Sequence[Vector], height: float, look: Look) -> None:
        """Add a solid with a lid over (x, z) corners."""
        ground = [np.array([x, 0.0, z]) for x, z in corners]
        inside = sum(ground, np.zeros(3)) / 4 + height / 2 * UP
        for here, there in zip(ground, [*ground[1:], ground[0]], strict=True):
            self.quad(label, here, there - here, height * UP, look, inside=inside)
        lid = ground[0] + height * UP
        self.quad(label, lid, ground[1] - ground[0], ground[3] - ground[0], look, inside=inside)


def tinted(random: Random, hue: float, saturation: float, value: float, spread: float = 0.1) -> Colour:
    """Draw a colour near one given by hue, saturation and value."""
    return colorsys.hsv_to_rgb(
        (hue + random.normal(0, 0.2 * spread)) % 1,
        min(1.0, max(0.0, saturation + random.normal(0, spread))),
        min(1.0, max(0.03, value + random.normal(0, spread))),
    )


def linear(colour: Colour) -> Colour:
    """Convert sRGB from 0 to 1 to light."""
    red, green, blue = (max(0.0, channel) ** 2.2 for channel in colour)
    return red, green, blue
