"""Run by torchrun in test_distributed.py: one rank's steps on its half of every batch; the first rank saves them."""

import sys
from pathlib import Path

import torch

from cyclegan_fast.system.distributed import Ranks, joined
from tests.cyclegan_fast.system.test_distributed import CASES, Case, finish, half_of, step_of, whole_batch


def main(out: Path, names: list[str]) -> None:
    with joined("cpu") as (ranks, _):
        for name in names:
            train(CASES[name], ranks, out / f"{name}.pt")


def train(case: Case, ranks: Ranks, file: Path) -> None:
    step = step_of(case, ranks)
    losses = []
    for number in range(case.steps):
        real_A, real_B = whole_batch(number, case.dtype)
        mine = step(half_of(real_A, ranks.index), half_of(real_B, ranks.index))
        values = torch.stack(list(mine.values())).double()
        losses.append(ranks.sum(values) / ranks.count)
    weights = ranks.gather(finish(step))
    if ranks.is_first:
        torch.save({"weights": weights, "losses": losses}, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
