"""Labelled grids of sample pictures, one PNG for each domain and step."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from cyclegan_fast.images import write_image
from cyclegan_fast.pixels import Pixels

PICTURE_SIDE = 192  # pixels, about: small pictures are enlarged to this so that they can be judged
GAP = 4
BACKGROUND = (22, 25, 29)
CAPTION_COLOUR = (236, 238, 240)


def write_samples(run: Path, step: int, rows: dict[str, dict[str, Pixels]]) -> None:
    """Write `samples/step_00000250_A.png` and `..._B.png`: for each row its label and below it its pictures.

    Args:
        run: the run's folder.
        step: training steps behind these pictures.
        rows: for "A" and "B", label -> uint8 [N, H, W, 3].
    """
    folder = run / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    for domain, pictures in rows.items():
        info = PngImagePlugin.PngInfo()
        info.add_itxt("rows", "\n".join(pictures))  # the page tells them to those who cannot see the picture
        write_image(sample_grid(pictures), folder / f"step_{step:08d}_{domain}.png", pnginfo=info)


def sample_grid(rows: dict[str, Pixels]) -> Pixels:
    """label -> uint8 [N, H, W, 3] to one picture [height, width, 3]; raises ValueError for pixels of another kind."""
    for label, images in rows.items():
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"row {label!r} must be uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}")
    enlarged = {label: enlarge(images) for label, images in rows.items()}
    width = max(len(images) * (images.shape[2] + GAP) - GAP for images in enlarged.values())
    font_px = min(40, max(12, width // 48))  # follows the width, as the page shrinks a wide grid to the window
    strip_px = font_px * 3 // 2
    parts: list[Pixels] = []
    for label, images in enlarged.items():
        strip = Image.new("RGB", (width, strip_px), BACKGROUND)
        place = (font_px // 3, strip_px // 2)
        ImageDraw.Draw(strip).text(place, label, CAPTION_COLOUR, ImageFont.load_default(font_px), anchor="lm")
        band: Pixels = np.full((images.shape[1], width, 3), BACKGROUND, dtype=np.uint8)
        for index, image in enumerate(images):
            left = index * (images.shape[2] + GAP)
            band[:, left : left + images.shape[2]] = image
        parts += [np.asarray(strip), band]
    return np.concatenate(parts)


def enlarge(images: Pixels) -> Pixels:
    """[N, H, W, 3] with every pixel repeated, as often as comes closest to PICTURE_SIDE."""
    factor = max(1, round(PICTURE_SIDE / max(images.shape[1:3])))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)
