"""Trains or loads the network that reads labels, and the examples that it learns from."""

from pathlib import Path

import numpy as np
import torch

from cyclegan_fast.data.layouts import find_training_labels
from cyclegan_fast.data.preparation import held_out_preparation
from cyclegan_fast.evaluation.fcn import segmentation
from cyclegan_fast.evaluation.fcn.segmentation import Examples, SegmentationNetwork, SegmentationTraining
from cyclegan_fast.images.labels import Labels
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.device import working_dtype
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.words import counted

_FOLDER = Path("runs/segmentation")


def judge(
    data: Path | None,
    size: int,
    device: torch.device,
    training: SegmentationTraining,
    *,
    file: Path | None = None,
    labels: Path | None = None,
    strict: bool = False,
) -> tuple[SegmentationNetwork, Path]:
    """Return the segmentation network and its file; it is trained on the real photographs where there is none yet.

    Args:
        data: the data set; the embedded photographs, None, have no labels.
        size: side of the square that photographs are resized to.
        training: how the network is trained where it must be.
        file: where it is, or goes; by default a name in runs/segmentation/ that is made from all of this.
        labels, strict: see `find_training_labels`.

    Raises UserError where there are no labels to learn from.
    """
    if file is None or not file.exists():
        if data is None:
            raise UserError("the embedded photographs have no label maps: give --data FOLDER, as of street_scenes")
        examples = read_examples(data, size, labels, strict=strict)
        file = file or _FOLDER / (
            f"{data.name}-{size}-{examples.fingerprint[:8]}-{training.width}x{training.epochs}-{training.seed}.pt"
        )
        if not file.exists():
            dtype, _ = working_dtype(device, True, "auto")
            if dtype == torch.float16:
                dtype = torch.float32  # no loss scaling here
            print(
                f"training a segmentation network for {file} on {counted(len(examples.photographs), 'real photograph')}"
            )
            return segmentation.Trainer(examples, training, file, device, dtype).run(), file
    network, origin = segmentation.load_segmentation(file)
    print(f"labels are read by {file}, which was trained for {counted(origin['training']['epochs'], 'epoch')}")
    return network.to(device), file


def read_examples(data: Path, size: int, folder: Path | None, *, strict: bool = False) -> Examples:
    """Read the labelled training photographs of a data set at size x size; raises UserError where there are none."""
    prepare = held_out_preparation(size)
    photographs: list[Pixels] = []
    labels: list[Labels] = []
    pairs = find_training_labels(data, folder, strict=strict)
    for pair in progress_bar(pairs, desc="reading labelled photographs", unit=" images", leave=False):
        photograph, label_map = pair.read(size)
        photographs.append(np.asarray(prepare(photograph)))
        labels.append(label_map)
    return Examples(np.stack(photographs), np.stack(labels))
