"""Run in a process of its own, without the interpreter: what is prepared for a GPU is found by who launches on it.

`python -m tests.kernels.prepare.prepare_twice lists|finds FLAGS`: "lists" compares what is listed with the launches of
a traced step, and asks an empty cache; "finds" warms all of it up, in another order, and counts what is compiled.
There is deliberately no `if __name__ == "__main__"`: a script without one may train, and so prepare kernels.
"""

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from triton import knobs

from bench.modelling.tracing import trace_step
from cyclegan_fast.config.command import parse_training
from cyclegan_fast.kernels.checking.ahead import warm_up
from cyclegan_fast.kernels.checking.specialisations import recorded
from cyclegan_fast.kernels.gpus import GPUS
from cyclegan_fast.kernels.prepare.cache import not_in_cache, standing_in
from cyclegan_fast.kernels.prepare.workers import compile_in_workers
from cyclegan_fast.training.first_use.launches import launched_by_training

what, *flags = sys.argv[1:]
gpu, dtype = GPUS[90], torch.bfloat16
config, _ = parse_training(flags)
wanted = launched_by_training(config, gpu, dtype, config.data.batch_size)
compiled: Counter[bool] = Counter()


def listen(*, cache_hit: bool, **_: Any) -> None:
    compiled[not cache_hit] += 1


knobs.compilation.listener = listen
if what == "lists":
    on_triton = dataclasses.replace(config, networks=dataclasses.replace(config.networks, impl="triton"))
    traced = {
        recorded(90, node.launch.kernel, node.launch.arguments, node.launch.options)
        for node in trace_step(on_triton, gpu, dtype)
        if node.launch
    }
    with standing_in(90):
        missing = not_in_cache(wanted)
    files = [path for path in Path(knobs.cache.dir).rglob("*") if path.is_file()]
    three_warps = dataclasses.replace(wanted[0], options=(("num_warps", 3),))
    failures = compile_in_workers([three_warps], 1, lambda: None)
    print(
        f"{len(wanted)} listed, {len(traced ^ set(wanted))} otherwise than traced, {len(missing)} missing, "
        f"{len(files)} files, {compiled[True]} compiled; {next(iter(failures.values()))}"
    )
else:
    with standing_in(90):
        for one in reversed(wanted):
            warm_up(one)
    print(f"{compiled[False]} found, {compiled[True]} compiled")
