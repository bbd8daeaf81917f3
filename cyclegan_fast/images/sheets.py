"""Arranges pictures in labelled grids: the samples of a training, and sheets with a column for each image."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclegan_fast.images.display import LegendLine
from cyclegan_fast.images.pixels import Pixels

_Item = TypeVar("_Item")
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FONT_PX = 16
LINE_PX = 24
Column = tuple[str, Sequence[Pixels]]  # a caption, and the pictures below it


PICTURE_SIDE = 192  # pixels; small pictures are enlarged to about this side so that they can be judged
GRID_GAP_PX = 4
BACKGROUND = (22, 25, 29)
BAR_PX = 160  # the width of a bar of colours
CAPTION_COLOUR = (236, 238, 240)


def sample_grid(rows: dict[str, Pixels], heading: Sequence[LegendLine] = ()) -> Pixels:
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
    parts = [_caption(line.text, width, font_px, line.bar) for line in heading]
    for label, images in enlarged.items():
        parts.append(_caption(label, width, font_px))
        band: Pixels = np.full((images.shape[1], width, 3), BACKGROUND, dtype=np.uint8)
        for index, image in enumerate(images):
            left = index * (images.shape[2] + GRID_GAP_PX)
            band[:, left : left + images.shape[2]] = image
        parts.append(band)
    return np.concatenate(parts)


def _caption(text: str, width: int, font_px: int, bar: Pixels | None = None) -> Pixels:
    """Return a strip [height, width, 3] with a text, in as many lines as it needs, and a bar of colours behind it."""
    font = ImageFont.load_default(font_px)
    margin, line_px = font_px // 3, font_px * 3 // 2
    lines = _laid_out(LegendLine(text, bar), font, width - 2 * margin)
    strip = Image.new("RGB", (width, line_px * len(lines)), BACKGROUND)
    for index, line in enumerate(lines):
        _draw_line(strip, (margin, line_px // 2 + index * line_px), line, font)
    return np.asarray(strip)


def _draw_line(picture: Image.Image, place: tuple[int, int], line: LegendLine, font: Font) -> None:
    """Draw a line of text with its middle at the height of `place`, and behind it its bar of colours."""
    left, middle = place
    ImageDraw.Draw(picture).text(place, line.text, CAPTION_COLOUR, font, anchor="lm")
    if line.bar is not None:
        height = LINE_PX // 2
        bar = Image.fromarray(line.bar[None]).resize((BAR_PX, height), Image.Resampling.NEAREST)
        picture.paste(bar, (left + (int(font.getlength(f"{line.text}  ")) if line.text else 0), middle - height // 2))


def _laid_out(line: LegendLine, font: Font, width: int) -> list[LegendLine]:
    """Break a line into some of at most `width` pixels; the bar of colours stands behind the last, or below it."""
    lines = [LegendLine(text) for text in _broken(line.text, font, width)]
    if line.bar is None:
        return lines
    last = lines.pop() if font.getlength(f"{lines[-1].text}  ") + BAR_PX <= width else LegendLine("")
    return [*lines, LegendLine(last.text, line.bar)]


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


def sheet(title: str, rows: Sequence[str], columns: Sequence[Column], heading: Sequence[LegendLine] = ()) -> Pixels:
    """Return a picture [height, width, 3]: a captioned column for each image, and rows labelled at the left edge.

    The lines of `heading` stand below the title.
    """
    font = ImageFont.load_default(FONT_PX)
    tiles = [enlarge(np.stack(pixels)) for _, pixels in columns]
    height, width = tiles[0].shape[1:3]
    margin = max(int(font.getlength(row)) for row in rows) + 3 * GRID_GAP_PX
    whole_width = margin + len(columns) * (width + GRID_GAP_PX)
    lines = [part for line in heading for part in _laid_out(line, font, whole_width - 2 * GRID_GAP_PX)]
    top = LINE_PX * (2 + len(lines))
    picture = Image.new("RGB", (whole_width, top + len(rows) * (height + GRID_GAP_PX)), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((GRID_GAP_PX, 2), title, CAPTION_COLOUR, font)
    for index, line in enumerate(lines, 1):
        _draw_line(picture, (GRID_GAP_PX, index * LINE_PX + LINE_PX // 2), line, font)
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
