"""Run in a process of its own, without the interpreter: which launches of the networks `kernels.aot` does not compile.

The networks run on the CPU; each launch is recorded and left out, and so are the convolutions, so that what they
compute is meaningless.
"""

import sys
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from cyclegan_fast.kernels import aot, dispatch, plans
from cyclegan_fast.kernels.checking.specialisations import recorded
from cyclegan_fast.kernels.gpus import GPUS, planning_for
from cyclegan_fast.kernels.launching import Grid, launching_with
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator


class WithoutConvolutions(TorchDispatchMode):
    """Lets convolutions and their gradients return uninitialised tensors, channels last as cuDNN's."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function not in CONVOLUTIONS:
            return function(*arguments, **(options or {}))
        shapes_only = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), arguments)
        return tree_map_only(Tensor, uninitialised, function(*shapes_only))


def uninitialised(like: Tensor) -> Tensor:
    layout = torch.channels_last if like.dim() == 4 else torch.contiguous_format
    return torch.empty(like.shape, dtype=like.dtype, memory_format=layout)


CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}


def recorded_by_networks(dtype: torch.dtype, batch: int) -> set[aot.Specialisation]:
    found: set[aot.Specialisation] = set()

    def record(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        found.add(recorded(90, kernel, arguments, options))

    image = torch.zeros(batch, 3, 256, 256, dtype=dtype).contiguous(memory_format=torch.channels_last)
    networks = ResnetGenerator(blocks=2, impl="triton"), PatchDiscriminator(impl="triton")
    with launching_with(record), planning_for(GPUS[90]), WithoutConvolutions():
        for network in networks:
            network.to(dtype=dtype, memory_format=torch.channels_last)
            network(image.clone().requires_grad_()).sum().backward()
        with plans.forcing(plans.thin_rule(GPUS[90])):
            networks[0](image.clone().requires_grad_()).sum().backward()
    return found


def main() -> int:
    dispatch._require_triton = lambda operator, x, dtypes: None
    missing = 0
    for dtype in (torch.float32, torch.bfloat16):
        launched = recorded_by_networks(dtype, 1)
        compiled = set(aot.specialisations(90, [dtype]))
        print(f"{dtype}: the networks launch {len(launched)} variants, kernels.aot compiles {len(compiled)}")
        for variant in launched - compiled:
            print(f"not compiled: {variant.name} {variant.dtype} {variant.flags}: {variant}")
            missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
