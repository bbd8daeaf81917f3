"""PyTorch's operators launch what ATen's sources say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.modelling.library_operators import LibraryLaunch, launches_of

aten = torch.ops.aten


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def over_lists(operator: object, *lists: Sequence[Tensor]) -> list[LibraryLaunch]:
    return launches_of(operator, lists, {}, None)


def test_views_and_allocations_launch_nothing() -> None:
    x = empty(4, 4)
    for operator in (aten.t.default, aten.detach.default, aten.empty_like.default):
        assert launches_of(operator, (x,), {}, x) == []


def test_a_sum_over_many_elements_clears_counters_first() -> None:
    def names(size: int) -> list[str]:
        return [launch.name for launch in launches_of(aten.mean.default, (empty(size),), {}, empty())]

    assert names(131071) == ["mean"]
    assert names(131072) == ["memset", "mean"]


def test_copies_of_lists_are_one_launch_of_two_precisions_and_sums_are_not() -> None:
    wide, low = [empty(8, 8), empty(3)], [empty(8, 8, dtype=torch.bfloat16), empty(3, dtype=torch.bfloat16)]
    (copy,) = over_lists(aten._foreach_copy_.default, wide, low)
    assert [id(t) for t in copy.reads] == [id(t) for t in low]
    assert [id(t) for t in copy.writes] == [id(t) for t in wide]
    assert len(over_lists(aten._foreach_add_.List, wide, low)) == 2
    assert len(over_lists(aten._foreach_add_.List, wide, wide)) == 1
    assert len(over_lists(aten._foreach_copy_.default, [empty(4, 8).t()], [empty(8, 4)])) == 1
    transposed = over_lists(aten._foreach_copy_.default, [empty(4, 8).t(), empty(2)], [empty(8, 4), empty(2)])
    assert len(transposed) == 2


def test_a_launch_over_lists_ends_after_so_many_tensors_or_blocks() -> None:
    """Expects 64 tensors of two lists in a launch at the most, and 320 blocks of 65,536 elements."""
    many = [empty(2) for _ in range(65)]
    assert [len(launch.writes) for launch in over_lists(aten._foreach_copy_.default, many, many)] == [64, 1]
    large = [empty(200 * 65536), empty(200 * 65536)]
    assert [len(launch.writes) for launch in over_lists(aten._foreach_copy_.default, large, large)] == [2, 1]
    full = [empty(320 * 65536), empty(1)]
    assert [len(launch.writes) for launch in over_lists(aten._foreach_copy_.default, full, full)] == [1, 1]


def test_adam_reads_four_lists_and_writes_three() -> None:
    parameters, gradients, first, second = ([empty(8), empty(5)] for _ in range(4))
    arguments = (parameters, gradients, first, second, [], [empty(), empty()])
    (launch,) = launches_of(aten._fused_adam_.tensor_lr, arguments, {}, None)
    assert launch.kind == "update"
    assert len(launch.reads) == 8
    assert {id(t) for t in launch.writes} == {id(t) for t in (*parameters, *first, *second)}


def test_fused_sgd_without_momentum_reads_two_lists_and_writes_one() -> None:
    averages, newest = ([empty(8), empty(5)] for _ in range(2))
    (launch,) = launches_of(aten._fused_sgd_.tensor_lr, (averages, newest, []), {"lr": empty()}, None)
    assert [id(t) for t in launch.reads] == [id(t) for t in (*averages, *newest)]
    assert [id(t) for t in launch.writes] == [id(t) for t in averages]


def test_a_slice_s_gradient_is_zeros_and_a_copy() -> None:
    gradient, result = empty(2, 4), empty(8, 4)
    zeros, copy = launches_of(aten.slice_backward.default, (gradient, [8, 4], 0, 2, 4, 1), {}, result)
    assert zeros.writes[0] is result
    assert (copy.writes[0].shape, copy.writes[0].storage_offset()) == ((2, 4), 8)
