"""Colours solid things: walls with their windows, cars, clothes and leaves."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from cyclegan_fast.datasets.streets.silhouettes import Part
from cyclegan_fast.datasets.streets.surfaces import Surface, linear
from cyclegan_fast.datasets.streets.textures import TEXTURE_ID, Doubles, Floats, Integers, look_up
from cyclegan_fast.images.pixels import Pixels

# The colours of the parts of cut-outs, as light; MAIN and SECOND have their surface's colours.
PART_COLOURS = np.zeros((len(Part), 3), np.float32)
for _part, _colour in {
    Part.GLASS: (0.13, 0.15, 0.17),
    Part.RUBBER: (0.1, 0.1, 0.1),
    Part.METAL: (0.6, 0.6, 0.62),
    Part.WHITE: (0.95, 0.95, 0.92),
    Part.RED: (0.8, 0.08, 0.08),
    Part.YELLOW: (0.95, 0.75, 0.1),
    Part.GREEN: (0.15, 0.85, 0.45),
    Part.BLUE: (0.1, 0.25, 0.65),
    Part.SKIN: (0.78, 0.56, 0.44),
    Part.HAIR: (0.2, 0.14, 0.1),
    Part.DARK: (0.12, 0.12, 0.13),
}.items():
    PART_COLOURS[_part] = linear(_colour)

PART_GLOSS = np.zeros(len(Part), np.float32)
PART_GLOSS[[Part.GLASS, Part.MAIN]] = 0.7, 0.16


@dataclass(frozen=True, eq=False)
class Materials:
    """Holds properties of a scene's surfaces by their numbers in CameraView.surface, where 0 is sky and 1 is ground."""

    normal: Doubles  # [S, 3]
    facing: npt.NDArray[np.bool_]
    texture: Integers
    tile: Floats
    contrast: Floats
    gloss: Floats
    shift: Floats
    width: Floats
    height: Floats
    colour: Floats  # [S, 3], as light, as `second` is
    second: Floats  # [S, 3]
    facade: Floats  # [S, 6], the fields of Facade; zeros without

    @staticmethod
    def of(surfaces: Sequence[Surface]) -> "Materials":
        """Gather the properties of surfaces."""

        def column(values: Iterable[object], before: object = 0) -> npt.NDArray[np.float32]:
            return np.array([before, before, *values], np.float32)

        looks = [surface.look for surface in surfaces]
        nothing = (0.0,) * 6
        normals = [(0.0, 0.0, 0.0), (0.0, 1.0, 0.0), *(surface.normal for surface in surfaces)]
        return Materials(
            normal=np.array(normals, np.float64),
            facing=column(surface.facing for surface in surfaces) > 0,
            texture=column(TEXTURE_ID[look.texture] for look in looks).astype(np.intp),
            tile=column((look.tile for look in looks), 1),
            contrast=column(look.contrast for look in looks),
            gloss=column(look.gloss for look in looks),
            shift=column(surface.shift for surface in surfaces),
            width=column(np.linalg.norm(surface.across) for surface in surfaces),
            height=column(np.linalg.norm(surface.up) for surface in surfaces),
            colour=column((linear(look.colour) for look in looks), nothing[:3]),
            second=column((linear(look.second) for look in looks), nothing[:3]),
            facade=column((astuple(look.facade) if look.facade else nothing for look in looks), nothing),
        )


def solid_albedo(
    materials: Materials, surface: Integers, across: Floats, up: Floats, part: Pixels, pixel: Floats
) -> tuple[Floats, Floats]:
    """Return the colours [N, 3] and the gloss [N] of pixels of surfaces.

    Args:
        surface: rows of `materials`, [N].
        across, up: the pixels' places on the surface, 0 to 1, [N].
        part: parts of its silhouette, [N].
        pixel: metres that each pixel covers, [N].
    """
    u, v = across * materials.width[surface], up * materials.height[surface]
    tile, shift = materials.tile[surface], materials.shift[surface]
    texture = look_up(materials.texture[surface], (u + shift) / tile, (v + shift) / tile, pixel / tile)
    colour = PART_COLOURS[part]
    for which, colours in ((Part.MAIN, materials.colour), (Part.SECOND, materials.second)):
        mine = part == which
        colour[mine] = colours[surface[mine]]
    albedo = colour * np.maximum(1 + materials.contrast[surface][:, None] * (texture - 1), 0.05)
    gloss = (PART_GLOSS[part] * (materials.gloss[surface] > 0)).astype(np.float32)
    walls = np.flatnonzero(materials.facade[surface, 1] > 0)
    if walls.size:
        albedo[walls], gloss[walls] = _facade(
            albedo[walls], materials, surface[walls], u[walls], v[walls], pixel[walls]
        )
    return albedo, gloss


def _facade(
    wall: Floats, materials: Materials, surface: Integers, u: Floats, v: Floats, pixel: Floats
) -> tuple[Floats, Floats]:
    """Return a wall's albedo and gloss with its windows, their frames and sills, shop windows and a cornice."""
    bay, storey, width, height, shop, seed = materials.facade[surface].T
    total = materials.height[surface]
    bays = np.maximum(np.floor(materials.width[surface] / bay), 1)
    across = u / materials.width[surface] * bays
    floors = np.maximum(np.floor((total - shop - 0.5) / storey), 1)
    up = (v - shop) / (total - shop - 0.5) * floors
    column, row = np.floor(across), np.floor(up)
    x, y = np.abs(across - column - 0.5) * 2, (up - row - 0.2) / np.maximum(height, 0.01)
    frame = 0.09 / (bay * width + 1e-3) + 0.05
    upper = (v > shop) & (row < floors) & (width > 0)
    hole = upper & (x < width) & (y > 0) & (y < 1)
    glass = hole & (x < width * (1 - 2 * frame)) & (y > 0.07) & (y < 0.94) & (x > 0.05 * width)
    shopfront = (shop > 0) & (v < shop - 0.45) & (v > 0.35) & (np.abs((across * 0.8) % 1 - 0.5) < 0.44)
    sill = upper & (x < width * 1.1) & (y > -0.14) & (y <= 0)
    cornice = v > total - 0.45
    signs = (shop > 0) & (v >= shop - 0.45) & (v < shop)
    chance = _hash(column, row, seed)
    albedo = wall.copy()
    second = materials.second[surface]
    for where, factor in ((sill | cornice, 1.25), (hole, 1.0)):
        albedo[where] = 0.6 * second[where] * factor + 0.3 * wall[where]
    albedo[signs] = second[signs] * (0.4 + 0.8 * _hash(np.floor(across / 3), row * 0, seed)[signs][:, None])
    panes = glass | shopfront
    # Rooms are dark, with curtains here and there, and the storey above throws its shadow into the reveal.
    room = 0.02 + 0.05 * chance + np.where(chance > 0.75, 0.35 * np.clip(y, 0, 1), 0.0)
    goods = 0.05 + 0.25 * _hash(np.floor(u * 2.2), np.floor(v * 1.6), seed)
    inner = np.where(shopfront, goods, room * np.where(y > 0.8, 0.5, 1.0))
    albedo[panes] = inner[panes][:, None] * np.array([0.9, 1.0, 1.1], np.float32)
    gloss = np.where(panes, 0.25 + 0.35 * _hash(row, column, seed), 0.0)
    # Far away a pixel covers whole windows: they fade to their average instead of flickering.
    far = np.clip(pixel / (0.35 * np.minimum(bay, storey)) - 0.6, 0, 1) * (width > 0)
    mean = wall * (1 - 0.75 * (width * height))[:, None] + 0.02
    albedo = albedo * (1 - far)[:, None] + mean * far[:, None]
    return albedo.astype(np.float32), (gloss * (1 - 0.7 * far)).astype(np.float32)


def _hash(column: Floats, row: Floats, seed: Floats) -> Floats:
    """Return a number in [0, 1) for each cell of a grid, as if at random."""
    value = np.sin(column.astype(np.float64) * 12.9898 + row * 78.233 + seed * 3.717) * 43758.5453
    fraction: Floats = (value - np.floor(value)).astype(np.float32)
    return fraction
