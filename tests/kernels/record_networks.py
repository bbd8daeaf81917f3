"""Run in a process of its own, without the interpreter: which launches of the networks `kernels.aot` does not compile.

The networks run on the CPU; each launch is recorded and left out, so that what they compute is meaningless.
"""

import sys
from typing import Any

import torch

from cyclegan_fast.networks import PatchDiscriminator, ResnetGenerator
from kernels import aot, dispatch, launch
from kernels.triton_language import Grid, launching_with


def recorded_by_networks(dtype: torch.dtype, batch: int) -> set[aot.Specialisation]:
    found: set[aot.Specialisation] = set()

    def record(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        found.add(aot.recorded(90, kernel, arguments, options))

    image = torch.zeros(batch, 3, 256, 256, dtype=dtype).contiguous(memory_format=torch.channels_last)
    networks = ResnetGenerator(blocks=2, impl="triton"), PatchDiscriminator(impl="triton")
    with launching_with(record), launch.planning_for(launch.GPUS[90]):
        for network in networks:
            network.to(dtype=dtype, memory_format=torch.channels_last)
            network(image.clone().requires_grad_()).sum().backward()
    return found


def main() -> int:
    dispatch._require_triton = lambda operator, x: None
    missing = 0
    for dtype in (torch.float32, torch.bfloat16):
        launched = recorded_by_networks(dtype, 1)
        compiled = set(aot.specialisations(90, [dtype]))
        print(f"{dtype}: the networks launch {len(launched)} variants, kernels.aot compiles {len(compiled)}")
        for variant in launched - compiled:
            print(f"not compiled: {variant}")
            missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
