"""Holds the modules to PyTorch's of the same names, and the residual block to the original's."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases.plain_cyclegan import PlainResidualBlock
from cyclegan_fast.kernels.checking.accuracy import relative_error
from cyclegan_fast.kernels.nn import InstanceNorm2d, ReflectionPad2d, ResidualBlock
from cyclegan_fast.kernels.nn.instance_norm2d import _warn
from tests.kernels.conftest import DEVICE

pytestmark = pytest.mark.usefixtures("one_thread")


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE)


def assert_same(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Results and gradients agree in float64."""
    found, expected = (
        _result_and_gradients(function, [x.clone().requires_grad_() for x in inputs]) for function in (ours, theirs)
    )
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) <= 1e-12


def _result_and_gradients(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    y = function(*inputs)
    return [y, *torch.autograd.grad(y, inputs, values(*y.shape, seed=1))]


NORM_OPTIONS: list[dict[str, Any]] = [
    {},
    {"eps": 1e-2, "momentum": 0.3},
    {"affine": True},
    {"track_running_stats": True},
    {"affine": True, "track_running_stats": True, "momentum": 0.5},
]


@pytest.mark.parametrize("options", NORM_OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 3, 5, 4), (3, 5, 4)], ids=str)
def test_an_instance_norm_is_pytorchs(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    ours = InstanceNorm2d(3, **options, device=DEVICE, dtype=torch.float64)
    theirs = nn.InstanceNorm2d(3, **options, device=DEVICE, dtype=torch.float64)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, nn.InstanceNorm2d)
    if ours.affine:
        nn.init.normal_(ours.weight)
        nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        assert_same(ours, theirs, values(*shape))
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)


@pytest.mark.parametrize("affine", [False, True])
def test_activation_sum_and_padding_come_behind_the_norm(affine: bool) -> None:
    ours = InstanceNorm2d(3, affine=affine, activation="leaky_relu", negative_slope=0.3, pad=2).to(
        DEVICE, torch.float64
    )

    def theirs(x: Tensor, residual: Tensor) -> Tensor:
        return F.pad(F.leaky_relu(F.instance_norm(x), 0.3) + residual, (2, 2, 2, 2), mode="reflect")

    assert_same(ours, theirs, values(2, 3, 5, 4), values(2, 3, 5, 4, seed=2))
    assert "activation='leaky_relu', negative_slope=0.3, pad=2" in repr(ours)


def test_a_residual_of_another_dtype_is_added_as_pytorch_adds_it() -> None:
    norm = InstanceNorm2d(3, activation="relu", pad=1)
    x, residual = values(1, 3, 4, 4).bfloat16(), values(1, 3, 4, 4, seed=3).float()
    y = norm(x, residual)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, F.pad(F.relu(norm_of(x)) + residual, (1, 1, 1, 1), mode="reflect"))


def norm_of(x: Tensor) -> Tensor:
    return InstanceNorm2d(x.size(1))(x)


def test_dimensions_and_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="3D or 4D"):
        InstanceNorm2d(3)(values(3, 4))
    with pytest.raises(ValueError, match="activation must be one of none, relu, leaky_relu, got 'gelu'"):
        InstanceNorm2d(3, activation="gelu")  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(ValueError, match="pad must be at least 0, got -1"):
        InstanceNorm2d(3, pad=-1)
    with pytest.raises(ValueError, match="neither affine parameters nor running statistics"):
        InstanceNorm2d(3, affine=True, impl="triton")
    with pytest.raises(ValueError, match="pads all sides by the same"):
        ReflectionPad2d((1, 2, 3, 0), impl="triton")


def test_what_runs_in_parts_where_it_could_be_fused_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLEGAN_FAST_IMPL", "triton")  # what "auto" is on a GPU
    _warn.cache_clear()
    norm, x = InstanceNorm2d(3, affine=True).to(DEVICE), values(1, 3, 4, 4).float()
    with pytest.warns(UserWarning, match="runs as PyTorch's, not fused"):
        norm(x)
    with pytest.warns(UserWarning, match="not the same on all sides"):
        ReflectionPad2d((1, 0, 1, 0))(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        norm(x)
        ReflectionPad2d((1, 0, 1, 0))(x)


@pytest.mark.parametrize("padding", [0, 2, (1, 1, 1, 1), (1, 2, 0, 3)], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (3, 5, 4)], ids=str)
def test_a_reflection_pad_is_pytorchs(padding: Any, shape: tuple[int, ...]) -> None:
    ours, theirs = ReflectionPad2d(padding), nn.ReflectionPad2d(padding)
    assert repr(ours) == repr(theirs)
    assert_same(ours, theirs, values(*shape))


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (3, 5, 4)], ids=str)
def test_a_residual_block_takes_the_originals_weights_and_computes_the_same(shape: tuple[int, ...]) -> None:
    theirs = PlainResidualBlock(3, False, False).to(DEVICE, torch.float64)
    ours = ResidualBlock(3, device=DEVICE, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, values(*shape))


def test_blocks_hand_on_padded_buffers() -> None:
    blocks = [ResidualBlock(3, bias=False, device=DEVICE, dtype=torch.float64) for _ in range(2)]

    def together(x: Tensor) -> Tensor:
        return blocks[1](blocks[0](x, pad_out=1), is_padded=True)  # type: ignore[no-any-return]  # a module's result

    assert_same(together, lambda x: blocks[1](blocks[0](x)), values(1, 3, 4, 5))


@pytest.mark.parametrize("make", [lambda: InstanceNorm2d(3, activation="relu", pad=1), lambda: ResidualBlock(3)])
def test_on_triton_a_module_is_what_it_is_by_plain_operators(make: Callable[[], nn.Module]) -> None:
    plain = make().to(DEVICE)
    fused = copy.deepcopy(plain)
    for module in fused.modules():
        if hasattr(module, "impl"):
            module.impl = "triton"
    x = values(1, 3, 6, 5).float()
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-5, atol=1e-5)


def test_the_gradient_of_one_image_does_not_depend_on_the_stride_of_its_batch() -> None:
    x = values(7, 6, 4).permute(2, 0, 1)[None]
    assert x.stride(0) != x.numel(), "as views of one image have it"
    assert_same(
        lambda y: norm_of(y.permute(2, 0, 1)[None]),
        lambda y: F.instance_norm(y.permute(2, 0, 1).contiguous()[None]),
        values(7, 6, 4),
    )
