"""Lists the variants of the kernels that a training or a translation launches on a GPU, which need not be there."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.conventions import DIRECTIONS, GENERATOR_OF
from cyclegan_fast.kernels.checking.specialisations import Specialisation, recorded
from cyclegan_fast.kernels.gpus import Gpu, planning_for
from cyclegan_fast.kernels.launching import Grid, launching_with
from cyclegan_fast.kernels.pending_sum import PendingSum
from cyclegan_fast.kernels.registration import LAUNCHES
from cyclegan_fast.methods.model import Model
from cyclegan_fast.training.first_use.without_memory import WITHOUT_MEMORY, run_operator, run_step_without_memory
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update.choice import streams_of

_CONVOLUTIONS = (
    torch.ops.aten.convolution.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.convolution_backward.default,
)


def launched_by_training(config: Config, gpu: Gpu, dtype: torch.dtype, images: int) -> list[Specialisation]:
    """Return the variants that a step of a training launches, each once; none where images have sizes of their own.

    Args:
        config: networks, losses and crop size are read from it.
        gpu: the GPU that kernels are planned and compiled for.
        dtype: of convolutions and fused operators.
        images: images of a domain in a batch.
    """
    if config.data.preprocess not in CROPPING:
        return []
    watch = _Launches(gpu)
    # Two streams divide the update of paired networks' weights among other launches than one does.
    has_two = config.run.paired and streams_of(config, torch.device("cuda")) > 1

    def watched(step: TrainingStep) -> _Launches:
        if has_two:
            step.take_streams(_NoStreams())
        return watch

    run_step_without_memory(_on_triton(config), gpu, dtype, watched, images)
    return list(watch.found)


def launched_by_translation(
    config: Config, gpu: Gpu, dtype: torch.dtype, batches: Sequence[int]
) -> list[Specialisation]:
    """Return the variants that generators launch which translate, in batches of so many images of the crop size."""
    watch, side = _Launches(gpu), config.data.crop_size
    with WITHOUT_MEMORY:
        model = Model(_on_triton(config))
    # Where A and B have equal channels, both generators launch the same.
    directions = DIRECTIONS[: len({*config.channels})]
    with planning_for(gpu), torch.inference_mode(), watch:
        for direction, count in product(directions, batches):
            generator = model.get_submodule(GENERATOR_OF[direction])
            generator.to(dtype=dtype, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # absent from stubs
            channels = config.data.pixel_types.of_direction(direction)[0].channels
            generator(torch.empty(count, channels, side, side, dtype=dtype, device=WITHOUT_MEMORY))
    return list(watch.found)


def _on_triton(config: Config) -> Config:
    """Return a configuration that names Triton's operators: "auto" means the plain ones on tensors without memory."""
    return replace(config, networks=replace(config.networks, impl="triton"))


class _NoStreams:
    """Is a `StreamPair` of a device that has no streams."""

    def fork(self) -> None:
        pass

    def second(self) -> AbstractContextManager[None]:
        return nullcontext()

    def join(self) -> None:
        pass

    def mark(self) -> None:
        pass

    def join_mark(self, mark: None) -> None:
        pass


class _Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Notes which variants are launched while it is on; the results of convolutions lie channels last, as cuDNN's."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.gpu = gpu
        self.found: dict[Specialisation, None] = {}

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        with self:  # sums that are put off are formed, and launches inside our operators are seen
            arguments = tree_map_only(PendingSum, PendingSum.added, arguments)
            if operator in LAUNCHES:
                with launching_with(self._note):
                    return LAUNCHES[operator](*arguments, **options)
        result = run_operator(operator, arguments, options)
        return tree_map_only(Tensor, _channels_last, result) if operator in _CONVOLUTIONS else result

    def _note(self, kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        self.found[recorded(self.gpu.capability, kernel, arguments, options)] = None


def _channels_last(tensor: Tensor) -> Tensor:
    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    return torch.empty_like(tensor, memory_format=layout)
