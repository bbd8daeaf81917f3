"""Segmentation networks learn, resume where they were cut short, and are read back as they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cyclegan_fast.evaluation.fcn.segmentation import (
    Examples,
    SegmentationNetwork,
    SegmentationTraining,
    Trainer,
    load_segmentation,
    read_out,
)
from cyclegan_fast.images.labels import VOID
from cyclegan_fast.images.pixels import as_tensor
from cyclegan_fast.system.errors import UserError

CPU = torch.device("cpu")
SHORT = SegmentationTraining(width=4, epochs=4, batch_size=4)


def halves(count: int, seed: int = 0) -> Examples:
    """Bright sky above dark road, at a height of its own in each picture: not to be read off the place alone."""
    random = np.random.default_rng(seed)
    photographs = np.empty((count, 32, 32, 3), np.uint8)
    labels = np.empty((count, 32, 32), np.uint8)
    for index in range(count):
        horizon = int(random.integers(6, 26))
        labels[index, :horizon], labels[index, horizon:] = 10, 0
        light = np.where(labels[index] == 10, 180, 70)[..., None] + random.normal(0, 12, (32, 32, 3))
        photographs[index] = light.clip(0, 255)
    return Examples(photographs, labels)


@pytest.mark.slow
def test_it_learns_to_tell_sky_from_road(tmp_path: Path) -> None:
    training = SegmentationTraining(width=8, epochs=10, batch_size=4, learning_rate=1e-2)
    network = Trainer(halves(48), training, tmp_path / "n.pt", CPU, torch.float32).run()
    test = halves(16, seed=1)
    read = read_out(network, as_tensor(test.photographs)).numpy()
    assert (read == test.labels).mean() > 0.97
    assert (read == np.roll(test.labels, 1, axis=0)).mean() < 0.9
    assert not (tmp_path / "n.pt.training").exists()


def weights(path: Path) -> dict[str, Any]:
    network, _ = load_segmentation(path)
    return dict(network.state_dict())


def test_a_training_that_was_cut_short_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = halves(10)
    Trainer(examples, SHORT, tmp_path / "whole.pt", CPU, torch.float32).run()
    steps = 0
    step = Trainer.step

    def dies(self: Trainer, *batch: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 8:  # in the third epoch of three steps each
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        Trainer(examples, SHORT, tmp_path / "cut.pt", CPU, torch.float32).run()
    monkeypatch.undo()
    assert not (tmp_path / "cut.pt").exists()
    told: list[str] = []
    again = Trainer(examples, SHORT, tmp_path / "cut.pt", CPU, torch.float32)
    assert again.epoch == 2
    again.run(told.append)
    assert "continued after epoch 2" in told[0]
    whole = weights(tmp_path / "whole.pt")
    for name, value in weights(tmp_path / "cut.pt").items():
        assert torch.equal(value, whole[name]), name


def test_what_was_left_of_other_photographs_is_not_continued(tmp_path: Path) -> None:
    one = Trainer(halves(10), SHORT, tmp_path / "n.pt", CPU, torch.float32)
    one.epoch = 1
    one._write(one.unfinished)
    assert Trainer(halves(10), SHORT, tmp_path / "n.pt", CPU, torch.float32).epoch == 1
    assert Trainer(halves(10, seed=3), SHORT, tmp_path / "n.pt", CPU, torch.float32).epoch == 0
    assert (
        Trainer(halves(10), SegmentationTraining(width=4, epochs=5), tmp_path / "n.pt", CPU, torch.float32).epoch == 0
    )


def test_void_pixels_teach_nothing(tmp_path: Path) -> None:
    """Leaves half of the pixels void: the weights do not depend on what the photograph's labels are there."""
    examples = halves(4)
    examples.labels[:, :, 16:] = VOID
    trainer = Trainer(examples, SHORT, tmp_path / "n.pt", CPU, torch.float32)
    photographs, labels, gain, shift = next(examples.batches(SHORT, 0))
    loss = trainer.step(photographs, labels, gain, shift)
    again = Trainer(examples, SHORT, tmp_path / "n.pt", CPU, torch.float32)
    scores = again.network(as_tensor(photographs).float() * gain + shift).log_softmax(1)
    counted = torch.from_numpy(labels != VOID)
    chosen = scores.gather(1, torch.from_numpy(labels).clamp_max(18).long()[:, None])[:, 0]
    torch.testing.assert_close(loss, -chosen[counted].mean())


def test_augmentation_moves_labels_with_their_photographs() -> None:
    examples = halves(8)
    examples.photographs[..., 0] = examples.labels  # the first channel says the label
    for photographs, labels, *_ in examples.batches(SHORT, 0):
        np.testing.assert_array_equal(photographs[..., 0], labels)
    np.testing.assert_array_equal(examples.photographs[..., 0], examples.labels)  # and leaves the examples alone


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 10])
def test_any_number_of_steps_makes_a_schedule(epochs: int, tmp_path: Path) -> None:
    Trainer(halves(4), SegmentationTraining(width=2, epochs=epochs), tmp_path / "n.pt", CPU, torch.float32).run()


def test_any_size_is_read() -> None:
    network = SegmentationNetwork(2).eval()
    photographs = torch.randint(0, 256, (2, 3, 36, 52), dtype=torch.uint8)
    read = read_out(network, photographs)
    assert read.shape == (2, 36, 52)
    padded = torch.nn.functional.pad(photographs.float(), (0, 12, 0, 12), mode="replicate").byte()
    assert torch.equal(read, read_out(network, padded)[:, :36, :52])


def test_what_is_no_segmentation_network_is_refused(tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds no segmentation network"):
        load_segmentation(tmp_path / "other.pth")
    with pytest.raises(UserError, match="no checkpoint at"):
        load_segmentation(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="epochs must be a whole number from 1"):
        SegmentationTraining(epochs=0)
