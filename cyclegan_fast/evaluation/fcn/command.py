"""Holds the command `evaluate fcn`, which gives the paper's scores for photographs (A) and label maps (B).

They say how well a network that was trained on real photographs reads the labels out of photographs that were made from
label maps, and how good the label maps are that were made from photographs (Zhu et al. 2017, section 5.1.1).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch

from cyclegan_fast.data.test_sets import label_maps
from cyclegan_fast.evaluation.fcn import segmentation
from cyclegan_fast.evaluation.fcn.judge import judge
from cyclegan_fast.evaluation.fcn.metric import FcnScore, RealPhotographs, refuse_other_pixels
from cyclegan_fast.evaluation.fcn.scores import SegmentationScores
from cyclegan_fast.evaluation.fcn.segmentation import SegmentationNetwork, SegmentationTraining
from cyclegan_fast.evaluation.passes import evaluate, stack_images
from cyclegan_fast.evaluation.score_table import Score, or_null, table
from cyclegan_fast.evaluation.subject import EvaluationOptions, Subject
from cyclegan_fast.evaluation.worst_and_best import caption
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.labels import CLASSES, colours_of, nearest_labels
from cyclegan_fast.images.pixels import Pixels, as_pixels, as_tensor
from cyclegan_fast.images.sheets import sheet, spread
from cyclegan_fast.system.ranges import MOST_COUNTED, NetworkWidth, Range, RunSeed
from cyclegan_fast.system.trouble import told_of_translation
from cyclegan_fast.translation.on_device import translate_batch

_SHOWN = 8


@dataclass(frozen=True)
class EvaluateFcnCommand(EvaluationOptions):
    """Score translations between street photographs (domain A) and label maps (domain B) as the paper's tables 2 and 3
    do: per-pixel accuracy, per-class accuracy and class IoU as Cityscapes defines them.

    Labels -> photo: a segmentation network reads generated photographs; beside it stand what the same network reads in
    real photographs, and what that agrees with the labels of other views. Photo -> labels: generated label maps are
    read by the nearest colour. The network is trained once on the real training photographs and kept; it needs their
    labels in trainA_labels (street_scenes writes them), in Cityscapes' own folders, or in --labels.

        python -m cyclegan_fast.street_scenes streets --size 64
        python -m cyclegan_fast.train --data streets --preset demo --load-size 64
        python -m cyclegan_fast.evaluate fcn
    """

    segmentation: Path | None = None
    """file of the segmentation network; it is trained and written there where there is none yet; by default a name in
    runs/segmentation/ that is made from the data, the size and the settings below"""
    labels: Path | None = None
    """folder with the label maps of the photographs in trainA, under the same names"""
    segmentation_epochs: Annotated[int, Range(1, MOST_COUNTED)] = 60
    """passes over the photographs that the network is trained for"""
    segmentation_width: NetworkWidth = 16
    """channels of the network at full size"""
    segmentation_seed: RunSeed = 0
    """fixes its weights, order and augmentation"""

    @property
    def training(self) -> SegmentationTraining:
        """Return how the network is trained."""
        return SegmentationTraining(
            epochs=self.segmentation_epochs, width=self.segmentation_width, seed=self.segmentation_seed
        )


def evaluate_fcn(command: EvaluateFcnCommand) -> int:
    """Train the network where there is none, measure, print, write fcn.json and fcn.jpg; return the exit status."""
    with told_of_translation(command.device):
        return _evaluate_fcn(Subject(command, pairs="yes"), command)


def _evaluate_fcn(subject: Subject, command: EvaluateFcnCommand) -> int:
    refuse_other_pixels(subject.views.kinds)
    labels = label_maps(subject.tests, subject.size)
    print(subject)
    network, file = judge(
        subject.data,
        subject.size,
        subject.device,
        command.training,
        file=command.segmentation,
        labels=command.labels,
        strict=command.strict,
    )
    used = command.images or len(labels["A"])
    generated, real = FcnScore(network, labels), RealPhotographs(network, labels["A"][:used])
    passed = evaluate(
        subject.generators,
        subject.tests,
        [generated, real],
        device=subject.device,
        count=command.images,
        batch_size=command.batch_size,
    )
    found = Findings.of(generated, real)
    print(found)
    result = {"segmentation": str(file), "images": passed.counts, **found.to_dict()}
    written, picture = subject.publish("fcn.json", result, passed.notes), subject.out / "fcn.jpg"
    write_image(fcn_sheet(subject, network), picture, quality=92)
    print(f"written: {written}, {picture}")
    return 0


# --- what was found ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Findings:
    """Holds confusion matrices by what was read: "generated", "real" or "shuffled" photographs, or label "maps"."""

    scores: dict[str, SegmentationScores]

    LABELS: ClassVar = {
        "generated": "generated photographs, G_B(B)",
        "real": "real photographs",
        "shuffled": "real photographs, against the labels of other views",
        "maps": "generated label maps, G_A(A)",
    }

    @staticmethod
    def of(generated: FcnScore, real: RealPhotographs) -> "Findings":
        """Collect what these two saw in a pass over the test images."""
        names = {"b2a": "generated", "a2b": "maps"}
        matrices = real.matrices | {names[direction]: matrix for direction, matrix in generated.matrices.items()}
        return Findings({key: SegmentationScores(matrices[key]) for key in Findings.LABELS if key in matrices})

    def __str__(self) -> str:
        rows = [Score(f"b2a.{key}", self.LABELS[key], found.means()) for key, found in self.scores.items()]
        return f"{table(rows)}\n\n{self.by_class()}"

    def by_class(self) -> str:
        """Write a row of accuracies and IoUs for every class that is there, the most frequent first."""
        shares = self.scores["real"].by_class()
        names = sorted(shares, key=lambda name: -shares[name]["share"])
        titles = {"generated": "generated photographs", "real": "real photographs", "maps": "generated label maps"}
        shown = {key: self.scores[key].by_class() for key in titles if key in self.scores}
        lines = [f"{'accuracy / IoU':<16}{'pixels':>8}" + "".join(f"{titles[key]:>24}" for key in shown)]
        for name in names:
            cells = "".join(
                f"{values[name]['accuracy']:>15.3f} / {values[name]['iou']:.3f} " for values in shown.values()
            )
            lines.append(f"{name:<16}{shares[name]['share']:>8.1%}{cells}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "rows": [
                {
                    "name": key,
                    "label": self.LABELS[key],
                    **or_null(found.means()),
                    "absent_classes_as_0": or_null(found.as_original()),
                    "by_class": {name: or_null(values) for name, values in found.by_class().items()},
                    "confusion": found.matrix.tolist(),
                }
                for key, found in self.scores.items()
            ],
            "classes": [row.name for row in CLASSES],
        }


@torch.no_grad()
def fcn_sheet(subject: Subject, network: SegmentationNetwork) -> Pixels:
    """Draw some test views: label maps, photographs made of them, what is read in these; and the other way round."""
    A = subject.tests.A
    assert A is not None  # the test set is one of pairs
    assert A.truth is not None
    places = spread(range(len(A.images)), _SHOWN)
    photographs, maps = (stack_images(images, places, subject.device) for images in (A.images, A.truth))
    rows = {"label map B": maps}
    if "b2a" in subject.generators:
        generated = translate_batch(subject.generators["b2a"], maps)
        rows |= {"G_B(B)": generated, "read in G_B(B)": drawn(segmentation.read_out(network, generated))}
    rows |= {"photograph A": photographs, "read in A": drawn(segmentation.read_out(network, photographs))}
    if "a2b" in subject.generators:
        made = translate_batch(subject.generators["a2b"], photographs)
        nearest = torch.from_numpy(nearest_labels(as_pixels(made)))
        rows |= {"G_A(A)": made, "nearest colours": drawn(nearest)}
    pictures = [as_pixels(images) for images in rows.values()]
    columns = [(caption(A.images, place), [row[index] for row in pictures]) for index, place in enumerate(places)]
    return sheet(f"{subject.path}: {len(places)} of {len(A.images)} test views", list(rows), columns)


def drawn(labels: torch.Tensor) -> torch.Tensor:
    """Draw train ids [N, H, W] in their colours, uint8 [N, 3, H, W]."""
    return as_tensor(colours_of(labels.cpu().numpy()))
