"""Takes textures for street scenes from real photographs, for any distance, and makes noise for stains and clouds.

The photographs ship with scikit-image; the licences are those that scikit-image states for them in the docstrings of
`skimage.data`. (Its motorcycle, of the Middlebury benchmark, comes without a stated licence and is not used.)
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from cyclegan_fast.data.sample_photos import bundled_photograph
from cyclegan_fast.images.pixels import Pixels

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.intp]

_SIDE = 512
_LEVELS = _SIDE.bit_length()
_MEAN_TEXEL = 100  # the uint8 value of a texel as bright as its texture's mean


@dataclass(frozen=True)
class Texture:
    """Names a part of a photograph without objects in it, and what it serves as."""

    name: str
    photograph: str
    box: tuple[int, int, int, int]
    """left, top, right, bottom in the photograph"""
    licence: str
    quarter_turns: int = 0


TEXTURES = (
    Texture("brick", "brick.png", (0, 0, 512, 512), "CC0 (CC0Textures, Bricks25)", quarter_turns=1),
    Texture("gravel", "gravel.png", (0, 0, 512, 512), "CC0 (CC0Textures, Gravel04)"),
    Texture("grass", "grass.png", (0, 0, 512, 512), "CC0 (linolafett, DeviantArt)"),
    Texture("lawn", "camera.png", (400, 250, 512, 500), "CC0 (Lav Varshney)"),
    Texture("coat", "camera.png", (60, 220, 170, 330), "CC0 (Lav Varshney)"),
    Texture("wood", "coffee.png", (440, 230, 600, 400), "CC0 (Rachel Michetti)"),
    Texture("gloss", "coffee.png", (95, 200, 165, 270), "CC0 (Rachel Michetti)"),
    Texture("fur", "chelsea.png", (150, 15, 240, 75), "CC0 (Stefan van der Walt)"),
    Texture("suit", "astronaut.png", (70, 330, 190, 470), "public domain (NASA)"),
)
TEXTURE_ID = {texture.name: number for number, texture in enumerate(TEXTURES)}


@cache
def _pyramids() -> tuple[Pixels, Integers]:
    """Return all levels of all textures behind one another, [texels, 3], and where each begins, [textures, _LEVELS]."""
    texels: list[Pixels] = []
    starts = np.zeros((len(TEXTURES), _LEVELS), np.intp)
    end = 0
    for number, texture in enumerate(TEXTURES):
        level = _even_texture(texture)
        for depth in range(_LEVELS):
            starts[number, depth] = end
            texels.append(np.clip(np.rint(level * _MEAN_TEXEL), 0, 255).astype(np.uint8).reshape(-1, 3))
            end += len(texels[-1])
            if len(level) > 1:
                half = len(level) // 2
                level = level.reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
    return np.concatenate(texels), starts


def _even_texture(texture: Texture) -> Floats:
    """Return a texture [_SIDE, _SIDE, 3] of mean 1, without the photograph's light fall-off, which would show tiles."""
    crop = bundled_photograph(texture.photograph).crop(texture.box).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    pixels = np.rot90(np.asarray(crop, np.float32), texture.quarter_turns) + 1
    coarse = pixels.mean(axis=2).reshape(64, _SIDE // 64, 64, _SIDE // 64).mean(axis=(1, 3))
    smooth = Image.fromarray(gaussian_filter(coarse, 64 / 6, mode="mirror"))
    fall_off = np.asarray(smooth.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))[..., None]
    even = pixels / fall_off
    result: Floats = even / even.mean(axis=(0, 1))
    return result


def look_up(texture: Integers, u: Floats, v: Floats, footprint: Floats) -> Floats:
    """Return the brightness of textures relative to their means, [N, 3].

    Args:
        texture: numbers of textures, [N].
        u, v: places in tiles, [N]; neighbouring tiles mirror each other, which leaves no seams.
        footprint: the share of a tile that a pixel covers along one side, [N].
    """
    texels, starts = _pyramids()
    level = np.clip(np.rint(np.log2(np.maximum(footprint * _SIDE, 1.0))), 0, _LEVELS - 1).astype(np.intp)
    side = _SIDE >> level
    column, row = _mirrored(u, side), _mirrored(v, side)
    found: Floats = texels[starts[texture, level] + row * side + column].astype(np.float32) / _MEAN_TEXEL
    return found


def _mirrored(position: Floats, side: Integers) -> Integers:
    texel = np.floor(position * side).astype(np.intp) % (2 * side)
    mirrored: Integers = np.minimum(texel, 2 * side - 1 - texel)
    return mirrored


def noise(random: np.random.Generator, side: int, power: float) -> Floats:
    """Make smooth noise [side, side] whose edges meet, of mean 0 and deviation 1; amplitudes: frequency^-power."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((side, side))) / frequency**power
    field = np.fft.irfft2(spectrum, s=(side, side))
    even: Floats = ((field - field.mean()) / field.std()).astype(np.float32)
    return even


def from_noise(field: Floats, u: Doubles, v: Doubles) -> Floats:
    """Return noise at positions in periods, interpolated."""
    side = len(field)
    found: Floats = map_coordinates(field, np.stack([v * side, u * side]), order=1, mode="grid-wrap")
    return found
