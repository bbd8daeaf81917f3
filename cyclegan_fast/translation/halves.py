"""Says which half of an image is translated, where images show pairs side by side; needs no PyTorch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from cyclegan_fast.conventions import Direction
from cyclegan_fast.data.layouts import HALVES, is_side_by_side
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.inputs import Resolver, is_below, with_planning_bar
from cyclegan_fast.translation.plan import ImageOptions, Job

FEW = 10  # images of a folder that tell what the others are like


def halved(
    jobs: Sequence[Job], options: ImageOptions, config: Mapping[str, Any], direction: Direction, notes: list[str]
) -> list[Job]:
    """Return the jobs, with the half that is translated of images that show a pair side by side.

    An image shows a pair where it belongs to a data set in that layout that the run learned from, or where it is twice
    as wide as high, as most of these are; `options.half` decides otherwise. A line on them is appended to `notes`.

    Args:
        config: of the run, empty for bare weights.
        direction: "a2b" takes left halves, where A is.

    Raises UserError where the data set is gone and an image may be a pair.
    """
    if options.half in ("left", "right"):
        return [replace(job, half=options.half) for job in jobs]
    data, loss = config.get("data"), config.get("loss")
    trained_on = data.get("data") if isinstance(data, dict) else None
    if options.half == "whole" or not isinstance(trained_on, str):
        return [*jobs]
    root = Path(trained_on)
    if not root.is_dir():
        learned_pairs = isinstance(loss, dict) and loss.get("method") == "pix2pix"
        doubtful = next((job.source for job in jobs[:FEW] if is_twice_as_wide(job.source)), None)
        if doubtful is not None and learned_pairs:
            raise UserError(
                f"{doubtful} is twice as wide as high, as pairs side by side are, and the run's data, {root}, are not "
                "there to tell whether it is one: give --half left, right or whole"
            )
        return [*jobs]
    if not is_side_by_side(root):
        return [*jobs]
    half = HALVES["A" if direction == "a2b" else "B"]
    resolve, own = Resolver(), os.path.realpath(root)
    new = [
        replace(job, half=half) if is_below(resolve(job.source), own) or is_twice_as_wide(job.source) else job
        for job in with_planning_bar(jobs)
    ]
    count = sum(job.half is not None for job in new)
    if count:
        notes.append(
            f"the run was trained on pairs side by side: of {count} of {len(jobs)} images the {half} half is "
            "translated (--half whole takes whole images)"
        )
    return new


def is_twice_as_wide(path: Path) -> bool:
    """Say whether an image is twice as wide as high; False where it cannot be read, which is reported later."""
    try:
        with Image.open(path) as image:
            return image.width == 2 * image.height
    except Exception:  # damaged files raise anything
        return False
