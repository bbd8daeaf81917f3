"""`python -m tests.kernels.compile_twice`: what is compiled ahead is what launches look for, seen without a GPU.

Triton's own JIT runs up to machine code; only the driver behind it is a stand-in that launches nothing. Every network's
sites are compiled ahead for an H200 at batch 1, then launched on tensors of the CPU: no launch may compile anything.
"""

import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from cyclegan_fast.kernels.checking.ahead import compile_as_launched
from cyclegan_fast.kernels.checking.sites import discriminator_sites, generator_sites, run_backward, run_forward
from cyclegan_fast.kernels.checking.specialisations import recorded_launches
from cyclegan_fast.kernels.gpus import GPUS, planning_for
from cyclegan_fast.kernels.triton_language import INTERPRETED

GPU = GPUS[90]
SITES = [*generator_sites(blocks=2, side=16), *discriminator_sites(side=64)]


class Driver:
    """Answers what Triton asks before a launch, and launches nothing."""

    def __init__(self) -> None:
        self.launches = 0
        self.utils = SimpleNamespace(
            get_device_properties=lambda number: {"max_shared_mem": 227 << 10},
            load_binary=lambda name, binary, shared, number: (object(), binary, 32, 0, 1024),
        )

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        def launch(*arguments: Any) -> None:
            self.launches += 1

        return launch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", GPU.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def run(device: str) -> None:
    for site in SITES:
        operands = site.operands(1, torch.bfloat16, device)
        _, statistics = run_forward(site, operands)
        run_backward(site, operands, statistics)


def main() -> int:
    assert not INTERPRETED
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        stub = Driver()
        driver.set_active(stub)
        wanted = recorded_launches(lambda: run("meta"), GPU)
        if recorded_launches(lambda: (run("meta"), run("meta")), GPU) != wanted:
            print("a variant is recorded twice", file=sys.stderr)
            return 1
        failures = [reason for reason in map(compile_as_launched, wanted) if reason]
        if stub.launches or failures:
            print(f"{stub.launches} launches while compiling ahead, failures: {failures}", file=sys.stderr)
            return 1
        if not compile_as_launched(dataclasses.replace(wanted[0], options=(("num_warps", 3),))):
            print("three warps were not refused", file=sys.stderr)
            return 1
        ahead = set(Path(cache).iterdir())
        for specialisation in wanted:  # what this process remembers would not be looked for on disk
            specialisation.jit.device_caches.clear()
        with planning_for(GPU):
            run("cpu")
        later = set(Path(cache).iterdir()) - ahead
        print(f"{len(wanted)} variants compiled ahead, {stub.launches} launches, {len(later)} compiled by them")
        return int(bool(later) or stub.launches < len(SITES) or len(ahead) < len(wanted))


if __name__ == "__main__":
    sys.exit(main())
