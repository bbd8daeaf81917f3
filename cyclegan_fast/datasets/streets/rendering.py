"""Renders a street as a camera took it: textures under sun, sky and haze, with the sensor's faults; and its labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from cyclegan_fast.datasets.streets import raster
from cyclegan_fast.datasets.streets.ground import ground_albedo, openness
from cyclegan_fast.datasets.streets.layout import StreetScene
from cyclegan_fast.datasets.streets.materials import Materials, solid_albedo
from cyclegan_fast.datasets.streets.raster import GROUND_NUMBER, SKY_NUMBER, CameraView
from cyclegan_fast.datasets.streets.road import Camera
from cyclegan_fast.datasets.streets.shadows import sunlit
from cyclegan_fast.datasets.streets.surfaces import linear
from cyclegan_fast.datasets.streets.textures import Doubles, Floats, from_noise, noise
from cyclegan_fast.images.labels import TRAIN_ID, Labels
from cyclegan_fast.images.pixels import Pixels

_SAMPLES = 2
"""Samples in each direction for a pixel."""


def see(scene: StreetScene, size: int) -> tuple[CameraView, Labels]:
    """Return the camera's view, with 2 x 2 samples a pixel, and its labels [size, size]."""
    view = raster.look(scene.camera, scene.surfaces, _SAMPLES * size)
    ids = np.array([TRAIN_ID["sky"], 0, *(surface.label for surface in scene.surfaces)], np.uint8)
    labels = ids[view.surface]
    ground = view.surface == GROUND_NUMBER
    points = _points(scene.camera, view, ground)
    labels[ground] = scene.road.classes(*scene.road.locate(points[:, 0], points[:, 2]))
    return view, _most_frequent(labels)


def _most_frequent(labels: Labels) -> Labels:
    """Return of each 2 x 2 samples the class that two of them agree on, or else the first."""
    first, second, third, fourth = (labels[y::_SAMPLES, x::_SAMPLES] for y in range(_SAMPLES) for x in range(_SAMPLES))
    agreed = np.where(third == fourth, third, first)
    return np.where((second == third) | (second == fourth), second, agreed)


def _points(camera: Camera, view: CameraView, where: npt.NDArray[np.bool_]) -> Doubles:
    """Return world positions [N, 3] of pixels."""
    away = raster.ray(camera, len(view.surface), where)
    points: Doubles = camera.position + away / np.maximum(view.nearness[where], 1e-5)[:, None]
    return points


@dataclass(frozen=True, eq=False)
class Light:
    """Holds colours of light, [3] each."""

    sun: Floats
    sky: Floats
    horizon: Floats
    zenith: Floats


def photograph(scene: StreetScene, view: CameraView, random: np.random.Generator) -> Pixels:
    """Render the photograph, uint8 [size, size, 3]; `random` decides clouds, stains and noise."""
    light = _light(scene, random)
    clouds = noise(random, 256, 1.6)
    image = _sky(scene, view, light, clouds)
    seen = view.surface > SKY_NUMBER
    points = _points(scene.camera, view, seen)
    distance = np.linalg.norm(points - scene.camera.position, axis=1)
    shaded = _shaded(scene, view, seen, points, light, clouds, random)
    clear = np.exp(-((distance / scene.haze_m) ** 1.2)).astype(np.float32)[:, None]
    image[seen] = shaded * clear + light.horizon * (1 - clear)
    return _develop(image, random)


def _shaded(
    scene: StreetScene,
    view: CameraView,
    seen: npt.NDArray[np.bool_],
    points: Doubles,
    light: Light,
    stains: Floats,
    random: np.random.Generator,
) -> Floats:
    """Return the light [N, 3] that `points` [N, 3], those of the pixels `seen`, send to the camera."""
    materials = Materials.of(scene.surfaces)
    surface = view.surface[seen].astype(np.intp)
    normal, facing = materials.normal[surface], materials.facing[surface]
    even = facing | ~np.any(normal, axis=1)  # round or thin things take light from every side
    pixel = _pixel_m(scene.camera, len(view.surface), points, normal, even)
    ground = surface == GROUND_NUMBER
    solid = ~ground
    albedo, gloss = np.empty((len(surface), 3), np.float32), np.zeros(len(surface), np.float32)
    albedo[ground] = ground_albedo(scene.road, scene.greenery, points[ground], pixel[ground], stains)
    across, up, part = (values[seen][solid] for values in (view.across, view.up, view.part))
    albedo[solid], gloss[solid] = solid_albedo(materials, surface[solid], across, up, part, pixel[solid])
    # A thing that turns to the viewer turned to the sun as well: its own shadow must not fall on it.
    own = np.where(facing, 0.7 * materials.width[surface] + 0.2, 0.25)
    lit = sunlit(scene, points + own[:, None] * scene.sun, random, 2 * len(view.surface))
    direct = lit * np.where(even, 0.6, np.maximum(normal @ scene.sun, 0))
    ambient = np.where(even, 0.75, 0.62 + 0.38 * normal[:, 1])
    ambient[ground] = openness(scene.footprints, points[ground])
    ambient[solid] *= 1 - 0.35 * np.exp(-np.maximum(points[solid, 1], 0) / 0.8)
    folds = 0.3 + 0.7 * view.relief[seen].astype(np.float32) / 255
    arriving = (ambient * folds)[:, None] * light.sky + (direct * folds**1.3)[:, None] * light.sun
    mirrored = _mirrored(light, normal, view.up[seen], scene.sunlight * lit)
    return (albedo * arriving + gloss[:, None] * mirrored).astype(np.float32)


def _pixel_m(camera: Camera, side: int, points: Doubles, normal: Doubles, even: npt.NDArray[np.bool_]) -> Floats:
    """Return the metres that a pixel covers at `points` [N, 3]: more where the surface is seen at a slant."""
    sight = points - camera.position
    distance = np.linalg.norm(sight, axis=1)
    slant = np.where(even, 1.0, np.abs(np.einsum("ni,ni->n", normal, sight)) / distance)
    covered: Floats = (distance / (camera.focal * side * np.sqrt(np.maximum(slant, 0.03)))).astype(np.float32)
    return covered


def _light(scene: StreetScene, random: np.random.Generator) -> Light:
    low = 1 - scene.sun[1]  # 0 at noon, towards 1 at sunset
    sun = scene.sunlight * np.array([3.3, 3.05 - 0.95 * low, 2.7 - 1.75 * low]) * random.uniform(0.85, 1.15)
    clear = scene.sunlight
    zenith = np.array(linear((0.62, 0.66, 0.70))) * (1 - clear) + np.array(linear((0.25, 0.46, 0.80))) * clear
    horizon = np.array(linear((0.82, 0.84, 0.85))) * (1 - clear) + np.array(linear((0.78, 0.86, 0.94))) * clear
    horizon = horizon * np.array([1 + 0.15 * low * clear, 1.0, 1 - 0.2 * low * clear])
    brightness = random.uniform(0.9, 1.3)
    sky = (0.55 * horizon + 0.45 * zenith) * (1.9 - 0.85 * clear)
    parts = (sun, sky, brightness * horizon, brightness * zenith)
    return Light(*(np.asarray(part, np.float32) for part in parts))


def _sky(scene: StreetScene, view: CameraView, light: Light, field: Floats) -> Floats:
    """Return the image [side, side, 3] of the sky alone: a gradient, clouds on a flat ceiling, a glow by the sun."""
    side = len(view.surface)
    image = np.zeros((side, side, 3), np.float32)
    sky = view.surface == SKY_NUMBER
    ray = raster.ray(scene.camera, side, sky)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    height = np.maximum(ray[:, 1], 0.0)
    blend = np.sqrt(height).astype(np.float32)[:, None]
    colour = light.horizon * (1 - blend) + light.zenith * blend
    ceiling = 1 / (height + 0.12)
    clouds = from_noise(field, 0.09 * ray[:, 0] * ceiling, 0.09 * ray[:, 2] * ceiling)
    cover = np.clip(0.8 * clouds + 0.9 * (1 - scene.sunlight) - 0.25, 0, 1) * (0.25 + 0.75 * np.clip(height * 6, 0, 1))
    under = from_noise(field, 0.09 * ray[:, 0] * ceiling + 0.01, 0.09 * ray[:, 2] * ceiling + 0.015)
    white = (0.86 + 0.14 * np.clip(clouds - under, -1, 1) - 0.12 * (1 - scene.sunlight) * np.clip(clouds, -1, 1.5))[
        :, None
    ]
    cloud = white * (0.75 * light.horizon + 0.3)
    glow = 0.5 * scene.sunlight * np.maximum(ray @ scene.sun, 0.0) ** 12
    share = cover.astype(np.float32)[:, None]
    image[sky] = colour * (1 - share) + cloud * share + glow.astype(np.float32)[:, None]
    return image


def _mirrored(light: Light, normal: Doubles, up: Floats, sunny: Doubles) -> Floats:
    """Return the light [N, 3] that glass and paint reflect: the sky from above, the dark street from below."""
    sky = np.clip(0.25 + 0.75 * normal[:, 1] + 0.6 * (up - 0.45), 0.05, 1.0).astype(np.float32)[:, None]
    mirrored: Floats = sky * light.horizon * (0.75 + 0.25 * sunny).astype(np.float32)[:, None]
    return mirrored


def _develop(image: Floats, random: np.random.Generator) -> Pixels:
    """Turn light [side, side, 3] into the photograph: exposure, blur, vignetting, grain, white balance and gamma."""
    side = len(image)
    image = image.reshape(side // _SAMPLES, _SAMPLES, side // _SAMPLES, _SAMPLES, 3).mean(axis=(1, 3))
    level = np.exp(np.log(image.mean(axis=2) + 0.02).mean())
    image *= random.uniform(0.25, 0.36) / level * (1 + random.normal(0, 0.03, 3))
    image = gaussian_filter(image, (*(random.uniform(0.2, 0.45),) * 2, 0))
    size = len(image)
    offset = (np.arange(size) + 0.5) / size * 2 - 1
    image *= (1 - random.uniform(0, 0.1) * (offset**2 + offset[:, None] ** 2))[..., None]
    noise = random.standard_normal(image.shape).astype(np.float32)
    image = image + noise * np.sqrt(1e-5 + random.uniform(1e-4, 6e-4) * np.maximum(image, 0))
    tone = np.clip(1 - np.exp(-1.25 * np.maximum(image, 0)), 0, 1) ** (1 / 2.2)
    curve = tone + 0.05 * np.sin(2 * np.pi * (tone - 0.5))
    pixels: Pixels = np.rint(255 * np.clip(curve, 0, 1)).astype(np.uint8)
    return pixels
