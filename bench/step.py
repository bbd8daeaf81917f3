"""`python -m bench.step`: the whole training step, every option beside plain PyTorch's.

Plain PyTorch's step is a transcription of the original's update; `bench.cases.training_step` makes the contenders.
"""

import argparse
from typing import Any

import torch

from bench.cases.plain_cyclegan import PAPER_SIZE, PlainNetworkSize
from bench.cases.training_step import agreement_at, training_step_cases
from bench.measure.contest import measure_case
from bench.measure.limits import measure_limits
from bench.measure.machine import device_name
from bench.reporting.terminal import comparison_text
from cyclegan_fast.system.device import choose_device, set_determinism
from cyclegan_fast.system.errors import print_whole_lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--side", type=int, default=256, help="of the square images, in pixels")
    parser.add_argument("--batch-size", type=int, default=1, help="images of each domain in a step")
    parser.add_argument("--width", type=int, default=PAPER_SIZE.width, help="channels of the networks' first layers")
    parser.add_argument("--blocks", type=int, choices=(6, 9), default=PAPER_SIZE.blocks, help="of the generators")
    parser.add_argument("--without", default="", metavar="TEXT", help="leave out contenders with this in their name")
    parser.add_argument("--rounds", type=int, default=6, help="timed steps of each contender")
    options: Any = parser.parse_args(arguments)
    print_whole_lines()
    device = choose_device(options.device)
    set_determinism(False)  # cuDNN times its algorithms, as in training
    limits = measure_limits(device)
    print(f"{device_name(device)}, torch {torch.__version__}: {limits}")

    def wants(name: str) -> bool:
        return not options.without or options.without not in name

    size = PlainNetworkSize(options.width, options.blocks)
    agreement = agreement_at(options.side)
    for case in training_step_cases(options.side, options.batch_size, device, wants, size=size, agreement=agreement):
        print(comparison_text(measure_case(case, device, limits, lambda race: race.run(options.rounds))), flush=True)


if __name__ == "__main__":
    main()
