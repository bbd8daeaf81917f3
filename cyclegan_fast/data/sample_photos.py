"""Makes the embedded data set: photographs and cyanotype drawings, unpaired to train on, paired to score with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image

from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.words import counted

# Sources and licences of the photographs stand in docs/getting-started.md.
PHOTOGRAPHS_A = ("astronaut.png", "chelsea.png")
PHOTOGRAPHS_B = ("camera.png", "rocket.jpg", "coins.png")
PHOTOGRAPHS_TEST = ("coffee.png", "motorcycle_left.png")
_PRUSSIAN_BLUE = np.array([0.02, 0.09, 0.30])
_PAPER_COLOUR = np.array([0.97, 0.96, 0.88])


@dataclass(frozen=True)
class SamplePhotos:
    """Holds photographs and drawings, uint8 [N, side, side, 3] each; only in a test set they show the same pictures."""

    photographs: Pixels
    drawings: Pixels


def cyanotype_drawing(photo: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Render a photograph [H, W, 3] in [0, 1] as an inked drawing on cyanotype paper; the same shape and range.

    The drawing has a soft-focus luminance with halation around the lights, dark ink along contours, and a tone scale
    from Prussian blue to paper. Ink and glow depend on a pixel's neighbourhood, so that no colour lookup can do this.
    Lengths follow the image's side: they are stated for 64 pixels.
    """
    from scipy.ndimage import gaussian_filter  # takes most of a second to import, which no other data needs

    unit = photo.shape[0] / 64
    luminance = photo @ np.array([0.299, 0.587, 0.114])
    fine = gaussian_filter(luminance, 1.0 * unit)
    relief = fine - gaussian_filter(luminance, 4.0 * unit)
    ink = 0.5 + 0.5 * np.tanh(12.0 * (relief + 0.02))
    glow = gaussian_filter(np.maximum(luminance - 0.6, 0.0), 3.0 * unit)
    tone = np.clip(0.95 * ink + 0.05 * fine + 0.5 * glow, 0.0, 1.0)
    drawing: npt.NDArray[np.float64] = _PRUSSIAN_BLUE + tone[..., None] * (_PAPER_COLOUR - _PRUSSIAN_BLUE)
    return drawing


def bundled_photograph(name: str) -> Image.Image:
    """Return one of the photographs in scikit-image's wheel, as RGB."""
    return Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")


def make_training(side: int, count: int = 350, seed: int = 0) -> SamplePhotos:
    """Cut `count` crops of each domain, `side` x `side` pixels, independently: there are no pairs to learn from."""
    random = np.random.default_rng([seed, 0])
    return SamplePhotos(
        photographs=_crops(PHOTOGRAPHS_A, side, count, random),
        drawings=_rendered(_crops(PHOTOGRAPHS_B, side, count, random)),
    )


def make_test(side: int, count: int = 48, seed: int = 0) -> SamplePhotos:
    """Cut `count` crops of photographs that neither domain has, and their true drawings."""
    photographs = _crops(PHOTOGRAPHS_TEST, side, count, np.random.default_rng([seed, 1]))
    return SamplePhotos(photographs=photographs, drawings=_rendered(photographs))


def _rendered(photos: Pixels) -> Pixels:
    return np.stack([np.rint(cyanotype_drawing(photo / 255.0) * 255).astype(np.uint8) for photo in photos])


def _crops(names: Sequence[str], side: int, count: int, random: np.random.Generator) -> Pixels:
    """Cut `count` square crops that show something, from the photographs in turn."""
    photographs = [bundled_photograph(name) for name in names]
    crops: list[Pixels] = []
    while len(crops) < count:
        photo = photographs[len(crops) % len(photographs)]
        width = int(random.integers(min(photo.size) // 6, min(photo.size) // 2))
        left, top = (int(random.integers(0, extent - width + 1)) for extent in photo.size)
        crop = photo.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + width, top + width))
        pixels = np.asarray(crop)
        if pixels.mean(axis=2).std() > 25:  # not a plain patch of sky or wall
            crops.append(pixels)
    return np.stack(crops)


def write_sample_photos(out: Path, side: int, count: int) -> int:
    """Write the folders below `out`, print what is in them, and return the exit status."""
    training, test = make_training(side, count), make_test(side)
    for name, images in {
        "trainA": training.photographs,
        "trainB": training.drawings,
        "testA": test.photographs,
        "testB": test.drawings,
    }.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, pixels in enumerate(images):
            write_image(pixels, folder / f"{index:04d}.png")
        print(f"{folder}: {counted(len(images), 'image')}")
    return 0
