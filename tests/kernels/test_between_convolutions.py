"""Our kernels and nothing else run between two convolutions: every launch and every aten call is seen."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cyclegan_fast.kernels import Impl, plans as launch
from cyclegan_fast.kernels.elementwise.bias_activation import (
    _backward as bias_activation_backward,
    _forward as bias_activation_forward,
)
from cyclegan_fast.kernels.instance_norm import _launch_backward as norm_backward, _launch_forward as norm_forward
from cyclegan_fast.kernels.launching import Grid, launching_with
from cyclegan_fast.kernels.plans import NormPlan
from cyclegan_fast.kernels.reflection_pad import pad_backward, pad_forward
from cyclegan_fast.kernels.residual_block import _launch_backward as block_backward, _launch_forward as block_forward
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import sample

BLOCKS = 3
BIAS_GRADIENT = ["bias_activation_backward", "column_sums"]
CONVOLUTION = "convolution"
CONVOLUTIONS = {
    "aten.conv2d.default",
    "aten.convolution.default",
    "aten.convolution_backward.default",
}
# What moves no data. A view's own schema says so; these allocate, give a tensor another name, or tell a GPU's allocator
# which stream uses it.
NO_WORK = {
    "aten.empty.memory_format",
    "aten.empty_strided.default",
    "aten.empty_like.default",
    "aten.new_empty.default",
    "aten.detach.default",
    "aten.record_stream.default",
}
OPERATORS = torch.ops.cyclegan_fast
INSIDE = {
    OPERATORS.bias_activation.default: bias_activation_forward,
    OPERATORS.bias_activation_backward.default: bias_activation_backward,
    OPERATORS.instance_norm.default: norm_forward,
    OPERATORS.instance_norm_backward.default: norm_backward,
    OPERATORS.reflection_pad.default: pad_forward,
    OPERATORS.reflection_pad_backward.default: pad_backward,
    OPERATORS.residual_block.default: block_forward,
    OPERATORS.residual_block_backward.default: block_backward,
}


class Recorder(TorchDispatchMode):
    """Writes down what runs, in order. Our operators are opened: what they call is written down, not they."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function in INSIDE:
            with self:
                return INSIDE[function](*arguments)
        name = str(function)
        if name in CONVOLUTIONS:
            self.ran.append(CONVOLUTION)
        elif not function.is_view and name not in NO_WORK:
            self.ran.append(name)
        return function(*arguments, **(options or {}))


@contextmanager
def recording() -> Iterator[list[str]]:
    """Launches are written down and left out: which they are does not depend on what is in the tensors."""
    recorder = Recorder()

    def record(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        recorder.ran.append(kernel.fn.__name__)

    with launching_with(record), recorder:
        yield recorder.ran


def between_convolutions(ran: list[str]) -> list[list[str]]:
    """Return what ran before the first convolution, between each two, and after the last."""
    parts: list[list[str]] = [[]]
    for name in ran:
        if name == CONVOLUTION:
            parts.append([])
        else:
            parts[-1].append(name)
    return parts


def generator(impl: Impl = "triton") -> ResnetGenerator:
    network = ResnetGenerator(width=16, blocks=BLOCKS, impl=impl)
    return network.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # absent from torch's stubs


def discriminator(impl: Impl = "triton") -> PatchDiscriminator:
    network = PatchDiscriminator(width=16, impl=impl)
    return network.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # absent from torch's stubs


def forward_and_backward(
    network: ResnetGenerator | PatchDiscriminator, image: Tensor
) -> tuple[list[list[str]], list[list[str]]]:
    with recording() as ran:
        y = network(image)
        forward = between_convolutions(ran)
        ran.clear()
        cotangent = torch.empty_like(y)
        y.backward(cotangent)
    return forward, between_convolutions(ran)


# The planes here fit into one program; in pieces of 32 pixels they take two launches, as the large sites do.
VARIANTS: dict[str, tuple[NormPlan | None, list[str], list[str]]] = {
    "on chip": (None, ["instance_norm_on_chip"], ["instance_norm_backward_on_chip"]),
    "two phases": (
        NormPlan("two_phase", 32, 16, 4, 32, 64),
        ["instance_norm_statistics", "instance_norm_apply"],
        ["instance_norm_backward_sums", "instance_norm_backward_apply"],
    ),
}
VARIANT = pytest.mark.parametrize(("plan", "norm", "norm_gradient"), VARIANTS.values(), ids=VARIANTS)
IMAGE = pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 3, 24, 32)], ids=["batch 1", "batch 2, not square"])


@VARIANT
@IMAGE
def test_between_two_convolutions_of_a_generator_run_at_most_two_launches_and_nothing_else(
    shape: tuple[int, int, int, int], plan: NormPlan | None, norm: list[str], norm_gradient: list[str]
) -> None:
    with launch.forcing(plan) if plan else nullcontext():
        forward, backward = forward_and_backward(generator(), sample(*shape))
    first, *between, last = forward
    assert first == ["reflection_pad_forward"]
    assert between == [norm] * (3 + 2 * BLOCKS + 2)
    assert last == ["bias_activation_forward"]

    first, *between, last = backward
    assert first == BIAS_GRADIENT
    # The gradients of an input and of a weight may be two calls, with nothing in between.
    assert [part for part in between if part] == [norm_gradient] * (3 + 2 * BLOCKS + 2)
    assert last == ["reflection_pad_backward"]


@VARIANT
@IMAGE
def test_between_two_convolutions_of_a_discriminator_run_at_most_two_launches_and_nothing_else(
    shape: tuple[int, int, int, int], plan: NormPlan | None, norm: list[str], norm_gradient: list[str]
) -> None:
    with launch.forcing(plan) if plan else nullcontext():
        forward, backward = forward_and_backward(discriminator(), sample(*shape))
    assert forward == [[], ["bias_activation_forward"], norm, norm, norm, []]  # the first layer has no norm
    assert backward == [[], norm_gradient, norm_gradient, norm_gradient, BIAS_GRADIENT, []]


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels last", "NCHW"])
def test_neither_bfloat16_nor_an_image_in_nchw_adds_a_copy(channels_last: bool) -> None:
    image = sample(1, 3, 32, 32, dtype=torch.bfloat16, channels_last=channels_last, requires_grad=False)
    forward, backward = forward_and_backward(generator().to(torch.bfloat16), image)
    assert {name for part in (*forward, *backward) for name in part} == {
        "reflection_pad_forward",
        "instance_norm_on_chip",
        "bias_activation_forward",
        *BIAS_GRADIENT,
        "instance_norm_backward_on_chip",
    }


def test_a_frozen_discriminator_passes_the_images_gradient_on_and_runs_no_more() -> None:
    network = discriminator().requires_grad_(False)
    forward, backward = forward_and_backward(network, sample(1, 3, 32, 32))
    norm, norm_gradient = ["instance_norm_on_chip"], ["instance_norm_backward_on_chip"]
    assert forward == [[], ["bias_activation_forward"], norm, norm, norm, []]
    assert backward == [[], norm_gradient, norm_gradient, norm_gradient, ["bias_activation_backward"], []]


def test_an_image_without_a_gradient_is_not_padded_back() -> None:
    _, backward = forward_and_backward(generator(), sample(1, 3, 32, 32, requires_grad=False))
    assert backward[-1] == []


def test_what_plain_operators_run_in_between_would_be_seen() -> None:
    forward, backward = forward_and_backward(generator("reference"), sample(1, 3, 32, 32))
    ran = {name for part in (*forward, *backward) for name in part}
    assert {
        "aten.reflection_pad2d.default",
        "aten.relu.default",
        "aten.add.Tensor",
        "aten.threshold_backward.default",
        "aten.reflection_pad2d_backward.default",
    } <= ran
    assert "aten.slice_backward.default" not in ran, "blocks of plain operators are unpadded"
