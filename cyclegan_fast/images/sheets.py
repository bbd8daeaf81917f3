"""Labelled grids of sample pictures, one PNG for each domain and step."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclegan_fast.images.pixels import Pixels

Item = TypeVar("Item")
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FONT_PX = 16
LINE_PX = 24
Column = tuple[str, Sequence[Pixels]]  # a caption, and the pictures below it


PICTURE_SIDE = 192  # pixels, about: small pictures are enlarged to this so that they can be judged
GAP = 4
BACKGROUND = (22, 25, 29)
CAPTION_COLOUR = (236, 238, 240)


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


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """All of them, or of more than `most` that many, which spread evenly."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def shortened(text: str, font: Font, width: int) -> str:
    """`text` with its beginning left out where it is wider than `width` pixels: a file's name is at the end."""
    whole = text
    while font.getlength(text) > width:
        whole = whole[1:]
        text = f"...{whole}"
    return text


def sheet(title: str, rows: Sequence[str], columns: Sequence[Column]) -> Pixels:
    """One picture [height, width, 3]: a column for each image, captioned, its rows labelled at the left edge."""
    font = ImageFont.load_default(FONT_PX)
    tiles = [enlarge(np.stack(pixels)) for _, pixels in columns]
    height, width = tiles[0].shape[1:3]
    margin = max(int(font.getlength(row)) for row in rows) + 3 * GAP
    size = (margin + len(columns) * (width + GAP), LINE_PX * 2 + len(rows) * (height + GAP))
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((GAP, 2), title, CAPTION_COLOUR, font)
    for column, ((text, _), tile) in enumerate(zip(columns, tiles, strict=True)):
        left = margin + column * (width + GAP)
        draw.text((left, LINE_PX), shortened(text, font, width), CAPTION_COLOUR, font)
        for row, pixels in enumerate(tile):
            picture.paste(Image.fromarray(pixels), (left, 2 * LINE_PX + row * (height + GAP)))
    for row, text in enumerate(rows):
        draw.text((GAP, 2 * LINE_PX + row * (height + GAP) + height // 2), text, CAPTION_COLOUR, font, anchor="lm")
    return np.asarray(picture)
