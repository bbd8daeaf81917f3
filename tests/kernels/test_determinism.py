"""Operators give the same bits every time; how the work was divided changes results by one rounding at most."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cyclegan_fast.kernels import (
    Activation,
    conv2d_reflect,
    instance_norm,
    plans as launch,
    reflection_pad,
    residual_block,
)
from cyclegan_fast.kernels.layout import needs_wide_offsets
from cyclegan_fast.kernels.norm.backward import NormGradients, norm_backward
from cyclegan_fast.kernels.norm.forward import norm_forward
from cyclegan_fast.kernels.plans import ConvPlan, NormPlan, Shape
from tests.kernels.operands import ACTIVATIONS, DTYPES, on_chip, two_phase, values

pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
each_variant = pytest.mark.parametrize("plan", [two_phase(16, 8), on_chip(64, 8)], ids=["two phases", "on chip"])


# --- the same bits ---------------------------------------------------------------------------------------------------


def normalised_convolution(x: Tensor, weight: Tensor) -> Tensor:
    y, partials = conv2d_reflect(x, weight, impl="triton")
    return instance_norm(y, activation="relu", pad=1, partials=partials, impl="triton")


def two_blocks(x: Tensor, *weights: Tensor) -> Tensor:
    y = residual_block(x, *weights[:2], impl="triton")
    return residual_block(y, *weights[2:], pad_out=0, impl="triton")


OPERATORS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "instance_norm": (
        lambda x, residual: instance_norm(x, activation="relu", residual=residual, pad=1, impl="triton"),
        [(2, 5, 5, 4), (2, 5, 5, 4)],
    ),
    "reflection_pad": (lambda x: reflection_pad(x, 2, impl="triton"), [(2, 5, 5, 4)]),
    "conv2d_reflect and its norm": (normalised_convolution, [(2, 5, 5, 4), (4, 5, 3, 3)]),
    "residual_block": (two_blocks, [(1, 5, 7, 6), *[(5, 5, 3, 3)] * 4]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@each_variant
@pytest.mark.parametrize(("operator", "shapes"), OPERATORS.values(), ids=OPERATORS)
def test_results_and_gradients_have_the_same_bits_twice(
    operator: Callable[..., Tensor], shapes: list[tuple[int, ...]], plan: NormPlan, dtype: torch.dtype
) -> None:
    inputs = [values(*shape, dtype=dtype, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    with launch.forcing(plan):
        for first, second in zip(results_of(operator, inputs), results_of(operator, inputs), strict=True):
            assert torch.equal(first, second)


def results_of(operator: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Return the operator's result, and its gradients."""
    y = operator(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, values(*y.shape, dtype=y.dtype, seed=9))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("plan", [two_phase(32, 8), on_chip(64, 8)], ids=["two phases", "on chip"])
@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backward_makes_the_result_once_more_with_the_same_bits(
    activation: Activation, pad: int, plan: NormPlan, dtype: torch.dtype
) -> None:
    """Keeps as little of a residual block's middle activation as the block does."""
    x, dy = values(1, 5, 7, 6, dtype=dtype), values(1, 5, 7 + 2 * pad, 6 + 2 * pad, dtype=dtype, seed=1)
    flags: dict[str, Any] = {"activation": activation, "negative_slope": 0.2, "pad": pad}
    with launch.forcing(plan):
        y, statistics = norm_forward(x, residual=None, eps=1e-5, **flags)
        remade = norm_backward(dy, x, statistics, remake=True, **flags).remade
    assert remade is not None
    assert torch.equal(remade, y)


@each_variant
@pytest.mark.parametrize(("operator", "shapes"), OPERATORS.values(), ids=OPERATORS)
def test_offsets_of_64_bits_give_the_same_bits(
    operator: Callable[..., Tensor], shapes: list[tuple[int, ...]], plan: NormPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [values(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    with launch.forcing(plan):
        narrow = results_of(operator, inputs)
        for file in ("norm.forward", "norm.backward", "reflection_pad", "conv2d"):
            monkeypatch.setattr(
                importlib.import_module(f"cyclegan_fast.kernels.{file}"), "needs_wide_offsets", lambda *_: True
            )
        wide = results_of(operator, inputs)
    for a, b in zip(narrow, wide, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("shape", "wide"),
    [
        ((1, 1, 1 << 16, 1 << 15), False),
        ((1, 1, 1 << 16, (1 << 15) + 1), True),
        ((1, 64, 4096, 8192), False),
        ((1, 65, 4096, 8192), True),
        ((1 << 20, 64, 64, 64), False),
    ],
)
def test_offsets_need_64_bits_where_an_image_has_more_than_2_to_the_31_elements(shape: Shape, wide: bool) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.empty(shape, device="meta", memory_format=layout)
        assert needs_wide_offsets(torch.empty((1, 1, 2, 2), device="meta"), x) == wide


# --- a batch is its images -------------------------------------------------------------------------------------------


def norm_results(images: slice, dtype: torch.dtype) -> list[Tensor]:
    """Return everything that the norm's kernels write for some images of a batch of three."""
    x, residual, skip = (values(3, 5, 7, 6, dtype=dtype, seed=seed, offset=1)[images] for seed in range(3))
    dy = values(3, 5, 9, 8, dtype=dtype, seed=3)[images]
    y, statistics = norm_forward(x, activation="leaky_relu", negative_slope=0.2, residual=residual, pad=1, eps=1e-5)
    gradients = norm_backward(
        dy,
        x,
        statistics,
        activation="leaky_relu",
        negative_slope=0.2,
        pad=1,
        skip=skip,
        wants_residual=True,
        remake=True,
    )
    assert gradients.d_residual is not None
    assert gradients.remade is not None
    return [y, statistics, gradients.dx, gradients.d_residual, gradients.remade]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "plan",
    [two_phase(32, 8), two_phase(64, 8, images_per_launch=2), on_chip(64, 4), on_chip(64, 8, images_per_launch=2)],
    ids=["two phases", "two phases, two images a launch", "on chip", "on chip, two images a launch"],
)
def test_a_batch_is_normalised_as_its_images_are_one_by_one(plan: NormPlan, dtype: torch.dtype) -> None:
    with launch.forcing(plan):
        together = norm_results(slice(None), dtype)
        alone = [norm_results(slice(image, image + 1), dtype) for image in range(3)]
    for result, *parts in zip(together, *alone, strict=True):
        assert torch.equal(result, torch.cat(parts))


@each_dtype
def test_a_batch_is_padded_and_convolved_as_its_images_are_one_by_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "conv_plan", lambda *_: ConvPlan(32, 16, 16, 4, 2))
    x, weight = values(3, 5, 7, 6, dtype=dtype), values(4, 5, 3, 3, dtype=dtype, seed=1)
    dy = values(3, 5, 11, 10, dtype=dtype, seed=2)

    def results(images: slice) -> list[Tensor]:
        leaf = x[images].requires_grad_()
        padded = reflection_pad(leaf, 2, impl="triton")
        return [
            padded.detach(),
            *torch.autograd.grad(padded, leaf, dy[images]),
            *conv2d_reflect(leaf, weight, impl="triton"),
        ]

    together, alone = results(slice(None)), [results(slice(image, image + 1)) for image in range(3)]
    for result, *parts in zip(together, *alone, strict=True):
        assert torch.equal(result, torch.cat(parts))


# --- the division of the work ----------------------------------------------------------------------------------------


def spacing(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the distance from each |x| to the next larger number of `dtype`, in float64."""
    _, exponent = torch.frexp(x.double())
    step = torch.ldexp(torch.full_like(x, torch.finfo(dtype).eps / 2, dtype=torch.float64), exponent)
    return step.clamp(min=torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps)


def assert_one_rounding_apart(found: Tensor, other: Tensor, *, before: Tensor | float = 0.0) -> None:
    """Both are roundings to their dtype of numbers that are almost the same: the same number, or two neighbours.

    Almost: sums in another order differ by a few roundings of float32 at the size of a plane's largest element.
    `before` is how much further apart the numbers may be before they are rounded.
    """
    almost = 8 * torch.finfo(torch.float32).eps * found.double().abs().amax((2, 3), keepdim=True)
    allowed = spacing(torch.maximum(found.abs(), other.abs()), found.dtype) + almost + before
    share = ((found.double() - other.double()).abs() / allowed).max()
    assert share <= 1, f"{share:.3g} times as far apart as one rounding allows"


SHAPE = (1, 5, 7, 6)
PLANS = {
    "one split": two_phase(64, 8),
    "three splits": two_phase(16, 8),
    "three splits of two tiles": two_phase(8, 8, tiles=2),
    "six splits": two_phase(8, 8),
    "eleven splits": two_phase(4, 8),
}
each_division = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


def forward_and_backward(
    plan: NormPlan, pad: int, dtype: torch.dtype, wants_residual: bool
) -> tuple[Tensor, Tensor, NormGradients]:
    """y, the statistics and the gradients."""
    x, residual, skip = (values(*SHAPE, dtype=dtype, seed=seed, offset=2) for seed in range(3))
    dy = values(*SHAPE[:2], SHAPE[2] + 2 * pad, SHAPE[3] + 2 * pad, dtype=dtype, seed=3)
    with launch.forcing(plan):
        y, statistics = norm_forward(
            x, activation="leaky_relu", negative_slope=0.2, residual=residual, pad=pad, eps=1e-5
        )
        gradients = norm_backward(
            dy,
            x,
            statistics,
            activation="leaky_relu",
            negative_slope=0.2,
            pad=pad,
            skip=skip,
            wants_residual=wants_residual,
        )
    return y, statistics, gradients


@each_division
@pytest.mark.parametrize("wants_residual", [False, True], ids=["dx alone", "dx and d_residual"])
def test_any_number_of_splits_gives_the_same_but_for_one_rounding(plan: NormPlan, wants_residual: bool) -> None:
    """Each division meets both dtypes, in one of them with a residual."""
    dtype = (torch.float32, torch.bfloat16)[(list(PLANS.values()).index(plan) + wants_residual) % 2]
    y, _, gradients = forward_and_backward(plan, 1, dtype, wants_residual)
    other_y, _, others = forward_and_backward(two_phase(32, 8), 1, dtype, wants_residual)
    assert_one_rounding_apart(y, other_y)
    assert_one_rounding_apart(gradients.dx, others.dx)
    if wants_residual:
        assert gradients.d_residual is not None
        assert others.d_residual is not None
        assert torch.equal(gradients.d_residual, others.d_residual)


@each_dtype
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_two_phases_and_one_on_chip_give_the_same_but_for_one_rounding(pad: int, dtype: torch.dtype) -> None:
    """Each dtype and each pad come with a residual's gradient and without."""
    wants_residual = (DTYPES.index(dtype) + pad // 2) % 2 == 1
    y, statistics, gradients = forward_and_backward(two_phase(32, 8), pad, dtype, wants_residual)
    other_y, _, others = forward_and_backward(on_chip(64, 8), pad, dtype, wants_residual)
    assert_one_rounding_apart(y, other_y)
    before = torch.zeros((), dtype=torch.float64, device=y.device)
    if wants_residual:
        assert gradients.d_residual is not None
        assert others.d_residual is not None
        assert torch.equal(gradients.d_residual, others.d_residual)
        # Two phases read the residual's gradient back, rounded; it changes dx by rstd times half a step of it, and by
        # what it changes the two means, which are weighted by 1 and by xhat, at most sqrt(pixels).
        half_a_step = spacing(gradients.d_residual, dtype).amax((2, 3), keepdim=True) / 2
        before = statistics[:, 2, :, None, None].double() * half_a_step * (2 + (SHAPE[2] * SHAPE[3]) ** 0.5)
    assert_one_rounding_apart(gradients.dx, others.dx, before=before)
