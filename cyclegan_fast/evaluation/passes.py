"""Makes one pass of both generators over the test images, which any number of metrics look at."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan_fast.conventions import DIRECTIONS, FORMULAS, OPPOSITE, Direction
from cyclegan_fast.data.image_lists import Images, Selected
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.evaluation.base_metric import Metric, TranslatedBatch
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.evaluation.similarity import Reconstruction, Truth, ValuePerImage
from cyclegan_fast.images.pixel_type import BOTH_RGB, PixelTypes
from cyclegan_fast.images.pixels import as_tensor, images_at_once
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar, waiting
from cyclegan_fast.translation.on_device import translate_batch


def first_images(images: Images, count: int) -> Images:
    """Return the first `count` images of a list, or all where `count` is 0."""
    return Selected(images, range(count)) if 0 < count < len(images) else images


@dataclass(frozen=True)
class Evaluation:
    """Holds what a pass found: scores by direction, and what a reader must know of them."""

    scores: list[Score]
    notes: list[str]
    counts: dict[Direction, int]
    """test images translated in each direction"""
    metrics: list[Metric]

    def quality(self, direction: Direction) -> tuple[str, ValuePerImage] | None:
        """Return what the images of a direction are ranked by, and its value for each: SSIM, lowest for the worst."""
        for kind, key, of in ((Truth, "truth", "the truth"), (Reconstruction, "reconstruction", "the reconstruction")):
            for metric in self.metrics:
                if isinstance(metric, kind) and (found := metric.of_every_image(direction, key)):
                    return f"SSIM with {of}", found.ssim
        return None


@torch.no_grad()
def evaluate(
    generators: Mapping[Direction, nn.Module],
    tests: TestSets,
    metrics: Sequence[Metric],
    *,
    device: torch.device,
    count: int = 0,
    batch_size: int | None = None,
    kinds: PixelTypes = BOTH_RGB,
) -> Evaluation:
    """Translate the test images of each domain that has a generator, once, and let every metric see them.

    Args:
        generators: one or both, on `device`, in the precision that they are to compute in.
        tests: the images of the domains, all of one size each.
        count: how many images of each domain are used, the first ones; 0 for all.
        batch_size: images at once; by default as many as make half a megapixel.
        kinds: the types of the pixels of both domains.

    Raises UserError where a metric lacks images, or a translation is not finite.
    """
    sets: dict[Direction, HeldOut | None] = {"a2b": tests.A, "b2a": tests.B}
    chosen = {direction: held for direction, held in sets.items() if held is not None}
    total = sum(len(first_images(held.images, count)) for held in chosen.values())
    counts: dict[Direction, int] = {}
    with progress_bar(desc="evaluating", unit=" images", total=total, leave=False) as bar:
        for direction, held in chosen.items():
            needed = needed_generators(generators, direction, metrics)
            for batch in translated_batches(direction, held, needed, device, count, batch_size, kinds):
                for metric in metrics:
                    metric.add_real(OPPOSITE[direction], batch.source, batch.source_kind)
                    if direction in generators:
                        metric.add(batch)
                bar.update(len(batch.source))
            if direction in generators:
                counts[direction] = len(first_images(held.images, count))
    with waiting("computing the scores"):
        scores = [score for metric in metrics for score in metric.scores()]
    notes = [note for metric in metrics for note in metric.notes()]
    notes += [*_notes_on_missing(sets, generators, count), *_notes_on_units(scores, kinds)]
    return Evaluation(_by_direction(scores), notes, counts, list(metrics))


def needed_generators(
    generators: Mapping[Direction, nn.Module], direction: Direction, metrics: Sequence[Metric]
) -> Mapping[Direction, nn.Module]:
    """Leave out the generator of the way back, where no metric looks at reconstructions."""
    if any(metric.sees_reconstructions for metric in metrics):
        return generators
    return {way: generator for way, generator in generators.items() if way == direction}


def translated_batches(
    direction: Direction,
    held: HeldOut,
    generators: Mapping[Direction, nn.Module],
    device: torch.device,
    count: int,
    batch_size: int | None,
    kinds: PixelTypes = BOTH_RGB,
) -> Iterable[TranslatedBatch]:
    """Yield the batches of a domain; without a generator for it an image is its own translation, which nobody uses."""
    images = first_images(held.images, count)
    height, width = images[0].shape[:2]
    at_once = batch_size or images_at_once(height, width)
    forward, back = generators.get(direction), generators.get(OPPOSITE[direction])
    of_source, of_target = kinds.of_direction(direction)
    for start in range(0, len(images), at_once):
        places = range(start, min(start + at_once, len(images)))
        source = stack_images(images, places, device)
        translation = translate_batch(forward, source, of_source, of_target) if forward else source
        yield TranslatedBatch(
            direction=direction,
            first=start,
            source=source,
            translation=translation,
            reconstruction=translate_batch(back, translation, of_target, of_source) if forward and back else None,
            truth=stack_images(held.truth, places, device) if held.truth else None,
            source_kind=of_source,
            target_kind=of_target,
        )


def stack_images(images: Images, places: Iterable[int], device: torch.device) -> Tensor:
    """Stack the images at some places of a list: samples [N, C, H, W] on the device."""
    return as_tensor(np.stack([images[place] for place in places]), device)


def _by_direction(scores: Sequence[Score]) -> list[Score]:
    """Sort scores by direction; within a direction they stay as they come."""
    return sorted(scores, key=lambda score: DIRECTIONS.index(score.name[:3]))


def _notes_on_missing(
    sets: Mapping[Direction, HeldOut | None], generators: Mapping[Direction, nn.Module], count: int
) -> list[str]:
    """Write notes on what could not be measured, and on how many images the scores are of."""
    notes = []
    for direction, held in sets.items():
        name = f"test{FORMULAS[direction]['source']}"
        if held is None:
            notes.append(f"{name} holds no images, so nothing of it is scored")
            continue
        if direction not in generators:
            notes.append(f"there is no generator for {direction}, so the images in {name} are not translated")
        elif held.truth is None:
            notes.append(
                f"test{FORMULAS[direction]['target']} holds no true translations of {name}, so they are not compared"
            )
        if 0 < count < len(held.images):
            are = "is" if count == 1 else "are"
            notes.append(f"only the first {count} of the {len(held.images)} images in {name} {are} scored")
    return notes


def _notes_on_units(scores: Sequence[Score], kinds: PixelTypes) -> list[str]:
    """Write a note on what values are relative to, where images are not 8-bit RGB and values depend on it."""
    if kinds == BOTH_RGB or not any("l1" in score.values for score in scores):
        return []
    return [
        f"A: {kinds.A}; B: {kinds.B}: PSNR, SSIM and L1 take this range for their full scale, and MAE is in these units"
    ]


BEST_BY = (  # the strongest measure first
    "b2a.fcn.class_iou",
    "a2b.fcn.class_iou",
    "a2b.features.kid",
    "b2a.features.kid",
    "a2b.features.fid",
    "b2a.features.fid",
    "a2b.truth.ssim",
    "b2a.truth.ssim",
    "a2b.reconstruction.ssim",
    "b2a.reconstruction.ssim",
    "a2b.truth.lpips",
    "b2a.truth.lpips",
    "a2b.reconstruction.lpips",
    "b2a.reconstruction.lpips",
)


def deciding(values: Collection[str], best_by: str | None) -> str | None:
    """Return the name of the value that the best checkpoint is chosen by.

    Args:
        values: the names of the values that the metrics give.
        best_by: the value that was asked for; None for the first of BEST_BY that is given.

    Raises UserError where the metrics do not give what was asked for.
    """
    if best_by is not None and best_by not in values:
        near = difflib.get_close_matches(best_by, values, n=4, cutoff=0.0)
        raise UserError(
            f"--best-by {best_by}: no such value; the metrics give {', '.join(near) or 'none'}, for example"
        )
    return best_by or next((name for name in BEST_BY if name in values), None)
