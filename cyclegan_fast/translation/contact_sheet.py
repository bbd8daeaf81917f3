"""Draws the contact sheet, an overview of a translation: inputs beside translations, with their names."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from cyclegan_fast.images.display import shown
from cyclegan_fast.images.files import Half, part_of, read_image
from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.samples import Frames
from cyclegan_fast.images.sheets import shortened, spread
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import printable
from cyclegan_fast.system.shortage import DoesNotFit
from cyclegan_fast.translation.plan import Job
from cyclegan_fast.translation.prepared import Reading, is_picture

MOST_PAIRS = 64
COLUMNS = 4
THUMBNAIL_SIDE = 192  # pixels; at 64 pairs the sheet is about 1600 x 3600
SHEET_GAP = 8
LINE = 22


def draw_contact_sheet(
    jobs: Sequence[Job],
    pool: ThreadPoolExecutor,
    remarks: list[str],
    reading: Reading,
    target: PixelType,
) -> Pixels | None:
    """Draw inputs beside their translations, each pair captioned with its name; None where there are no jobs.

    Of more than 64 pairs, 64 are shown that spread evenly over all. Where a file cannot be read, such as an earlier
    translation that was damaged since, or does not fit the memory, the pair's place stays empty and `remarks` names it.
    Inputs of more than 8 bits become 8 bits by the range of `reading`, and other samples are shown as
    `images.display.shown` shows them; of a volume's slices, the middle one.
    """
    chosen = spread(jobs, MOST_PAIRS)
    if not chosen:
        return None
    columns = min(COLUMNS, len(chosen))
    pair_width, pair_height = 2 * THUMBNAIL_SIDE, THUMBNAIL_SIDE + LINE
    width = columns * (pair_width + 2 * SHEET_GAP)
    height = LINE + 2 * SHEET_GAP + math.ceil(len(chosen) / columns) * (pair_height + SHEET_GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    title = "input | translation" + (f", {len(chosen)} of {len(jobs)} images" if len(chosen) < len(jobs) else "")
    draw.text((SHEET_GAP, SHEET_GAP), title, "black", font)
    common = Path(os.path.commonpath([job.target.parent for job in chosen]))

    frames: Frames = "slices" if reading.frames == "slices" else "first"
    written = Reading(target, frames=frames, axis=reading.axis)

    def thumbnails(job: Job) -> tuple[Image.Image, Image.Image] | UnreadableImage | DoesNotFit:
        try:
            return _in_boxes(_picture(job.source, reading, job.half), _picture(job.target, written))
        except (UnreadableImage, DoesNotFit) as error:
            return error

    for index, (job, pair) in enumerate(zip(chosen, pool.map(thumbnails, chosen), strict=True)):
        left = SHEET_GAP + index % columns * (pair_width + 2 * SHEET_GAP)
        top = LINE + SHEET_GAP + index // columns * (pair_height + SHEET_GAP)
        if isinstance(pair, UnreadableImage | DoesNotFit):
            remarks.append(f"not on the contact sheet: {pair}")
            continue
        for half, thumbnail in enumerate(pair):
            sheet.paste(thumbnail, (left + half * THUMBNAIL_SIDE, top + (THUMBNAIL_SIDE - thumbnail.height) // 2))
        caption = shortened(printable(job.target.relative_to(common).as_posix()), font, pair_width)
        draw.text((left, top + THUMBNAIL_SIDE + 2), caption, "black", font)
    return np.asarray(sheet)


def _picture(path: Path, reading: Reading, half: Half | None = None) -> Image.Image:
    """Read a file as a picture for people; raises UnreadableImage."""
    if reading.takes_pictures and is_picture(path):
        return read_image(path, half, reading.value_range)
    values = reading.samples(path).values
    return part_of(Image.fromarray(shown(values[len(values) // 2], reading.source)), half, path)


def _in_boxes(source: Image.Image, translation: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Return an input and its translation as thumbnails, both in the translation's shape."""
    source = source.resize(translation.size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    box = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return ImageOps.contain(source, box), ImageOps.contain(translation, box)
