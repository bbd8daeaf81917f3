"""One pass of both generators over the test images, with any number of metrics looking on."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan_fast.conventions import DIRECTIONS, FORMULAS, OPPOSITE, Direction
from cyclegan_fast.data.image_lists import Images, Selected
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.evaluation.similarity import Reconstruction, Truth, Values
from cyclegan_fast.evaluation.view import Metric, View
from cyclegan_fast.images.pixels import as_tensor, images_at_once, levels, signed
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar, waiting


def translated(generator: nn.Module, images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] -> the same through a generator, in the precision of its weights, rounded to 8 bits.

    Raises UserError for a translation that is not finite.
    """
    dtype, was_training = next(generator.parameters()).dtype, generator.training
    generator.eval()  # a U-Net drops nothing then, and its batch norm takes each image by itself
    try:
        result = generator(signed(images).to(dtype))
    finally:
        generator.train(was_training)
    if not bool(result.isfinite().all()):
        raise UserError(
            "the generator's translation is not finite: its weights are damaged, or this precision is too low for them"
        )
    return levels(result)


def first(images: Images, count: int) -> Images:
    """The first `count` of a list, or all where it is 0."""
    return Selected(images, range(count)) if 0 < count < len(images) else images


@dataclass(frozen=True)
class Evaluation:
    """What a pass found: scores by direction, and what a reader must know of them."""

    scores: list[Score]
    notes: list[str]
    counts: dict[Direction, int]
    """test images translated in each direction"""
    metrics: list[Metric]

    def quality(self, direction: Direction) -> tuple[str, Values] | None:
        """What images of a direction can be ranked by, worst first being lowest: SSIM, and what it is of."""
        for kind, key, of in ((Truth, "truth", "the truth"), (Reconstruction, "reconstruction", "the reconstruction")):
            for metric in self.metrics:
                if isinstance(metric, kind) and (found := metric.of(f"{direction}.{key}")):
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
) -> Evaluation:
    """Translate the test images of each domain that has a generator, once, and let every metric see them.

    Args:
        generators: one or both, on `device`, in the precision that they are to compute in.
        tests: the images of the domains, all of one size each.
        count: use the first so many of each domain; 0 for all.
        batch_size: images at once; by default as many as make half a megapixel.

    Raises UserError where a metric lacks images, or a translation is not finite.
    """
    sets: dict[Direction, HeldOut | None] = {"a2b": tests.A, "b2a": tests.B}
    chosen = {direction: held for direction, held in sets.items() if held is not None}
    total = sum(len(first(held.images, count)) for held in chosen.values())
    counts: dict[Direction, int] = {}
    with progress_bar(desc="evaluating", unit=" images", total=total, leave=False) as bar:
        for direction, held in chosen.items():
            for view in views(direction, held, used(generators, direction, metrics), device, count, batch_size):
                for metric in metrics:
                    metric.add_real(OPPOSITE[direction], view.source)
                    if direction in generators:
                        metric.add(view)
                bar.update(len(view.source))
            if direction in generators:
                counts[direction] = len(first(held.images, count))
    with waiting("computing the scores"):
        scores = [score for metric in metrics for score in metric.scores()]
    notes = [note for metric in metrics for note in metric.notes()]
    return Evaluation(ordered(scores), [*notes, *missing(sets, generators, count)], counts, list(metrics))


def used(
    generators: Mapping[Direction, nn.Module], direction: Direction, metrics: Sequence[Metric]
) -> Mapping[Direction, nn.Module]:
    """The generators without the one back, where nobody looks at reconstructions."""
    if any(metric.sees_reconstructions for metric in metrics):
        return generators
    return {way: generator for way, generator in generators.items() if way == direction}


def views(
    direction: Direction,
    held: HeldOut,
    generators: Mapping[Direction, nn.Module],
    device: torch.device,
    count: int,
    batch_size: int | None,
) -> Iterable[View]:
    """The batches of a domain; without a generator for it each is its own translation, which nobody looks at."""
    images = first(held.images, count)
    height, width = images[0].shape[:2]
    at_once = batch_size or images_at_once(height, width)
    forward, back = generators.get(direction), generators.get(OPPOSITE[direction])
    for start in range(0, len(images), at_once):
        places = range(start, min(start + at_once, len(images)))
        source = stacked(images, places, device)
        translation = translated(forward, source) if forward else source
        yield View(
            direction=direction,
            first=start,
            source=source,
            translation=translation,
            reconstruction=translated(back, translation) if forward and back else None,
            truth=stacked(held.truth, places, device) if held.truth else None,
        )


def stacked(images: Images, places: Iterable[int], device: torch.device) -> Tensor:
    """uint8 [N, 3, H, W] of some images."""
    return as_tensor(np.stack([images[place] for place in places]), device)


def ordered(scores: Sequence[Score]) -> list[Score]:
    """By direction, and within it as they come."""
    return sorted(scores, key=lambda score: DIRECTIONS.index(score.name[:3]))


def missing(
    sets: Mapping[Direction, HeldOut | None], generators: Mapping[Direction, nn.Module], count: int
) -> list[str]:
    """What could not be measured, and of how many images the scores are."""
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


BEST_BY = (
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
    """The name of the value that a checkpoint is the best by; raises UserError where the one asked for is not there."""
    if best_by is not None and best_by not in values:
        near = difflib.get_close_matches(best_by, values, n=4, cutoff=0.0)
        raise UserError(
            f"--best-by {best_by}: no such value; the metrics give {', '.join(near) or 'none'}, for example"
        )
    return best_by or next((name for name in BEST_BY if name in values), None)
