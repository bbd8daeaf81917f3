"""Measures the data path alone, against the original's way of preparing images."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.cases.data_path import ORIGINAL_LOADER, case, write_folder
from bench.conftest import DEVICE, Compare

NEEDED_PER_S = 150  # steps of 256x256, batch 1: the data path must not hold up the fastest step that is aimed at


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Cut and scale on one core: the workers have the others.

    Tensors this small wait for their own threads longer than they compute.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_batches(compare: Compare, tmp_path: Path) -> None:
    comparison = compare(case(write_folder(tmp_path), DEVICE), 7)
    for name in ("ours, memory, 2 workers", "ours, mapped file, 2 workers"):
        assert 1e3 / comparison.contenders[name].ms.median >= NEEDED_PER_S
    assert comparison.contenders[ORIGINAL_LOADER].ratio.median > 1
