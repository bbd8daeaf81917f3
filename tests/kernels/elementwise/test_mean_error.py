"""Holds mean errors of losses to their definition in value and gradients, whatever the layout and the size."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from cyclegan_fast.kernels.elementwise import mean_error as module
from cyclegan_fast.kernels.elementwise.mean_error import ErrorKind, mean_error
from tests.kernels.accuracy import assert_accurate
from tests.kernels.operands import DTYPES, LAYOUTS, values

pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")

KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
each_kind = pytest.mark.parametrize("kind", KINDS)


def operands(kind: ErrorKind, *shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return x, and y in float32 where the error has two tensors."""
    x = values(*shape, dtype=dtype).requires_grad_()
    return [x] if kind in ("from 1", "from 0") else [x, values(*shape, seed=1).requires_grad_()]


def results(kind: ErrorKind, impl: module.Impl, inputs: list[Tensor], directions: int) -> list[Tensor]:
    """Return the weighted mean, and its gradients."""
    y = inputs[1] if len(inputs) == 2 else None
    mean = mean_error(inputs[0], y, kind, weight=2.5, directions=directions, impl=impl)
    upstream = torch.tensor([3.0, -0.7], dtype=mean.dtype, device=mean.device)[:directions].view_as(mean)
    return [mean.detach(), *torch.autograd.grad(mean, inputs, upstream)]


# One program, several, and several with a part of a block.
SHAPES = [((2, 6, 5, 7), 2), ((1, 1, 30, 30), 1), ((3, 2, 61, 67), 2), ((2, 3, 70, 90), 1)]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize(("shape", "directions"), SHAPES)
@each_kind
def test_means_and_gradients_are_as_accurate_as_pytorchs(
    kind: ErrorKind, shape: tuple[int, int, int, int], directions: int, dtype: torch.dtype
) -> None:
    inputs = operands(kind, *shape, dtype=dtype)
    exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
    exact = results(kind, "reference", exact_inputs, directions)
    native = results(kind, "reference", inputs, directions)
    found = results(kind, "triton", inputs, directions)
    for index, compared in enumerate(zip(found, native, exact, strict=True)):
        assert_accurate(f"result {index}", *compared, is_gradient=index > 0)
    for first, second in zip(found, results(kind, "triton", inputs, directions), strict=True):
        assert torch.equal(first, second)


def test_equal_elements_have_an_absolute_error_without_a_gradient() -> None:
    x = values(1, 3, 4, 5).requires_grad_()
    mean = mean_error(x, x.detach().clone(), "absolute", impl="triton")
    assert mean.item() == 0
    assert torch.autograd.grad(mean, x)[0].count_nonzero() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_nothing(layout: str) -> None:
    dense, other = values(2, 4, 5, 6), values(2, 4, 5, 6, seed=1)
    x = LAYOUTS[layout](dense)
    for directions in (1, 2):
        found = mean_error(x, other, "absolute", directions=directions, impl="triton")
        assert torch.equal(found, mean_error(x.contiguous(), other, "absolute", directions=directions, impl="triton"))


def test_only_the_gradients_that_are_asked_for_are_written() -> None:
    x, y = values(1, 2, 3, 4), values(1, 2, 3, 4, seed=1).requires_grad_()
    for kind in ("absolute", "from 1 and 0"):
        found = mean_error(x, y, kind, impl="triton")
        expected = mean_error(x, y, kind, impl="reference")
        torch.testing.assert_close(torch.autograd.grad(found, y), torch.autograd.grad(expected, y))


@each_kind
def test_an_empty_batch_has_no_mean(kind: ErrorKind) -> None:
    for impl in ("triton", "reference"):
        assert results(kind, impl, operands(kind, 0, 3, 4, 5), 1)[0].isnan()


def test_a_second_derivative_is_refused() -> None:
    x = values(1, 1, 3, 4).requires_grad_()
    mean = mean_error(x, None, "from 1", impl="triton")
    (gradient,) = torch.autograd.grad(mean, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


def test_operands_that_do_not_fit_are_refused() -> None:
    x = values(1, 3, 4, 5)
    with pytest.raises(ValueError, match="kind must be one of"):
        mean_error(x, None, "from 2")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ValueError, match="is an error of two tensors, got one"):
        mean_error(x, None, "absolute")
    with pytest.raises(ValueError, match="is an error of one tensor"):
        mean_error(x, x, "from 1")
    with pytest.raises(ValueError, match="y must have x's shape"):
        mean_error(x, x[:, :1], "absolute")
    with pytest.raises(ValueError, match="directions must divide x's 3 channels, got 2"):
        mean_error(x, x, "absolute", directions=2)
