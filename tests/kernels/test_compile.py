"""Triton operators inside torch.compile give one graph without a break, and the results and gradients of eager code."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from cyclegan_fast.kernels import conv2d_reflect, instance_norm, reflection_pad, residual_block
from cyclegan_fast.kernels.checking.accuracy import relative_error
from cyclegan_fast.kernels.dispatch import autocast, is_exporting
from cyclegan_fast.kernels.pending_sum import PendingSum
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import sample

# The same kernels run in both; only the two parts of a block's gradient are added elsewhere.
FLOAT32_ERROR = 1e-6


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def weight(seed: int, outputs: int = 3) -> Tensor:
    return sample(outputs, 3, 3, 3, seed=seed)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "reflection_pad": lambda x, w1, w2: reflection_pad(x.sin(), 2, impl="triton").cos(),
    "instance_norm": lambda x, w1, w2: instance_norm(
        x * 2, activation="leaky_relu", residual=F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1], pad=1, impl="triton"
    ),
    "conv2d_reflect and its norm": lambda x, w1, w2: normalised_convolution(x, w1),
    "residual_block behind a norm": lambda x, w1, w2: block(x, w1, w2),
}


def normalised_convolution(x: Tensor, w: Tensor) -> Tensor:
    y, partials = conv2d_reflect(x, w, impl="triton")
    return instance_norm(y, activation="relu", partials=partials, impl="triton")


def block(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    return residual_block(instance_norm(x, activation="relu", pad=1, impl="triton"), w1, w2, impl="triton").relu()


def results_and_gradients(function: Callable[..., Tensor], operands: Sequence[Tensor]) -> list[Tensor | None]:
    y = function(*operands)
    cotangent = sample(*y.shape, seed=9, dtype=y.dtype, requires_grad=False)
    return [y, *torch.autograd.grad(y, operands, cotangent, allow_unused=True)]


def assert_same(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours.dtype == theirs.dtype
            assert relative_error(ours, theirs) < FLOAT32_ERROR


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_compiled_function_is_one_graph_with_the_results_and_gradients_of_eager_code(name: str) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, backend=counter)
    operands = [sample(1, 3, 6, 7), weight(1), weight(2)]
    assert_same(results_and_gradients(compiled, operands), results_and_gradients(FUNCTIONS[name], operands))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_with_dynamic_shapes_another_size_compiles_nothing(name: str) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, backend=counter, dynamic=True)
    first = [sample(2, 3, 6, 7), weight(1), weight(2)]
    compiled(*first)
    compilations = counter.frame_count  # 2 where a float argument made Dynamo start over
    second = [sample(3, 3, 9, 5), weight(1), weight(2)]
    assert_same(results_and_gradients(compiled, second), results_and_gradients(FUNCTIONS[name], second))
    assert counter.frame_count == compilations


@pytest.mark.parametrize("layout", ["NCHW", "an interior", "no gradient of x", "no gradients"])
def test_a_compiled_block_takes_operands_as_they_lie(layout: str) -> None:
    x, w1, w2 = sample(2, 3, 6, 7), weight(1), weight(2)
    if layout == "NCHW":
        x, w1, w2 = (t.detach().contiguous().requires_grad_(True) for t in (x, w1, w2))
    elif layout == "an interior":
        x = sample(2, 3, 8, 9).detach()[:, :, 1:-1, 1:-1].requires_grad_(True)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    if layout == "no gradients":
        with torch.no_grad():
            assert_same([compiled(x, w1, w2)], [block(x, w1, w2)])
        return
    if layout == "no gradient of x":
        x.requires_grad_(False)
    wanted = [t for t in (x, w1, w2) if t.requires_grad]
    results = []
    for function in (compiled, block):
        y = function(x, w1, w2)
        cotangent = sample(*y.shape, seed=9, channels_last=layout != "NCHW", requires_grad=False)
        results.append([y, *torch.autograd.grad(y, wanted, cotangent)])
    assert_same(*results)


def test_a_compiled_block_under_autocast_computes_in_bfloat16_and_gives_float32_gradients() -> None:
    def under_autocast(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        with torch.autocast(DEVICE, torch.bfloat16):
            y = reflection_pad(x, 1, impl="triton")
            return residual_block(y, w1, w2, pad_out=0, impl="triton")

    operands = [sample(1, 3, 6, 7), weight(1), weight(2)]
    compiled = torch.compile(under_autocast, fullgraph=True, backend="aot_eager")
    found, expected = (results_and_gradients(f, operands) for f in (compiled, under_autocast))
    assert found[0] is not None
    assert found[0].dtype == torch.bfloat16
    assert_same(found, expected)


def networks() -> Iterator[Any]:
    for make in (
        lambda: ResnetGenerator(width=2, blocks=2, impl="triton"),
        lambda: PatchDiscriminator(width=2, impl="triton"),
    ):
        torch.manual_seed(0)
        yield make().to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from stubs


@pytest.mark.parametrize("number", [0, 1], ids=["generator", "discriminator"])
def test_a_compiled_network_is_one_graph_with_the_results_and_gradients_of_eager_code(number: int) -> None:
    network = list(networks())[number]
    image = sample(1, 3, 24, 24)
    trained = [image, *(p for p in network.parameters() if p.requires_grad)]
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(network, fullgraph=True, backend=counter)
    results = []
    for function in (compiled, network):
        y = function(image)
        results.append([y, *torch.autograd.grad(y, trained, sample(*y.shape, seed=9))])
    assert_same(*results)
    assert counter.frame_count == 1


@pytest.mark.skipif(DEVICE == "cpu", reason="Inductor's C++ compiler takes half a minute at its first use")
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels last", "NCHW"])
def test_inductor_compiles_plain_code_around_the_operators_without_a_change_of_results(channels_last: bool) -> None:
    """Inductor asserts the strides that fake tensors promised, and plans memory by them."""
    operands = [
        sample(*shape, seed=seed, channels_last=channels_last)
        for seed, shape in enumerate(((1, 3, 6, 7), (3, 3, 3, 3), (3, 3, 3, 3)))
    ]

    def function(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        y = reflection_pad(x.tanh() + 0.5 * x, 1, impl="triton")
        return residual_block(y, w1, w2, impl="triton").sigmoid() * 3

    compiled = torch.compile(function, fullgraph=True, backend="inductor")
    assert_same(results_and_gradients(compiled, operands), results_and_gradients(function, operands))


def test_an_implementation_that_cannot_run_is_refused_under_compilation_too() -> None:
    compiled = torch.compile(lambda x: instance_norm(x, impl="triton"), backend="eager")
    with pytest.raises(TypeError, match=r"takes float32, float16 or bfloat16, got torch\.float64"):
        compiled(sample(1, 2, 4, 4).double())


def test_a_gradient_in_two_parts_asks_nothing_of_a_gpu_while_it_is_traced() -> None:
    """Traces with stand-ins that say that they are on a GPU, and have no memory that a stream could hold on to."""
    with FakeTensorMode():
        pending = PendingSum(torch.empty(1, 4, 6, 7, device="cuda"), torch.empty(1, 4, 4, 5, device="cuda"))
        assert [part.shape for part in pending.parts() if part is not None] == [(1, 4, 6, 7), (1, 4, 4, 5)]


class IsExporting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0 if is_exporting() else x + 1


def test_a_compiler_is_no_exporter() -> None:
    """Dynamo of torch 2.11 takes `torch.compiler.is_exporting()` for True: "auto" became the reference in silence."""
    x = torch.ones(1)
    assert torch.compile(IsExporting(), backend="eager", fullgraph=True)(x).item() == 2
    assert torch.export.export(IsExporting(), (x,)).module()(x).item() == 0


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_autocast_is_asked_for_inside_a_graph(dtype: torch.dtype | None) -> None:
    x, w = torch.ones(1, 3, 4, 4), torch.ones(3, 3, 3, 3)
    compiled = torch.compile(autocast, backend="eager", fullgraph=True)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        assert [tensor.dtype for tensor in compiled(x, w)] == 2 * [dtype or torch.float32]
