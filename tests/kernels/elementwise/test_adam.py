"""Holds the update of weights by Adam to PyTorch's, in value and in the bits that must not change."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.elementwise import adam as module
from cyclegan_fast.kernels.elementwise.adam import AdamOperands, adam_update
from tests.kernels.operands import values

SHAPES = ((64, 3, 7, 7), (16, 32, 3, 3), (64,), (3,), (1,), (40, 20, 3, 3))
"""Weights and biases: some are a whole number of 16 elements, some are not, and one has several blocks."""


def operands(dtype: torch.dtype, low: torch.dtype, gradients: int = 2) -> list[AdamOperands]:
    found = []
    for seed, shape in enumerate(SHAPES):
        weight = values(*shape, dtype=dtype, seed=seed)
        if len(shape) == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        of_weight = [torch.randn_like(weight).to(low) for _ in range(gradients)]
        moments = torch.zeros_like(weight), torch.zeros_like(weight)
        copy = torch.full_like(weight, float("nan"), dtype=low)
        found.append(AdamOperands(weight, copy, *moments, torch.zeros(()), tuple(of_weight)))
    return found


def rate(dtype: torch.dtype) -> Tensor:
    return torch.tensor(2e-4, dtype=dtype)


def farthest_from_pytorch(impl: Impl, dtype: torch.dtype, low: torch.dtype, gradients: int, steps: int) -> float:
    """Return the largest distance of a weight from that of `torch.optim.Adam` in float64."""
    torch.manual_seed(0)
    ours = operands(dtype, low, gradients)
    theirs = [nn.Parameter(one.weight.double().clone()) for one in ours]
    optimizer = torch.optim.Adam(theirs, lr=2e-4, betas=(0.5, 0.999))
    for number in range(steps):
        for one, parameter in zip(ours, theirs, strict=True):
            one.step.add_(1)
            for gradient in one.gradients:
                gradient.mul_(1 if number == 0 else -0.7)
            parameter.grad = torch.stack([gradient.double() for gradient in one.gradients]).sum(0)
        optimizer.step()
        adam_update(ours, rate(dtype), beta1=0.5, impl=impl)
    for one in ours:
        assert torch.equal(one.copy, one.weight.to(low))
    return max(
        float((one.weight.double() - theirs_.detach()).abs().max()) for one, theirs_ in zip(ours, theirs, strict=True)
    )


def test_the_reference_is_pytorchs_adam() -> None:
    assert farthest_from_pytorch("reference", torch.float64, torch.float64, 2, 5) < 1e-9


@pytest.mark.parametrize(("low", "gradients"), [(torch.bfloat16, 1), (torch.bfloat16, 2), (torch.float16, 2)])
def test_the_kernel_is_as_near_to_pytorchs_adam_as_float32_allows(low: torch.dtype, gradients: int) -> None:
    assert farthest_from_pytorch("triton", torch.float32, low, gradients, 4) < 1e-6


def updated(ours: list[AdamOperands], *, parts: int = 1) -> list[Tensor]:
    for one in ours:
        one.step.add_(1)
    for part in range(parts):
        adam_update(ours[part::parts], rate(torch.float32), beta1=0.5, impl="triton")
    return [tensor for one in ours for tensor in (one.weight, one.copy, one.first_moment, one.second_moment)]


def test_bits_do_not_depend_on_who_is_updated_by_the_same_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    expected = updated(operands(torch.float32, torch.bfloat16))
    torch.manual_seed(0)
    in_parts = updated(operands(torch.float32, torch.bfloat16), parts=2)
    torch.manual_seed(0)
    monkeypatch.setattr(module, "MOST_WEIGHTS", 2)
    in_pairs = updated(operands(torch.float32, torch.bfloat16))
    for first, second, third in zip(expected, in_parts, in_pairs, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


def test_parts_of_larger_tensors_are_updated_where_they_lie() -> None:
    (one,) = [one for one in operands(torch.float32, torch.bfloat16, 1) if one.weight.shape == (3,)]
    whole_copy, whole_gradient = torch.zeros(6, dtype=torch.bfloat16), torch.ones(6, dtype=torch.bfloat16)
    second = replace(one, copy=whole_copy[3:], gradients=(whole_gradient[3:],))
    second.step.add_(1)
    before = second.weight.clone()
    adam_update([second], rate(torch.float32), beta1=0.5, impl="triton")
    assert (before - second.weight).sub(2e-4).abs().max() < 1e-6  # the first step is as long as the rate
    assert whole_copy[:3].count_nonzero() == 0
    assert torch.equal(whole_copy[3:], second.weight.bfloat16())


def test_nothing_is_updated_where_there_is_nothing() -> None:
    adam_update([], rate(torch.float32), beta1=0.5)
    empty = torch.empty(0)
    none = AdamOperands(empty, empty.clone(), empty.clone(), empty.clone(), torch.ones(()), (empty.clone(),))
    adam_update([none], rate(torch.float32), beta1=0.5, impl="triton")


def test_launches_are_one_for_each_number_of_gradients_and_width() -> None:
    one, two = operands(torch.float32, torch.bfloat16, 1), operands(torch.float32, torch.bfloat16, 2)
    groups = [[tuple(of.weight.shape) for of in group] for group in module._groups([*one, *two])]
    wide = [SHAPES[0], SHAPES[1], SHAPES[2], SHAPES[5]]
    narrow = [(3,), (1,)]
    assert groups == [wide, narrow, wide, narrow]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"copy": torch.zeros(4, 3)}, "operands[0].copy must be [3, 4]"),
    "strides": ({"copy": torch.zeros(4, 3).t()}, "operands[0].copy must have the weight's strides (4, 1), got (1, 3)"),
    "no gradient": ({"gradients": ()}, "operands[0] must have 1 to 2 gradients, got 0"),
    "three": ({"gradients": (torch.zeros(3, 4),) * 3}, "operands[0] must have 1 to 2 gradients, got 3"),
    "step": ({"step": torch.zeros(1)}, "operands[0].step must be"),
    "moment": ({"first_moment": torch.zeros(3, 4).double()}, "operands[0].first_moment must be torch.float32"),
    "gradients": (
        {"gradients": (torch.zeros(3, 4), torch.zeros(3, 4).half())},
        "operands[0].gradients[1] must be torch.float32",
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_tensors_that_do_not_fit_are_refused(case: tuple[dict[str, Any], str]) -> None:
    right = AdamOperands(*(torch.zeros(3, 4) for _ in range(4)), torch.zeros(()), (torch.zeros(3, 4),))
    with pytest.raises((ValueError, TypeError)) as refused:
        adam_update([replace(right, **case[0])], rate(torch.float32), beta1=0.5)
    assert case[1] in str(refused.value)


def test_rates_that_no_average_has_are_refused() -> None:
    with pytest.raises(ValueError, match="beta1 must be from 0 to below 1"):
        adam_update([], rate(torch.float32), beta1=1.0)
