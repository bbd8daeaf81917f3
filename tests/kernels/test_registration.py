"""Triton operators keep, as operators of PyTorch, what torch.library promises in their name."""

import copy
import io
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from cyclegan_fast.kernels import (
    Impl,
    conv2d_reflect,
    dispatch,
    instance_norm,
    launching,
    reflection_pad,
    residual_block,
)
from cyclegan_fast.kernels.checking.accuracy import relative_error
from cyclegan_fast.kernels.elementwise.image_exchange import IMAGE_EXCHANGE
from cyclegan_fast.kernels.elementwise.mean_error import MEAN_ERROR, MEAN_ERROR_BACKWARD
from cyclegan_fast.kernels.elementwise.signed_windows import SIGNED_WINDOWS
from cyclegan_fast.kernels.launching import Grid, launching_with
from cyclegan_fast.networks.resnet import ResnetGenerator
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import sample, values, wide

OPERATORS = torch.ops.cyclegan_fast
EPS = 1e-5
# Against float64, a float32 result of some hundred summands; a wrong term would be off by a tenth and more.
FLOAT32_ERROR = 1e-5

Arguments = tuple[Any, ...]
Call = Callable[[], tuple[Any, Arguments]]


def detached(*arguments: Any) -> Arguments:
    """Detach operands for the backward operators, which have no derivative of their own."""
    return tuple(a.detach() if isinstance(a, Tensor) else a for a in arguments)


# --- calls of every operator ----------------------------------------------------------------------------------------


def norm_call(
    shape: tuple[int, int, int, int],
    activation: str,
    pad: int,
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    residual: bool = False,
) -> Arguments:
    x = sample(*shape, dtype=dtype, channels_last=channels_last)
    batch, channels, height, width = shape
    buffer = sample(batch, channels, height + 2, width + 2, seed=1, dtype=dtype, channels_last=channels_last)
    return x, buffer[:, :, 1:-1, 1:-1] if residual else None, None, activation, 0.2, pad, EPS


def norm_call_with_partials() -> Arguments:
    y, partials = OPERATORS.conv2d_reflect(sample(2, 3, 6, 5), sample(4, 3, 3, 3, seed=1))
    return y.detach().requires_grad_(True), None, partials, "relu", 0.2, 1, EPS


def norm_backward_call(
    shape: tuple[int, int, int, int],
    activation: str,
    pad: int,
    *,
    skip: bool = False,
    wants_residual: bool = False,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
) -> Arguments:
    arguments = detached(*norm_call(shape, activation, pad, dtype=dtype, channels_last=channels_last))
    y, statistics = OPERATORS.instance_norm(*arguments)
    dy = sample(*y.shape, seed=3, dtype=dtype, channels_last=channels_last)
    second = sample(*shape, seed=4, dtype=dtype, channels_last=channels_last) if skip else None
    return detached(dy, second, arguments[0], statistics, activation, 0.2, pad, wants_residual)


def block_call(
    shape: tuple[int, int, int, int],
    pad_out: int = 1,
    *,
    dtype: torch.dtype = torch.float32,
    x_channels_last: bool = True,
    weight_channels_last: bool = True,
    groups: int = 1,
) -> Arguments:
    """`shape` is the padded buffer's."""
    of_weight = shape[1], shape[1] // groups, 3, 3
    weights = (sample(*of_weight, seed=seed, dtype=dtype, channels_last=weight_channels_last) for seed in (1, 2))
    return sample(*shape, dtype=dtype, channels_last=x_channels_last), *weights, pad_out, EPS


def block_backward_call(
    shape: tuple[int, int, int, int],
    pad_out: int = 1,
    *,
    skip: bool = False,
    wants: tuple[bool, bool, bool, bool] = (True, True, True, False),
    dy_channels_last: bool = True,
    **options: Any,
) -> Arguments:
    """`wants`: around, x, middle, and whether the gradient of x is folded."""
    arguments = detached(*block_call(shape, pad_out, **options))
    y, *saved = OPERATORS.residual_block(*arguments)
    dy = sample(*y.shape, seed=3, dtype=y.dtype, channels_last=dy_channels_last)
    second = sample(*saved[0].shape, seed=4, dtype=y.dtype) if skip else None
    return detached(dy, second, *arguments[:3], *saved, pad_out, *wants)


BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16
CALLS: dict[str, Call] = {
    "norm, relu, strided residual, pad 1": lambda: (
        OPERATORS.instance_norm.default,
        norm_call((2, 3, 6, 5), "relu", 1, residual=True),
    ),
    "norm, leaky relu, NCHW, bfloat16": lambda: (
        OPERATORS.instance_norm.default,
        norm_call((2, 4, 5, 7), "leaky_relu", 0, dtype=BFLOAT16, channels_last=False),
    ),
    "norm, no activation, residual, pad 3, float16": lambda: (
        OPERATORS.instance_norm.default,
        norm_call((1, 2, 5, 4), "none", 3, dtype=FLOAT16, residual=True),
    ),
    "norm, partials": lambda: (OPERATORS.instance_norm.default, norm_call_with_partials()),
    "norm, empty batch": lambda: (
        OPERATORS.instance_norm.default,
        norm_call((0, 3, 4, 5), "relu", 1),
    ),
    "norm backward, two gradients, residual, pad 1": lambda: (
        OPERATORS.instance_norm_backward.default,
        norm_backward_call((2, 3, 6, 5), "relu", 1, skip=True, wants_residual=True),
    ),
    "norm backward, NCHW, bfloat16": lambda: (
        OPERATORS.instance_norm_backward.default,
        norm_backward_call((2, 4, 5, 7), "leaky_relu", 0, dtype=BFLOAT16, channels_last=False),
    ),
    "norm backward, empty batch": lambda: (
        OPERATORS.instance_norm_backward.default,
        norm_backward_call((0, 3, 4, 5), "none", 1, skip=True, wants_residual=True),
    ),
    "pad, NCHW image": lambda: (OPERATORS.reflection_pad.default, (sample(2, 3, 5, 6, channels_last=False), 3)),
    "pad, bfloat16": lambda: (OPERATORS.reflection_pad.default, (sample(1, 4, 5, 6, dtype=BFLOAT16), 1)),
    "pad, empty batch": lambda: (OPERATORS.reflection_pad.default, (sample(0, 3, 5, 6), 2)),
    "pad backward": lambda: (OPERATORS.reflection_pad_backward.default, detached(sample(2, 3, 9, 8), 2)),
    "pad backward, NCHW, empty batch": lambda: (
        OPERATORS.reflection_pad_backward.default,
        detached(sample(0, 3, 9, 8, channels_last=False), 2),
    ),
    "convolution": lambda: (OPERATORS.conv2d_reflect.default, (sample(2, 3, 6, 5), sample(4, 3, 3, 3, seed=1))),
    "convolution, NCHW, bfloat16": lambda: (
        OPERATORS.conv2d_reflect.default,
        (
            sample(1, 4, 5, 7, dtype=BFLOAT16, channels_last=False),
            sample(3, 4, 3, 3, seed=1, dtype=BFLOAT16, channels_last=False),
        ),
    ),
    "convolution, empty batch": lambda: (
        OPERATORS.conv2d_reflect.default,
        (sample(0, 3, 6, 5), sample(4, 3, 3, 3, seed=1)),
    ),
    "mean error, two directions, bfloat16 against float32": lambda: (
        MEAN_ERROR,
        (sample(2, 6, 5, 4, dtype=BFLOAT16), sample(2, 6, 5, 4, seed=1), "absolute", 10.0, 2),
    ),
    "mean error, two tensors": lambda: (
        MEAN_ERROR,
        (sample(1, 1, 5, 4), sample(1, 1, 5, 4, seed=1), "from 1 and 0", 0.5, 1),
    ),
    "mean error, one tensor, NCHW": lambda: (
        MEAN_ERROR,
        (sample(2, 3, 5, 4, channels_last=False), None, "from 1", 1.0, 1),
    ),
    "mean error backward": lambda: (
        MEAN_ERROR_BACKWARD,
        detached(values(2), sample(2, 4, 5, 4), sample(2, 4, 5, 4, seed=1), "absolute", 1.0, 2, True, False),
    ),
    "bias and tanh": lambda: (
        OPERATORS.bias_activation.default,
        (sample(2, 3, 5, 4), values(3, seed=1).requires_grad_(), "tanh", 0.2),
    ),
    "bias and leaky relu, NCHW, bfloat16": lambda: (
        OPERATORS.bias_activation.default,
        (
            sample(1, 4, 5, 7, dtype=BFLOAT16, channels_last=False),
            values(4, seed=1).requires_grad_(),
            "leaky_relu",
            0.2,
        ),
    ),
    "bias and tanh, empty batch": lambda: (
        OPERATORS.bias_activation.default,
        (sample(0, 3, 5, 4), values(3, seed=1).requires_grad_(), "tanh", 0.2),
    ),
    "bias and tanh backward, bias frozen": lambda: (
        OPERATORS.bias_activation_backward.default,
        detached(sample(2, 3, 5, 4), sample(2, 3, 5, 4, seed=1), values(3), "tanh", 0.2, False),
    ),
    "bias and tanh backward": lambda: (
        OPERATORS.bias_activation_backward.default,
        detached(sample(2, 3, 5, 4), sample(2, 3, 5, 4, seed=1), values(3), "tanh", 0.2, True),
    ),
    "windows": lambda: (
        SIGNED_WINDOWS,
        (
            torch.arange(2 * 6 * 7 * 3, device=DEVICE).view(2, 6, 7, 3).to(torch.uint8),
            torch.tensor([[1, 2, 0], [0, 1, 1]], device=DEVICE),
            5,
            4,
            0.0,
            255.0,
        ),
    ),
    "image exchange": lambda: (
        IMAGE_EXCHANGE,
        detached(sample(3, 3, 5, 4), sample(5, 3, 5, 4, seed=1), torch.tensor([[2, 4, 6], [2, 4, 0]], device=DEVICE)),
    ),
    "block": lambda: (OPERATORS.residual_block.default, block_call((2, 3, 7, 8))),
    "block, pad_out 0, bfloat16": lambda: (
        OPERATORS.residual_block.default,
        block_call((1, 4, 8, 6), 0, dtype=BFLOAT16),
    ),
    "block, NCHW": lambda: (
        OPERATORS.residual_block.default,
        block_call((2, 3, 7, 8), x_channels_last=False, weight_channels_last=False),
    ),
    "block, empty batch": lambda: (OPERATORS.residual_block.default, block_call((0, 3, 7, 8))),
    "block backward, two gradients": lambda: (
        OPERATORS.residual_block_backward.default,
        block_backward_call((2, 3, 7, 8), skip=True),
    ),
    "block backward, pad_out 0, frozen weights": lambda: (
        OPERATORS.residual_block_backward.default,
        block_backward_call((1, 4, 8, 6), 0, wants=(False, True, False, False)),
    ),
    "block backward, folded": lambda: (
        OPERATORS.residual_block_backward.default,
        block_backward_call((2, 3, 7, 8), skip=True, wants=(True, True, True, True)),
    ),
    "block backward, NCHW": lambda: (
        OPERATORS.residual_block_backward.default,
        block_backward_call((2, 3, 7, 8), x_channels_last=False, weight_channels_last=False, dy_channels_last=False),
    ),
    "block backward, empty batch": lambda: (
        OPERATORS.residual_block_backward.default,
        block_backward_call((0, 3, 7, 8), skip=True),
    ),
    "block, two groups": lambda: (OPERATORS.residual_block.default, block_call((2, 4, 7, 8), groups=2)),
    "block backward, two groups": lambda: (
        OPERATORS.residual_block_backward.default,
        block_backward_call((2, 4, 7, 8), skip=True, groups=2),
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_operator_passes_opcheck(call: Call) -> None:
    """Schema, autograd registration, fake tensors, and AOT dispatch with symbolic shapes, gradients included."""
    torch.library.opcheck(*call())


# --- fake tensors ---------------------------------------------------------------------------------------------------


@pytest.fixture
def no_launches() -> Iterator[None]:
    """Leaves the kernels out: what is compared is where results lie, not what is in them."""
    with launching_with(lambda kernel, grid, arguments, options: None):
        yield


def described(results: Any) -> list[tuple[tuple[int, ...], torch.dtype, tuple[int | None, ...]]]:
    """Shape, dtype and strides of each result; the stride along a side of 1 addresses nothing."""
    tensors = results if isinstance(results, tuple | list) else (results,)
    return [
        (tuple(t.shape), t.dtype, tuple(s if side > 1 else None for side, s in zip(t.shape, t.stride(), strict=True)))
        for t in tensors
    ]


def assert_fake_describes_real(operator: Any, arguments: Arguments) -> None:
    real = operator(*arguments)
    with FakeTensorMode() as mode:
        fake = operator(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments))
    assert described(fake) == described(real)


@pytest.mark.usefixtures("no_launches")
@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels last", "NCHW"])
def test_fake_results_of_norm_pad_and_convolution_have_the_shapes_dtypes_and_strides_of_real_ones(
    channels_last: bool, batch: int
) -> None:
    for channels, pad, dtype in ((1, 0, torch.float32), (3, 1, FLOAT16), (3, 3, torch.float32), (4, 0, BFLOAT16)):
        shape = (batch, channels, 5, 4)
        layout: dict[str, Any] = {"dtype": dtype, "channels_last": channels_last}
        arguments = detached(*norm_call(shape, "relu", pad, residual=True, **layout))
        assert_fake_describes_real(OPERATORS.instance_norm.default, arguments)
        for skip, wants_residual in ((True, True), (False, False)):
            arguments = norm_backward_call(shape, "relu", pad, skip=skip, wants_residual=wants_residual, **layout)
            assert_fake_describes_real(OPERATORS.instance_norm_backward.default, arguments)
        x, weight = detached(sample(*shape, **layout), sample(6, channels, 3, 3, seed=1, **layout))
        assert_fake_describes_real(OPERATORS.reflection_pad.default, (x, pad))
        assert_fake_describes_real(OPERATORS.reflection_pad.default, (x[:, :, 1:, :-1], 1))
        assert_fake_describes_real(OPERATORS.reflection_pad_backward.default, (x, 1))
        assert_fake_describes_real(OPERATORS.conv2d_reflect.default, (x, weight))


LAYOUTS = pytest.mark.parametrize(
    ("x_channels_last", "weight_channels_last"),
    [(True, True), (True, False), (False, True), (False, False)],
    ids=["channels last", "weights NCHW", "x NCHW", "NCHW"],
)
SIZES = (  # channels, pad_out, dtype, groups
    (1, 1, torch.float32, 1),
    (4, 0, BFLOAT16, 1),
    (4, 1, torch.float32, 2),
    (16, 1, torch.float32, 1),
)


@pytest.mark.usefixtures("no_launches")
@pytest.mark.parametrize("batch", [0, 1, 2])
@LAYOUTS
def test_fake_results_of_a_residual_block_have_the_shapes_dtypes_and_strides_of_real_ones(
    x_channels_last: bool, weight_channels_last: bool, batch: int
) -> None:
    for channels, pad_out, dtype, groups in SIZES:
        arguments = block_call(
            (batch, channels, 6, 7),
            pad_out,
            dtype=dtype,
            x_channels_last=x_channels_last,
            weight_channels_last=weight_channels_last,
            groups=groups,
        )
        assert_fake_describes_real(OPERATORS.residual_block.default, detached(*arguments))


@pytest.mark.usefixtures("no_launches")
@pytest.mark.parametrize("batch", [0, 1, 2])
@LAYOUTS
def test_fake_gradients_of_a_residual_block_have_the_shapes_dtypes_and_strides_of_real_ones(
    x_channels_last: bool, weight_channels_last: bool, batch: int
) -> None:
    for channels, pad_out, dtype, groups in SIZES:
        for wants, skip in (
            ((True, True, True, False), True),
            ((False, True, True, True), False),
            ((False, False, False, True), False),
            ((True, True, False, True), True),
        ):
            arguments = block_backward_call(
                (batch, channels, 6, 7),
                pad_out,
                skip=skip,
                wants=wants,
                dy_channels_last=not skip,
                dtype=dtype,
                x_channels_last=x_channels_last,
                weight_channels_last=weight_channels_last,
                groups=groups,
            )
            assert_fake_describes_real(OPERATORS.residual_block_backward.default, arguments)


# --- autocast -------------------------------------------------------------------------------------------------------


def block_operands() -> tuple[Tensor, Tensor, Tensor]:
    x, weight1, weight2 = (sample(*shape, seed=i) for i, shape in enumerate(((2, 3, 7, 8), (3, 3, 3, 3), (3, 3, 3, 3))))
    return x, weight1, weight2


CONVOLVING: dict[str, Callable[..., Tensor]] = {
    "residual_block": lambda x, w1, w2: residual_block(x, w1, w2, impl="triton"),
    "residual_block by torch.ops": lambda x, w1, w2: OPERATORS.residual_block(x, w1, w2, 1, EPS)[0],
    "conv2d_reflect": lambda x, w1, w2: conv2d_reflect(x, w1, impl="triton")[0],
    "conv2d_reflect by torch.ops": lambda x, w1, w2: OPERATORS.conv2d_reflect(x, w1)[0],
}


@pytest.mark.parametrize("low", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize("convolve", CONVOLVING.values(), ids=CONVOLVING)
def test_autocast_gives_float32_operands_to_an_operator_with_convolutions_in_low_precision(
    convolve: Callable[..., Tensor], low: torch.dtype
) -> None:
    operands = block_operands()
    with torch.autocast(DEVICE, low):
        y = convolve(*operands)
    assert y.dtype == low
    cast = [operand.detach().to(low).requires_grad_(True) for operand in operands]
    expected = convolve(*cast)
    assert torch.equal(y, expected)

    cotangent = sample(*y.shape, seed=9, dtype=low)
    found = torch.autograd.grad(y, operands, cotangent, allow_unused=True)
    for gradient, low_gradient in zip(
        found, torch.autograd.grad(expected, cast, cotangent, allow_unused=True), strict=True
    ):
        if gradient is None or low_gradient is None:
            assert gradient is low_gradient
        else:
            assert gradient.dtype == torch.float32
            assert torch.equal(gradient, low_gradient.float())


def test_operands_of_two_dtypes_meet_under_autocast_and_the_partials_stay_float32() -> None:
    x, weight, _ = block_operands()
    with torch.autocast(DEVICE, BFLOAT16):
        y, partials = conv2d_reflect(x.to(BFLOAT16), weight, impl="triton")
    assert (y.dtype, partials.dtype) == (BFLOAT16, torch.float32)
    assert torch.equal(y, conv2d_reflect(x.to(BFLOAT16), weight.to(BFLOAT16), impl="triton")[0])


@pytest.mark.parametrize("call", ["conv2d_reflect", "residual_block"])
def test_autocast_leaves_float64_alone_as_it_does_for_convolutions(call: str) -> None:
    x, weight1, weight2 = (wide(operand) for operand in block_operands())
    with torch.autocast(DEVICE, BFLOAT16):
        assert F.conv2d(x, weight1).dtype == torch.float64
        if call == "conv2d_reflect":
            y = conv2d_reflect(x, weight1, impl="reference")[0]
        else:
            y = residual_block(x, weight1, weight2, impl="reference")
    assert y.dtype == torch.float64


def test_under_autocast_a_norm_takes_what_a_convolution_gives_it_and_its_weight_gets_a_float32_gradient() -> None:
    x, weight, _ = block_operands()

    def normalised_convolution(impl: Impl) -> Tensor:
        with torch.autocast(DEVICE, BFLOAT16):
            y = F.conv2d(x, weight)
            return instance_norm(y, activation="relu", pad=1, residual=y, impl=impl)

    y = normalised_convolution("triton")
    assert y.dtype == BFLOAT16
    with torch.autocast(DEVICE, BFLOAT16):
        y_of_convolution = F.conv2d(x, weight)
    outside = instance_norm(y_of_convolution, activation="relu", pad=1, residual=y_of_convolution, impl="triton")
    assert torch.equal(y, outside)
    (gradient,) = torch.autograd.grad(y, weight, torch.ones_like(y))
    (expected,) = torch.autograd.grad(normalised_convolution("reference"), weight, torch.ones_like(y))
    assert gradient.dtype == torch.float32
    assert relative_error(gradient, expected) < 0.05


def test_autocast_does_not_touch_what_is_only_padded_or_normalised() -> None:
    x = sample(2, 3, 5, 6)
    with torch.autocast(DEVICE, BFLOAT16):
        padded, normalised = reflection_pad(x, 1, impl="triton"), instance_norm(x, impl="triton")
    assert torch.equal(padded, reflection_pad(x, 1, impl="triton"))
    assert torch.equal(normalised, instance_norm(x, impl="triton"))
    assert padded.dtype == normalised.dtype == torch.float32


# --- gradients ------------------------------------------------------------------------------------------------------

DIFFERENTIABLE: dict[str, Callable[[Tensor, Impl], Tensor]] = {
    "instance_norm": lambda x, impl: instance_norm(x, activation="leaky_relu", pad=1, impl=impl),
    "reflection_pad": lambda x, impl: reflection_pad(x, 2, impl=impl),
    "conv2d_reflect": lambda x, impl: conv2d_reflect(x, sample(3, 3, 3, 3, seed=1).to(x.dtype), impl=impl)[0],
    "residual_block": lambda x, impl: residual_block(
        x, sample(3, 3, 3, 3, seed=1).to(x.dtype), sample(3, 3, 3, 3, seed=2).to(x.dtype), impl=impl
    ),
    "blocks behind a norm": lambda x, impl: residual_block(
        instance_norm(x, pad=1, impl=impl),
        sample(3, 3, 3, 3, seed=1).to(x.dtype),
        sample(3, 3, 3, 3, seed=2).to(x.dtype),
        impl=impl,
    ),
}


@pytest.mark.parametrize("loss", [torch.sum, lambda y: y.square().sum()], ids=["linear loss", "square loss"])
@pytest.mark.parametrize("operator", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_a_second_derivative_is_right_or_refused_and_never_left_out_of_a_sum(
    operator: Callable[[Tensor, Impl], Tensor], loss: Callable[[Tensor], Tensor]
) -> None:
    """Puts a gradient penalty beside another loss: without its part the gradient would be wrong in silence."""

    def gradient_of_penalised_loss(x: Tensor, impl: Impl) -> Tensor:
        (slope,) = torch.autograd.grad(loss(operator(x, impl)), x, create_graph=True)
        (gradient,) = torch.autograd.grad(slope.square().sum() + x.pow(3).sum(), x)
        return gradient

    x = sample(2, 3, 6, 7)
    exact = gradient_of_penalised_loss(wide(x), "reference")
    try:
        found = gradient_of_penalised_loss(x, "triton")
    except RuntimeError as error:
        assert re.search("twice|second derivative", str(error))  # noqa: PT017  # one of two outcomes that will do
    else:
        assert relative_error(found, exact) < FLOAT32_ERROR


@pytest.mark.parametrize("operator", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_forward_mode_and_torch_func_are_refused_not_ignored(operator: Callable[[Tensor, Impl], Tensor]) -> None:
    x = sample(1, 3, 6, 7, requires_grad=False)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(RuntimeError, match="no forward-mode derivative"):
            operator(dual, "triton")
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda x: operator(x, "triton").sum())(x)


@pytest.mark.parametrize("operator", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_without_a_graph_the_results_have_the_same_bits(operator: Callable[[Tensor, Impl], Tensor]) -> None:
    x = sample(1, 3, 6, 7)
    expected = operator(x, "triton")
    assert expected.requires_grad
    with torch.no_grad():
        without_graph = operator(x, "triton")
    with torch.inference_mode():
        for_inference = operator(x, "triton")
    assert for_inference.is_inference()
    assert not without_graph.requires_grad
    assert torch.equal(without_graph, expected)
    assert torch.equal(for_inference, expected)


@pytest.mark.parametrize("operator", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_a_result_may_be_written_to_and_what_backward_needs_may_not(
    operator: Callable[[Tensor, Impl], Tensor],
) -> None:
    x = sample(2, 3, 6, 7)
    (found,) = torch.autograd.grad(operator(x * 1, "triton").relu_().sum(), x)
    exact = wide(x)
    (expected,) = torch.autograd.grad(operator(exact, "reference").relu().sum(), exact)
    assert relative_error(found, expected) < FLOAT32_ERROR

    saved = x * 1
    y = operator(saved, "triton")
    saved.mul_(2)
    if operator is not DIFFERENTIABLE["reflection_pad"]:  # which keeps nothing
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


WANTED = [wanted for wanted in itertools.product((True, False), repeat=3) if any(wanted)]


@pytest.mark.parametrize("pad_out", [0, 1])
@pytest.mark.parametrize("wanted", WANTED, ids=[str([n for n, w in zip("x12", ws, strict=True) if w]) for ws in WANTED])
def test_a_residual_block_gives_the_gradients_that_are_wanted_and_no_others(
    wanted: tuple[bool, bool, bool], pad_out: int
) -> None:
    operands = [operand.detach().requires_grad_(w) for operand, w in zip(block_operands(), wanted, strict=True)]
    exact = [wide(operand) for operand in operands]
    y = residual_block(*operands, pad_out=pad_out, impl="triton")
    cotangent = sample(*y.shape, seed=9)
    y.backward(cotangent)
    residual_block(*exact, pad_out=pad_out, impl="reference").backward(wide(cotangent))
    for operand, truth, is_wanted in zip(operands, exact, wanted, strict=True):
        assert (operand.grad is not None) == is_wanted
        if operand.grad is not None and truth.grad is not None:
            assert relative_error(operand.grad, truth.grad) < FLOAT32_ERROR


@pytest.mark.parametrize("frozen", ["first", "second", "both"])
def test_frozen_blocks_in_a_row_pass_the_gradient_through_and_collect_none(frozen: str) -> None:
    """Freezes weights, as of a network whose gradient is wanted for its image only."""
    x, first, second = sample(1, 3, 6, 7), sample(3, 3, 3, 3, seed=1), sample(3, 3, 3, 3, seed=2)
    first.requires_grad_(frozen == "second")
    second.requires_grad_(frozen == "first")

    def gradients(impl: Impl) -> list[Tensor | None]:
        operands = (x, first, second, sample(1, 3, 6, 7, seed=9))
        image, weight1, weight2, cotangent = operands if impl == "triton" else (wide(t) for t in operands)
        y = residual_block(instance_norm(image, pad=1, impl=impl), weight1, weight1, impl=impl)
        y = residual_block(y, weight2, weight2, pad_out=0, impl=impl)
        y.backward(cotangent)
        return [image.grad, weight1.grad, weight2.grad]

    for found, exact in zip(gradients("triton"), gradients("reference"), strict=True):
        assert (found is None) == (exact is None)
        if found is not None and exact is not None:
            assert relative_error(found, exact) < FLOAT32_ERROR


def test_a_norm_with_a_frozen_input_gives_its_residual_the_gradient_and_the_input_none() -> None:
    for pad in (0, 1):
        x, residual = sample(1, 3, 5, 6, requires_grad=False), sample(1, 3, 5, 6, seed=1)
        y = instance_norm(x, residual=residual, pad=pad, impl="triton")
        cotangent = sample(*y.shape, seed=2)
        exact = wide(residual)
        y.backward(cotangent)
        instance_norm(wide(x), residual=exact, pad=pad, impl="reference").backward(wide(cotangent))
        assert x.grad is None
        assert residual.grad is not None
        assert exact.grad is not None
        assert relative_error(residual.grad, exact.grad) < FLOAT32_ERROR


@pytest.mark.parametrize("use_reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_checkpointed_blocks_have_the_same_result_and_the_same_gradients(use_reentrant: bool) -> None:
    x, *weights = block_operands()

    def blocks(x: Tensor) -> Tensor:
        y = residual_block(instance_norm(x, pad=1, impl="triton"), *weights, impl="triton")
        return residual_block(y, *weights, impl="triton")

    y, checkpointed = blocks(x), checkpoint(blocks, x, use_reentrant=use_reentrant)
    assert torch.equal(checkpointed, y)
    cotangent = sample(*y.shape, seed=9)
    y.backward(cotangent)
    expected = [tensor.grad for tensor in (x, *weights)]
    for tensor in (x, *weights):
        tensor.grad = None
    checkpointed.backward(cotangent)
    for tensor, gradient in zip((x, *weights), expected, strict=True):
        assert gradient is not None
        assert tensor.grad is not None
        assert relative_error(tensor.grad, gradient) < FLOAT32_ERROR


# --- networks of them -----------------------------------------------------------------------------------------------


def generator(impl: Impl = "triton") -> ResnetGenerator:
    torch.manual_seed(0)
    return ResnetGenerator(width=2, blocks=2, impl=impl).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # absent from torch's stubs


def image(seed: int = 0) -> Tensor:
    return sample(1, 3, 16, 12, seed=seed)


def test_functional_call_gives_the_result_and_the_gradients_to_the_weights_that_were_handed_in() -> None:
    network, other = generator(), generator()
    for parameter in other.parameters():
        parameter.data.neg_()
    weights = {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in other.named_parameters()}
    y, expected = functional_call(network, weights, (image(),)), other(image())
    assert torch.equal(y, expected)
    y.sum().backward()
    expected.sum().backward()
    for name, parameter in other.named_parameters():
        assert (weights[name].grad is None) == (parameter.grad is None), name
        if parameter.grad is not None:
            assert torch.equal(weights[name].grad, parameter.grad), name  # type: ignore[arg-type]  # compared above
    assert all(parameter.grad is None for parameter in network.parameters())


def test_copies_and_pickles_of_a_network_that_ran_compute_the_same_bits() -> None:
    network = generator()
    y = network(image())
    y.sum().backward()
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for twin in (copy.deepcopy(network), torch.load(file, weights_only=False)):
        assert torch.equal(twin(image()), y)


@pytest.fixture
def auto_is_triton_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Makes "auto" treat every tensor as it does those of a GPU; yields the names of the kernels launched."""
    monkeypatch.delenv(dispatch.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(dispatch, "_suits_triton", lambda x, dtypes: True)
    launched: list[str] = []

    def record(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        launched.append(kernel.fn.__name__)
        launching.launch_kernel(kernel, grid, arguments, options)

    with launching_with(record):
        yield launched


@pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])
def test_an_exported_generator_holds_plain_operators_only_also_where_auto_is_triton(
    strict: bool, auto_is_triton_here: list[str]
) -> None:
    network = generator("auto")
    y = network(image())
    assert auto_is_triton_here
    auto_is_triton_here.clear()
    exported = torch.export.export(network, (image(),), strict=strict)
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert not [target for target in targets if "cyclegan_fast" in target]
    assert any("instance_norm" in target or "batch_norm" in target for target in targets)
    assert not auto_is_triton_here
    assert relative_error(exported.module()(image()), y) < FLOAT32_ERROR
