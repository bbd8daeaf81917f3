"""Builds cars and trucks: a profile that is extruded over the vehicle's width, with windows, wheels and lamps."""

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from cyclegan_fast.datasets.streets.silhouettes import Part, Sheet, Silhouette
from cyclegan_fast.datasets.streets.surfaces import UP, Colour, Footprint, Look, Random, Things, tinted


@dataclass(frozen=True)
class Body:
    """Describes a vehicle by a profile that is extruded over its width; in metres, x forwards from the rear bumper."""

    name: str
    width: float
    profile: tuple[tuple[float, float], ...]
    """from the rear bumper's lower edge over the roof to the front bumper's lower edge"""
    glass: tuple[int, ...]
    """numbers of the profile's edges that are windows"""
    windows: tuple[tuple[tuple[float, float], ...], ...]
    """outlines of the windows on each side"""
    wheels: tuple[float, ...]
    wheel_radius: float = 0.32

    @cached_property
    def length(self) -> float:
        """Length from bumper to bumper."""
        return max(x for x, _ in self.profile)

    @cached_property
    def height(self) -> float:
        """Height from the ground to the roof."""
        return max(y for _, y in self.profile)


BODIES = (
    Body(
        "saloon",
        1.8,
        ((0, 0.3), (0.02, 0.88), (0.6, 0.96), (1.2, 1.42), (2.6, 1.45), (3.35, 0.97), (4.4, 0.76), (4.5, 0.3)),
        (2, 4),
        (
            ((0.95, 0.98), (1.32, 1.34), (1.95, 1.37), (1.95, 0.98)),
            ((2.05, 0.98), (2.05, 1.37), (2.52, 1.37), (3.05, 0.98)),
        ),
        (0.85, 3.6),
    ),
    Body(
        "hatchback",
        1.75,
        ((0, 0.3), (0.02, 0.95), (0.42, 1.46), (2.3, 1.5), (3.1, 0.99), (3.95, 0.78), (4.05, 0.3)),
        (1, 3),
        (((0.35, 1.0), (0.6, 1.37), (1.5, 1.41), (1.5, 1.0)), ((1.6, 1.0), (1.6, 1.41), (2.2, 1.41), (2.8, 1.0))),
        (0.75, 3.25),
    ),
    Body(
        "off-roader",
        1.9,
        ((0, 0.38), (0.02, 1.12), (0.3, 1.72), (2.7, 1.76), (3.4, 1.18), (4.4, 1.02), (4.5, 0.38)),
        (1, 3),
        (((0.4, 1.18), (0.5, 1.62), (1.6, 1.66), (1.6, 1.18)), ((1.7, 1.18), (1.7, 1.66), (2.6, 1.66), (3.15, 1.18))),
        (0.9, 3.6),
        0.38,
    ),
    Body(
        "van",
        1.95,
        ((0, 0.38), (0.02, 1.2), (0.1, 1.98), (3.5, 2.05), (4.3, 1.25), (4.95, 1.0), (5.05, 0.38)),
        (1, 3),
        (((2.7, 1.25), (2.7, 1.85), (3.4, 1.85), (3.9, 1.25)),),
        (0.95, 4.1),
        0.34,
    ),
    Body(
        "truck",
        2.45,
        ((0, 0.75), (0, 3.3), (5.3, 3.35), (5.32, 2.75), (6.5, 2.65), (6.9, 1.6), (7.0, 0.5)),
        (4,),
        (((5.75, 1.6), (5.75, 2.4), (6.4, 2.4), (6.65, 1.6)),),
        (1.2, 2.3, 5.9),
        0.48,
    ),
)

*CARS, TRUCK = BODIES


@cache
def _body_side(number: int) -> Silhouette:
    """Draw the outline of BODIES[number] with its windows and wheels, length x height."""
    body = BODIES[number]
    sheet = Sheet(body.length, body.height, rows=160)
    sheet.polygon(Part.MAIN, *body.profile)
    (rear, sill), (front, _) = body.profile[0], body.profile[-1]
    sheet.polygon(Part.DARK, (rear, sill), (front, sill), (front, sill + 0.1), (rear, sill + 0.1))
    for window in body.windows:
        sheet.polygon(Part.GLASS, *window)
    for x in body.wheels:
        sheet.disc(Part.DARK, x, body.wheel_radius + 0.03, body.wheel_radius + 0.06)
        sheet.disc(Part.RUBBER, x, body.wheel_radius, body.wheel_radius)
        sheet.disc(Part.METAL, x, body.wheel_radius, 0.58 * body.wheel_radius)
    return sheet.flat()


@cache
def _body_end(front: bool) -> Silhouette:
    """Draw the end of a vehicle below its windows in a square of 1.8: lamps, number plate, bumper."""
    sheet = Sheet(1.8, 1.8, rows=96)
    sheet.polygon(Part.MAIN, (0, 0), (1.8, 0), (1.8, 1.8), (0, 1.8))
    sheet.polygon(Part.DARK, (0, 0), (1.8, 0), (1.8, 0.3), (0, 0.3))
    lamp = Part.WHITE if front else Part.RED
    for x in (0.05, 1.4):
        sheet.polygon(lamp, (x, 0.85), (x + 0.35, 0.85), (x + 0.35, 1.4), (x, 1.4))
    if front:
        sheet.polygon(Part.DARK, (0.5, 0.75), (1.3, 0.75), (1.3, 1.25), (0.5, 1.25))
    sheet.polygon(Part.WHITE, (0.65, 0.4), (1.15, 0.4), (1.15, 0.65), (0.65, 0.65))
    return sheet.flat()


@cache
def _pane() -> Silhouette:
    """Draw a car's front or rear window in its frame, in a unit square."""
    sheet = Sheet(1.0, 1.0, rows=64)
    sheet.polygon(Part.MAIN, (0, 0), (1, 0), (1, 1), (0, 1))
    sheet.polygon(Part.GLASS, (0.06, 0.03), (0.94, 0.03), (0.9, 0.94), (0.1, 0.94))
    return sheet.flat()


def vehicle(things: Things, x: float, z: float, heading: float, body: Body) -> None:
    """Put a vehicle with its middle on (x, z); `heading` is clockwise from straight ahead, in radians."""
    label = "truck" if body is TRUCK else "car"
    paint = Look(_paint(things.random), tile=4.0, contrast=0.5, gloss=1.0)
    forwards = np.array([math.sin(heading), 0.0, math.cos(heading)])
    right = np.array([math.cos(heading), 0.0, -math.sin(heading)])
    rear = np.array([x, 0.0, z]) - body.length / 2 * forwards
    middle = rear + body.length / 2 * forwards + body.height / 2 * UP
    outline = replace(paint, silhouette=_body_side(BODIES.index(body)))
    for side in (-0.5, 0.5):
        start = rear + side * body.width * right
        things.quad(label, start, body.length * forwards, body.height * UP, outline, inside=middle)
    edges = list(zip(body.profile, body.profile[1:], strict=False))
    for number, edge in enumerate(edges):
        look = replace(paint, silhouette=_pane()) if number in body.glass else paint
        if number in (0, len(edges) - 1):
            look = replace(paint, silhouette=_body_end(front=number > 0))
        (x0, y0), (x1, y1) = sorted(edge, key=lambda point: point[1])  # upwards
        start = rear + x0 * forwards + y0 * UP - body.width / 2 * right
        things.quad(label, start, body.width * right, (x1 - x0) * forwards + (y1 - y0) * UP, look, inside=middle)
    things.footprints.append(Footprint(x, z, heading, body.length / 2, body.width / 2))


def _paint(random: Random) -> Colour:
    if random.random() < 0.55:  # most cars are white, grey or black
        return tinted(random, 0.6, 0.04, random.choice((0.08, 0.25, 0.5, 0.75, 0.92)), 0.04)
    return tinted(random, random.choice((0.0, 0.02, 0.08, 0.35, 0.55, 0.6, 0.64)), 0.75, 0.6, 0.15)
