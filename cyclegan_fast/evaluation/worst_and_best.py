"""Pictures of an evaluation: the images that came out worst and best, with what became of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cyclegan_fast.conventions import DIRECTIONS, FORMULAS, Direction
from cyclegan_fast.data.image_lists import Images, Selected
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.evaluation.passes import Evaluation, views
from cyclegan_fast.evaluation.view import View
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.sheets import sheet

SHOWN = 6


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
