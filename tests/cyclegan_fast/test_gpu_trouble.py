"""What a training does on a GPU without one at hand: copies, cuDNN's timing, and what is said when something fails."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cyclegan_fast import train
from cyclegan_fast.device import ready_to_copy, set_determinism
from cyclegan_fast.step import Decisions
from tests.cyclegan_fast.conftest import TINY

GPU = torch.device("cuda")


@pytest.fixture
def cudnn_as_it_was() -> Iterator[None]:
    timing = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = timing


# --- copies --------------------------------------------------------------------------------------------------------


class Copies:
    """Stands in for copies to a GPU: remembers which tensors were pinned, and what was copied from where."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pinned: list[Tensor] = []
        self.copied: list[tuple[Tensor, dict[str, Any]]] = []
        patch.setattr(Tensor, "is_pinned", lambda tensor: self.is_pinned(tensor))
        patch.setattr(Tensor, "pin_memory", lambda tensor: self._pin(tensor))
        patch.setattr(Tensor, "to", lambda tensor, device, **options: self._copy(tensor, device, options))

    def is_pinned(self, tensor: Tensor) -> bool:
        return any(tensor is other for other in self.pinned)

    def _pin(self, tensor: Tensor) -> Tensor:
        self.pinned.append(tensor.clone())
        return self.pinned[-1]

    def _copy(self, tensor: Tensor, device: torch.device, options: dict[str, Any]) -> Tensor:
        assert device == GPU
        self.copied.append((tensor, options))
        return tensor


def test_what_the_host_draws_for_a_step_is_copied_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(monkeypatch)
    drawn = Decisions(torch.tensor([[3], [1]]), torch.tensor([[2], [0]]), torch.rand(2, 1, 1, 1, 1), torch.randn(1, 4))
    on_gpu = drawn.to(GPU)
    assert len(copies.copied) == 4
    for tensor, options in copies.copied:
        assert copies.is_pinned(tensor)
        assert options == {"non_blocking": True}
    for name, tensor in on_gpu.tensors().items():
        assert torch.equal(tensor, drawn.tensors()[name]), name


def test_what_is_pinned_already_is_not_copied_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(monkeypatch)
    values = ready_to_copy(torch.ones(2), GPU)
    assert ready_to_copy(values, GPU) is values
    assert len(copies.pinned) == 1


def test_on_a_cpu_nothing_is_pinned() -> None:
    values = torch.ones(2)
    assert ready_to_copy(values, torch.device("cpu")) is values


# --- cuDNN ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "sizes_repeat", "timed"), [(False, True, True), (False, False, False), (True, True, False)]
)
@pytest.mark.usefixtures("cudnn_as_it_was")
def test_cudnn_times_its_algorithms_for_sizes_that_repeat(wanted: bool, sizes_repeat: bool, timed: bool) -> None:
    set_determinism(wanted, sizes_repeat=sizes_repeat)
    assert torch.backends.cudnn.benchmark is timed
    set_determinism(False)


@pytest.mark.parametrize(("preprocess", "timed"), [("none", False), ("scale_width", False), ("crop", True)])
@pytest.mark.usefixtures("cudnn_as_it_was")
def test_a_training_lets_cudnn_time_where_all_images_are_cut_to_one_size(
    preprocess: str, timed: bool, folder: Path, tmp_path: Path
) -> None:
    flags = ["--data", str(folder), "--runs", str(tmp_path), "--name", "x", "--max-steps", "1", "--workers", "0"]
    assert train.main([*flags, *TINY, "--preprocess", preprocess, "--evaluate-images", "1"]) == 0
    assert torch.backends.cudnn.benchmark is timed
