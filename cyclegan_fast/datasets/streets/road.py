"""Defines the geometry that a street is built on: a road along an arc, and a camera that looks at it."""

import math
from dataclasses import dataclass

import numpy as np

from cyclegan_fast.datasets.streets.surfaces import Vector
from cyclegan_fast.datasets.streets.textures import Doubles
from cyclegan_fast.images.labels import TRAIN_ID, Labels


@dataclass(frozen=True, eq=False)
class Camera:
    """Looks through a pinhole; the sun's view for shadows is a camera too, from far away."""

    position: Vector
    axes: Doubles
    """rows: right, down, forwards"""
    focal: float
    """focal length in sides of the square image"""

    @staticmethod
    def looking(position: Vector, yaw: float, pitch: float, roll: float, focal: float) -> "Camera":
        """Make a camera by its angles in radians: yaw to the right, pitch upwards, roll clockwise."""
        forwards = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
        right = np.array([math.cos(yaw), 0.0, -math.sin(yaw)])
        down = np.array([math.sin(yaw) * math.sin(pitch), -math.cos(pitch), math.cos(yaw) * math.sin(pitch)])
        turned = math.cos(roll) * right + math.sin(roll) * down
        return Camera(position, np.stack([turned, math.cos(roll) * down - math.sin(roll) * right, forwards]), focal)

    def sees(self, x: float, z: float, margin_m: float = 0.0) -> bool:
        """Tell whether the ground at (x, z) is ahead, between the image's left and right, and not underfoot."""
        across, _, depth = self.axes @ (np.array([x, 0.0, z]) - self.position)
        return bool(depth > 3.0 and (abs(across) - margin_m) * self.focal < 0.47 * depth)


@dataclass(frozen=True)
class Road:
    """Describes a road along an arc of a circle, possibly crossed by another; lengths in metres.

    A place has s along the road, 0 at the camera, and t to the right of its middle.
    """

    radius: float
    """positive where the road bends to the right"""
    width: float
    sidewalk: float
    verge: float
    """grass between kerb and sidewalk; 0 without"""
    median: float
    """grass in the middle of the road; 0 without"""
    crossing: float
    """the distance along the road at which another one crosses it; infinite without"""
    crossing_width: float
    paved: tuple[bool, bool]
    """whether the ground behind the sidewalk is paved, left and right"""
    slabs: float
    """side of the sidewalk's slabs; 0 where it is of bricks"""
    worn: float
    """the share of the road's markings that is left, 0 to 1"""
    surface_seed: int
    """decides the shades of its asphalt, stones and grass"""

    @property
    def edge(self) -> float:
        """Distance from the middle of the road to the end of the sidewalk."""
        return self.width / 2 + self.verge + self.sidewalk

    def place(self, s: float, t: float) -> Vector:
        """Return the position (x, z) of a place."""
        angle, radius = s / self.radius, self.radius - t
        return np.array([self.radius - radius * math.cos(angle), radius * math.sin(angle)])

    def heading(self, s: float) -> float:
        """Return the road's direction at `s`, in radians, clockwise from its direction at the camera."""
        return s / self.radius

    def locate(self, x: Doubles, z: Doubles) -> tuple[Doubles, Doubles]:
        """Return the places (s, t) of positions."""
        sign = math.copysign(1.0, self.radius)
        t = self.radius - sign * np.hypot(x - self.radius, z)
        s = abs(self.radius) * np.arctan2(z, sign * (self.radius - x))
        return s, t

    def classes(self, s: Doubles, t: Doubles) -> Labels:
        """Return the ground's train ids at places."""
        side = np.abs(t)
        left, right = (TRAIN_ID["sidewalk" if paved else "terrain"] for paved in self.paved)
        behind = np.where(t < 0, left, right)
        grass = (side < self.median / 2) | ((side > self.width / 2) & (side < self.width / 2 + self.verge))
        found = np.where(side < self.edge, np.where(grass, TRAIN_ID["terrain"], TRAIN_ID["sidewalk"]), behind)
        found = np.where((side < self.width / 2) & (side >= self.median / 2), TRAIN_ID["road"], found)
        if math.isfinite(self.crossing):
            away = np.abs(s - self.crossing) - self.crossing_width / 2
            found = np.where((away < self.sidewalk) & (side > self.width / 2), TRAIN_ID["sidewalk"], found)
            found = np.where(away < 0, TRAIN_ID["road"], found)
        return found.astype(np.uint8)

    def on_crossing(self, s: float, margin: float = 0.0) -> bool:
        """Tell whether `s` lies on the crossing road, or within `margin` of it."""
        return abs(s - self.crossing) < self.crossing_width / 2 + margin
