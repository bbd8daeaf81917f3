"""Colours the ground of a street: asphalt with its markings, kerbs, slabs and grass; and finds how much sky it sees."""

import math
from collections.abc import Sequence

import numpy as np

from cyclegan_fast.datasets.streets.road import Road
from cyclegan_fast.datasets.streets.surfaces import Colour, Footprint, linear
from cyclegan_fast.datasets.streets.textures import TEXTURE_ID, Doubles, Floats, Integers, from_noise, look_up
from cyclegan_fast.images.labels import TRAIN_ID

PAINT = 0.72  # albedo of road markings


def ground_albedo(road: Road, greenery: float, points: Doubles, pixel: Floats, noise: Floats) -> Floats:
    """Return the colours [N, 3] of the ground at `points` [N, 3], where pixels cover `pixel` metres; `noise` stains it.

    `greenery` is the hue of grass.
    """
    s, t = road.locate(points[:, 0], points[:, 2])
    kind = road.classes(s, t)
    is_road, is_grass = kind == TRAIN_ID["road"], kind == TRAIN_ID["terrain"]
    stains = np.clip(from_noise(noise, s / 37, t / 37), -2, 2)
    wear = np.clip(from_noise(noise, s / 9 + 0.3, t / 9), -2, 2)
    bricks = not road.slabs
    asphalt, stone, grass = _shades(road, greenery)

    def each(on_road: float, on_sidewalk: float, on_grass: float | Integers) -> Doubles:
        values: Doubles = np.where(is_road, on_road, np.where(is_grass, on_grass, on_sidewalk)).astype(np.float64)
        return values

    lawn = np.where(wear > 0, TEXTURE_ID["grass"], TEXTURE_ID["lawn"])
    texture = each(TEXTURE_ID["gravel"], TEXTURE_ID["brick" if bricks else "gravel"], lawn).astype(np.intp)
    tile = each(1.3, 2.0 if bricks else 0.9, 1.8).astype(np.float32)
    grain = look_up(texture, (t / tile).astype(np.float32), (s / tile).astype(np.float32), pixel / tile) - 1
    base = np.where(is_road[:, None], asphalt, np.where(is_grass[:, None], grass, stone))
    albedo = base * np.maximum(1 + each(0.45, 0.7 if bricks else 0.3, 1.1)[:, None] * grain, 0.1)
    albedo *= (1 + each(0.09, 0.09, 0.16) * stains + 0.05 * wear)[:, None]
    if not bricks:
        joints = (np.minimum(s % road.slabs, t % road.slabs) < 0.03) & ~is_road & ~is_grass
        # Far away a joint is finer than a pixel.
        albedo[joints] *= (1 - 0.45 * np.clip(0.12 / pixel[joints], 0, 1))[:, None]
    _edge(road, albedo, s, t, wear)
    paint = markings(road, s, t) * is_road * np.clip(0.75 + 0.4 * wear, 0, 1) * (0.4 + 0.6 * road.worn)
    albedo += paint[:, None] * (PAINT - albedo)
    return albedo.astype(np.float32)


def _shades(road: Road, greenery: float) -> tuple[Doubles, Doubles, Doubles]:
    """Return the colours of asphalt, paving stones and grass of this road, [3] each."""
    random = np.random.default_rng(road.surface_seed)
    asphalt = _grey(random.uniform(0.36, 0.48)) * np.array([1.0, 1.0, random.uniform(1.0, 1.08)])
    stone = _grey(random.uniform(0.60, 0.74)) * np.array([1.12, 1.0, random.uniform(0.78, 0.88)])
    if not road.slabs:
        stone *= np.array([1.1, 0.85, 0.75])
    dry = random.uniform(0, 0.12) + 0.6 * max(0.0, 0.27 - greenery)
    return asphalt, stone, np.array(linear((0.36 + dry, 0.47, 0.22)))


def _grey(value: float) -> Doubles:
    grey: Colour = (value, value, value)
    return np.array(linear(grey))


def _edge(road: Road, albedo: Doubles, s: Doubles, t: Doubles, wear: Floats) -> None:
    """Lay kerb stones and the dark gutter before them."""
    edge = np.abs(t) - road.width / 2
    between_crossings = np.abs(s - road.crossing) > road.crossing_width / 2
    kerb = (edge >= 0) & (edge < 0.28) & between_crossings
    albedo[kerb] = _grey(0.67) * (1 + 0.1 * wear[kerb])[:, None]
    albedo[(edge < 0) & (edge > -0.22) & between_crossings] *= 0.6


def markings(road: Road, s: Doubles, t: Doubles) -> Doubles:
    """Return 1 where the road is painted and else 0: lines between lanes, zebra crossings and stop lines."""
    between_crossings = np.abs(s - road.crossing) > road.crossing_width / 2 + 4.5
    side = np.abs(t)
    painted = np.zeros(len(s), np.bool_)
    if road.worn > 0.35:
        if not road.median:
            painted |= (side < 0.07) & (s % 6 < 3.2)
        if road.width > 8.5:
            painted |= np.abs(side - (road.width / 2 - 2.1)) < 0.06
    if road.width > 13:
        painted |= (np.abs(side - road.width / 4) < 0.07) & (s % 9 < 3)
    painted &= between_crossings
    if math.isfinite(road.crossing):
        away = np.abs(s - road.crossing) - road.crossing_width / 2
        zebra = (away > 0.6) & (away < 3.4) & (t % 1.0 < 0.5)
        stop_line = (away > 4.0) & (away < 4.4)
        painted |= (zebra | stop_line) & (side < road.width / 2 - 0.3)
    return painted.astype(np.float64)


def openness(footprints: Sequence[Footprint], points: Doubles) -> Floats:
    """Return how much sky the ground sees, [N]: little under and beside cars and feet."""
    open_ = np.ones(len(points), np.float32)
    x, z = points[:, 0].astype(np.float32), points[:, 2].astype(np.float32)
    for thing in footprints:
        reach = thing.half_length + 2.0
        near = np.flatnonzero((np.abs(x - thing.x) < reach) & (np.abs(z - thing.z) < reach))
        if not near.size:
            continue
        dx, dz = x[near] - thing.x, z[near] - thing.z
        sine, cosine = math.sin(thing.heading), math.cos(thing.heading)
        along = np.maximum(np.abs(dx * sine + dz * cosine) - thing.half_length, 0)
        across = np.maximum(np.abs(dx * cosine - dz * sine) - thing.half_width, 0)
        soft = 0.15 + 0.3 * thing.half_width
        open_[near] *= 1 - 0.8 * np.exp(-(along**2 + across**2) / soft**2 / 2)
    return open_
