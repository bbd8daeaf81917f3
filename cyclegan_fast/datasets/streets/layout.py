"""Lays out a random street with its camera, sun and weather, as surfaces in space."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cyclegan_fast.datasets.streets import objects, surroundings
from cyclegan_fast.datasets.streets.road import Camera, Road
from cyclegan_fast.datasets.streets.surfaces import Footprint, Random, Surface, Things, Vector, tinted
from cyclegan_fast.datasets.streets.vehicles import CARS, TRUCK, Body, vehicle

Seed = int | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class StreetScene:
    """Holds a street with everything that decides its image."""

    camera: Camera
    road: Road
    surfaces: list[Surface]
    footprints: list[Footprint]
    sun: Vector
    """unit vector towards the sun"""
    sunlight: float
    """0 under clouds to 1 in a clear sky"""
    haze_m: float
    """the distance at which haze hides 63% of a thing"""
    greenery: float
    """hue of the season's leaves and grass"""


def make_scene(seed: Seed) -> StreetScene:
    """Lay out the street of a seed, always the same."""
    random = np.random.default_rng(seed)
    districts = [surroundings.DISTRICTS[choice] for choice in random.integers(0, len(surroundings.DISTRICTS), 2)]
    road = _make_road(random, districts)
    camera = _make_camera(random, road)
    greenery = float(random.choice((0.27, 0.25, 0.22, 0.3))) + random.normal(0, 0.012)
    things = Things(random)
    for sign, district in zip((-1, 1), districts, strict=True):
        surroundings.line_side(things, road, sign, district, greenery)
    surroundings.plant_rows(things, road, districts, greenery)
    surroundings.close_the_view(things, road)
    surroundings.fill_horizon(things, camera, greenery)
    _furnish(things, road, camera)
    _drive(things, road, camera)
    _walk(things, road, camera)
    azimuth, height = random.uniform(0, 2 * math.pi), math.radians(random.uniform(18, 65))
    sun = [math.cos(height) * math.sin(azimuth), math.sin(height), math.cos(height) * math.cos(azimuth)]
    return StreetScene(
        camera,
        road,
        things.surfaces,
        things.footprints,
        np.array(sun),
        sunlight=float(random.choice((0.0, 0.4, 0.8, 1.0))),
        haze_m=math.exp(random.uniform(math.log(110), math.log(1500))),
        greenery=greenery,
    )


def _make_road(random: Random, districts: Sequence[surroundings.District]) -> Road:
    width = float(random.uniform(5.5, 17))
    bend = random.random()
    radius = 1e5 if bend < 0.45 else random.choice((-1, 1)) * random.uniform(45, 200)
    crossed = random.random() < 0.5
    return Road(
        radius=float(radius),
        width=width,
        sidewalk=float(random.uniform(1.6, 5.5)),
        verge=float(random.uniform(1.0, 3.0)) if random.random() < 0.25 else 0.0,
        median=float(random.uniform(1.2, 3.5)) if width > 12 and random.random() < 0.5 else 0.0,
        crossing=float(random.uniform(8, 45)) if crossed else math.inf,
        crossing_width=float(random.uniform(6, 13)),
        paved=(districts[0].paved, districts[1].paved),
        surface_seed=int(random.integers(2**31)),
        slabs=float(random.uniform(0.4, 1.2)) if random.random() < 0.6 else 0.0,
        worn=float(random.uniform(0.2, 1.0)),
    )


def _make_camera(random: Random, road: Road) -> Camera:
    """Put a camera on the road or a sidewalk, from a bicycle's to a first floor's height, mostly along the road."""
    t = random.uniform(-road.edge + 0.7, road.edge - 0.7)
    x, z = road.place(0.0, t)
    wide = random.random() < 0.35
    yaw = random.uniform(-1.0, 1.0) if wide else random.normal(0, 0.25)
    if abs(t) > road.width / 2:  # from a sidewalk, rather across the road than into the houses
        yaw = -math.copysign(abs(yaw), t)
    height = float(random.choice((random.uniform(1.1, 2.2), random.uniform(2.0, 5.5))))
    pitch = random.uniform(-0.3, 0.22) - 0.03 * (height - 1.5)
    focal = random.uniform(0.6, 1.3)
    return Camera.looking(np.array([x, height, z]), yaw, pitch, random.normal(0, 0.025), focal)


def _furnish(things: Things, road: Road, camera: Camera) -> None:
    """Put lamps, poles, signs and traffic lights along the kerbs."""
    random = things.random
    kerb = road.width / 2 + 0.5
    colour = tinted(random, 0.4, 0.1, random.choice((0.25, 0.45, 0.6)), 0.05)
    for sign in (-1, 1):
        if random.random() < 0.75:
            for s in np.arange(random.uniform(3, 20), 110, random.uniform(14, 32)):
                x, z = road.place(float(s), sign * kerb)
                if camera.sees(x, z) and not road.on_crossing(float(s)):
                    objects.lamp(things, x, z, (road.place(float(s), sign * (kerb - 1.8)) - [x, z]), colour)
        for _ in range(random.integers(0, 5)):
            x, z = road.place(random.uniform(4, 45), sign * (kerb + random.uniform(0, 0.4)))
            if camera.sees(x, z):
                draw = objects.sign_post if random.random() < 0.65 else objects.plain_pole
                draw(things, x, z)
        if math.isfinite(road.crossing) and random.random() < 0.7:
            for end in (-1, 1):
                s = road.crossing + end * (road.crossing_width / 2 + 0.8)
                x, z = road.place(s, sign * kerb)
                if camera.sees(x, z):
                    objects.traffic_light(things, x, z)


def _drive(things: Things, road: Road, camera: Camera) -> None:
    """Put cars along the kerbs, parked, and in both directions, moving; none where the camera stands."""
    random = things.random
    lane = (road.width + road.median) / 4
    parking = road.width > 8.5
    for sign in (-1, 1):
        turn = 0.0 if sign > 0 else math.pi
        density = random.choice((0.0, 0.35, 0.8)) if parking else 0.0
        for s in np.arange(random.uniform(-8, -2), 90, random.uniform(5.6, 8.0)):
            if random.random() < density and not road.on_crossing(float(s), 5.0):
                _put_vehicle(things, road, camera, float(s), sign * (road.width / 2 - 1.05), turn)
        s = random.uniform(5, 25)
        while s < 110:
            t = sign * lane if not parking else sign * max(lane - 0.8, road.median / 2 + 1.1)
            _put_vehicle(things, road, camera, s, t, turn)
            s += random.uniform(9, 60)
    if math.isfinite(road.crossing):
        for sign in (-1, 1):
            if random.random() < 0.6:
                s = road.crossing + sign * road.crossing_width / 4
                t = random.choice((-1, 1)) * (road.edge + random.uniform(1, 25))
                _put_vehicle(things, road, camera, s, float(t), math.pi / 2 * -sign)


def _put_vehicle(things: Things, road: Road, camera: Camera, s: float, t: float, turn: float) -> None:
    """Put a car or truck at a place, `turn` from the road's direction, unless something else is there."""
    random = things.random
    x, z = road.place(s, t + random.normal(0, 0.1))
    body = TRUCK if random.random() < 0.06 else CARS[random.integers(len(CARS))]
    clear_of_camera = math.hypot(x - camera.position[0], z - camera.position[2]) > 2.2 + body.length / 2
    heading = road.heading(s) + turn
    if clear_of_camera and not any(_collide(x, z, heading, body, other) for other in things.footprints):
        vehicle(things, x, z, heading + random.normal(0, 0.03), body)


def _collide(x: float, z: float, heading: float, body: Body, other: Footprint) -> bool:
    """Tell whether a vehicle would come too close to a thing that lies much as it does, or is small."""
    dx, dz = x - other.x, z - other.z
    along = abs(dx * math.sin(heading) + dz * math.cos(heading))
    across = abs(dx * math.cos(heading) - dz * math.sin(heading))
    near_along = along < body.length / 2 + other.half_length + 0.4
    return near_along and across < body.width / 2 + other.half_width + 0.15


def _walk(things: Things, road: Road, camera: Camera) -> None:
    """Put people and bicycles on the sidewalks and across the road, within sight."""
    random = things.random
    for _ in range(random.integers(2, 10)):
        for _ in range(8):  # tries to find a free place in sight
            x, z = road.place(random.uniform(4, 32), _walking_place(random, road))
            if camera.sees(x, z) and _is_free(things, x, z):
                for _ in range(random.choice((1, 1, 1, 2, 3))):
                    objects.person(things, x + random.uniform(-0.6, 0.6), z + random.uniform(-0.6, 0.6))
                break
    for _ in range(random.integers(0, 4)):
        ridden = bool(random.random() < 0.6)
        side = random.choice((-1, 1)) * (road.width / 2 + (-0.8 if ridden else 0.6))
        x, z = road.place(random.uniform(5, 28), side)
        if camera.sees(x, z) and _is_free(things, x, z):
            objects.bicycle(things, x, z, ridden=ridden)


def _walking_place(random: Random, road: Road) -> float:
    """Draw a distance from the middle of the road, mostly of a place on a sidewalk."""
    if random.random() < 0.15:
        return random.uniform(-road.width / 2, road.width / 2)
    side: int = random.choice((-1, 1))
    return side * random.uniform(road.width / 2 + 0.4, road.edge - 0.4)


def _is_free(things: Things, x: float, z: float) -> bool:
    return all(math.hypot(x - other.x, z - other.z) > max(other.half_length, 0.3) + 0.3 for other in things.footprints)
