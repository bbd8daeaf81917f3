"""Tells which images of a translation are scenes, which are translated without being in memory; needs no PyTorch."""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Literal

from cyclegan_fast.images.folders import ending_of
from cyclegan_fast.images.formats.recognition import TIFF_ENDINGS
from cyclegan_fast.images.scenes.opening import is_scene, open_scene
from cyclegan_fast.images.scenes.slide_scene import SLIDE_ENDINGS
from cyclegan_fast.images.scenes.zarr_scene import is_zarr
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.plan import ImageOptions, Job

Pyramid = Literal["auto", "all", "none"]
Masking = Literal["none", "data"]
"""Says whether one value is written where a scene is empty."""


def find_scenes(jobs: Sequence[Job], options: ImageOptions, pyramid: Pyramid, *, is_tiled: bool) -> Set[Path]:
    """Return the sources that are translated as scenes.

    A TIFF is none where it is resized or halved, where its pages count, or where another format is to be written.

    Args:
        is_tiled: whether images are translated in strips.

    Raises UserError where something can only be translated as a scene, and options say otherwise.
    """
    only = [job.source for job in jobs if ending_of(job.source.name) in SLIDE_ENDINGS or is_zarr(job.source)]
    contradiction = _contradiction(options)
    if only and (not is_tiled or contradiction):
        advice = f"leave {contradiction} out" if is_tiled else "give --tile"
        raise UserError(f"{only[0]} is a scene, which is translated at its own size, into a TIFF: {advice}")
    if pyramid != "auto" and not is_tiled:
        raise UserError("--pyramid is for the images of --tile: give both or neither")
    if contradiction or not is_tiled:
        return frozenset()
    decide = _has_regions if pyramid == "all" else is_scene
    return frozenset(job.source for job in jobs if decide(job.source))


def without_scenes(jobs: Sequence[Job], scenes: Set[Path]) -> tuple[list[Job], list[Job]]:
    """Return the jobs that are translated in memory, and those of scenes. Raises UserError for a half of a scene."""
    for job in jobs:
        if job.source in scenes and job.half is not None:
            raise UserError(f"{job.source} is a scene, which is translated as a whole: give --half whole")
    return [job for job in jobs if job.source not in scenes], [job for job in jobs if job.source in scenes]


def _contradiction(options: ImageOptions) -> str | None:
    """Return the option that keeps an image from being translated as a scene; None where there is none."""
    if options.size is not None:
        return "--size"
    if options.half in ("left", "right"):
        return "--half"
    if options.frames not in (None, "first"):
        return "--frames"
    return None if options.format in ("same", "tiff") else "--format"


def _has_regions(path: Path) -> bool:
    if is_scene(path):
        return True
    if ending_of(path.name) not in TIFF_ENDINGS:
        return False
    try:
        with open_scene(path):
            return True
    except UnreadableImage:
        return False
