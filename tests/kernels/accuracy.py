"""Measures operators against float64 and holds them to what PyTorch's native operators lose in the same dtype.

An error is a root mean square relative to that of the exact result. The exact result is the reference in float64 on the
same rounded inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.checking.accuracy import MARGIN, allowed_error, relative_error
from tests.kernels.operands import DTYPES, Operator, values


class Signs(TorchFunctionMode):
    """Watches how near to 0 the inputs of ReLUs come where one wrong sign is a wrong gradient.

    Behind a convolution a sign hangs on how the library adds up and rounds, elsewhere on the mean of a plane alone. An
    input that is 0 itself is left out: the norm's kernels make it 0 as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.behind_a_convolution = False
        self.nearest = float("inf")

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.behind_a_convolution |= function is F.conv2d
        if function in (F.relu, F.leaky_relu):
            size = arguments[0].detach().abs()
            self.nearest = min(self.nearest, float(size.where(size > 0, float("inf")).min()))
        return function(*arguments, **(options or {}))

    def assert_clear(self, dtype: torch.dtype) -> None:
        """On every device, so that inputs of which another GPU would make another gradient are found on this one."""
        margin = max(torch.finfo(dtype).eps / 2, 1e-5) if self.behind_a_convolution else 1e-6
        assert self.nearest >= margin, (
            f"a ReLU's input is {self.nearest:.2g} and may round to either side of 0: give the test other numbers, "
            f"whose ReLUs get no input within {margin:.2g} of 0"
        )


@dataclass(frozen=True)
class Comparison:
    """Holds the error of one result, or of one gradient, of an operator."""

    dtype: torch.dtype
    is_gradient: bool
    error: float
    native_error: float

    @property
    def allowed(self) -> float:
        return allowed_error(self.native_error, self.dtype)


COMPARISONS: list[Comparison] = []


def as_numbers() -> list[tuple[str, bool, float, float]]:
    """Return all comparisons of this process, fit to be sent to another."""
    return [(str(c.dtype), c.is_gradient, c.error, c.native_error) for c in COMPARISONS]


def add_numbers(numbers: list[tuple[str, bool, float, float]]) -> None:
    by_name = {str(dtype): dtype for dtype in DTYPES}
    COMPARISONS.extend(Comparison(by_name[dtype], *rest) for dtype, *rest in numbers)


def summary() -> list[str]:
    """Return lines that say what all comparisons of this run come to; none where there were none."""
    if not COMPARISONS:
        return []
    lines = [f"accuracy against float64, {len(COMPARISONS)} comparisons; allowed is {MARGIN} x PyTorch's own error"]
    for what, is_gradient in (("forward", False), ("gradients", True)):
        found = {d: [c for c in COMPARISONS if c.dtype == d and c.is_gradient == is_gradient] for d in DTYPES}
        worst = {d: max(c.error / c.allowed for c in some) for d, some in found.items() if some}
        ratios = {d: [c.error / c.native_error for c in some if c.native_error] for d, some in found.items()}
        lines.append(f"  {what}: worst share of what is allowed: {_listed(worst)}")
        lines.append(
            f"  {what}: median of error / PyTorch's: {_listed({d: median(r) for d, r in ratios.items() if r})}"
        )
    return lines


def _listed(numbers: dict[torch.dtype, float]) -> str:
    return ", ".join(f"{str(dtype).removeprefix('torch.')} {number:.2f}" for dtype, number in numbers.items())


def assert_accurate(name: str, found: Tensor, native: Tensor, exact: Tensor, *, is_gradient: bool) -> None:
    """Hold the error to at most MARGIN times the larger of PyTorch's own error and the floor."""
    assert found.shape == exact.shape, f"{name} is {tuple(found.shape)}, not {tuple(exact.shape)}"
    assert found.dtype == native.dtype, f"{name} is {found.dtype}, not {native.dtype}"
    assert found.isfinite().all(), f"{name} has {int((~found.isfinite()).sum())} elements that are not finite"
    assert native.isfinite().all(), f"PyTorch's {name} is not finite, so that it is no yardstick"
    assert exact.count_nonzero() > 0, f"{name} vanishes, so that nothing is relative to it"
    result = Comparison(found.dtype, is_gradient, relative_error(found, exact), relative_error(native, exact))
    COMPARISONS.append(result)
    assert result.error <= result.allowed, (
        f"{name}: error {result.error:.3g}, PyTorch's {result.native_error:.3g}, allowed {result.allowed:.3g}"
    )


def assert_as_accurate_as_pytorch(
    operator: Operator, *inputs: Tensor, dy: Tensor | None = None, wanted: Sequence[int] | None = None
) -> None:
    """Triton's result and its gradients, of all inputs or of the `wanted` ones, against float64 and against PyTorch.

    `dy` is the gradient of the result. What Triton returns is channels last, and it leaves its inputs alone.
    """
    wanted = range(len(inputs)) if wanted is None else wanted
    # PyTorch's own gradient is wrong for some layouts (test_the_reference_has_the_same_gradients_in_every_layout), and
    # a yardstick has none.
    dense = [x.contiguous() for x in inputs]
    with Signs() as signs:
        exact, exact_leaves = _run(operator, "reference", [x.double() for x in dense], wanted)
    signs.assert_clear(inputs[0].dtype)
    native, native_leaves = _run(operator, "reference", dense, wanted)
    if dy is None:
        dy = values(*exact.shape, dtype=inputs[0].dtype, seed=99)
    before = [_bytes_of(x).clone() for x in (*inputs, dy)]
    found, leaves = _run(operator, "triton", inputs, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last), f"the result's strides are {found.stride()}"
    assert_accurate("the result", found.detach(), native.detach(), exact.detach(), is_gradient=False)
    gradients = torch.autograd.grad(found, leaves, dy)
    native_gradients = torch.autograd.grad(native, native_leaves, dy.contiguous())
    exact_gradients = torch.autograd.grad(exact, exact_leaves, dy.double().contiguous())
    for index, *compared in zip(wanted, gradients, native_gradients, exact_gradients, strict=True):
        assert_accurate(f"the gradient of input {index}", *compared, is_gradient=True)
    for x, kept in zip((*inputs, dy), before, strict=True):
        assert torch.equal(_bytes_of(x), kept), "an operator wrote to its input"


def _run(
    operator: Operator, impl: Impl, inputs: Sequence[Tensor], wanted: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    # A detached tensor keeps strides and storage: an expanded or sliced input reaches the operator as such.
    leaves = [x.detach().requires_grad_(index in wanted) for index, x in enumerate(inputs)]
    return operator(impl, *leaves), [leaves[index] for index in wanted]


def _bytes_of(x: Tensor) -> Tensor:
    """Return the whole storage behind x, also what lies between its elements."""
    return torch.empty(0, dtype=torch.uint8, device=x.device).set_(x.untyped_storage())
