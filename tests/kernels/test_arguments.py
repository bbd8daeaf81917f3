"""Arguments that no implementation takes are refused by all in the same words; what one takes, all take."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cyclegan_fast.kernels import accelerate, conv2d_reflect, instance_norm, reflection_pad, residual_block
from cyclegan_fast.kernels.cpu.compilation import is_compiled
from cyclegan_fast.kernels.elementwise.bias_activation import bias_activation
from cyclegan_fast.kernels.elementwise.image_exchange import image_exchange
from cyclegan_fast.kernels.elementwise.mean_error import mean_error
from cyclegan_fast.kernels.elementwise.signed_windows import signed_windows
from cyclegan_fast.kernels.nn import InstanceNorm2d, ReflectionPad2d, ResidualBlock
from cyclegan_fast.kernels.thin_convolution.convolution import conv2d_from_thin, conv2d_to_thin
from tests.kernels.conftest import DEVICE

X = torch.ones(2, 4, 5, 6, device=DEVICE)
W = torch.ones(4, 4, 3, 3, device=DEVICE)
BYTES = torch.ones(2, 5, 6, 3, dtype=torch.uint8, device=DEVICE)
CROPS = torch.zeros(2, 3, dtype=torch.int64, device=DEVICE)

Operator = Callable[..., Any]
FITTING: dict[str, tuple[Operator, dict[str, Any]]] = {
    "instance_norm": (
        instance_norm,
        {
            "x": X,
            "activation": "relu",
            "negative_slope": 0.2,
            "residual": X,
            "pad": 1,
            "eps": 1e-5,
            "partials": torch.ones(2, 1, 3, 4, device=DEVICE),
        },
    ),
    "reflection_pad": (reflection_pad, {"x": X, "pad": 1}),
    "residual_block": (residual_block, {"x": X, "weight1": W, "weight2": W, "pad_out": 1, "eps": 1e-5}),
    "conv2d_reflect": (conv2d_reflect, {"x": X, "weight": W}),
    "bias_activation": (
        bias_activation,
        {"x": X, "bias": X[0, :, 0, 0].contiguous(), "activation": "tanh", "negative_slope": 0.2},
    ),
    "mean_error": (mean_error, {"x": X, "y": X, "kind": "absolute", "weight": 1.0, "directions": 2}),
    "conv2d_to_thin": (
        conv2d_to_thin,
        {"x": X, "weight": W, "bias": X[0, :, 0, 0].contiguous(), "groups": 1, "tanh": True},
    ),
    "conv2d_from_thin": (conv2d_from_thin, {"x": X, "weight": W, "groups": 1}),
    "image_exchange": (
        image_exchange,
        {"images": X, "stack": X[:1].clone(), "decisions": torch.zeros(2, 2, dtype=torch.int64, device=DEVICE)},
    ),
    "signed_windows": (
        signed_windows,
        {"pixels": BYTES, "crops": CROPS, "height": 2, "width": 2, "low": -1.0, "high": 9.0},
    ),
}
BAD_TENSORS: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: 3,
    lambda x: "x",
    lambda x: x.tolist(),
    lambda x: x.cpu().numpy(),
    lambda x: x.to_sparse(),
    lambda x: x.float().cpu().to_mkldnn(),
    lambda x: x.to(torch.complex64),
    lambda x: torch.nested.nested_tensor(list(x)),
    lambda x: x[None, None, None],
    lambda x: x[..., :0, :, :] if x.dim() > 2 else x[:0],
)
BAD_INTEGERS = (None, "1", True, 1.5, float("nan"), -1, 2**70, [1], torch.ones(1))
BAD_NUMBERS = (None, "1", True, float("nan"), float("inf"), 10**400, [1], torch.ones(2))
BAD_CHOICES = (None, 3, "gelu", ["relu"], np.array(["relu", "none"]))
WORSE = {
    "eps": (*BAD_NUMBERS, -1, -1e-5),
    "negative_slope": BAD_NUMBERS,
    "weight": BAD_NUMBERS,
    "low": (*BAD_NUMBERS, -1e39),
    "high": (*BAD_NUMBERS, 1e39, -1, -1.0 + 1e-45),
    "activation": BAD_CHOICES,
    "kind": BAD_CHOICES,
    "tanh": (None, 1, "yes"),
}


def implementations(name: str) -> list[str]:
    in_c = name in ("instance_norm", "reflection_pad") and DEVICE == "cpu" and is_compiled()
    return ["auto", "reference", "triton", *(["c"] if in_c else [])]


@pytest.mark.parametrize("name", FITTING)
def test_every_argument_is_checked_before_an_implementation_is_chosen(name: str) -> None:
    operator, fitting = FITTING[name]
    for argument, value in fitting.items():
        is_tensor = isinstance(value, Tensor)
        bad = [make(value) for make in BAD_TENSORS] if is_tensor else WORSE.get(argument, BAD_INTEGERS)
        if name == "mean_error" and argument in ("x", "y"):
            bad = bad[:-2]  # an error has no shape of its own
        if argument == "pixels":
            bad = bad[:-1]  # it is the window that does not fit then
        for one in bad:
            words = set()
            for impl in implementations(name):
                with pytest.raises((ValueError, TypeError)) as caught:
                    operator(**{**fitting, argument: one}, impl=impl)
                words.add((type(caught.value), str(caught.value)))
            assert len(words) == 1, words
            ((_, said),) = words
            assert said.startswith(f"{argument} must ") or "y must have x's shape" in said
            assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", FITTING)
def test_an_implementation_that_there_is_not_is_refused_by_name(name: str) -> None:
    operator, fitting = FITTING[name]
    for impl in (None, 3, "numba", ["auto"], np.array(["auto", "c"])):
        with pytest.raises(ValueError, match="impl must be one of auto, triton, c, reference, got"):
            operator(**fitting, impl=impl)


def test_messages_name_the_argument_the_value_and_what_is_allowed() -> None:
    for call, error, message in (
        (lambda: instance_norm(X, pad=1.5), TypeError, r"pad must be an integer, got 1\.5 \(float\)"),  # type: ignore[arg-type]
        (lambda: instance_norm(X, pad=True), TypeError, r"pad must be an integer, got True \(bool\)"),
        (lambda: instance_norm(X, eps="1"), TypeError, r"eps must be a number, got '1' \(str\)"),  # type: ignore[arg-type]
        (lambda: instance_norm(X, eps=-1.0), ValueError, r"eps must be a finite number of at least 0, got -1\.0"),
        (
            lambda: instance_norm(X.to_sparse()),
            TypeError,
            "x must be a dense tensor, got one of layout torch.sparse_coo",
        ),
        (lambda: instance_norm(X[:, :0]), ValueError, "x must have at least one channel"),
        (lambda: instance_norm([1.0]), TypeError, r"x must be a tensor, got \[1\.0\] \(list\)"),  # type: ignore[arg-type]
        (lambda: conv2d_reflect(X, W[:0]), ValueError, "C_out at least 1"),
        (
            lambda: instance_norm(X, negative_slope=10**400),
            ValueError,
            "negative_slope must be a number that a float can",
        ),
        (lambda: signed_windows(BYTES, CROPS, 6, 2), ValueError, "height must be at least 1 and at most 5, got 6"),
        (
            lambda: signed_windows(BYTES.double(), CROPS, 5, 2),
            TypeError,
            r"pixels must be torch\.uint8, torch\.uint16, torch\.int16 or torch\.float32 on .*, got torch\.float64",
        ),
        (lambda: signed_windows(BYTES, CROPS, 5, 2, 3, 3), ValueError, "high must be greater than low, .* got 3 and 3"),
        (lambda: signed_windows(BYTES, CROPS, 5, 2, high=1e39), ValueError, "high must be .* float32 can hold, got 1e"),
        (lambda: mean_error(X, X.to("meta"), "absolute"), TypeError, "y must be on "),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("name", ["instance_norm", "reflection_pad", "residual_block", "mean_error"])
def test_numbers_of_numpy_are_taken_by_every_implementation(name: str) -> None:
    operator, fitting = FITTING[name]
    of_numpy = {
        key: np.int64(value) if isinstance(value, int) else np.float32(value)
        for key, value in fitting.items()
        if isinstance(value, int | float)
    }
    for impl in implementations(name):
        expected = operator(**{**fitting, **{key: value.item() for key, value in of_numpy.items()}}, impl=impl)
        assert torch.equal(operator(**{**fitting, **of_numpy}, impl=impl), expected)


def test_views_that_negate_are_taken_by_every_implementation() -> None:
    x = torch.randn(2, 4, 5, 6, device=DEVICE)
    for impl in implementations("instance_norm"):
        y = instance_norm(torch._neg_view(x), residual=torch._neg_view(x), impl=impl)  # type: ignore[arg-type]  # a name
        torch.testing.assert_close(y, instance_norm(-x, residual=-x, impl="reference"))
        leaf = torch._neg_view(x).detach().requires_grad_()
        y = reflection_pad(instance_norm(leaf, activation="relu", pad=1, impl=impl), 1, impl=impl)  # type: ignore[arg-type]
        dy = torch.randn(y.shape, device=DEVICE)
        (found,) = torch.autograd.grad(y, leaf, torch._neg_view(dy), retain_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(y, leaf, -dy)[0])


def test_an_error_of_any_shape_is_the_same_in_every_implementation() -> None:
    for shape in ((), (7,), (2, 3), (2, 3, 4, 5, 6), (0, 3)):
        x, y = (torch.randn(shape, device=DEVICE).requires_grad_() for _ in range(2))
        found = [mean_error(x, y, "absolute", impl=impl) for impl in ("triton", "reference")]
        torch.testing.assert_close(found[0], found[1], equal_nan=True)
        gradients = [torch.autograd.grad(one, [x, y]) for one in found]
        torch.testing.assert_close(gradients[0], gradients[1])


def test_modules_refuse_what_they_are_made_with() -> None:
    for make, error, message in (
        (lambda: InstanceNorm2d(1.5), TypeError, "num_features must be an integer"),  # type: ignore[arg-type]
        (lambda: InstanceNorm2d(0), ValueError, "num_features must be at least 1"),
        (lambda: InstanceNorm2d(3, eps="1"), TypeError, "eps must be a number"),  # type: ignore[arg-type]
        (lambda: InstanceNorm2d(3, pad=True), TypeError, "pad must be an integer"),
        (lambda: InstanceNorm2d(3, negative_slope=float("nan")), ValueError, "negative_slope must be a finite number"),
        (lambda: InstanceNorm2d(3, impl="numba"), ValueError, "impl must be one of"),  # type: ignore[arg-type]
        (lambda: InstanceNorm2d(3, affine=True, impl="c"), ValueError, "impl='c' computes neither affine parameters"),
        (lambda: ReflectionPad2d(1.5), TypeError, "padding must be an integer"),  # type: ignore[arg-type]
        (lambda: ReflectionPad2d((1, 2)), ValueError, "padding must be one integer, or left"),  # type: ignore[arg-type]
        (lambda: ReflectionPad2d((1, 2, 3, 4), impl="c"), ValueError, "impl='c' pads all sides by the same"),
        (lambda: ResidualBlock(0), ValueError, "channels must be at least 1"),
        (lambda: ResidualBlock(3, eps=-1), ValueError, "eps must be a finite number of at least 0"),
        (lambda: ResidualBlock(3, impl="c"), ValueError, "there is no residual block in C"),
        (lambda: InstanceNorm2d(3)([1.0]), TypeError, "x must be a tensor"),
        (lambda: accelerate(nn.Identity(), impl="numba"), ValueError, "impl must be one of"),  # type: ignore[arg-type]
        (lambda: accelerate(nn.Identity(), device="gpu"), ValueError, r"device must be one of PyTorch's.* got 'gpu'"),
        (lambda: accelerate(nn.Identity(), example=[X, 3]), TypeError, "example must be a tensor"),  # type: ignore[list-item]
    ):
        with pytest.raises(error, match=message):
            make()
    assert ReflectionPad2d([1, -1, 0, 2]).padding == (1, -1, 0, 2)  # type: ignore[arg-type]  # PyTorch takes lists, too


def test_a_network_accelerated_in_c_has_its_norms_in_c_and_no_fused_blocks() -> None:
    if DEVICE != "cpu" or not is_compiled():
        pytest.skip("there is no C compiler")
    torch.manual_seed(0)
    network = nn.Sequential(*(ResidualBlockOfTorch(4) for _ in range(2)))
    x = torch.randn(1, 4, 6, 6)
    expected = network(x)
    found = accelerate(network, impl="c", verbose=False)
    assert found.acceleration is not None
    torch.testing.assert_close(found(x), expected)


class ResidualBlockOfTorch(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.block(x)
        return y
