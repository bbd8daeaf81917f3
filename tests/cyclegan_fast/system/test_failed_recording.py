"""Recordings of CUDA graphs that fail, on a GPU that is imitated."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
import torch

from cyclegan_fast.system.cuda_graph import CudaRecorder


class Made:
    """Stands for a tensor that was made before the memory ended."""


@contextmanager
def recording(*_: Any, **__: Any) -> Iterator[None]:
    yield


def test_nothing_that_was_made_stays_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Stream", "CUDAGraph", "current_stream", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    recorder = CudaRecorder(torch.device("cuda"), "leave it out", shares_memory=False)
    alive: list[weakref.ref[Made]] = []

    def fail() -> NoReturn:
        made = Made()
        alive.append(weakref.ref(made))
        raise RuntimeError("CUDA out of memory")

    gc.disable()  # which would find the memory later, behind the images that did not fit
    try:
        try:
            recorder.record(fail)
        except RuntimeError as error:
            said = str(error)
        assert said == "CUDA out of memory"
        assert alive[0]() is None
    finally:
        gc.enable()
