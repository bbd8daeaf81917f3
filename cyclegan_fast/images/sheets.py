"""Arranges pictures in labelled grids: the samples of a training, and sheets with a column for each image."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclegan_fast.images.pixels import Pixels

_Item = TypeVar("_Item")
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FONT_PX = 16
LINE_PX = 24
Column = tuple[str, Sequence[Pixels]]  # a caption, and the pictures below it


PICTURE_SIDE = 192  # pixels; small pictures are enlarged to about this side so that they can be judged
GRID_GAP_PX = 4
BACKGROUND = (22, 25, 29)
CAPTION_COLOUR = (236, 238, 240)


def sample_grid(rows: dict[str, Pixels], heading: Sequence[str] = ()) -> Pixels:
    """Return one picture [height, width, 3] of rows, each a label with its images, uint8 [N, H, W, 3].

    The lines of `heading` stand above them. What is wider than the picture is broken into lines. Raises ValueError for
    pixels of another type or shape.
    """
    for label, images in rows.items():
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"row {label!r} must be uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}")
    enlarged = {label: enlarge(images) for label, images in rows.items()}
    width = max(len(images) * (images.shape[2] + GRID_GAP_PX) - GRID_GAP_PX for images in enlarged.values())
    font_px = min(40, max(12, width // 48))  # it follows the width, because the page shrinks a wide grid to the window
    parts = [_caption(line, width, font_px) for line in heading]
    for label, images in enlarged.items():
        parts.append(_caption(label, width, font_px))
        band: Pixels = np.full((images.shape[1], width, 3), BACKGROUND, dtype=np.uint8)
        for index, image in enumerate(images):
            left = index * (images.shape[2] + GRID_GAP_PX)
            band[:, left : left + images.shape[2]] = image
        parts.append(band)
    return np.concatenate(parts)


def _caption(text: str, width: int, font_px: int) -> Pixels:
    """Return a strip [height, width, 3] with a line of text, which is broken where it is wider."""
    font = ImageFont.load_default(font_px)
    margin, strip_px = font_px // 3, font_px * 3 // 2
    lines = _broken(text, font, width - 2 * margin)
    strip = Image.new("RGB", (width, strip_px * len(lines)), BACKGROUND)
    for index, line in enumerate(lines):
        place = (margin, strip_px // 2 + index * strip_px)
        ImageDraw.Draw(strip).text(place, line, CAPTION_COLOUR, font, anchor="lm")
    return np.asarray(strip)


def _broken(text: str, font: Font, width: int) -> list[str]:
    """Break a text between words into lines of at most `width` pixels; a word that is wider stays whole."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def enlarge(images: Pixels) -> Pixels:
    """Return images [N, H, W, 3] with every pixel repeated, as often as brings them closest to PICTURE_SIDE."""
    factor = max(1, round(PICTURE_SIDE / max(images.shape[1:3])))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return all items, or `most` of them, spread evenly, where there are more."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def shortened(text: str, font: Font, width: int) -> str:
    """Return `text`, without its beginning where it is wider than `width` pixels: a file's name stands at the end."""
    whole = text
    while font.getlength(text) > width:
        whole = whole[1:]
        text = f"...{whole}"
    return text


def sheet(title: str, rows: Sequence[str], columns: Sequence[Column], heading: Sequence[str] = ()) -> Pixels:
    """Return a picture [height, width, 3]: a captioned column for each image, and rows labelled at the left edge.

    The lines of `heading` stand below the title.
    """
    font = ImageFont.load_default(FONT_PX)
    tiles = [enlarge(np.stack(pixels)) for _, pixels in columns]
    height, width = tiles[0].shape[1:3]
    margin = max(int(font.getlength(row)) for row in rows) + 3 * GRID_GAP_PX
    whole_width = margin + len(columns) * (width + GRID_GAP_PX)
    lines = [line for text in heading for line in _broken(text, font, whole_width - 2 * GRID_GAP_PX)]
    top = LINE_PX * (2 + len(lines))
    picture = Image.new("RGB", (whole_width, top + len(rows) * (height + GRID_GAP_PX)), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate([title, *lines]):
        draw.text((GRID_GAP_PX, 2 + index * LINE_PX), line, CAPTION_COLOUR, font)
    for column, ((text, _), tile) in enumerate(zip(columns, tiles, strict=True)):
        left = margin + column * (width + GRID_GAP_PX)
        draw.text((left, top - LINE_PX), shortened(text, font, width), CAPTION_COLOUR, font)
        for row, pixels in enumerate(tile):
            picture.paste(Image.fromarray(pixels), (left, top + row * (height + GRID_GAP_PX)))
    for row, text in enumerate(rows):
        draw.text(
            (GRID_GAP_PX, top + row * (height + GRID_GAP_PX) + height // 2),
            text,
            CAPTION_COLOUR,
            font,
            anchor="lm",
        )
    return np.asarray(picture)
