"""Holds bias and activation in one operator to PyTorch's accuracy, in every layout."""

import pytest
import torch
from torch import Tensor

from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.elementwise import partial_sums
from cyclegan_fast.kernels.elementwise.bias_activation import BiasedActivation, bias_activation
from tests.kernels.accuracy import assert_as_accurate_as_pytorch
from tests.kernels.operands import DTYPES, LAYOUTS, values

pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")

each_activation = pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
# An image, more channels than a tile has, and more pixels than a program.
SHAPES = [(2, 3, 17, 19), (1, 1, 9, 11), (2, 13, 7, 5), (1, 70, 13, 5), (1, 64, 15, 15)]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the 225 pixels of 64 channels be three programs of three tiles, whose sums are added up in twos."""
    monkeypatch.setattr(partial_sums, "MOST_PROGRAMS", 3)
    monkeypatch.setattr(partial_sums, "SUMS_PER_BLOCK", 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("shape", SHAPES)
@each_activation
def test_results_and_gradients_are_as_accurate_as_pytorchs(
    activation: BiasedActivation, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    def operator(impl: Impl, x: Tensor) -> Tensor:
        return bias_activation(x, bias.to(x.dtype), activation, impl=impl)

    bias = torch.full((shape[1],), 0.25, device=values(1).device)
    x = values(*shape, dtype=dtype)
    x = torch.where((x.float() + 0.25).abs() < 1e-2, 1.0, x).to(dtype)  # no sign hangs on a rounding
    assert_as_accurate_as_pytorch(operator, x)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("shape", SHAPES)
@each_activation
def test_the_biass_gradient_is_the_sum_of_dx_in_float32(
    activation: BiasedActivation, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    x, dy = values(*shape, dtype=dtype), values(*shape, dtype=dtype, seed=2)
    bias = values(shape[1], seed=1).requires_grad_()  # float32 beside x of any precision
    y = bias_activation(x, bias, activation, impl="triton")
    (found,) = torch.autograd.grad(y, bias, dy, retain_graph=True)
    result = y.detach().double()
    slope = 1 - result.square() if activation == "tanh" else torch.where(result > 0, 1.0, 0.2)
    expected = (dy.double() * slope).sum((0, 2, 3))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(found, torch.autograd.grad(y, bias, dy)[0])


def test_tanh_is_accurate_from_the_smallest_to_the_largest_numbers() -> None:
    """Fails without the series near 0, where 1 - exp(-2x) loses far more than x's own rounding."""
    size = torch.logspace(-30, 2, 4001, dtype=torch.float64).float()
    x = torch.cat([size, -size, torch.tensor([0.0, float("inf"), -float("inf")])]).view(1, 1, 1, -1)
    y = bias_activation(x.to(values(1).device), values(1) * 0, "tanh", impl="triton").cpu()
    exact = torch.tanh(x.double())
    error = (y.double() - exact).abs()
    assert (error <= 5e-7 * exact.abs()).all(), (error / exact.abs()).nan_to_num().max()
    nan = torch.full((1, 1, 1, 4), float("nan"), device=values(1).device)
    for activation in ("tanh", "leaky_relu"):
        assert bias_activation(nan, values(1), activation, impl="triton").isnan().all()


@pytest.mark.parametrize("layout", LAYOUTS)
@each_activation
def test_a_layout_changes_nothing(activation: BiasedActivation, layout: str) -> None:
    x = LAYOUTS[layout](values(2, 4, 5, 6))
    bias = values(4, seed=1)
    found = bias_activation(x, bias, activation, impl="triton")
    assert torch.equal(found, bias_activation(x.contiguous(), bias, activation, impl="triton"))


def test_operands_that_do_not_fit_are_refused() -> None:
    x = values(1, 3, 4, 5)
    with pytest.raises(ValueError, match=r"bias must be \[3\], got \(4,\)"):
        bias_activation(x, values(4), "tanh")
    with pytest.raises(ValueError, match="activation must be one of"):
        bias_activation(x, values(3), "relu")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ValueError, match="negative_slope must be positive"):
        bias_activation(x, values(3), "leaky_relu", negative_slope=0.0)
