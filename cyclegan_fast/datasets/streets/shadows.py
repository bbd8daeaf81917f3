"""Computes shadows: what the sun sees is lit, and everything behind it is not."""

import math

import numpy as np

from cyclegan_fast.datasets.streets import raster
from cyclegan_fast.datasets.streets.layout import StreetScene
from cyclegan_fast.datasets.streets.road import Camera
from cyclegan_fast.datasets.streets.textures import Doubles

REACH_M = 32.0  # shadows fall within this distance of a point ahead of the camera
SUN_DISTANCE_M = 600.0
CELLS = (256, 1536)  # the least and the greatest side of the sun's view
TAPS = 3  # scattered looks around a point, which blend into a soft edge


def sunlit(scene: StreetScene, points: Doubles, random: np.random.Generator, cells: int) -> Doubles:
    """Return the share of the sun that reaches each of `points` [N, 3], by a view of `cells` x `cells` from the sun."""
    if scene.sunlight == 0:
        return np.ones(len(points))
    cells = min(max(cells, CELLS[0]), CELLS[1])
    level = np.array([1.0, 0.0, 1.0])
    ahead = scene.camera.axes[2] * level
    target = scene.camera.position * level + 0.75 * REACH_M * ahead / np.linalg.norm(ahead)
    yaw, pitch = math.atan2(-scene.sun[0], -scene.sun[2]), -math.asin(scene.sun[1])
    focal = SUN_DISTANCE_M / (2 * REACH_M)
    sun = Camera.looking(target + SUN_DISTANCE_M * scene.sun, yaw, pitch, 0.0, focal)
    nearest = raster.look(sun, scene.surfaces, cells, ground=False).nearness
    moved = (points - sun.position) @ sun.axes.T
    place = moved[:, :2] / moved[:, 2:] * focal * cells + cells / 2
    nearness = 1 / moved[:, 2]
    lit = np.zeros(len(points))
    for _ in range(TAPS):
        column, row = np.floor(place + random.uniform(-0.7, 0.7, place.shape)).astype(np.intp).T
        known = (row >= 0) & (row < cells) & (column >= 0) & (column < cells)
        lit += 1 / TAPS
        lit[known] -= (nearest[row[known], column[known]] >= nearness[known]) / TAPS
    return lit
