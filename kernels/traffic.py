"""`python -m kernels.traffic`: count launches and bytes at every norm of a network.

Three are counted: the floor (each operand of the fused operator read once, each result written once), the fused
kernels, and plain PyTorch. The kernels run in Triton's interpreter, where every load and store is counted with its
mask; caches do not exist there, so that what a GPU finds in its caches counts as well. A GPU moves whole sectors of 32
bytes: the column beside counts those that each load or store of a tile touches, twice the bytes where a program reads
16 of every 32. Plain PyTorch runs on tensors without storage; every operator that is not a view counts as one launch
that reads its operands and writes its results once, which flatters it: its batch norm, for one, reads twice.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .checking.sites import NormSite, Operands, discriminator_sites, generator_sites, run_backward, run_forward
from .gpus import GPUS, SECTOR_BYTES, planning_for
from .launching import Grid, launch_kernel, launching_with, run_in_interpreter


@dataclass
class Traffic:
    """Counts launches and the bytes that move between memory and the processor."""

    launches: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    sectors: int = 0
    """sectors of 32 bytes, counted for kernels only; one that two loads touch counts twice"""

    @property
    def total_bytes(self) -> int:
        return self.read_bytes + self.written_bytes


@contextmanager
def counting_kernels() -> Iterator[Traffic]:
    """Count launches, and in Triton's interpreter every element that a load or a store touches."""
    from triton.runtime import interpreter

    traffic = Traffic()
    builder = interpreter.interpreter_builder
    load, store = builder.create_masked_load, builder.create_masked_store

    def touched(pointers: Any, mask: Any) -> int:
        addresses = torch.from_numpy(pointers.data.view("int64")[mask.data.astype(bool)])
        traffic.sectors += len((addresses // SECTOR_BYTES).unique())
        return len(addresses) * int(pointers.get_element_ty().primitive_bitwidth) // 8

    def counted_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        traffic.read_bytes += touched(pointers, mask)
        return load(pointers, mask, *rest)

    def counted_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        traffic.written_bytes += touched(pointers, mask)
        return store(pointers, value, mask, *rest)

    def counted_launch(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        traffic.launches += 1
        launch_kernel(kernel, grid, arguments, options)

    builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
    try:
        with launching_with(counted_launch):
            yield traffic
    finally:
        del builder.create_masked_load, builder.create_masked_store


class CountingOperators(TorchDispatchMode):
    """Counts PyTorch's operators, each as one launch that moves its operands and results once."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*arguments, **(options or {}))
        if moves_data(operator):
            self.traffic.launches += 1
            self.traffic.read_bytes += moved_bytes((arguments, options))
            self.traffic.written_bytes += moved_bytes(result)
        return result


def moves_data(operator: Any) -> bool:
    """Return whether an operator of PyTorch does more than to allocate a tensor, or to describe one anew."""
    return not (operator.is_view or "empty" in operator.__name__ or operator is torch.ops.aten.detach.default)


def moved_bytes(tensors: Any) -> int:
    """Return the bytes of all tensors in a structure, each read or written once."""
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor))


@dataclass(frozen=True)
class SiteTraffic:
    """Holds the traffic of one site in one pass: the floor, the fused kernels, and plain PyTorch."""

    site: NormSite
    floor: Traffic
    fused: Traffic
    eager: Traffic

    @property
    def ratio(self) -> float:
        """Return the bytes of the fused kernels over those of the floor."""
        return self.fused.total_bytes / self.floor.total_bytes


def forward_traffic(site: NormSite, batch: int, dtype: torch.dtype) -> SiteTraffic:
    """Count the site's forward pass."""
    operands = site.operands(batch, dtype, "cpu")
    with counting_kernels() as fused:
        y, _ = run_forward(site, operands)
    floor = Traffic(1, moved_bytes([operands.x, operands.residual]), moved_bytes(y))
    plain = site.operands(batch, dtype, "meta")
    plain.x.requires_grad_()
    with CountingOperators() as eager:
        plain_forward(site, plain)
    return SiteTraffic(site, floor, fused, eager.traffic)


def backward_traffic(site: NormSite, batch: int, dtype: torch.dtype) -> SiteTraffic:
    """Count the site's backward pass; a middle activation that it remakes is one of its results."""
    operands = site.operands(batch, dtype, "cpu")
    _, statistics = run_forward(site, operands)
    with counting_kernels() as fused:
        gradients = run_backward(site, operands, statistics)
    # Without a pad dY itself is the residual's gradient: a copy of it is not in the floor.
    d_residual = gradients.d_residual if site.pad else None
    floor = Traffic(
        1,
        moved_bytes([operands.x, operands.dy, operands.skip]),
        moved_bytes([gradients.dx, d_residual, gradients.remade]),
    )
    plain = site.operands(batch, dtype, "meta")
    inputs = [tensor.requires_grad_() for tensor in (plain.x, plain.residual) if tensor is not None]
    y, padded = plain_forward(site, plain)
    outputs, gradients_of = [padded], [plain.dy]
    if plain.skip is not None:
        outputs, gradients_of = [padded, y], [plain.dy, plain.skip]
    with CountingOperators() as eager:
        torch.autograd.grad(outputs, inputs, gradients_of)
    return SiteTraffic(site, floor, fused, eager.traffic)


def plain_forward(
    site: NormSite, operands: Operands, norm: Callable[[Tensor], Tensor] = F.instance_norm
) -> tuple[Tensor, Tensor]:
    """Run the site by PyTorch's operators as the original implementation writes it; return y, and y padded.

    Another `norm` than PyTorch's may take its place.
    """
    y = norm(operands.x)
    if site.activation == "relu":
        y = F.relu(y)
    elif site.activation == "leaky_relu":
        y = F.leaky_relu(y, 0.2)
    if operands.residual is not None:
        y = y + operands.residual
    return y, F.pad(y, (site.pad,) * 4, mode="reflect") if site.pad else y


def total(rows: list[SiteTraffic]) -> SiteTraffic:
    """Add up all sites, each as often as it stands in the network."""

    def added(of: Callable[[SiteTraffic], Traffic]) -> Traffic:
        return Traffic(
            sum(row.site.times * of(row).launches for row in rows),
            sum(row.site.times * of(row).read_bytes for row in rows),
            sum(row.site.times * of(row).written_bytes for row in rows),
            sum(row.site.times * of(row).sectors for row in rows),
        )

    everything = NormSite("all", 0, 0, "none", times=sum(row.site.times for row in rows))
    return SiteTraffic(
        everything, added(lambda row: row.floor), added(lambda row: row.fused), added(lambda row: row.eager)
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _table(title: str, rows: list[SiteTraffic]) -> str:
    """Return a Markdown table, a row for each site.

    Bytes and launches are those of one site; "times" says how often it stands in the network.
    """
    lines = [
        f"| {title} | times | launches fused | launches eager | MB floor | MB fused | in sectors | MB eager "
        "| fused / floor |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in [*rows, total(rows)]:
        site = row.site
        shape = f", {site.channels} x {site.side} x {site.side}" if site.side else ""
        cells = [
            f"{site.name}{shape}",
            site.times,
            row.fused.launches,
            row.eager.launches,
            _megabytes(row.floor.total_bytes),
            _megabytes(row.fused.total_bytes),
            _megabytes(row.fused.sectors * SECTOR_BYTES),
            _megabytes(row.eager.total_bytes),
            f"{row.ratio:.3f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.traffic", description="Count launches and bytes at every norm of a network."
    )
    parser.add_argument("--network", choices=["generator", "discriminator"], default="generator")
    parser.add_argument("--side", type=int, default=256, help="image side, a multiple of 8")
    parser.add_argument("--width", type=int, default=64, help="channels after the first convolution")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="bfloat16")
    parser.add_argument("--sm", type=int, default=90, choices=sorted(GPUS), help="architecture whose plans are counted")
    options = parser.parse_args(arguments)
    return run_in_interpreter(f"{__package__}.traffic", arguments, lambda: _print_tables(options))


def _print_tables(options: argparse.Namespace) -> None:
    sites = {"generator": generator_sites, "discriminator": discriminator_sites}[options.network]
    dtype = getattr(torch, options.dtype)
    gpu = GPUS[options.sm]
    print(f"{options.network} at {options.side} x {options.side}, batch {options.batch}, {options.dtype}, {gpu.name}")
    with planning_for(gpu):
        for title, count in (("forward", forward_traffic), ("backward", backward_traffic)):
            rows = []
            for site in sites(width=options.width, side=options.side):
                if sys.stderr.isatty():
                    print(f"\r{title}: {site.name:<30}", end="", file=sys.stderr)
                rows.append(count(site, options.batch, dtype))
            if sys.stderr.isatty():
                print("\r" + " " * 50 + "\r", end="", file=sys.stderr)
            print(f"\n{_table(title, rows)}")


if __name__ == "__main__":
    sys.exit(main())
