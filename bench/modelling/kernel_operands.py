"""Says which operands the kernels of this project read and write.

A kernel gets a pointer for every operand; where a flag leaves one out, the pointer is a placeholder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench.modelling.nodes import NodeKind


@dataclass(frozen=True)
class KernelOperands:
    """Names a kernel's operands: what it always reads and writes, and what under a flag."""

    kind: NodeKind
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    reads_if: tuple[tuple[str, str], ...] = ()
    """pairs of a flag and an operand"""
    writes_if: tuple[tuple[str, str], ...] = ()
    as_many_images: tuple[str, ...] = ()
    """operands of which as many images are read and written as x has, or all"""


KERNELS = {
    "instance_norm_statistics": KernelOperands("norm", ("x",), ("partial",)),
    "instance_norm_apply": KernelOperands(
        "norm", ("x", "partial"), ("y", "statistics"), reads_if=(("HAS_RESIDUAL", "residual"),)
    ),
    "instance_norm_on_chip": KernelOperands(
        "norm",
        ("x",),
        ("y", "statistics"),
        reads_if=(("HAS_RESIDUAL", "residual"),),
        writes_if=(("COOPERATIVE", "partial"),),
    ),
    "instance_norm_backward_sums": KernelOperands(
        "norm",
        ("x", "statistics", "dy"),
        ("partial",),
        reads_if=(("HAS_SKIP", "skip"),),
        writes_if=(("STORE_H", "d_residual"),),
    ),
    "instance_norm_backward_apply": KernelOperands(
        "norm",
        ("x", "statistics", "dy", "partial"),
        ("dx",),
        reads_if=(("HAS_SKIP", "skip"),),
        writes_if=(("REMAKE", "remade"),),
    ),
    "instance_norm_backward_on_chip": KernelOperands(
        "norm",
        ("x", "statistics", "dy"),
        ("dx",),
        reads_if=(("HAS_SKIP", "skip"),),
        writes_if=(("STORE_H", "d_residual"), ("REMAKE", "remade"), ("COOPERATIVE", "partial")),
    ),
    "conv2d_3x3_edge_gradients": KernelOperands("convolution", ("weight",), ()),  # and next to the edges dy and dx
    "mean_error_sums": KernelOperands("sum", ("x",), ("sums",), reads_if=(("READS_Y", "y"),)),
    "mean_error_backward": KernelOperands(
        "elementwise",
        ("upstream",),
        (),
        reads_if=(("READS_X", "x"), ("READS_Y", "y")),
        writes_if=(("WANTS_DX", "dx"), ("WANTS_DY", "dy")),
    ),
    "bias_activation_forward": KernelOperands("elementwise", ("x", "bias"), ("y",)),
    "bias_activation_backward": KernelOperands(
        "elementwise", ("x", "dy"), ("dx",), writes_if=(("WANTS_BIAS", "partial"),)
    ),
    "signed_windows_cut": KernelOperands("elementwise", ("x", "crops"), ("y",)),
    "image_exchange_both_ways": KernelOperands(
        "copy", ("x", "stack", "decisions"), ("y", "stack"), as_many_images=("stack",)
    ),
    "adam_moments_and_weights": KernelOperands(
        "update",
        ("x", "weight", "first_moment", "second_moment", "step", "gradient"),
        ("weight", "copy", "first_moment", "second_moment"),
    ),
    "column_sums": KernelOperands("sum", ("x",), ("sums",)),
    "reflection_pad_forward": KernelOperands("pad", ("x",), ("y",)),
    "reflection_pad_backward": KernelOperands("pad", ("x",), ("dx",)),
    "thin_convolution": KernelOperands("convolution", ("weight", "x"), ("y",), reads_if=(("HAS_BIAS", "bias"),)),
    "thin_weight_gradient": KernelOperands("convolution", ("x", "thin"), ("partial",)),
    "thin_weight_gradient_sum": KernelOperands("convolution", ("x",), ("weight",)),
}


def operands_of(kernel: Any, arguments: dict[str, Any]) -> tuple[NodeKind, list[Tensor], list[Tensor]]:
    """Return a launch's kind, and the tensors that it reads and writes.

    Raises ValueError for a kernel that `KERNELS` does not describe.
    """
    name = kernel.fn.__name__
    if name not in KERNELS:
        raise ValueError(f"the model does not know what {name} reads and writes: describe it in {__name__}")
    known = KERNELS[name]

    def touched(name: str) -> Sequence[Tensor]:
        if several := arguments.get(f"{name}_ptrs"):
            return several  # type: ignore[no-any-return]  # a kernel's arguments are of all kinds
        tensor: Tensor = arguments[f"{name}_ptr"]
        return [tensor[: len(arguments["x_ptr"])] if name in known.as_many_images else tensor]

    def tensors(always: tuple[str, ...], under_flags: tuple[tuple[str, str], ...]) -> list[Tensor]:
        names = [*always, *(name for flag, name in under_flags if arguments[flag])]
        return [tensor for name in names for tensor in touched(name)]

    reads, writes = tensors(known.reads, known.reads_if), tensors(known.writes, known.writes_if)
    if name == "conv2d_3x3_edge_gradients":
        dx, dy = arguments["x_ptr"], arguments["dy_ptr"]
        height, width = dx.shape[2:]
        edges = [dx[:, :, 1 :: height - 3], dx[:, :, :, 1 :: width - 3]]
        return known.kind, [*reads, dy[:, :, :: height - 1], dy[:, :, :, :: width - 1], *edges], edges
    return known.kind, reads, writes


def operations_of(kernel: Any, arguments: dict[str, Any]) -> int:
    """Return the operations that a launch's result is defined by, 2 for a multiply-add; 0 where no channels are summed.

    As in `ConvolutionCall`, each pixel of the side that has fewer of them meets each weight once.
    """
    if kernel.fn.__name__ not in ("thin_convolution", "thin_weight_gradient"):
        return 0
    of = {name: int(value) for name, value in arguments.items() if isinstance(value, int)}
    other = ("x_height", "x_width") if "x_height" in of else ("thin_height", "thin_width")
    pixels = min(of["height"] * of["width"], of[other[0]] * of[other[1]])
    weights = of["groups"] * of["channels"] * of["THIN"] * of["KERNEL"] ** 2
    return 2 * len(arguments["x_ptr"]) * pixels * weights
