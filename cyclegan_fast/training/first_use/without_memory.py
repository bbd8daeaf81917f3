"""Runs a training step on tensors without memory, so that somebody can look at what it would launch on a GPU.

The step is the project's own, driven by its engine. It runs on the device "meta": PyTorch without CUDA computes no
gradients of fake CUDA tensors. What a GPU does differently, who watches the step puts right: cuDNN lays its results
channels last.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cyclegan_fast.config.options import Config
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.kernels.gpus import Gpu, planning_for
from cyclegan_fast.methods.feature_loss.objective import FeatureLoss
from cyclegan_fast.methods.model import Model
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.step import TrainingStep

WITHOUT_MEMORY = torch.device("meta")


def run_step_without_memory(
    config: Config,
    gpu: Gpu,
    dtype: torch.dtype,
    watched: Callable[[TrainingStep], AbstractContextManager[Any]],
    images: int | None = None,
) -> None:
    """Run two steps on tensors without memory: the first makes Adam's moments and the pools, the second is as others.

    Args:
        config: networks, losses, batch and crop size are read from it; the fused operators run where it names Triton's.
        gpu: the GPU that kernels are planned for.
        dtype: of convolutions and fused operators.
        watched: makes a context around each step, in which what is launched can be seen.
        images: images of a domain in a batch; by default as many as the configuration has.
    """
    config = replace(config, run=replace(config.run, compile=False, cuda_graph="auto", streams="auto", profile=0))
    with planning_for(gpu), mock.patch("torch.optim.adam._device_dtype_check_for_fused"), _WithoutMemory():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        with WITHOUT_MEMORY:
            model = Model(config)
        if isinstance(model.method, FeatureLoss):
            model.method.features = nn.Identity()  # its network comes from data, and launches no kernel of ours
        step = TrainingStep(model, config, dtype)
        engine = TrainingEngine(step, config, print, _WatchingRecorder(lambda: watched(step)))
        batch = _batch(images or config.data.batch_size, config)
        engine(batch)
        engine(batch)


def _batch(count: int, config: Config) -> Batch:
    side, kinds = config.data.crop_size, config.data.pixel_types
    pixels_A, pixels_B = (
        torch.empty(count, side, side, kind.channels, dtype=getattr(torch, kind.dtype), device=WITHOUT_MEMORY)
        for kind in kinds
    )
    corners = torch.zeros(count, 3, dtype=torch.int64, device=WITHOUT_MEMORY)
    return Batch(pixels_A, pixels_B, corners, corners.clone(), (side, side), (side, side))


class _WatchingRecorder:
    """Stands in the place of the engine's recorder of CUDA graphs."""

    def __init__(self, watched: Callable[[], AbstractContextManager[Any]]) -> None:
        self.watched = watched

    def warm_up(self, function: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        with self.watched():
            return function()

    def record(self, function: Callable[[], dict[str, Tensor]]) -> Any:
        raise RuntimeError("a step on tensors without memory cannot be recorded as a CUDA graph")


class _WithoutMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Lets the step and its optimisers be made on tensors without memory."""

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return run_operator(operator, arguments, options or {})


def run_operator(operator: Any, arguments: Any, options: Any) -> Any:
    """Run an operator on tensors without memory, with stand-ins for those that refuse them."""
    if operator is torch.ops.aten._local_scalar_dense.default:
        return True  # Adam asks whether the learning rate, a tensor, is positive
    if operator in (torch.ops.aten._fused_adam_.tensor_lr, torch.ops.aten._fused_sgd_.tensor_lr):
        return None  # they work in place
    return operator(*arguments, **options)
