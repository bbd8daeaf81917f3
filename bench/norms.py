"""`python -m bench.norms`: the norm at every site of both networks on this CPU, beside its opponents, in one thread.

A row has the CPU time of the process, so that a shared machine will do, and the ratios of opponents that are right.
`bench.cases.operators` makes the contenders; `bench/benchmarks/test_operators.py` records the same at 256x256.
"""

import argparse
import statistics
from typing import Any

import torch

from bench.cases.operators import operator_cases
from bench.measure.contest import measure_case
from bench.measure.limits import dtypes, measure_limits
from bench.measure.machine import device_name
from cyclegan_fast.kernels.checking.sites import all_sites
from cyclegan_fast.system.device import name_of
from cyclegan_fast.system.errors import print_whole_lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.norms", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--side", type=int, default=256, help="of the square images, in pixels")
    parser.add_argument("--batch-size", type=int, default=1, help="images that the networks are given at once")
    parser.add_argument("--impl", default="c", choices=("c", "reference"), help="the implementation of ours")
    parser.add_argument("--without-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender")
    options: Any = parser.parse_args(arguments)
    print_whole_lines()
    device = torch.device("cpu")
    torch.set_num_threads(1)
    limits = measure_limits(device)
    print(f"{device_name(device)}, torch {torch.__version__}: {limits}")
    for dtype in dtypes(device):
        print(
            f"\n| {options.batch_size}x3x{options.side}x{options.side}, {name_of(dtype)} | shape | ours, ms "
            "| of the limit | opponents' times / ours |"
        )
        print("| --- | --- | --- | --- | --- |")
        ratios = []
        for case in operator_cases(
            list(all_sites(options.side)),
            (dtype,),
            (options.batch_size,),
            device,
            options.side,
            impl=options.impl,
            with_compile=not options.without_compile,
        ):
            found = measure_case(case, device, limits, lambda race: race.run(options.rounds))
            ours = found.contenders[found.ours].ms.median
            others = {name: timing.ratio.median for name, timing in found.contenders.items() if name != found.ours}
            ratios.append(min(others.values()))
            listed = ", ".join(
                f"{name} {ratio:.2f}" for name, ratio in sorted(others.items(), key=lambda item: item[1])
            )
            share = f"{found.limit_ms / ours:.0%}" if found.limit_ms else ""
            print(f"| {case.case} | {case.shape} | {ours:.4f} | {share} | {listed} |", flush=True)
        mean = statistics.geometric_mean(ratios)
        print(f"\nThe best opponent's time / ours: {mean:.2f} in the geometric mean, {min(ratios):.2f} at least.")


if __name__ == "__main__":
    main()
