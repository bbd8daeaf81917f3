"""Finds which surface each pixel of a camera shows, and where on it; labels, photograph and shadows all begin here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cyclegan_fast.datasets.streets.road import Camera
from cyclegan_fast.datasets.streets.surfaces import Surface
from cyclegan_fast.datasets.streets.textures import Doubles, Floats
from cyclegan_fast.images.pixels import Pixels

NEAREST_M = 0.3
SKY_NUMBER, GROUND_NUMBER, FIRST_SURFACE = 0, 1, 2  # in CameraView.surface; FIRST_SURFACE is the scene's first surface


@dataclass(frozen=True, eq=False)
class CameraView:
    """Holds what a camera sees, [side, side] each."""

    surface: npt.NDArray[np.int32]
    nearness: Floats
    """1 / depth in metres along the camera's axis; 0 for the sky"""
    across: Floats
    """0 to 1 along the surface's `across`"""
    up: Floats
    part: Pixels
    """the part of its silhouette; 1 without one"""
    relief: Pixels


def slopes(camera: Camera, side: int) -> Doubles:
    """Return how far the rays of columns lead to the right, and of rows down, for a step of 1 forwards, [side]."""
    steps: Doubles = ((np.arange(side) + 0.5) / side - 0.5) / camera.focal
    return steps


def ray(camera: Camera, side: int, where: npt.NDArray[np.bool_]) -> Doubles:
    """Return world directions [N, 3] of the pixels `where` [side, side], 1 long along the camera's axis."""
    row, column = np.nonzero(where)
    steps = slopes(camera, side)
    rays: Doubles = np.stack([steps[column], steps[row], np.ones(len(row))], axis=1) @ camera.axes
    return rays


def look(camera: Camera, surfaces: Sequence[Surface], side: int, *, ground: bool = True) -> CameraView:
    """Find the nearest surface at each pixel; surfaces may pass through each other.

    A surface's plane is the set of points P + aU + bV. Where a ray d meets it at depth t, [U V P] (a, b, 1) = t d, so
    the inverse matrix applied to d gives (a, b, 1) / t, which is linear in the pixel's position.
    """
    steps = slopes(camera, side)
    view = CameraView(
        surface=np.zeros((side, side), np.int32),
        nearness=np.zeros((side, side), np.float32),
        across=np.zeros((side, side), np.float32),
        up=np.zeros((side, side), np.float32),
        part=np.ones((side, side), np.uint8),
        relief=np.full((side, side), 255, np.uint8),
    )
    if ground:
        right, down, forwards = camera.axes[:, 1]
        falling = -(steps * right + (steps * down)[:, None] + forwards) / camera.position[1]
        np.maximum(falling, 0, out=view.nearness, casting="same_kind")
        view.surface[view.nearness > 0] = GROUND_NUMBER
    frames = _frames(camera, surfaces)  # [N, 3, 3], columns U V P
    boxes = _boxes(camera, frames, side)
    shown = np.flatnonzero((boxes[:, 0] < boxes[:, 1]) & (boxes[:, 2] < boxes[:, 3]) & _fronts(camera, surfaces))
    frames = frames[shown]
    sound = np.abs(np.linalg.det(frames)) > 1e-9  # surfaces that are seen exactly edge on are left out
    shown, frames = shown[sound], frames[sound]
    # Near surfaces come first: what they hide is then never written.
    order = np.argsort(np.linalg.norm(frames[:, :, 2] + (frames[:, :, 0] + frames[:, :, 1]) / 2, axis=1), kind="stable")
    inverses = np.linalg.inv(frames).astype(np.float32)
    narrow = steps.astype(np.float32)
    for number in order:
        row = int(shown[number])
        _draw(view, surfaces[row], row + FIRST_SURFACE, inverses[number], boxes[row], narrow)
    return view


def _draw(
    view: CameraView, surface: Surface, number: int, inverse: Floats, box: npt.NDArray[np.int32], steps: Floats
) -> None:
    left, right, top, bottom = box
    columns, rows = steps[left:right], steps[top:bottom, None]
    before = view.nearness[top:bottom, left:right]
    nearness = (inverse[2, 0] * columns + inverse[2, 2]) + inverse[2, 1] * rows
    inside = nearness > before
    across = (inverse[0, 0] * columns + inverse[0, 2]) + inverse[0, 1] * rows
    inside &= across >= 0
    inside &= across <= nearness
    up = (inverse[1, 0] * columns + inverse[1, 2]) + inverse[1, 1] * rows
    inside &= up >= 0
    inside &= up <= nearness
    row, column = np.nonzero(inside)
    if not row.size:
        return
    near = nearness[row, column]
    a, b = across[row, column] / near, up[row, column] / near
    row, column = row + top, column + left
    part: Pixels | int = 1
    relief: Pixels | int = 255
    if surface.look.silhouette is not None:
        parts = surface.look.silhouette.parts
        height, width = parts.shape
        at = (np.minimum((b * height).astype(np.intp), height - 1), np.minimum((a * width).astype(np.intp), width - 1))
        found = parts[at]
        solid = np.flatnonzero(found)
        row, column, near, a, b, part = row[solid], column[solid], near[solid], a[solid], b[solid], found[solid]
        relief = surface.look.silhouette.relief[at][solid]
    at = (row, column)
    view.surface[at] = number
    view.nearness[at] = near
    view.across[at] = a
    view.up[at] = b
    view.part[at] = part
    view.relief[at] = relief


def _placed(camera: Camera, surfaces: Sequence[Surface]) -> tuple[Doubles, Doubles]:
    """Return origins and `across` of surfaces, [N, 3] each, turned to the camera where they face it."""
    origins = np.array([surface.origin for surface in surfaces])
    across = np.array([surface.across for surface in surfaces])
    facing = np.array([surface.facing for surface in surfaces])
    middle = origins[facing] + across[facing] / 2
    sight = middle - camera.position
    turned = np.stack([sight[:, 2], np.zeros(len(sight)), -sight[:, 0]], axis=1)
    turned *= across[facing][:, :1] / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9)
    across[facing] = turned
    origins[facing] = middle - turned / 2
    return origins, across


def _frames(camera: Camera, surfaces: Sequence[Surface]) -> Doubles:
    origins, across = _placed(camera, surfaces)
    up = np.array([surface.up for surface in surfaces])
    frames: Doubles = camera.axes @ np.stack([across, up, origins - camera.position], axis=2)
    return frames


def _fronts(camera: Camera, surfaces: Sequence[Surface]) -> npt.NDArray[np.bool_]:
    """Tell which surfaces are seen from the front, or may be seen from both sides."""
    normals = np.array([surface.normal for surface in surfaces])
    middles = np.array([surface.origin + (surface.across + surface.up) / 2 for surface in surfaces])
    fronts: npt.NDArray[np.bool_] = np.einsum("ni,ni->n", normals, middles - camera.position) <= 0
    return fronts


def _boxes(camera: Camera, frames: Doubles, side: int) -> npt.NDArray[np.int32]:
    """Return left, right, top, bottom of the pixels that each surface can cover, [N, 4]; empty where out of sight."""
    across, up, origin = frames[:, :, 0], frames[:, :, 1], frames[:, :, 2]
    corners = np.stack([origin, origin + across, origin + across + up, origin + up], axis=1)  # [N, 4, 3]
    nexts = np.roll(corners, -1, axis=1)
    ahead, next_ahead = corners[..., 2] > NEAREST_M, nexts[..., 2] > NEAREST_M
    # Where an edge passes the nearest plane, the point where it does bounds what is seen.
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (NEAREST_M - corners[..., 2]) / (nexts[..., 2] - corners[..., 2])
        cuts = corners + share[..., None] * (nexts - corners)
        points = np.concatenate([corners, cuts], axis=1)
        projected = points[..., :2] / points[..., 2:] * camera.focal * side + side / 2
    known = np.concatenate([ahead, ahead != next_ahead], axis=1)[..., None]
    low = np.where(known, projected, np.inf).min(axis=1)
    high = np.where(known, projected, -np.inf).max(axis=1)
    low, high = np.clip(low, 0, side), np.clip(high, 0, side)  # also turns infinities into empty boxes
    bounds = np.stack([np.floor(low[:, 0]), np.ceil(high[:, 0]), np.floor(low[:, 1]), np.ceil(high[:, 1])], axis=1)
    return bounds.astype(np.int32)
