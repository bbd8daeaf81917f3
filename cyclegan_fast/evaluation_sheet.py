"""Pictures of an evaluation: the images that came out worst and best, with what became of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from cyclegan_fast.contact_sheet import shortened
from cyclegan_fast.domains import HeldOut, TestSets
from cyclegan_fast.evaluation import DIRECTIONS, Evaluation, views
from cyclegan_fast.image_folder import Images, Selected
from cyclegan_fast.images import write_image
from cyclegan_fast.metrics import FORMULAS, View
from cyclegan_fast.pixels import Pixels
from cyclegan_fast.sample_grid import BACKGROUND, CAPTION_COLOUR, GAP, enlarge
from cyclegan_fast.translator import Direction

SHOWN = 6
FONT_PX = 16
LINE_PX = 24

Column = tuple[str, Sequence[Pixels]]  # a caption, and the pictures below it


def write_sheets(
    folder: Path,
    evaluation: Evaluation,
    generators: Mapping[Direction, nn.Module],
    tests: TestSets,
    device: torch.device,
) -> list[Path]:
    """Write `a2b.jpg` and `b2a.jpg`, for each direction that has a score of each image; returns the files."""
    written = []
    for direction, held in zip(DIRECTIONS, (tests.A, tests.B), strict=True):
        quality = evaluation.quality(direction)
        path = folder / f"{direction}.jpg"
        if held is None or direction not in generators or quality is None:
            path.unlink(missing_ok=True)  # of an evaluation before: not to be taken for this one's
            continue
        what, values = quality
        order = np.argsort(values, kind="stable").tolist()
        many = len(order) > 2 * SHOWN
        places = [*order[:SHOWN], *order[-SHOWN:]] if many else order
        title = f"{len(order)} images by {what}, " + (f"{SHOWN} worst and {SHOWN} best" if many else "worst first")
        rows = row_labels(direction, held)
        captions = [f"{caption(held.images, place)}  {values[place]:.3f}" for place in places]
        columns = list(zip(captions, pictures(direction, held, places, generators, device), strict=True))
        write_image(sheet(title, rows, columns), path, quality=92)
        written.append(path)
    return written


def row_labels(direction: Direction, held: HeldOut) -> list[str]:
    names = FORMULAS[direction]
    labels = [f"real {names['source']}", names["translation"], names["reconstruction"]]
    return [*labels, "truth"] if held.truth is not None else labels


def caption(images: Images, place: int) -> str:
    name = images.names[place]  # a file's ends in its size
    return Path(name.rpartition(" ")[0] or name).name


@torch.no_grad()
def pictures(
    direction: Direction,
    held: HeldOut,
    places: Sequence[int],
    generators: Mapping[Direction, nn.Module],
    device: torch.device,
) -> list[list[Pixels]]:
    """Of each of the images what `row_labels` names."""
    some = HeldOut(Selected(held.images, places), Selected(held.truth, places) if held.truth is not None else None)
    found: list[list[Pixels]] = []
    for view in views(direction, some, generators, device, 0, None):
        found += [of_view(view, index) for index in range(len(view.source))]
    return found


def of_view(view: View, index: int) -> list[Pixels]:
    parts = [view.source, view.translation, view.reconstruction, view.truth]
    blank = torch.full_like(view.source[index], 60)  # no generator for the way back
    images = [part[index] if part is not None else blank for part in (parts if view.truth is not None else parts[:3])]
    return [image.permute(1, 2, 0).cpu().numpy() for image in images]


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
