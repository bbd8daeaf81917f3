"""Operators keep these properties for every shape, layout, dtype, range of values and plan that hypothesis tries."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from cyclegan_fast.kernels import Activation, Impl, conv2d_reflect, instance_norm, plans as launch, reflection_pad
from cyclegan_fast.kernels.plans import ConvPlan, NormPlan, Shape
from cyclegan_fast.kernels.reflection_pad import pad_backward
from tests.kernels.accuracy import assert_as_accurate_as_pytorch
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import ACTIVATIONS, DTYPES, LAYOUTS, on_chip, partials_of, two_phase, values

pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")


def examples(count: int) -> settings:
    """Return settings with the same examples in every run, and as long as the interpreter takes for each."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def power_of_two(at_least: int) -> int:
    return 1 << (at_least - 1).bit_length()


@st.composite
def shapes(draw: st.DrawFn, least_side: int = 1, least_pixels: int = 4) -> Shape:
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 9))
    height = draw(st.integers(least_side, 9))
    width = draw(st.integers(max(least_side, -(-least_pixels // height)), 9))
    return batch, channels, height, width


@st.composite
def plans(draw: st.DrawFn, shape: Shape) -> NormPlan:
    """Splits of a part of a tile up to two, others in phase 2, one or two blocks of channels, one or two launches."""
    batch, channels, height, width = shape
    block_channels = max(1, power_of_two(channels) // draw(st.sampled_from([1, 2])))
    images = draw(st.integers(1, batch))
    if draw(st.booleans()):
        return on_chip(power_of_two(height * width), block_channels, images)
    block_pixels = power_of_two(-(-height * width // draw(st.integers(1, 8))))
    shares = st.integers(max(1, height * width // 4), 2 * block_pixels)
    in_phase_1, in_phase_2 = (draw(shares) / block_pixels for _ in range(2))
    return two_phase(block_pixels, block_channels, in_phase_1, images, in_phase_2)


layouts = st.sampled_from(list(LAYOUTS))
dtypes = st.sampled_from(DTYPES)
# Standard deviations, and means in units of them: as far from zero as leaves a dtype some digits for the deviations.
scales = st.sampled_from([1e-3, 0.1, 1.0, 30.0, 1e3])
FAR = {torch.float32: 1000.0, torch.float16: 30.0, torch.bfloat16: 10.0}


@dataclass(frozen=True)
class Case:
    shape: Shape
    dtype: torch.dtype
    activation: Activation
    residual: str | None
    pad: int
    x: str
    dy: str
    scale: float
    offset: float
    eps: float
    slope: float
    plan: NormPlan
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(shapes())
    dtype = draw(dtypes)
    # An expanded x has planes in which nothing varies, whose exact result is 0.
    x = draw(st.sampled_from([name for name in LAYOUTS if name != "expanded over rows"]))
    return Case(
        shape=shape,
        dtype=dtype,
        activation=draw(st.sampled_from(ACTIVATIONS)),
        residual=draw(st.none() | layouts),
        pad=draw(st.integers(0, min(3, min(shape[2:]) - 1))),
        x=x,
        dy=draw(layouts),
        scale=draw(scales),
        offset=draw(st.floats(-1, 1)) * FAR[dtype],
        eps=draw(st.sampled_from([1e-5, 1e-2])),
        slope=draw(st.sampled_from([0.0, 0.2, 0.5])),
        plan=draw(plans(shape)),
        seed=draw(st.integers(0, 99)),
    )


@pytest.mark.slow
@examples(20)
@given(case=cases())
def test_the_norm_is_as_accurate_as_pytorch(case: Case) -> None:
    batch, channels, height, width = case.shape

    def operator(impl: Impl, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return instance_norm(
            x,
            activation=case.activation,
            negative_slope=case.slope,
            residual=residual,
            pad=case.pad,
            eps=case.eps,
            impl=impl,
        )

    offset = case.scale * case.offset
    inputs = [LAYOUTS[case.x](values(*case.shape, dtype=case.dtype, seed=case.seed, scale=case.scale, offset=offset))]
    if case.residual is not None:
        inputs.append(LAYOUTS[case.residual](values(*case.shape, dtype=case.dtype, seed=case.seed + 1)))
    dy = values(batch, channels, height + 2 * case.pad, width + 2 * case.pad, dtype=case.dtype, seed=case.seed + 2)
    with launch.forcing(case.plan):
        assert_as_accurate_as_pytorch(operator, *inputs, dy=LAYOUTS[case.dy](dy))


@pytest.mark.slow
@examples(30)
@given(data=st.data(), shape=shapes(), dtype=dtypes, scale=scales, seed=st.integers(0, 99))
def test_a_normalised_plane_has_mean_0_and_variance_1_but_for_eps(
    data: st.DataObject, shape: Shape, dtype: torch.dtype, scale: float, seed: int
) -> None:
    x = values(*shape, dtype=dtype, scale=scale, offset=3 * scale, seed=seed)
    with launch.forcing(data.draw(plans(shape))):
        y = instance_norm(x, eps=1e-5, impl="triton").double()
    variance = x.double().var((2, 3), correction=0)
    rounding = torch.finfo(dtype).eps / 2
    # Each element is off by half a step of its own size at most, whose mean over a plane is 1 at most.
    assert (y.mean((2, 3)).abs() <= rounding + 1e-6).all()
    assert ((y.square().mean((2, 3)) - variance / (variance + 1e-5)).abs() <= 2 * rounding + 1e-6).all()


@pytest.mark.slow
@examples(30)
@given(data=st.data(), shape=shapes(), shift=st.integers(-1000, 1000), seed=st.integers(0, 99))
def test_a_shift_of_all_pixels_changes_nothing_but_rounding(
    data: st.DataObject, shape: Shape, shift: int, seed: int
) -> None:
    """Multiples of 1/8 and an integer: their sum is exact in float32, however much larger the shift is."""
    x = (values(*shape, seed=seed) * 8).round() / 8
    dy = values(*shape, seed=seed + 1)
    with launch.forcing(data.draw(plans(shape))):
        results = []
        for moved in (x, x + shift):
            leaf = moved.requires_grad_()
            y = instance_norm(leaf, activation="leaky_relu", eps=1e-2, impl="triton")
            results.append((y.detach(), *torch.autograd.grad(y, leaf, dy)))
    for at_zero, away in zip(*results, strict=True):
        # A few roundings of float32 at the size of a plane's largest element: nothing grows with the shift.
        size = at_zero.abs().amax((2, 3), keepdim=True).clamp(min=1)
        assert ((at_zero - away).abs() <= 8 * torch.finfo(torch.float32).eps * size).all()


def bits_of(x: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.signedinteger]]:
    return x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16).cpu().numpy()


@examples(30)
@given(data=st.data(), shape=shapes(), dtype=dtypes, layout=layouts, seed=st.integers(0, 99))
def test_reflection_pad_is_numpys_bit_for_bit(
    data: st.DataObject, shape: Shape, dtype: torch.dtype, layout: str, seed: int
) -> None:
    pad = data.draw(st.integers(0, min(4, min(shape[2:]) - 1)))
    x = values(*shape, dtype=dtype, seed=seed)
    special = torch.tensor([-0.0, float("inf"), float("-inf"), float("nan")], dtype=dtype)
    x.view(-1)[: special.numel()] = special
    x = LAYOUTS[layout](x)
    padded = np.pad(bits_of(x), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    np.testing.assert_array_equal(bits_of(reflection_pad(x, pad, impl="triton")), padded)


@examples(30)
@given(data=st.data(), shape=shapes(), dtype=dtypes, layout=layouts, seed=st.integers(0, 99))
def test_the_backward_of_reflection_pad_is_its_adjoint(
    data: st.DataObject, shape: Shape, dtype: torch.dtype, layout: str, seed: int
) -> None:
    """<pad(x), dy> = <x, pad_backward(dy)>, exactly: small integers stay integers in every dtype."""
    pad = data.draw(st.integers(0, min(4, min(shape[2:]) - 1)))
    x = (values(*shape, seed=seed) * 4).round().to(dtype)
    padded = reflection_pad(x, pad, impl="triton")
    dy = LAYOUTS[layout]((values(*padded.shape, seed=seed + 1) * 4).round().to(dtype))
    assert (padded.double() * dy.double()).sum() == (x.double() * pad_backward(dy, pad).double()).sum()


@pytest.mark.slow
@examples(25)
@given(data=st.data(), shape=shapes(), offset=st.sampled_from([0.0, 5.0]), seed=st.integers(0, 99))
def test_partials_of_any_tiles_give_what_the_norm_finds_by_itself(
    data: st.DataObject, shape: Shape, offset: float, seed: int
) -> None:
    x = values(*shape, offset=offset, seed=seed)
    pad = data.draw(st.integers(0, min(2, min(shape[2:]) - 1)))
    partials = partials_of(x, data.draw(st.integers(1, shape[2] * shape[3])))
    with launch.forcing(data.draw(plans(shape))):
        alone = instance_norm(x, activation="relu", pad=pad, impl="triton")
    given_them = instance_norm(x, activation="relu", pad=pad, partials=partials, impl="triton")
    torch.testing.assert_close(given_them, alone, rtol=2e-6, atol=2e-6)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Tensor, Tensor, ConvPlan]:
    shape = draw(shapes(least_side=2))
    dtype, seed = draw(dtypes), draw(st.integers(0, 99))
    weight = values(draw(st.integers(1, 9)), shape[1], 3, 3, dtype=dtype, seed=seed + 1, scale=0.3)
    x = values(*shape, dtype=dtype, seed=seed, offset=draw(st.sampled_from([0.0, 2.0])))
    return (
        LAYOUTS[draw(layouts)](x),
        LAYOUTS[draw(layouts)](weight),
        ConvPlan(draw(st.sampled_from([16, 64])), 16, 16, 4, 2),
    )


@pytest.mark.slow
@examples(15)
@given(operands=convolutions())
def test_conv2d_reflect_is_as_accurate_as_pytorch(operands: tuple[Tensor, Tensor, ConvPlan]) -> None:
    x, weight, plan = operands
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "conv_plan", lambda *_: plan)
        assert_as_accurate_as_pytorch(lambda impl, x, weight: conv2d_reflect(x, weight, impl=impl)[0], x, weight)


@examples(15)
@given(operands=convolutions())
def test_partials_of_conv2d_reflect_combine_to_the_statistics_of_y(operands: tuple[Tensor, Tensor, ConvPlan]) -> None:
    """Combines the statistics of y as it is stored, rounded: that is what the norm behind it reads."""
    x, weight, plan = operands
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "conv_plan", lambda *_: plan)
        y, partials = conv2d_reflect(x, weight, impl="triton")
    pixels = y.size(2) * y.size(3)
    assert partials.shape == (y.size(0), -(-pixels // plan.block_pixels), 3, y.size(1))
    assert partials.dtype == torch.float32
    count, mean, m2 = partials.double().unbind(2)
    tiles = [tile.size(2) for tile in torch.split(y.flatten(2), plan.block_pixels, dim=2)]
    assert torch.equal(count, torch.tensor(tiles, dtype=torch.float64, device=DEVICE)[None, :, None].expand_as(count))
    combined = (count * mean).sum(1) / pixels
    combined_m2 = m2.sum(1) + (count * (mean - combined[:, None]).square()).sum(1)
    exact = y.double().flatten(2)
    size = exact.abs().amax(2)
    # Tiles are added up and divided in float32, by other roundings on each GPU.
    assert ((combined - exact.mean(2)).abs() <= 8 * torch.finfo(torch.float32).eps * size).all()
    assert ((combined_m2 - exact.var(2, correction=0) * pixels).abs() <= 1e-6 * pixels * size.square()).all()
