"""Run by torchrun in test_distributed.py: one rank's steps on its half of every batch; the first rank saves the end."""

import sys
from pathlib import Path

import torch

from cyclegan_fast.system.distributed import joined
from tests.cyclegan_fast.system.test_distributed import CASES, finish, half_of, step_of, whole_batch


def main(name: str, out: Path) -> None:
    case = CASES[name]
    with joined("cpu") as (ranks, _):
        step = step_of(case, ranks)
        losses = []
        for number in range(case.steps):
            real_A, real_B = whole_batch(number, case.dtype)
            mine = step(half_of(real_A, ranks.index), half_of(real_B, ranks.index))
            values = torch.stack(list(mine.values())).double()
            losses.append(ranks.sum(values) / ranks.count)
        weights = finish(step)
        others = ranks.gather(weights)
        if ranks.is_first:
            torch.save({"weights": others, "losses": losses}, out)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
