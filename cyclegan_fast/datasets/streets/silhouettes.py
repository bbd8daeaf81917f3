"""Draws what stands in a street as cut-outs: outlines of people, trees and signs, with parts of different materials.

Each kind has a fixed stock of variants, drawn once per process; streets flip, stretch and colour them.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from cyclegan_fast.images.pixels import Pixels

PEOPLE = 36
RIDERS = 8
CROWNS = 24
SIGNS = 6


class Part(IntEnum):
    """Says what a pixel of a cut-out is made of; MAIN and SECOND take the colours of the surface that bears it."""

    NOTHING = 0
    MAIN = 1
    SECOND = 2
    GLASS = 3
    RUBBER = 4
    METAL = 5
    WHITE = 6
    RED = 7
    YELLOW = 8
    GREEN = 9
    BLUE = 10
    SKIN = 11
    HAIR = 12
    DARK = 13


@dataclass(frozen=True, eq=False)
class Silhouette:
    """Holds a cut-out; rows run upwards, and row 0 stands on the ground."""

    parts: Pixels  # [rows, columns] of Part
    relief: Pixels  # [rows, columns], 255 where the thing bulges towards the viewer, 0 in its folds


class Sheet:
    """Draws a cut-out in the thing's own units, y upwards from the ground."""

    def __init__(self, width: float, height: float, rows: int = 192) -> None:
        self._scale = rows / height
        self._height = height
        self._image = Image.new("L", (max(8, round(width * self._scale)), rows))
        self._draw = ImageDraw.Draw(self._image)

    def _points(self, points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
        return [(x * self._scale, (self._height - y) * self._scale) for x, y in points]

    def polygon(self, part: Part, *points: tuple[float, float]) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._points(points), fill=int(part))

    def disc(self, part: Part, x: float, y: float, radius: float, stretch: float = 1.0) -> None:
        """Fill a disc around (x, y), as high as `stretch` times its width."""
        corners = self._points(((x - radius, y + radius * stretch), (x + radius, y - radius * stretch)))
        self._draw.ellipse([*corners[0], *corners[1]], fill=int(part))

    def ring(self, part: Part, x: float, y: float, radius: float, width: float) -> None:
        """Draw a ring around (x, y), whose line is `width` wide."""
        corners = self._points(((x - radius, y + radius), (x + radius, y - radius)))
        self._draw.ellipse([*corners[0], *corners[1]], outline=int(part), width=max(1, round(width * self._scale)))

    def limb(self, part: Part, width: float, *points: tuple[float, float]) -> None:
        """Draw a bent line with round joints and ends."""
        self._draw.line(self._points(points), fill=int(part), width=max(1, round(width * self._scale)))
        for x, y in points:
            self.disc(part, x, y, width / 2)

    def flat(self) -> Silhouette:
        """Return the cut-out of an even relief."""
        parts = np.asarray(self._image)[::-1].copy()
        return Silhouette(parts, np.full_like(parts, 255))

    def rounded(self) -> Silhouette:
        """Return the cut-out, darker towards its outline."""
        parts = self.flat().parts
        solid = (parts > 0).astype(np.float32)
        relief = gaussian_filter(solid, 0.03 * len(parts), mode="constant")
        return Silhouette(parts, np.rint(255 * np.clip(relief, 0, 1)).astype(np.uint8))


@cache
def person_silhouette(variant: int) -> Silhouette:
    """Draw somebody who stands or walks, 1 high and 0.5 wide."""
    random = np.random.default_rng([11, variant])
    sheet, middle = Sheet(0.5, 1.0), 0.25
    stride, lean = random.uniform(0, 0.13), random.uniform(-0.015, 0.015)
    girth, shoulder = random.uniform(0.075, 0.105), 0.80
    for foot in (-stride, stride):
        knee = (middle + 0.55 * foot + random.uniform(0, 0.03), 0.26)
        sheet.limb(Part.SECOND, 0.085, (middle + 0.3 * foot, 0.5), knee, (middle + foot, 0.05))
        sheet.limb(Part.RUBBER, 0.04, (middle + foot - 0.01, 0.025), (middle + foot + 0.05, 0.025))
    if random.random() < 0.25:  # a skirt or a long coat
        hem = random.uniform(0.25, 0.38)
        flare = girth + random.uniform(0.02, 0.05)
        sheet.polygon(
            Part.MAIN, (middle - girth, 0.6), (middle + girth, 0.6), (middle + flare, hem), (middle - flare, hem)
        )
    top, hip = middle + lean, random.uniform(0.44, 0.5)
    waist = 0.85 * girth
    sheet.polygon(
        Part.MAIN, (top - girth, shoulder), (top + girth, shoulder), (middle + waist, hip), (middle - waist, hip)
    )
    sheet.disc(Part.MAIN, top, shoulder, girth, 0.35)
    for side in (-1, 1):
        elbow = (top + side * (girth + random.uniform(0.0, 0.06)), random.uniform(0.6, 0.66))
        hand = (elbow[0] + random.uniform(-0.07, 0.07), random.uniform(0.44, 0.6))
        sheet.limb(Part.MAIN, 0.055, (top + side * girth, shoulder - 0.01), elbow, hand)
        sheet.disc(Part.SKIN, *hand, 0.024)
    if random.random() < 0.35:  # a bag
        x = middle + random.choice((-1, 1)) * (girth + 0.02)
        sheet.polygon(Part.DARK, (x - 0.05, 0.58), (x + 0.05, 0.58), (x + 0.05, 0.44), (x - 0.05, 0.44))
    sheet.limb(Part.SKIN, 0.05, (top, shoulder), (top, 0.86))
    sheet.disc(Part.HAIR, top, 0.928, 0.062, 1.15)
    sheet.disc(Part.SKIN, top + random.uniform(-0.03, 0.03), 0.905, 0.05, 1.25)
    return sheet.rounded()


@cache
def rider_silhouette(variant: int) -> Silhouette:
    """Draw somebody on a bicycle that is drawn apart, 1.75 m wide and 1.8 m high."""
    random = np.random.default_rng([12, variant])
    sheet = Sheet(1.75, 1.8)
    hip, neck = (0.68, 0.98), (0.98 + random.uniform(-0.1, 0.1), 1.45)
    pedal = random.uniform(0, 2 * math.pi)
    for turn in (pedal, pedal + math.pi):
        foot = (0.82 + 0.16 * math.cos(turn), 0.32 + 0.16 * math.sin(turn))
        sheet.limb(Part.SECOND, 0.15, hip, (0.98, 0.72 + 0.1 * math.sin(turn)), foot)
        sheet.limb(Part.RUBBER, 0.08, foot, (foot[0] + 0.13, foot[1]))
    sheet.limb(Part.MAIN, 0.3, hip, neck)
    sheet.limb(Part.MAIN, 0.1, neck, (1.14, 1.15), (1.3, 1.05))
    sheet.disc(Part.SKIN, neck[0] + 0.1, neck[1] + 0.22, 0.11, 1.15)
    sheet.disc(Part.HAIR if variant % 2 else Part.SECOND, neck[0] + 0.08, neck[1] + 0.28, 0.11, 0.8)
    return sheet.rounded()


@cache
def bicycle_silhouette() -> Silhouette:
    """Draw a bicycle, 1.75 m wide and 1.1 m high."""
    sheet = Sheet(1.75, 1.1)
    for x in (0.35, 1.4):
        sheet.ring(Part.RUBBER, x, 0.34, 0.34, 0.07)
        sheet.limb(Part.METAL, 0.025, (x - 0.3, 0.34), (x + 0.3, 0.34))
        sheet.limb(Part.METAL, 0.025, (x, 0.06), (x, 0.62))
    sheet.limb(Part.MAIN, 0.06, (0.35, 0.34), (0.8, 0.32), (1.25, 0.78), (0.68, 0.8), (0.8, 0.32))
    sheet.limb(Part.MAIN, 0.06, (0.35, 0.34), (0.68, 0.8))
    sheet.limb(Part.MAIN, 0.06, (1.4, 0.34), (1.22, 1.0))
    sheet.limb(Part.DARK, 0.07, (1.14, 1.02), (1.32, 1.05))
    sheet.limb(Part.DARK, 0.09, (0.56, 0.94), (0.8, 0.95))
    return sheet.rounded()


@cache
def crown_silhouette(variant: int) -> Silhouette:
    """Draw the leaves of a tree or bush in a unit square: clumps with ragged edges and gaps, lit from above."""
    random = np.random.default_rng([8, variant])
    rows = 160
    y, x = (np.mgrid[0:rows, 0:rows].astype(np.float32) + 0.5) / rows * 2 - 1
    taper = random.uniform(-0.1, 0.45)
    height = np.full((rows, rows), -1.0, np.float32)
    up = np.zeros_like(height)
    for _ in range(random.integers(14, 26)):
        angle, reach = random.uniform(0, 2 * math.pi), math.sqrt(random.uniform(0, 0.42))
        row = reach * math.sin(angle)
        column = reach * math.cos(angle) * (1 - taper * (row + 0.65))
        radius = random.uniform(0.22, 0.4)
        clump = 1 - ((x - column) ** 2 + (y - row) ** 2) / radius**2
        up = np.where(clump > height, (y - row) / radius + 0.5 * row, up)
        height = np.maximum(height, clump)
    ragged = sum(w * _noise(random, rows, sigma) for w, sigma in ((0.16, 1.2), (0.3, 4.0)))
    leaves = (np.maximum(height, -0.6) + ragged > 0) & (x**2 + y**2 < 1.02)
    relief = np.clip(0.45 + 0.38 * up + 0.13 * _noise(random, rows, 1.0) + 0.1 * _noise(random, rows, 3.0), 0, 1)
    return Silhouette(leaves.astype(np.uint8) * int(Part.MAIN), np.rint(255 * relief).astype(np.uint8))


def _noise(random: np.random.Generator, rows: int, sigma: float) -> npt.NDArray[np.float32]:
    smooth = gaussian_filter(random.standard_normal((rows, rows)).astype(np.float32), sigma)
    noise: npt.NDArray[np.float32] = smooth / smooth.std()
    return noise


@cache
def gable_silhouette() -> Silhouette:
    """Draw a gable in a unit square."""
    sheet = Sheet(1.0, 1.0)
    sheet.polygon(Part.MAIN, (0, 0), (1, 0), (0.5, 1))
    return sheet.flat()


@cache
def sign_silhouette(variant: int) -> Silhouette:
    """Draw a traffic sign in a unit square."""
    sheet = Sheet(1.0, 1.0, rows=96)
    if variant in (0, 1):  # a prohibition, a warning
        for part, size in ((Part.RED, 0.5), (Part.WHITE, 0.36)):
            if variant == 0:
                sheet.disc(part, 0.5, 0.5, size)
            else:
                sheet.polygon(
                    part, (0.5 - size, 0.45 - 0.8 * size), (0.5 + size, 0.45 - 0.8 * size), (0.5, 0.45 + size)
                )
        sheet.limb(Part.DARK, 0.1, (0.4, 0.4), (0.6, 0.5))
    elif variant == 2:  # an order
        sheet.disc(Part.BLUE, 0.5, 0.5, 0.5)
        sheet.limb(Part.WHITE, 0.12, (0.5, 0.2), (0.5, 0.75))
    elif variant == 3:  # parking, crossing
        sheet.polygon(Part.BLUE, (0, 0), (1, 0), (1, 1), (0, 1))
        sheet.polygon(Part.WHITE, (0.25, 0.2), (0.75, 0.2), (0.5, 0.8))
    elif variant == 4:  # the right of way
        sheet.polygon(Part.WHITE, (0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5))
        sheet.polygon(Part.YELLOW, (0.5, 0.16), (0.84, 0.5), (0.5, 0.84), (0.16, 0.5))
    else:  # no entry
        sheet.disc(Part.RED, 0.5, 0.5, 0.5)
        sheet.polygon(Part.WHITE, (0.18, 0.4), (0.82, 0.4), (0.82, 0.6), (0.18, 0.6))
    return sheet.flat()


@cache
def traffic_light_silhouette(lit: int) -> Silhouette:
    """Draw three lamps in a case, 1 wide and 2.6 high; `lit` counts from the top."""
    sheet = Sheet(1.0, 2.6, rows=96)
    sheet.polygon(Part.DARK, (0, 0), (1, 0), (1, 2.6), (0, 2.6))
    for number, part in enumerate((Part.RED, Part.YELLOW, Part.GREEN)):
        sheet.disc(part if number == lit else Part.RUBBER, 0.5, 2.15 - 0.85 * number, 0.34)
    return sheet.flat()
