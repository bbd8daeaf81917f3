"""Draws the contact sheets of an evaluation: the images that came out worst and best, and what became of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cyclegan_fast.conventions import DIRECTIONS, FORMULAS, Direction
from cyclegan_fast.data.image_lists import Images, Selected
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.evaluation.base_metric import TranslatedBatch
from cyclegan_fast.evaluation.passes import Evaluation, translated_batches
from cyclegan_fast.images.display import AS_RGB, DomainViews
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixels import Pixels, as_pixels
from cyclegan_fast.images.sheets import sheet

_SHOWN = 6


def write_sheets(
    folder: Path,
    evaluation: Evaluation,
    generators: Mapping[Direction, nn.Module],
    tests: TestSets,
    device: torch.device,
    views: DomainViews = AS_RGB,
) -> list[Path]:
    """Write `a2b.jpg` and `b2a.jpg`, for each direction that has a score of each image; return the files.

    `views` show the images of each domain.
    """
    written = []
    for direction, held in zip(DIRECTIONS, (tests.A, tests.B), strict=True):
        quality = evaluation.quality(direction)
        path = folder / f"{direction}.jpg"
        if held is None or direction not in generators or quality is None:
            path.unlink(missing_ok=True)  # an earlier evaluation's sheet must not pass for this one's
            continue
        what, values = quality
        order = np.argsort(values, kind="stable").tolist()
        many = len(order) > 2 * _SHOWN
        places = [*order[:_SHOWN], *order[-_SHOWN:]] if many else order
        title = f"{len(order)} images by {what}, " + (f"{_SHOWN} worst and {_SHOWN} best" if many else "worst first")
        rows = _row_labels(direction, held)
        captions = [f"{caption(held.images, place)}  {values[place]:.3f}" for place in places]
        columns = list(zip(captions, pictures(direction, held, places, generators, device, views), strict=True))
        write_image(sheet(title, rows, columns, views.legend()), path, quality=92)
        written.append(path)
    return written


def _row_labels(direction: Direction, held: HeldOut) -> list[str]:
    names = FORMULAS[direction]
    labels = [f"real {names['source']}", names["translation"], names["reconstruction"]]
    return [*labels, "truth"] if held.truth is not None else labels


def caption(images: Images, place: int) -> str:
    """Return the file name of an image, to stand below it."""
    name = images.names[place]  # a file's ends in its size
    return Path(name.rpartition(" ")[0] or name).name


@torch.no_grad()
def pictures(
    direction: Direction,
    held: HeldOut,
    places: Sequence[int],
    generators: Mapping[Direction, nn.Module],
    device: torch.device,
    views: DomainViews = AS_RGB,
) -> list[list[Pixels]]:
    """Return, for each of the images, the pictures that `_row_labels` names, as `views` show them."""
    some = HeldOut(Selected(held.images, places), Selected(held.truth, places) if held.truth is not None else None)
    found: list[list[Pixels]] = []
    for batch in translated_batches(direction, some, generators, device, 0, None, views.kinds):
        found += _pictures_of(batch, views)
    return found


def _pictures_of(batch: TranslatedBatch, views: DomainViews) -> list[list[Pixels]]:
    source, target = views.of_direction(batch.direction)
    of_sources = source(as_pixels(batch.source))
    translated = target(as_pixels(batch.translation))
    # Without a generator for the way back a dark square stands there.
    back = np.full_like(of_sources, 60) if batch.reconstruction is None else source(as_pixels(batch.reconstruction))
    rows = [of_sources, translated, back]
    if batch.truth is not None:
        rows.append(target(as_pixels(batch.truth)))
    return [list(pictures) for pictures in zip(*rows, strict=True)]
