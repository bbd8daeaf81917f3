"""Sums losses on the device between two reports."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cyclegan_fast.checkpoint.content import LossState
from cyclegan_fast.system.distributed import Ranks


@dataclass
class LossSums:
    """Sums the losses since the last report; all fields but the names are vectors with one number for each loss.

    sums: the sums of finite values, float64.
    finite: how many values were finite.
    lost: how many values were not finite.
    in_a_row: for how many steps up to now a value was not finite; steps before the last report count as well.
    """

    names: list[str]
    sums: Tensor
    finite: Tensor
    lost: Tensor
    in_a_row: Tensor

    @staticmethod
    def of(before: "LossSums | None", names: list[str], device: torch.device) -> "LossSums":
        """Begin without losses, or with `before`, which is moved to the device: it may come from a checkpoint."""
        if before:
            fields = (before.sums, before.finite, before.lost, before.in_a_row)
            return LossSums(before.names, *(field.to(device) for field in fields))
        counts = (torch.zeros(len(names), dtype=torch.int64, device=device) for _ in range(3))
        return LossSums(names, torch.zeros(len(names), dtype=torch.float64, device=device), *counts)

    def add(self, values: Tensor) -> None:
        """Count the losses of one step, [L] in the order of `names`; nothing waits for the device."""
        is_finite = values.isfinite()
        self.sums += torch.where(is_finite, values, 0.0)
        self.finite += is_finite
        self.lost += ~is_finite
        self.in_a_row = torch.where(is_finite, 0, self.in_a_row + 1)

    def over(self, ranks: Ranks) -> "LossSums":
        """Return the same on the host: means over ranks of sums and counts, and the largest number of steps in a row.

        Every rank gets the same numbers, so that another call changes nothing.
        """
        sums, finite, lost = (ranks.sum(field.double()) / ranks.count for field in (self.sums, self.finite, self.lost))
        return LossSums(self.names, sums, finite, lost, ranks.maximum(self.in_a_row))

    def means(self) -> dict[str, float]:
        """Return the mean of each loss's finite values; NaN where there was none."""
        return dict(zip(self.names, (self.sums / self.finite).tolist(), strict=True))

    def restart(self) -> None:
        """Forget the sums, for the next report."""
        for field in (self.sums, self.finite, self.lost):
            field.zero_()

    def state_dict(self) -> LossState:
        """Return the fields by name, on the host."""
        return {
            "names": self.names,
            "sums": self.sums.cpu(),
            "finite": self.finite.cpu(),
            "lost": self.lost.cpu(),
            "in_a_row": self.in_a_row.cpu(),
        }
