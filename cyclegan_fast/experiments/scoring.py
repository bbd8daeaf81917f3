"""Scores a run: its generators translate the test images, and a network and the nearest colour read the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cyclegan_fast.config.options import Config, DataConfig
from cyclegan_fast.conventions import DIRECTIONS, OPPOSITE
from cyclegan_fast.data.domains import open_test_sets
from cyclegan_fast.data.layouts import find_training_labels
from cyclegan_fast.data.test_sets import TestSets, label_maps
from cyclegan_fast.evaluation.base_metric import Metric, TranslatedBatch
from cyclegan_fast.evaluation.fcn.judge import judge
from cyclegan_fast.evaluation.fcn.metric import FcnScore, RealPhotographs
from cyclegan_fast.evaluation.fcn.scores import Counts, confusion_matrix
from cyclegan_fast.evaluation.fcn.segmentation import SegmentationNetwork, SegmentationTraining
from cyclegan_fast.evaluation.passes import evaluate, translated_batches
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.experiments.plan import Tables
from cyclegan_fast.experiments.store import REFERENCE, Scored, Store, facts_of, read_json
from cyclegan_fast.images.labels import VOID, Labels
from cyclegan_fast.images.pixels import Pixels, as_pixels
from cyclegan_fast.images.sheets import spread
from cyclegan_fast.runs import RESULTS
from cyclegan_fast.system.device import describe, name_of, working_dtype
from cyclegan_fast.system.files import sha256_of
from cyclegan_fast.translation.on_device import prepare_network
from cyclegan_fast.translation.trained import load_translators
from cyclegan_fast.version import __version__

_SHOWN = 4
"""The number of test views that the picture shows, from all over the test set."""


class KeptTranslations(Metric):
    """Keeps a few translations for the report's picture."""

    def __init__(self, places: list[int]) -> None:
        self.places = places
        self.images: dict[str, list[Pixels]] = {}

    def add(self, batch: TranslatedBatch) -> None:
        here = [place - batch.first for place in self.places if 0 <= place - batch.first < len(batch.source)]
        self.images.setdefault(batch.direction, []).extend(as_pixels(batch.translation[here]))

    def scores(self) -> list[Score]:
        return []


@dataclass(frozen=True)
class Examination:
    """Holds the test images, their labels and the network that reads translations of them; the same for all runs."""

    tests: TestSets
    labels: dict[str, Labels]
    network: SegmentationNetwork
    judge: str
    """digest of the network's file"""
    count: int
    """test images that are used, the first ones"""
    device: torch.device

    @property
    def places(self) -> list[int]:
        """Return the places of the test views that the report shows."""
        return spread(range(self.count), _SHOWN)

    def reference(self) -> Scored:
        """Return what is read in images that nobody translated, under "DIRECTION.KIND".

        real: photographs, against their own labels; shuffled: photographs or label maps, against the labels of other
        views; untranslated: an image of the one domain, taken for one of the other.
        """
        untranslated = FcnScore(self.network, self.labels)
        real = RealPhotographs(self.network, self.labels["A"][: self.count])
        sources = KeptTranslations(self.places)
        for direction, held in (("a2b", self.tests.A), ("b2a", self.tests.B)):
            assert held is not None
            # Without a generator an image is its own translation.
            for batch in translated_batches(direction, held, {}, self.device, self.count, None):  # type: ignore[arg-type]
                untranslated.add(batch)
                sources.add(batch)
                real.add_real(OPPOSITE[batch.direction], batch.source)
        matrices = {f"b2a.{kind}": matrix for kind, matrix in real.matrices.items()}
        matrices |= {f"{direction}.untranslated": matrix for direction, matrix in untranslated.matrices.items()}
        if self.count > 1:
            matrices["a2b.shuffled"] = _of_other_views(self.labels["A"][: self.count])
        return Scored(matrices, _stacked(sources), {"judge": self.judge, "images": self.count, **self._origin()})

    def score(self, config: Config) -> Scored:
        """Translate with a finished run's generators, and read the results."""
        assert config.run.name is not None
        folder = config.run.runs / config.run.name
        dtype, _ = working_dtype(self.device, config.run.amp, "auto")
        fcn, kept, notes = FcnScore(self.network, self.labels), KeptTranslations(self.places), list[str]()
        generators = {
            direction: prepare_network(loaded.network, self.device, dtype)
            for direction, loaded in zip(DIRECTIONS, load_translators(folder, DIRECTIONS, notes), strict=True)
        }
        evaluate(generators, self.tests, [fcn, kept], device=self.device, count=self.count)
        results = read_json(folder / RESULTS)
        facts = facts_of(
            config,
            self.judge,
            **self._origin(),
            dtype=name_of(dtype),
            images=self.count,
            notes=notes,
            peak_gib=results["peak_gib"],
            step_ms=round(results["training_s"] / results["step"] * 1e3, 2),
            steps=results["step"],
            training_s=results["training_s"],
        )
        return Scored(fcn.matrices, _stacked(kept), facts)

    def _origin(self) -> dict[str, Any]:
        return {
            "device": describe(self.device),
            "versions": {"cyclegan_fast": __version__, "torch": torch.__version__},
        }


def test_images(plan: Tables) -> tuple[TestSets, dict[str, Labels]]:
    """Open the test images and read their labels.

    Raises UserError where the data lacks them, or labels of the training images.
    """
    size = plan.settings.size
    tests, _ = open_test_sets(
        DataConfig(data=plan.data.resolve(), load_size=size, crop_size=size, pairs="yes", strict=True)
    )
    labels = label_maps(tests, size)
    if plan.segmentation is None:
        find_training_labels(plan.data)
    return tests, labels


def prepare_examination(
    plan: Tables,
    store: Store,
    tests: TestSets,
    labels: dict[str, Labels],
    device: torch.device,
    known_runs: Sequence[tuple[Config, Scored]],
) -> Examination:
    """Train the network that reads, where there is none yet, and let it read the real photographs.

    Raises UserError, before anything in OUT changes, where runs that are known were trained otherwise, or read by
    another network.
    """
    settings = plan.settings
    network, file = judge(
        plan.data.resolve(),
        settings.size,
        device,
        SegmentationTraining(epochs=settings.segmentation_epochs, width=settings.segmentation_width),
        file=plan.segmentation or store.segmentation,
    )
    judge_digest = sha256_of(file)
    for config, scored in known_runs:
        store.check(config, scored, judge_digest)
    count = min(settings.test_images or len(labels["A"]), len(labels["A"]))
    examination = Examination(tests, labels, network, judge_digest, count, device)
    known = store.load(REFERENCE)
    if known is None or known.facts.get("judge") != examination.judge:
        store.save(REFERENCE, examination.reference())
    return examination


def _stacked(kept: KeptTranslations) -> dict[str, Pixels]:
    return {direction: np.stack(kept.images[direction]) for direction in DIRECTIONS}


def _of_other_views(labels: Labels) -> Counts:
    """Compare the labels of each view with those of the one before it; pixels that are void in either are left out."""
    others = np.roll(labels, 1, axis=0)
    known = others != VOID
    return confusion_matrix(labels[known], others[known])
