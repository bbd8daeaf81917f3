"""Says which launches PyTorch makes for an operator on a GPU, from ATen's sources where it is not one launch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bench.modelling.assumptions import (
    CHUNK_ELEMENTS,
    CHUNKS_OF_A_LAUNCH,
    SUMS_IN_SEVERAL_BLOCKS,
    TENSORS_OF_A_LAUNCH,
)
from bench.modelling.nodes import NodeKind

_aten = torch.ops.aten

_NO_LAUNCH = {
    "detach",
    "set_",
    "lift_fresh",
    "_record_function_enter_new",
    "_record_function_exit",
    "_local_scalar_dense",
}
_SUMS = {"sum", "mean"}
_COPIES = {"_to_copy", "copy_", "clone", "cat", "stack", "contiguous", "zeros_like", "fill_", "zero_", "ones_like"}


@dataclass(frozen=True)
class LibraryLaunch:
    """Describes a launch by the tensors that it reads and writes."""

    name: str
    kind: NodeKind
    reads: Sequence[Tensor]
    writes: Sequence[Tensor]


def launches_of(operator: Any, arguments: Sequence[Any], options: dict[str, Any], result: Any) -> list[LibraryLaunch]:
    """Return what an operator launches, convolutions and the fused operators excepted; nothing for a view."""
    name = operator.__name__.partition(".")[0]
    if operator.is_view or name in _NO_LAUNCH or "empty" in name:
        return []
    if name.startswith(("_foreach_", "_fused_")):
        return list(_of_lists(name, arguments, options))
    reads = _tensors((arguments, options))
    written = [value for value, about in zip(arguments, operator._schema.arguments, strict=False) if _is_written(about)]
    writes = _tensors(written) if written else _tensors(result)
    if name == "slice_backward":
        return _of_slice_backward(arguments, result)
    if name in _SUMS and result.numel() < arguments[0].numel():
        return list(_of_sum(name, reads, writes))
    return [LibraryLaunch(name, "copy" if name in _COPIES else "elementwise", reads, writes)]


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _of_slice_backward(arguments: Sequence[Any], result: Tensor) -> list[LibraryLaunch]:
    """Return the two launches of a slice's gradient: zeros everywhere, and the gradient copied into its place."""
    gradient, _, dimension, start, end, step = arguments
    place = _aten.slice.Tensor(result, dimension, start, end, step)
    return [
        LibraryLaunch("zeros", "copy", [], [result]),
        LibraryLaunch("slice_backward", "copy", [gradient], [place]),
    ]


def _of_sum(name: str, reads: list[Tensor], writes: list[Tensor]) -> Iterator[LibraryLaunch]:
    outputs = writes[0].numel()
    if reads[0].numel() // outputs >= SUMS_IN_SEVERAL_BLOCKS["all" if outputs == 1 else "channels"]:
        yield LibraryLaunch("memset", "clear", [], [])
    yield LibraryLaunch(name, "sum", reads, writes)


def bias_gradient(gradient: Tensor, result: Tensor) -> list[LibraryLaunch]:
    """Return the launches by which PyTorch sums up a bias's gradient."""
    return list(_of_sum("bias gradient", [gradient], [result]))


def _of_lists(name: str, arguments: Sequence[Any], options: dict[str, Any]) -> Iterator[LibraryLaunch]:
    """Yield the launches of an operator over lists: few where PyTorch takes its fast path, else one a tensor.

    The fast path wants equal shapes and strides across the lists; all but copies want equal dtypes as well
    (ATen's ForeachUtils.h, ForeachBinaryOpList.cu).
    """
    lists = [value for value in arguments if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor)]
    written = lists[:1]
    if name == "_fused_adam_":
        lists = lists[:4] + lists[-1:]  # the steps of all parameters come last
        written = [lists[0], *lists[2:4]]
        lists = lists[:4]
    kind: NodeKind = "copy" if "copy" in name else "update" if "adam" in name else "elementwise"
    aligned = all(
        one.shape == first.shape and one.stride() == first.stride() and (one.dtype == first.dtype or kind == "copy")
        for first, *others in zip(*lists, strict=True)
        for one in others
    )
    others = _tensors([value for value in arguments if not isinstance(value, list | tuple)])
    groups = _groups([t.numel() for t in lists[0]], len(lists)) if aligned else [[i] for i in range(len(lists[0]))]
    for group in groups:
        reads = [of_list[index] for of_list in lists for index in group]
        if kind == "copy":  # the target is only written
            reads = [of_list[index] for of_list in lists[1:] for index in group]
        yield LibraryLaunch(name, kind, [*reads, *others], [of_list[index] for of_list in written for index in group])


def _groups(sizes: Sequence[int], lists: int) -> list[list[int]]:
    """Return the indices of the tensors that each launch over lists works on; a large tensor may be in several."""
    groups: list[list[int]] = [[]]
    chunks = 0
    for index, size in enumerate(sizes):
        groups[-1].append(index)
        left = math.ceil(size / CHUNK_ELEMENTS)
        while chunks + left >= CHUNKS_OF_A_LAUNCH:
            left -= CHUNKS_OF_A_LAUNCH - chunks
            chunks = 0
            groups.append([index] if left else [])
        chunks += left
        if len(groups[-1]) == TENSORS_OF_A_LAUNCH[lists] and left:
            chunks = 0
            groups.append([])
    return [group for group in groups if group]
