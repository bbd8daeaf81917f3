"""`python -m bench.acceleration`: count what `accelerate` does to networks of other projects, as a table.

Nothing is computed: tensors have no storage, and launches are those planned for an H200.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from bench.cases.others import OTHER_NETWORKS, OtherNetwork
from bench.reporting.markdown import markdown_table
from cyclegan_fast.kernels import accelerate
from cyclegan_fast.kernels.acceleration import Acceleration

DESCRIPTION = "Count what `accelerate` does to networks of other projects, as a table; nothing is computed."


def acceleration_table(networks: Iterable[OtherNetwork] = OTHER_NETWORKS, batch: int = 1) -> str:
    """Return a Markdown table of what is replaced in each network, and what is launched between its convolutions."""
    rows = []
    for network in networks:
        module = network.make(network.width).bfloat16()
        images = torch.empty(batch, 3, network.side, network.side, dtype=torch.bfloat16)
        accelerate(module, impl="triton", example=images, verbose=False)
        report = module.acceleration
        assert isinstance(report, Acceleration)
        norms = sum(isinstance(part, nn.InstanceNorm2d) for part in module.modules())
        rows.append(
            [f"{network.name}, {network.side} x {network.side}", f"{len(report.norms)} of {norms}", *_cells(report)]
        )
    columns = ["norms fused", "blocks", "biases left out", "launches forward", "MB", "launches backward", "MB"]
    return markdown_table(["network", *columns], rows)


def _cells(report: Acceleration) -> list[str]:
    cells = [str(sum(getattr(region, name) for region in report.regions)) for name in ("blocks", "biases")]
    for count in report.counts:
        cells.append(f"{count.before.launches} -> {count.after.launches}")
        cells.append(f"{count.before.total_bytes / 1e6:.0f} -> {count.after.total_bytes / 1e6:.0f}")
    return cells if report.counts else [*cells, *["as before"] * 4]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.acceleration", description=DESCRIPTION)
    parser.add_argument("--batch", type=int, default=1, help="images")
    print(acceleration_table(batch=parser.parse_args(arguments).batch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
