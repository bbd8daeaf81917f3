"""Triton's operators are as accurate as PyTorch's own, forward and in every gradient, on ordinary inputs and hard ones.

Memory that nobody wrote is NaN here, so that an element which a kernel forgets or reads outside of a tensor is seen.
"""

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast.kernels import (
    Activation,
    Impl,
    conv2d_reflect,
    instance_norm,
    plans as launch,
    reflection_pad,
    residual_block,
)
from cyclegan_fast.kernels.checking.accuracy import FLOORS, MARGIN, relative_error
from cyclegan_fast.kernels.checking.sites import (
    NormSite,
    Operands,
    discriminator_sites,
    generator_sites,
    run_backward,
    run_forward,
)
from cyclegan_fast.kernels.convolution.edge_gradients import reflected_input_gradient
from cyclegan_fast.kernels.gpus import GPUS, Gpu
from cyclegan_fast.kernels.norm.forward import norm_forward
from cyclegan_fast.kernels.plans import ConvPlan, EdgePlan, NormPlan, Shape
from tests.kernels.accuracy import assert_accurate, assert_as_accurate_as_pytorch
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import ACTIVATIONS, DTYPES, LAYOUTS, Operator, norm, on_chip, partials_of, two_phase, values

pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")


each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


# The networks' sites at a width and side at which the interpreter is quick; the smallest discriminator plane is 3x3.
SITES = [*generator_sites(width=3, blocks=2, side=16), *discriminator_sites(width=2, side=32)]
# The rules hold planes on chip whose channels are multiples of 16.
WIDE_SITES = [*generator_sites(width=16, blocks=2, side=16), *discriminator_sites(width=8, side=32)]

VARIANTS = {"two phases": two_phase(64, 8, tiles=2), "on chip": on_chip(128, 8)}
each_variant = pytest.mark.parametrize("plan", VARIANTS.values(), ids=VARIANTS)
each_layout = pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS)


def test_memory_that_nobody_wrote_is_nan() -> None:
    for dtype in DTYPES:
        assert torch.empty((2, 3, 4, 5), dtype=dtype, device=DEVICE).isnan().all()
        assert torch.empty((2, 3, 4, 5), dtype=dtype, device=DEVICE, memory_format=torch.channels_last).isnan().all()


# --- flags -----------------------------------------------------------------------------------------------------------


@each_variant
@pytest.mark.parametrize("pad", [0, 1, 2, 3])
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_combination_of_activation_residual_and_pad(
    activation: Activation, residual: bool, pad: int, plan: NormPlan
) -> None:
    """Takes the dtypes in turn, so that each meets each activation, either plan, every pad and a residual."""
    dtype = DTYPES[(ACTIVATIONS.index(activation) + pad + residual + plan.variant.startswith("on")) % 3]
    shape = (1 + pad % 2, 5, 6, 5)
    inputs = [values(*shape, dtype=dtype, seed=seed, scale=2, offset=1) for seed in range(1 + residual)]
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm(activation, pad), *inputs)


@each_dtype
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_every_norm_of_the_networks_in_two_phases(site: NormSite, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    with launch.forcing(two_phase(64, 8)):
        assert_site_accurate(site, site.operands(1, dtype, DEVICE))


@each_dtype
@pytest.mark.parametrize("site", WIDE_SITES, ids=lambda site: site.name)
def test_every_norm_of_the_networks_as_the_rules_plan_it(site: NormSite, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for direction in ("forward", "backward"):
        assert launch.norm_plan(direction, site.shape(1), site.pad, dtype, GPUS[90]).variant == "on_chip"
    assert_site_accurate(site, site.operands(1, dtype, DEVICE))


@each_variant
@each_layout
def test_a_second_gradient_of_any_layout(lay: Callable[[Tensor], Tensor], plan: NormPlan) -> None:
    torch.manual_seed(0)
    site = NormSite("", 3, 5, "leaky_relu", pad=1, residual=True, feeds_block=True)
    operands = dataclasses.replace(site.operands(2, torch.float32, DEVICE), skip=lay(values(2, 3, 5, 5)))
    with launch.forcing(plan):
        assert_site_accurate(site, operands)


def assert_site_accurate(site: NormSite, operands: Operands) -> None:
    """Also what autograd never asks for alone: a gradient in two parts, and the result made once more by backward."""
    y, statistics = run_forward(site, operands)
    found = run_backward(site, operands, statistics)
    native, exact = by_autograd(site, operands, y.dtype), by_autograd(site, operands, torch.float64)
    assert_accurate("y", y, native.y, exact.y, is_gradient=False)
    assert_accurate("dx", found.dx, native.dx, exact.dx, is_gradient=True)
    if found.d_residual is not None:
        assert native.d_residual is not None
        assert exact.d_residual is not None
        assert_accurate("d_residual", found.d_residual, native.d_residual, exact.d_residual, is_gradient=True)
    if site.remade:
        assert found.remade is not None
        assert_accurate("y made again", found.remade, native.y, exact.y, is_gradient=False)
    for tensor in (y, found.dx, found.d_residual, found.remade):
        assert tensor is None or tensor.is_contiguous(memory_format=torch.channels_last)
    mean, variance = operands.x.double().mean((2, 3)), operands.x.double().var((2, 3), correction=0)
    high, low, rstd = statistics.double().unbind(1)
    # A few roundings, for GPUs add up in another order and approximate a root.
    rounding = torch.finfo(torch.float32).eps
    size = operands.x.double().abs().amax((2, 3))
    assert ((high + low - mean).abs() <= 4 * rounding * size).all()
    torch.testing.assert_close(rstd, (variance + 1e-5).rsqrt(), rtol=8 * rounding, atol=0)


@dataclasses.dataclass(frozen=True)
class Results:
    y: Tensor
    dx: Tensor
    d_residual: Tensor | None


def by_autograd(site: NormSite, operands: Operands, dtype: torch.dtype) -> Results:
    """Return the reference's result and its gradients, computed in `dtype`."""
    dense = [t.to(dtype).contiguous() for t in (operands.x, operands.residual) if t is not None]
    leaves = [t.detach().requires_grad_() for t in dense]
    y = norm(site.activation, site.pad, slope=0.2)("reference", *leaves)
    results, gradients = [y], [operands.dy.to(dtype).contiguous()]
    if operands.skip is not None:
        p = site.pad
        results.append(y[:, :, p : y.size(2) - p, p : y.size(3) - p])
        gradients.append(operands.skip.to(dtype))
    dx, *d_residual = torch.autograd.grad(results, leaves, gradients)
    return Results(y.detach(), dx, d_residual[0] if d_residual else None)


# --- plans -----------------------------------------------------------------------------------------------------------

# N, C, H, W and how it is divided; at pad 1, 5x7 pixels become 7x9.
PLANS = {
    "one split": ((1, 5, 5, 7), two_phase(64, 8)),
    "three splits, the last one partial": ((1, 5, 5, 7), two_phase(16, 8)),
    "splits of two tiles, the last one of one": ((1, 5, 5, 7), two_phase(8, 8, tiles=2)),
    "splits of a tile and a part of one": ((1, 5, 5, 7), two_phase(8, 8, tiles=1.625, writer_tiles=2.25)),
    "splits that are smaller than a tile": ((1, 5, 5, 7), two_phase(16, 8, tiles=0.5, writer_tiles=0.3125)),
    "few programs in the first phase, many in the second": ((1, 5, 5, 7), two_phase(8, 8, tiles=5, writer_tiles=1)),
    "blocks of channels, the last one partial": ((1, 6, 5, 7), two_phase(32, 4)),
    "a block of more channels than there are": ((1, 3, 5, 7), two_phase(32, 16)),
    "a block of one channel": ((1, 2, 5, 7), two_phase(64, 1)),
    "a launch for each image": ((2, 3, 5, 7), two_phase(64, 4, images_per_launch=1)),
    "launches of two images and of one": ((3, 3, 5, 7), two_phase(64, 4, images_per_launch=2)),
    "several images in a launch": ((3, 3, 5, 7), two_phase(64, 4)),
    "on chip": ((1, 5, 5, 7), on_chip(64, 8)),
    "on chip, a tile that the plane fills": ((1, 5, 4, 8), on_chip(32, 8)),
    "on chip, blocks of channels": ((1, 6, 5, 7), on_chip(64, 4)),
    "on chip, a launch for each image": ((2, 3, 5, 7), on_chip(64, 4, images_per_launch=1)),
    "on chip, several images in a launch": ((3, 3, 5, 7), on_chip(64, 4)),
}


@pytest.mark.parametrize("name", PLANS)
def test_every_way_to_divide_the_work(name: str) -> None:
    shape, plan = PLANS[name]
    dtype = (torch.float32, torch.bfloat16)[list(PLANS).index(name) % 2]
    x, residual = values(*shape, dtype=dtype, scale=3, offset=-2), values(*shape, dtype=dtype, seed=1)
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("leaky_relu", 1), x, residual)


@pytest.mark.parametrize("shape", [(1, 2, 4, 8), (1, 2, 3, 11)], ids=["sixteen", "seventeen"])
def test_as_many_splits_as_are_combined_at_once_and_one_more(shape: Shape) -> None:
    """Sixteen for 64 channels a program, the fewest there are."""
    with launch.forcing(two_phase(2, 64)):
        assert_as_accurate_as_pytorch(norm("relu", 1), values(*shape), values(*shape, seed=1))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_rules_for_two_phases_hold_where_a_plane_does_not_fit_on_chip(direction: launch.NormPass) -> None:
    """Plans for a GPU of one multiprocessor and a small cache: few splits, and several launches for the images."""
    shape = (3, 3, 9, 8)
    plan = launch.two_phase_rule(direction, shape, 1, torch.float32, Gpu("small", 90, 1, 6000, 1e-4, 5000))
    assert plan.images_per_launch < 3
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("relu", 1), values(*shape))


def test_a_plane_that_no_tile_holds_is_planned_by_rule() -> None:
    shape = (1, 3, 65, 64)
    for direction in ("forward", "backward"):
        assert launch.norm_rule(direction, shape, 1, torch.float32, GPUS[90]).variant == "two_phase"
    assert_as_accurate_as_pytorch(norm("relu", 1), values(*shape))


# --- statistics that come with x -------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("offset", [0.5, 100.0], ids=["centred", "far from zero"])
@pytest.mark.parametrize("pixels_per_tile", [99, 16, 4, 1])
def test_a_norm_that_is_given_partials(pixels_per_tile: int, offset: float, dtype: torch.dtype) -> None:
    """Gives one tile, seven with a partial one, 25, and as many as pixels, in a loop that combines 64 at a time."""
    x, residual = values(2, 5, 9, 11, dtype=dtype, offset=offset), values(2, 5, 9, 11, dtype=dtype, seed=1)
    partials = partials_of(x, pixels_per_tile)

    def operator(impl: Impl, x: Tensor, residual: Tensor) -> Tensor:
        return instance_norm(x, activation="leaky_relu", residual=residual, pad=1, partials=partials, impl=impl)

    with launch.forcing(on_chip(128, 8)):
        assert_as_accurate_as_pytorch(operator, x, residual)


@pytest.mark.parametrize("pixels_per_tile", [99, 16, 4, 1])
def test_partials_are_combined_to_a_mean_of_twice_the_precision_of_float32(pixels_per_tile: int) -> None:
    x = values(2, 5, 9, 11, offset=1000)
    partials = partials_of(x, pixels_per_tile)
    _, statistics = norm_forward(
        x, activation="none", negative_slope=0.0, residual=None, pad=0, eps=1e-5, partials=partials
    )
    count, mean, _ = partials.double().unbind(2)
    torch.testing.assert_close(
        statistics[:, :2].double().sum(1), (count * mean).sum(1) / count.sum(1), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("plan", [two_phase(64, 4, tiles=2), two_phase(128, 8, images_per_launch=2)])
def test_a_norm_that_is_given_partials_divides_the_images(plan: NormPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "two_phase_rule", lambda *_: plan)
    x = values(3, 5, 9, 11, offset=3)
    partials = partials_of(x, 20)

    def operator(impl: Impl, x: Tensor) -> Tensor:
        return instance_norm(x, activation="relu", pad=2, partials=partials, impl=impl)

    with launch.forcing(on_chip(128, 8)):
        assert_as_accurate_as_pytorch(operator, x)


def test_partials_may_lie_in_any_order() -> None:
    x = values(2, 5, 9, 11)
    partials = partials_of(x, 20)
    expected = instance_norm(x, partials=partials, impl="triton")
    strided = partials.transpose(1, 3).contiguous().transpose(1, 3)
    assert torch.equal(instance_norm(x, partials=strided, impl="triton"), expected)


@each_dtype
def test_a_convolution_and_the_norm_that_takes_its_partials(dtype: torch.dtype) -> None:
    def operator(impl: Impl, x: Tensor, weight: Tensor) -> Tensor:
        y, partials = conv2d_reflect(x, weight, impl=impl)
        return instance_norm(y, activation="relu", pad=1, partials=partials, impl=impl)

    x = values(2, 3, 9, 8, dtype=dtype, seed=44)
    weight = values(5, 3, 3, 3, dtype=dtype, seed=1, scale=0.2)
    with launch.forcing(on_chip(128, 8)):
        assert_as_accurate_as_pytorch(operator, x, weight)


# --- hard values -----------------------------------------------------------------------------------------------------

LARGE_PLANES = {"two phases": two_phase(128, 4, tiles=2), "on chip": on_chip(1024, 4)}
each_variant_of_large_planes = pytest.mark.parametrize("plan", LARGE_PLANES.values(), ids=LARGE_PLANES)


@each_variant_of_large_planes
@each_dtype
def test_a_mean_a_thousand_times_the_deviation(dtype: torch.dtype, plan: NormPlan) -> None:
    x = values(1, 4, 25, 30, dtype=dtype, offset=1000)
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("relu", 1), x)


@each_variant_of_large_planes
def test_a_large_mean_takes_nothing_from_the_precision_of_the_deviation(plan: NormPlan) -> None:
    """PyTorch loses a thousand times the rounding error here; the mean in two parts loses nothing."""
    x = values(1, 4, 25, 30, offset=1000)
    exact = instance_norm(x.double(), impl="reference")
    with launch.forcing(plan):
        assert relative_error(instance_norm(x, impl="triton"), exact) < 1e-6


@each_variant_of_large_planes
@each_dtype
@pytest.mark.parametrize("outlier", [60.0, -1000.0])
def test_a_first_pixel_far_from_all_others(outlier: float, dtype: torch.dtype, plan: NormPlan) -> None:
    """It is what the two phases take their statistics relative to."""
    x = values(1, 4, 25, 30, dtype=dtype, offset=0.3)
    x[:, :, 0, 0] = outlier
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("none", 1), x)


# Lanes outside of the image compute (0 - mean) / sqrt(eps), which float16 cannot hold, and do not store it.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@each_variant
@each_dtype
@pytest.mark.parametrize("constant", [0.0, 3.1, -1000.0])
def test_a_constant_plane_becomes_zero_and_has_its_gradient(
    constant: float, dtype: torch.dtype, plan: NormPlan
) -> None:
    """Its exact gradient is (g - mean(g)) / sqrt(eps)."""
    x = values(1, 3, 6, 5, dtype=dtype)
    x[:, 1] = constant
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("none", 1), x)
        assert instance_norm(x, impl="triton")[:, 1].abs().max() < 1e-5
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(instance_norm(leaf, activation="relu", pad=1, impl="triton").sum(), leaf)
    assert gradient.isfinite().all()
    assert not gradient[:, 1].any()


# Triton's interpreter computes with NumPy, which warns of 1 / 0 and of what follows from it.
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value) encountered:RuntimeWarning")
@each_variant
@each_dtype
def test_without_eps_a_constant_plane_is_nan_and_every_other_accurate(dtype: torch.dtype, plan: NormPlan) -> None:
    x = values(2, 3, 6, 5, dtype=dtype)
    x[:, 1] = 3.1
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("none", 1, eps=0.0), x[:, ::2])
        leaf = x.clone().requires_grad_()
        y = instance_norm(leaf, activation="relu", pad=1, eps=0.0, impl="triton")
        (gradient,) = torch.autograd.grad(y.sum(), leaf)
    assert torch.equal(y.isnan().flatten(2).all(2), torch.tensor([[False, True, False]], device=DEVICE).expand(2, 3))
    assert y[:, ::2].isfinite().all()
    assert gradient[:, 1].isnan().all()
    assert gradient[:, ::2].isfinite().all()


# A mean, and steps away from it, that each dtype holds exactly.
GRIDS = {torch.float32: (333_333, 2**-20), torch.float16: (333, 2**-10), torch.bfloat16: (37, 2**-7)}


@each_variant
@each_dtype
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_a_pixel_that_equals_its_planes_mean_has_the_derivative_at_zero(
    activation: Activation, dtype: torch.dtype, plan: NormPlan
) -> None:
    """Rounding puts the mean, in float64 as well, to this side of it or to the other."""
    middle, step = GRIDS[dtype]
    half = values(1, 5, 17, dtype=torch.float64).mul(middle / 4).round().clamp(-middle, middle)
    steps = torch.cat([half, -half, torch.zeros_like(half[:, :, :1])], dim=2).view(1, 5, 5, 7)
    x = ((middle + steps) * step).to(dtype).requires_grad_()
    dy = values(*x.shape, dtype=dtype, seed=1)
    slope = 0.0 if activation == "relu" else 0.3
    with launch.forcing(plan):
        y = instance_norm(x, activation=activation, negative_slope=0.3, impl="triton")
        (dx,) = torch.autograd.grad(y, x, dy)
    rstd = ((steps * step).square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()
    xhat = steps * step * rstd
    g = torch.where(steps > 0, dy.double(), slope * dy.double())
    exact = rstd * (g - g.mean((2, 3), keepdim=True) - xhat * (g * xhat).mean((2, 3), keepdim=True))
    assert relative_error(dx, exact) <= MARGIN * FLOORS[dtype]


@each_variant
@each_dtype
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_small_and_large_values(scale: float, dtype: torch.dtype, plan: NormPlan) -> None:
    """Takes a deviation of 1e-3, at which eps is ten times the variance."""
    x = values(1, 5, 6, 5, dtype=dtype, scale=scale)
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("relu", 1), x)


@each_variant
@pytest.mark.parametrize("eps", [1e-12, 1e-3, 0.5])
def test_eps_is_added_to_the_variance(eps: float, plan: NormPlan) -> None:
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("none", 0, eps=eps), values(1, 5, 6, 5))


# --- shapes ----------------------------------------------------------------------------------------------------------

# N, C, H, W and a pad; 3x3 with pad 2 and 5x5 with pad 3 fold up to nine gradients into a pixel.
SHAPES = [
    ((2, 11, 1, 2), 0),
    ((2, 11, 2, 1), 0),
    ((1, 11, 2, 2), 0),
    ((1, 11, 2, 2), 1),
    ((1, 11, 2, 5), 1),
    ((1, 11, 3, 3), 1),
    ((1, 11, 3, 3), 2),
    ((1, 11, 5, 5), 3),
    ((1, 3, 4, 9), 3),
    ((1, 3, 9, 4), 3),
    ((1, 9, 1, 17), 0),
    ((1, 9, 17, 1), 0),
    ((2, 1, 6, 5), 1),
    ((1, 1, 7, 7), 0),
    ((1, 1, 1, 9), 0),
]


@each_variant
@pytest.mark.parametrize(("shape", "pad"), SHAPES, ids=str)
def test_tiny_and_odd_shapes(shape: Shape, pad: int, plan: NormPlan) -> None:
    """Each shape meets both dtypes, one with either plan."""
    dtype = (torch.float32, torch.bfloat16)[(SHAPES.index((shape, pad)) + plan.variant.startswith("on")) % 2]
    x, residual = values(*shape, dtype=dtype), values(*shape, dtype=dtype, seed=1)
    # The gradient of a plane of two pixels vanishes with eps, and its error relative to itself would say nothing.
    eps = 0.5 if shape[2] * shape[3] < 5 else 1e-5
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("leaky_relu", pad, eps=eps), x, residual)


@each_dtype
@pytest.mark.parametrize(("shape", "pad"), [*SHAPES, ((2, 70, 5, 6), 1), ((1, 3, 30, 20), 3)], ids=str)
def test_reflection_pad_of_every_shape(shape: Shape, pad: int, dtype: torch.dtype) -> None:
    assert_as_accurate_as_pytorch(lambda impl, x: reflection_pad(x, pad, impl=impl), values(*shape, dtype=dtype))


SMALL_TILES = ConvPlan(16, 16, 16, 4, 2)
# N, C, C_out, H, W
CONVOLUTIONS = {
    "one tile": (1, 3, 4, 6, 5),
    "two by two": (1, 4, 3, 2, 2),
    "a row of two": (1, 2, 3, 2, 9),
    "one channel": (2, 1, 1, 3, 4),
    "blocks of channels, the last one partial": (1, 21, 3, 4, 4),
    "blocks of outputs, the last one partial": (1, 3, 21, 4, 4),
    "tiles of pixels, the last one partial": (2, 3, 4, 5, 7),
}


@each_dtype
@pytest.mark.parametrize(("n", "c", "c_out", "h", "w"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_conv2d_reflect(
    n: int, c: int, c_out: int, h: int, w: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "conv_plan", lambda *_: SMALL_TILES)
    x, weight = values(n, c, h, w, dtype=dtype), values(c_out, c, 3, 3, dtype=dtype, seed=1, scale=(9 * c) ** -0.5)
    assert_as_accurate_as_pytorch(convolution, x, weight)


def convolution(impl: Impl, x: Tensor, weight: Tensor) -> Tensor:
    return conv2d_reflect(x, weight, impl=impl)[0]


@each_dtype
def test_conv2d_reflect_by_its_own_plan(dtype: torch.dtype) -> None:
    x, weight = values(1, 20, 9, 15, dtype=dtype), values(70, 20, 3, 3, dtype=dtype, seed=1, scale=0.1)
    assert_as_accurate_as_pytorch(convolution, x, weight)


# --- layouts ---------------------------------------------------------------------------------------------------------


@each_variant
@pytest.mark.parametrize("first", range(len(LAYOUTS)), ids=list(LAYOUTS))
def test_an_x_a_residual_and_a_gradient_of_any_layout(first: int, plan: NormPlan) -> None:
    """Gives x the layout that the test is named for, the residual the next one, and the gradient the one after."""
    of_x, of_residual, of_dy = (list(LAYOUTS.values())[(first + place) % len(LAYOUTS)] for place in range(3))
    pad = (first + plan.variant.startswith("on")) % 2
    x, residual = of_x(values(2, 3, 4, 5)), of_residual(values(2, 3, 4, 5, seed=1))
    dy = of_dy(values(2, 3, 4 + 2 * pad, 5 + 2 * pad, seed=2))
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("relu", pad), x, residual, dy=dy)


@each_variant
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize(
    "cut",
    [
        lambda t: t[1:2],
        lambda t: t[:, 1:2],
        lambda t: t[:, :, 1:2],
        lambda t: t[..., 1:2],
        lambda t: t[1:2, 1:2, 1:2],
        lambda t: t[1:2, :, 1:3, 1:2],
    ],
    ids=["image", "channel", "row", "column", "row of one channel of one image", "two pixels of one column"],
)
def test_a_side_of_one_whose_stride_means_nothing(
    cut: Callable[[Tensor], Tensor], layout: torch.memory_format, plan: NormPlan
) -> None:
    x, residual, dy = (cut(values(3, 4, 5, 6, seed=seed).contiguous(memory_format=layout)) for seed in range(3))
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(norm("leaky_relu", 0, eps=0.5), x, residual, dy=dy)


@each_variant
def test_the_gradient_of_a_sum(plan: NormPlan) -> None:
    """Backward gets one number, expanded to the result's shape."""
    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(
            norm("relu", 1), values(2, 3, 4, 5), dy=torch.ones((), device=DEVICE).expand(2, 3, 6, 7)
        )


@each_layout
def test_reflection_pad_of_any_layout(lay: Callable[[Tensor], Tensor]) -> None:
    x, dy = lay(values(2, 3, 4, 5)), lay(values(2, 3, 8, 9, seed=1))
    assert_as_accurate_as_pytorch(lambda impl, x: reflection_pad(x, 2, impl=impl), x, dy=dy)


@each_layout
def test_conv2d_reflect_of_any_layout(lay: Callable[[Tensor], Tensor]) -> None:
    x, weight = lay(values(2, 3, 4, 5)), lay(values(4, 3, 3, 3, seed=1))
    assert_as_accurate_as_pytorch(convolution, x, weight, dy=lay(values(2, 4, 4, 5, seed=2)))


@pytest.mark.parametrize("pad", [0, 1])
def test_gradients_are_channels_last_whatever_the_layout_of_x_and_dy(pad: int) -> None:
    x, weight = values(2, 3, 4, 5).requires_grad_(), values(4, 3, 3, 3, seed=1)
    with launch.forcing(on_chip(32, 4)):
        results = [
            norm("relu", pad)("triton", x),
            reflection_pad(x, pad, impl="triton"),
            convolution("triton", x, weight),
        ]
        for y in results:
            (dx,) = torch.autograd.grad(y, x, torch.ones_like(y, memory_format=torch.contiguous_format))
            assert dx.is_contiguous(memory_format=torch.channels_last)


@each_layout
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("pad", [0, 1])
def test_the_reference_has_the_same_gradients_in_every_layout(
    lay: Callable[[Tensor], Tensor], images: int, pad: int
) -> None:
    """It is what everything above is held to, and what runs without a GPU."""
    x, dy = lay(values(images, 3, 4, 5).double()), lay(values(images, 3, 4 + 2 * pad, 5 + 2 * pad, seed=1).double())
    found, expected = (
        torch.autograd.grad(norm("none", pad)("reference", leaf), leaf, gradient)[0]
        for leaf, gradient in (
            (x.detach().requires_grad_(), dy),
            (x.detach().contiguous().requires_grad_(), dy.contiguous()),
        )
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


# --- the residual block ----------------------------------------------------------------------------------------------


def block(pad_out: int = 1) -> Operator:
    def operator(impl: Impl, x: Tensor, weight1: Tensor, weight2: Tensor) -> Tensor:
        return residual_block(x, weight1, weight2, pad_out=pad_out, impl=impl)

    return operator


def weights(channels: int, count: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    scale = (9 * channels) ** -0.5
    return [values(channels, channels, 3, 3, dtype=dtype, seed=seed, scale=scale) for seed in range(1, count + 1)]


@each_dtype
@pytest.mark.parametrize("pad_out", [0, 1])
@pytest.mark.parametrize("convolution", ["the library's", "ours", "the library's, with edges"])
def test_residual_block(convolution: str, pad_out: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "conv_beats_library", lambda *_: convolution == "ours")
    monkeypatch.setattr(launch, "edges_beat_padding", lambda *_: convolution == "the library's, with edges")
    monkeypatch.setattr(launch, "conv_plan", lambda *_: ConvPlan(32, 16, 16, 4, 2))
    monkeypatch.setattr(launch, "edge_plan", lambda *_: EdgePlan(16, 16, 16, 4, 2))
    with launch.forcing(on_chip(64, 8)):
        x = values(1, 8, 9, 8, dtype=dtype, seed=38)
        assert_as_accurate_as_pytorch(block(pad_out), x, *weights(8, 2, dtype))


@each_dtype
@pytest.mark.parametrize("pad_out", [0, 1])
def test_residual_block_with_groups(pad_out: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds it to two blocks beside each other, also where our convolution, which has no groups, would be faster."""
    monkeypatch.setattr(launch, "conv_beats_library", lambda *_: True)
    x, (weight1, weight2) = values(1, 8, 9, 8, dtype=dtype, seed=48), weights(8, 2, dtype)
    grouped = [weight[:, :4].contiguous(memory_format=torch.channels_last) for weight in (weight1, weight2)]
    with launch.forcing(on_chip(64, 8)):
        assert_as_accurate_as_pytorch(block(pad_out), x, *grouped)
    beside = [
        residual_block(part.double(), *(weight.double() for weight in of_part), pad_out=pad_out, impl="reference")
        for part, *of_part in zip(x.chunk(2, 1), *(weight.chunk(2) for weight in grouped), strict=True)
    ]
    both = residual_block(x.double(), *(weight.double() for weight in grouped), pad_out=pad_out, impl="reference")
    torch.testing.assert_close(both, torch.cat(beside, 1), rtol=1e-12, atol=1e-12)


@each_dtype
@pytest.mark.parametrize("edges", [False, True], ids=["padded", "with edges"])
def test_a_norm_and_the_blocks_that_read_it(edges: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes the gradients through a block and around it to the norm or block in front of it as two tensors.

    Either plan meets each dtype, with edges and without.
    """
    plan = (two_phase(128, 8), on_chip(64, 8))[(DTYPES.index(dtype) + edges) % 2]
    monkeypatch.setattr(launch, "edges_beat_padding", lambda *_: edges)
    monkeypatch.setattr(launch, "edge_plan", lambda *_: EdgePlan(16, 16, 16, 4, 2))

    def operator(impl: Impl, x: Tensor, *weights: Tensor) -> Tensor:
        y = instance_norm(x, activation="relu", pad=1, impl=impl)
        y = residual_block(y, *weights[:2], impl=impl)
        return residual_block(y, *weights[2:], pad_out=0, impl=impl)

    with launch.forcing(plan):
        assert_as_accurate_as_pytorch(operator, values(1, 8, 7, 6, dtype=dtype, seed=145), *weights(8, 4, dtype))


EDGES = [(1, 8, 8, 4, 4, 1), (2, 5, 7, 6, 9, 1), (1, 16, 8, 9, 5, 2), (2, 3, 3, 17, 4, 1)]


@each_dtype
@pytest.mark.parametrize("case", EDGES, ids=str)
def test_a_gradient_without_a_frame_and_with_edges(case: tuple[int, ...], dtype: torch.dtype) -> None:
    """Differentiates reflect_pad and convolution by x; the case is N, C, C_out, H, W and the groups."""
    batch, channels, outputs, height, width, groups = case
    x = values(batch, groups * channels, height, width, dtype=dtype)
    weight = values(groups * outputs, channels, 3, 3, dtype=dtype, seed=1, scale=(9 * channels) ** -0.5)
    dy = values(batch, groups * outputs, height, width, dtype=dtype, seed=2)

    def by_pytorch(*operands: Tensor) -> Tensor:
        image, kernel, gradient = (operand.detach() for operand in operands)
        image.requires_grad_()
        y = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), kernel, groups=groups)
        return torch.autograd.grad(y, image, gradient)[0]

    with launch.forcing(EdgePlan(16, 16, 16, 4, 2)):
        found = reflected_input_gradient(dy.detach(), weight.detach(), x.detach())
    exact = by_pytorch(x.double(), weight.double(), dy.double())
    assert_accurate("dx", found, by_pytorch(x, weight, dy), exact, is_gradient=True)


@each_layout
def test_residual_block_of_any_layout(lay: Callable[[Tensor], Tensor]) -> None:
    x, dy = lay(values(2, 3, 6, 7)), lay(values(2, 3, 6, 7, seed=5))
    with launch.forcing(on_chip(32, 4)):
        assert_as_accurate_as_pytorch(block(), x, *[lay(weight) for weight in weights(3, 2)], dy=dy)


@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 1], [1, 2]], ids=str)
@pytest.mark.parametrize("pad_out", [0, 1])
def test_residual_block_with_gradients_of_some_inputs(wanted: list[int], pad_out: int) -> None:
    with launch.forcing(on_chip(32, 4)):
        assert_as_accurate_as_pytorch(block(pad_out), values(1, 3, 6, 7), *weights(3, 2), wanted=wanted)


@pytest.mark.parametrize("wanted", [[0], [1]], ids=["first", "second"])
def test_norm_and_convolution_with_the_gradient_of_one_input(wanted: list[int]) -> None:
    with launch.forcing(on_chip(32, 4)):
        assert_as_accurate_as_pytorch(norm("relu", 1), values(1, 3, 4, 5), values(1, 3, 4, 5, seed=1), wanted=wanted)
    assert_as_accurate_as_pytorch(convolution, values(1, 3, 4, 5), values(2, 3, 3, 3, seed=1), wanted=wanted)


# --- nothing ---------------------------------------------------------------------------------------------------------


@each_dtype
def test_an_empty_batch_gives_empty_results_and_zero_gradients_of_the_weights(dtype: torch.dtype) -> None:
    x, residual = (values(0, 3, 6, 5, dtype=dtype).requires_grad_() for _ in range(2))
    weight1, weight2 = (weight.requires_grad_() for weight in weights(3, 2, dtype))
    padded = reflection_pad(x, 2, impl="triton")
    y, partials = conv2d_reflect(x, weight1, impl="triton")
    normalised = instance_norm(y, activation="relu", residual=residual, pad=1, partials=partials, impl="triton")
    made = residual_block(normalised, weight1, weight2, impl="triton")
    assert padded.shape == (0, 3, 10, 9)
    assert (partials.size(0), *partials.shape[2:]) == (0, 3, 3)
    assert normalised.shape == made.shape == (0, 3, 8, 7)
    assert made.dtype == dtype
    dx, d_residual, *gradients = torch.autograd.grad(made.sum() + padded.sum(), [x, residual, weight1, weight2])
    assert dx.shape == d_residual.shape == x.shape
    for gradient in gradients:
        assert torch.equal(gradient, torch.zeros_like(weight1))
