"""Lines a street with houses wall to wall, gardens, parks or yards and trees along the kerb, and closes the view."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cyclegan_fast.datasets.streets import objects
from cyclegan_fast.datasets.streets.road import Camera, Road
from cyclegan_fast.datasets.streets.surfaces import Random, Things, Vector


@dataclass(frozen=True)
class District:
    """Describes what a side of the road is lined with: shares from 0 to 1, and ranges in metres."""

    height: tuple[float, float]
    setback: tuple[float, float]
    gap: tuple[float, float]
    joined: float
    """the share of houses that stand wall to wall"""
    built: float
    """the share of plots that have a house"""
    pitched: float
    """the share of roofs that slope"""
    fenced: float
    barriers: tuple[str, ...]
    avenue: float
    """the probability of trees along the kerb"""
    bushes: int = 0
    """the most bushes on a plot"""
    trees: int = 0
    paved: bool = False
    shops: bool = False


CITY = District((7, 26), (0, 2), (2, 9), 0.8, 0.95, 0.25, 0.05, ("fence", "wall"), 0.5, paved=True, shops=True)
SUBURB = District((3.5, 8), (2, 9), (2, 12), 0.1, 0.85, 0.85, 0.6, ("hedge", "fence", "wall"), 0.6, bushes=2, trees=1)
PARK = District((3.5, 8), (2, 9), (0, 8), 0.3, 0.0, 0.0, 0.4, ("hedge", "fence", "wall"), 0.6, bushes=1, trees=5)
YARD = District((3.5, 8), (3, 16), (4, 25), 0.0, 0.65, 0.2, 0.75, ("fence", "wall"), 0.6, paved=True)
DISTRICTS = (CITY, CITY, SUBURB, PARK, YARD)


def line_side(things: Things, road: Road, sign: int, district: District, greenery: float) -> None:
    """Put houses and gardens along one side of the road, left for -1, from behind the camera to where haze begins."""
    random = things.random
    typical = random.uniform(*district.height)
    for plot in _plots(random, road, district):
        _fence_off(things, road, sign, district, plot)
        _plant(things, road, sign, district, plot, greenery)
        if random.random() < district.built:
            front = sign * (road.edge + random.choice((district.setback[0], random.uniform(*district.setback))))
            corners = _rectangle(road, plot, (front, front + sign * random.uniform(8, 15)))
            height = max(3.0, typical * random.uniform(0.6, 1.4))
            pitched = bool(random.random() < district.pitched)
            objects.building(things, corners, height, pitched=pitched, shops=district.shops)


def _plots(random: Random, road: Road, district: District) -> Iterator[tuple[float, float]]:
    """Stretches of the road's side from s to s, none of them on the crossing road."""
    corner = road.crossing_width / 2 + road.sidewalk
    s = random.uniform(-30, -20)
    while s < _reach(road):
        end = s + random.uniform(7, 22)
        if s < road.crossing + corner and end > road.crossing - corner:
            if road.crossing - corner - s > 5:
                yield s, road.crossing - corner
            s = road.crossing + corner
        else:
            yield s, end
            s = end + (0.0 if random.random() < district.joined else random.uniform(*district.gap))


def _reach(road: Road) -> float:
    """Return how far along the road things stand; not all around the circle that a bend is part of."""
    return min(130.0, 1.1 * abs(road.radius))


def _fence_off(things: Things, road: Road, sign: int, district: District, plot: tuple[float, float]) -> None:
    random = things.random
    if random.random() < district.fenced:
        start, end = (road.place(s, sign * (road.edge + 0.3)) for s in plot)
        objects.barrier(things, str(random.choice(district.barriers)), start, end)


def _plant(
    things: Things, road: Road, sign: int, district: District, plot: tuple[float, float], greenery: float
) -> None:
    """Trees and bushes behind the sidewalk."""
    random = things.random
    for _ in range(random.integers(0, district.bushes + 1)):
        x, z = road.place(random.uniform(*plot), sign * (road.edge + random.uniform(0.8, 6)))
        size = random.uniform(0.8, 2.2)
        objects.leaves(things, x, z, 1.3 * size, size, greenery)
    for _ in range(random.integers(0, district.trees + 1)):
        x, z = road.place(random.uniform(*plot), sign * (road.edge + random.uniform(1.5, 25)))
        objects.tree(things, x, z, random.uniform(4, 15), greenery)


def plant_rows(things: Things, road: Road, districts: Sequence[District], greenery: float) -> None:
    """Put trees along the kerbs and on the median."""
    random = things.random
    inset = -road.verge / 2 if road.verge else min(0.8, road.sidewalk / 3)
    kerb = road.width / 2 + road.verge + inset
    rows = [(sign * kerb, district.avenue) for sign, district in zip((-1, 1), districts, strict=True)]
    for t, chance in (*rows, (0.0, 0.6 if road.median else 0.0)):
        if random.random() < chance:
            height = random.uniform(4, 11) if t else random.uniform(3.5, 8)
            for place in np.arange(random.uniform(4, 12), _reach(road), random.uniform(6, 14)):
                s = float(place + random.normal(0, 0.6))
                if not road.on_crossing(s, road.sidewalk):
                    x, z = road.place(s, t)
                    objects.tree(things, x, z, height * random.uniform(0.8, 1.2), greenery)


def close_the_view(things: Things, road: Road) -> None:
    """Put a house across the road's end, if it ends, and houses along the crossing road."""
    random = things.random
    s = random.uniform(35, 90)
    if random.random() < 0.3 and abs(s - road.crossing) > 20 and s < abs(road.radius):
        left_near, left_far, right_far, right_near = _rectangle(road, (s, s + 12.0), (-25.0, 25.0))
        corners = [left_near, right_near, right_far, left_far]
        objects.building(things, corners, random.uniform(6, 22), pitched=False, shops=False)
    if math.isfinite(road.crossing):
        corner = road.crossing + road.crossing_width / 2 + road.sidewalk
        for sign in (-1, 1):
            typical = random.uniform(4, 20)
            t = road.edge + 16.0
            while t < 90:
                length = random.uniform(8, 20)
                if random.random() < 0.75:
                    near, far, far_end, near_end = _rectangle(
                        road, (corner, corner + 12), (sign * t, sign * (t + length))
                    )
                    corners, height = [near, near_end, far_end, far], typical * random.uniform(0.7, 1.3)
                    objects.building(things, corners, height, pitched=False, shops=False)
                t += length + random.choice((0.0, 4.0))


def fill_horizon(things: Things, camera: Camera, greenery: float) -> None:
    """Put woods or the rest of the town all around, far off."""
    random = things.random
    wooded = random.random()
    for angle in np.arange(-math.pi, math.pi, 0.045):
        distance = random.uniform(130, 230)
        x, z = (camera.position + distance * np.array([math.sin(angle), 0, math.cos(angle)]))[[0, 2]]
        if not camera.sees(x, z, margin_m=30.0):
            continue
        if random.random() < wooded:
            size = random.uniform(8, 22)
            objects.leaves(things, x, z, 2 * size, size, greenery, base=-1.0)
        else:
            corners = [np.array([x + a, z + b]) for a, b in ((-9, 0), (9, 0), (9, 9), (-9, 9))]
            objects.building(things, corners, random.uniform(6, 32), pitched=bool(random.random() < 0.4), shops=False)


def _rectangle(road: Road, s: tuple[float, float], t: tuple[float, float]) -> list[Vector]:
    """Return the corners of a plot, its first side towards the road."""
    return [road.place(s[0], t[0]), road.place(s[1], t[0]), road.place(s[1], t[1]), road.place(s[0], t[1])]
