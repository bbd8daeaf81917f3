"""Gradients of a padded buffer between two blocks are whole, however they are looked at."""

import copy
import io
import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cyclegan_fast.kernels import Impl, instance_norm, plans, reflection_pad, residual_block
from cyclegan_fast.kernels.checking.accuracy import relative_error
from cyclegan_fast.kernels.gpus import gpu_of
from cyclegan_fast.kernels.pending_sum import PendingSum
from tests.kernels.accuracy import Signs
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import sample, wide


@pytest.fixture(autouse=True, params=[False, True], ids=["padded", "folded"])
def folded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of buffers are there as they are, or only as their folds until someone looks at them."""
    monkeypatch.setattr(plans, "edges_beat_padding", lambda *_: request.param)
    monkeypatch.setattr(plans, "edge_plan", lambda *_: plans.EdgePlan(16, 16, 16, 4, 2))


# Against float64; leaving out the gradient around the block is off by a third and more.
FLOAT32_ERROR = 1e-5
BUFFERS = ("behind a norm", "behind a block")
IMPLEMENTATIONS: tuple[Impl, ...] = ("triton", "reference")


@dataclass(frozen=True)
class Chain:
    """image -> norm, pad 1 -> block -> block: two buffers whose gradient comes in two parts."""

    operands: list[Tensor]
    """the image, and the weights of both blocks"""
    buffers: dict[str, Tensor]
    result: Tensor
    cotangent: Tensor

    def gradients(self, *of: Tensor) -> list[Tensor]:
        """Return gradients of the operands unless told otherwise; the graph stays."""
        wanted = of or self.operands
        return list(torch.autograd.grad(self.result, wanted, self.cotangent, retain_graph=True))


def new_chain(impl: Impl = "triton", pad_out: int = 0) -> Chain:
    operands = [sample(1, 3, 5, 6), *(sample(3, 3, 3, 3, seed=seed) for seed in range(1, 5))]
    if impl == "reference":
        operands = [wide(operand) for operand in operands]
    image, *weights = operands
    first = instance_norm(image, activation="relu", pad=1, impl=impl)
    second = residual_block(first, weights[0], weights[1], impl=impl)
    result = residual_block(second, weights[2], weights[3], pad_out=pad_out, impl=impl)
    cotangent = sample(*result.shape, seed=9, requires_grad=False)
    cotangent = wide(cotangent) if impl == "reference" else cotangent
    return Chain(operands, dict(zip(BUFFERS, (first, second), strict=True)), result, cotangent)


chain = cache(new_chain)
"""One that tests share: its graph stays, its leaves collect nothing, hooks are taken off again."""


@cache
def exact_gradients(pad_out: int = 0) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the gradients of the two buffers, and of the operands, in float64."""
    exact = chain("reference", pad_out)
    return dict(zip(BUFFERS, exact.gradients(*exact.buffers.values()), strict=True)), exact.gradients()


def assert_same(found: Sequence[Tensor | None], exact: Sequence[Tensor]) -> None:
    for gradient, truth in zip(found, exact, strict=True):
        assert gradient is not None
        assert relative_error(gradient, truth) < FLOAT32_ERROR


# --- where it shows up ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad_out", [0, 1])
@pytest.mark.parametrize("buffer", BUFFERS)
def test_the_gradient_asked_for_at_a_buffer_is_the_whole_one(buffer: str, pad_out: int) -> None:
    chained = chain(pad_out=pad_out)
    assert_same(chained.gradients(chained.buffers[buffer]), [exact_gradients(pad_out)[0][buffer]])


def test_gradients_of_buffers_and_operands_can_be_asked_for_at_once() -> None:
    chained = chain()
    found = chained.gradients(*chained.buffers.values(), *chained.operands)
    assert_same(found, [*exact_gradients()[0].values(), *exact_gradients()[1]])
    assert all(type(gradient) is Tensor for gradient in found[2:])


def test_a_buffer_that_retains_its_gradient_holds_the_whole_one_and_adds_up_over_two_passes() -> None:
    chained = new_chain()
    for buffer in chained.buffers.values():
        buffer.retain_grad()
    for times in (1, 2):
        chained.result.backward(chained.cotangent, retain_graph=True)
        found = [*chained.buffers.values(), *chained.operands]
        exact = [*exact_gradients()[0].values(), *exact_gradients()[1]]
        assert_same([tensor.grad for tensor in found], [times * gradient for gradient in exact])


@pytest.mark.parametrize("name", BUFFERS)
def test_a_backward_pass_that_ends_at_a_buffer_leaves_the_whole_gradient_there(name: str) -> None:
    chained = new_chain()
    chained.result.backward(chained.cotangent, inputs=[chained.buffers[name]])
    assert_same([chained.buffers[name].grad], [exact_gradients()[0][name]])
    assert chained.operands[0].grad is None


@pytest.mark.parametrize("buffer", BUFFERS)
def test_a_hook_that_reads_sees_the_whole_gradient_and_changes_nothing(buffer: str) -> None:
    seen: list[Tensor] = []

    def read(gradient: Tensor) -> None:
        seen.append(gradient.detach().clone())
        assert np.isfinite(gradient.cpu().numpy()).all()

    with chain().buffers[buffer].register_hook(read):
        found = chain().gradients()
    assert_same(seen, [exact_gradients()[0][buffer]])
    assert_same(found, exact_gradients()[1])


def returns_another(gradient: Tensor) -> Tensor:
    return gradient * 2


def writes_to_it(gradient: Tensor) -> None:
    gradient.mul_(2)


def writes_to_it_and_returns_it(gradient: Tensor) -> Tensor:
    return gradient.mul_(2)


@pytest.mark.parametrize("hook", [returns_another, writes_to_it, writes_to_it_and_returns_it])
@pytest.mark.parametrize("buffer", BUFFERS)
def test_what_a_hook_makes_of_the_whole_gradient_goes_on_to_everything_in_front(
    buffer: str, hook: Callable[[Tensor], Tensor | None]
) -> None:
    with chain().buffers[buffer].register_hook(hook):
        found = chain().gradients()
    in_front = {"behind a norm": 1, "behind a block": 3}[buffer]
    exact = exact_gradients()[1]
    assert_same(found, [2 * gradient for gradient in exact[:in_front]] + exact[in_front:])


@pytest.mark.parametrize("buffer", BUFFERS)
def test_a_hook_that_writes_to_the_interior_only_is_obeyed(buffer: str) -> None:
    def keep_the_pad(gradient: Tensor) -> None:
        gradient[:, :, 1:-1, 1:-1] = 0

    results = []
    for impl in IMPLEMENTATIONS:
        with chain(impl).buffers[buffer].register_hook(keep_the_pad):
            results.append(chain(impl).gradients())
    assert_same(*results)


@pytest.mark.parametrize("buffer", BUFFERS)
def test_hooks_of_the_node_behind_a_buffer_see_the_whole_gradient(buffer: str) -> None:
    node = chain().buffers[buffer].grad_fn
    assert node is not None
    seen: list[Tensor] = []
    with node.register_prehook(lambda gradients: seen.append(gradients[0].detach().clone())):
        found = chain().gradients()
    assert_same(seen, [exact_gradients()[0][buffer]])
    assert_same(found, exact_gradients()[1])


def test_backward_hooks_of_modules_see_whole_gradients() -> None:
    image, *weights = chain().operands

    class Block(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return residual_block(x, weights[0], weights[1], impl="triton")

    module = Block()
    seen: list[Tensor] = []
    module.register_full_backward_hook(lambda _, inputs, outputs: seen.extend([inputs[0], outputs[0]]))
    buffer = module(instance_norm(image, activation="relu", pad=1, impl="triton"))
    result = residual_block(buffer, weights[2], weights[3], pad_out=0, impl="triton")
    found = torch.autograd.grad(result, chain().operands, chain().cotangent)
    assert_same(seen, list(exact_gradients()[0].values()))
    assert_same(found, exact_gradients()[1])


CONSUMERS: dict[str, Callable[[Tensor, list[Tensor], Impl], Tensor]] = {
    "a product": lambda buffer, operands, impl: buffer * 3,
    "another block": lambda buffer, operands, impl: residual_block(buffer, operands[2], operands[1], impl=impl),
    "a norm's residual": lambda buffer, operands, impl: instance_norm(buffer.detach(), residual=buffer, impl=impl),
    "a norm": lambda buffer, operands, impl: instance_norm(buffer, impl=impl),
    "a slice": lambda buffer, operands, impl: buffer[:, :, 1:-1, 1:-1].square(),
}


@pytest.mark.parametrize(
    ("name", "consumer"),
    [
        *itertools.product(BUFFERS, ("a product", "another block")),
        *(("behind a norm", consumer) for consumer in ("a norm's residual", "a norm", "a slice")),
    ],
)
def test_a_buffer_that_something_else_reads_too_gets_the_sum_of_all_gradients(name: str, consumer: str) -> None:
    """Read before and after the block, because autograd adds gradients in the order in which it runs their nodes."""

    def gradients(impl: Impl, before: bool) -> list[Tensor]:
        operands, buffer = chain(impl).operands, chain(impl).buffers[name]
        other = CONSUMERS[consumer](buffer, operands, impl) if before else buffer
        result = residual_block(buffer, operands[3], operands[4], pad_out=0, impl=impl)
        if not before:
            other = CONSUMERS[consumer](buffer, operands, impl)
        loss = (result * chain(impl).cotangent).sum() + other.square().sum()
        return list(torch.autograd.grad(loss, [buffer, operands[0], operands[3]], retain_graph=True))

    for before in (True, False):
        assert_same(gradients("triton", before), gradients("reference", before))


def test_many_blocks_in_a_row_keep_every_part_of_every_gradient() -> None:
    def gradients(impl: Impl) -> list[Tensor]:
        operands = [sample(1, 3, 5, 4), *(sample(3, 3, 3, 3, seed=seed) for seed in range(1, 9))]
        if impl == "reference":
            operands = [wide(operand) for operand in operands]
        buffers = [instance_norm(operands[0], pad=1, impl=impl)]
        for first, second in zip(operands[1::2], operands[2::2], strict=True):
            buffers.append(residual_block(buffers[-1], first, second, impl=impl))
        cotangent = sample(*buffers[-1].shape, seed=99)
        cotangent = wide(cotangent) if impl == "reference" else cotangent
        return list(torch.autograd.grad(buffers[-1], [*operands, *buffers[:-1]], cotangent.detach()))

    assert_same(gradients("triton"), gradients("reference"))


PRODUCERS: dict[str, Callable[[Tensor, tuple[Tensor, ...], Impl], Tensor]] = {
    "a norm without a pad": lambda x, weights, impl: instance_norm(x, impl=impl),
    "a norm with a pad of 2": lambda x, weights, impl: instance_norm(x, pad=2, impl=impl),
    "a norm with a pad of 3": lambda x, weights, impl: instance_norm(x, activation="relu", pad=3, impl=impl),
    "a norm with a residual, without a pad": lambda x, weights, impl: instance_norm(x, residual=x, impl=impl),
    "a norm with a residual and a pad": lambda x, weights, impl: instance_norm(x, residual=x, pad=1, impl=impl),
    "a block without a pad": lambda x, weights, impl: residual_block(x, *weights[:2], pad_out=0, impl=impl),
    "a pad": lambda x, weights, impl: reflection_pad(x, 1, impl=impl),
    "a product": lambda x, weights, impl: x * 2,
}


@pytest.mark.parametrize("produce", PRODUCERS.values(), ids=PRODUCERS)
def test_whatever_a_block_reads_its_gradient_is_whole(
    produce: Callable[[Tensor, tuple[Tensor, ...], Impl], Tensor],
) -> None:
    """Gives a block any buffer of at least 4x4; whether its outermost pixels are a pad is the caller's affair."""

    def gradients(impl: Impl) -> list[Tensor]:
        operands = [sample(1, 3, 7, 8), *(sample(3, 3, 3, 3, seed=seed) for seed in range(1, 5))]
        if impl == "reference":
            operands = [wide(operand) for operand in operands]
        x, *weights = operands
        result = residual_block(produce(x, tuple(weights), impl), *weights[2:], impl=impl)
        cotangent = sample(*result.shape, seed=9, requires_grad=False)
        cotangent = wide(cotangent) if impl == "reference" else cotangent
        gradients = torch.autograd.grad(result, operands, cotangent, allow_unused=True)
        return [gradient for gradient in gradients if gradient is not None]

    assert_same(gradients("triton"), gradients("reference"))


@pytest.mark.parametrize("pad_out", [0, 1])
def test_a_leaf_gets_a_plain_tensor(pad_out: int) -> None:
    x, weight = sample(1, 3, 6, 7), sample(3, 3, 3, 3, seed=1)
    residual_block(x, weight, weight, pad_out=pad_out, impl="triton").sum().backward()
    assert type(x.grad) is Tensor
    assert type(weight.grad) is Tensor


# --- how it is looked at --------------------------------------------------------------------------------------------


def saved_and_loaded(gradient: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(gradient, file)
    file.seek(0)
    loaded: Tensor = torch.load(file)
    return loaded


def element_by_element(gradient: Tensor) -> Tensor:
    found = torch.zeros(gradient.shape)
    for index in np.ndindex(*gradient.shape):
        found[index] = gradient[index].item()
    return found


LOOKS: dict[str, Callable[[Tensor], Any]] = {
    "numpy()": lambda gradient: gradient.cpu().numpy(),
    "np.asarray": lambda gradient: np.asarray(gradient.cpu()),
    "tolist()": lambda gradient: gradient.tolist(),
    "item()": element_by_element,
    "detach()": lambda gradient: gradient.detach(),
    "data": lambda gradient: gradient.data,
    "clone()": lambda gradient: gradient.clone(),
    "contiguous()": lambda gradient: gradient.contiguous(),
    "double()": lambda gradient: gradient.double(),
    "cpu()": lambda gradient: gradient.cpu(),
    "+ 0": lambda gradient: gradient + 0,
    "0 +": lambda gradient: torch.zeros_like(gradient) + gradient,
    "copy_": lambda gradient: torch.empty(gradient.shape, device=DEVICE).copy_(gradient),
    "+=": lambda gradient: torch.zeros(gradient.shape, device=DEVICE).add_(gradient),
    "cat": lambda gradient: torch.cat([gradient[:, :1], gradient[:, 1:]], dim=1),
    "stack": lambda gradient: torch.stack([gradient, gradient])[1],
    "_foreach": lambda gradient: torch._foreach_add([gradient], 0)[0],
    "iteration": lambda gradient: torch.stack(list(gradient)),
    "view": lambda gradient: gradient.permute(0, 2, 3, 1).reshape(-1).view(gradient[:, 0].numel(), -1),
    "deepcopy": copy.deepcopy,
    "torch.save": saved_and_loaded,
    "DLPack": torch.from_dlpack,
    "a tensor of it": lambda gradient: torch.tensor(gradient.tolist()),
    "as a leaf's gradient": lambda gradient: leaf_with(gradient).grad,
}


def leaf_with(gradient: Tensor) -> Tensor:
    leaf = torch.zeros(gradient.shape, device=DEVICE, requires_grad=True)
    leaf.grad = gradient
    return leaf


@cache
def parts() -> tuple[Tensor, Tensor]:
    """Return what autograd hands on between two blocks, not added yet."""
    chained = chain(pad_out=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "edges_beat_padding", lambda *_: False)
        (gradient,) = chained.gradients(chained.buffers["behind a block"])
    assert isinstance(gradient, PendingSum)
    buffer, interior = gradient.parts()
    assert interior is not None
    return buffer, interior


def pending() -> PendingSum:
    """Return a gradient that nobody has looked at yet."""
    buffer, interior = (part.clone() for part in parts())
    if plans.edges_beat_padding(interior.shape, 3, interior.dtype, gpu_of(interior)):
        return PendingSum.of_folded(torch.full_like(interior, math.nan), interior, buffer, lambda: buffer)
    return PendingSum(buffer, interior)


@cache
def whole() -> Tensor:
    """Return what every look must find, to the bit: the parts added by hand."""
    total, interior = parts()[0].clone(), parts()[1]
    total[:, :, 1:-1, 1:-1] += interior
    assert_same([total], [exact_gradients(1)[0]["behind a block"]])
    return total


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_way_of_reading_it_finds_the_sum(look: Callable[[Tensor], Any]) -> None:
    expected = whole()
    if look is LOOKS["view"]:
        expected = LOOKS["view"](expected)
    found = look(pending())
    assert torch.equal(torch.as_tensor(found, device="cpu").to(torch.float32), expected.cpu())


def test_it_prints_as_the_sum() -> None:
    assert repr(pending()) == repr(whole())
    assert f"{pending().sum():.3f}" == f"{whole().sum():.3f}"


def test_a_gradient_that_is_looked_at_needs_no_gradient_itself() -> None:
    chained = chain(pad_out=1)
    (gradient,) = chained.gradients(chained.buffers["behind a norm"])
    assert not (gradient + 0).requires_grad


def test_what_was_written_to_meanwhile_is_not_computed_with() -> None:
    """Raises where a gradient that is there as its fold only would be that of other weights."""
    chained = new_chain()
    (gradient,) = chained.gradients(chained.buffers["behind a norm"])
    with torch.no_grad():
        chained.operands[1].mul_(2)
    is_folded = plans.edges_beat_padding((1, 3, 5, 6), 3, torch.float32, gpu_of(chained.operands[0]))
    with pytest.raises(RuntimeError, match="was written to since") if is_folded else nullcontext():
        gradient + 0


def test_looking_twice_does_not_add_twice() -> None:
    gradient = pending()
    assert torch.equal(gradient + 0, whole())
    assert torch.equal(gradient.clone(), whole())
    assert torch.equal(gradient.detach(), whole())


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "add_": lambda gradient: gradient.add_(1),
    "mul_": lambda gradient: gradient.mul_(-2),
    "zero_": lambda gradient: gradient.zero_(),
    "clamp_": lambda gradient: gradient.clamp_(-0.1, 0.1),
    "copy_": lambda gradient: gradient.copy_(torch.ones_like(gradient)),
    "setitem": lambda gradient: gradient.__setitem__((0, 1), 7.0),
    "out=": lambda gradient: torch.mul(gradient, 3, out=gradient),
    "a view of it": lambda gradient: gradient[:, :, 1:-1].add_(5),
    "_foreach": lambda gradient: torch._foreach_mul_([gradient], 0.5),
    "data": lambda gradient: gradient.data.mul_(2),
    "detach": lambda gradient: gradient.detach().mul_(2),
    "clip_grad_norm_": lambda gradient: torch.nn.utils.clip_grad_norm_([leaf_with(gradient)], 0.01),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_is_written_to_it_is_seen_by_everyone_who_holds_it(write: Callable[[Tensor], Any]) -> None:
    gradient, plain = pending(), whole().clone()
    held_elsewhere = [gradient]
    write(gradient)
    write(plain)
    assert torch.equal(held_elsewhere[0] + 0, plain)
    assert not torch.equal(plain, whole())


def test_its_properties_are_those_of_a_tensor() -> None:
    gradient, plain = pending(), whole()
    assert isinstance(gradient, Tensor)
    assert gradient.shape == plain.shape
    assert gradient.stride() == plain.stride()
    assert (gradient.dtype, gradient.device, gradient.layout) == (plain.dtype, plain.device, plain.layout)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert not gradient.requires_grad
    assert gradient.grad_fn is None
    assert len(gradient) == 1


@pytest.mark.parametrize("pad_out", [0, 1])
def test_a_cotangent_that_is_reused_afterwards_does_not_change_the_gradient(pad_out: int) -> None:
    """Keeps one buffer for the gradients of many steps, as a caller may."""
    chained = chain(pad_out=pad_out)
    cotangent = chained.cotangent.clone()
    found = torch.autograd.grad(chained.result, list(chained.buffers.values()), cotangent, retain_graph=True)
    cotangent.zero_()
    assert_same(found, list(exact_gradients(pad_out)[0].values()))


def test_a_retained_gradient_of_the_result_can_be_cleared_before_that_of_the_buffer_is_read() -> None:
    chained = new_chain()
    buffer = chained.buffers["behind a block"]
    buffer.retain_grad()
    chained.result.retain_grad()
    (chained.result * chained.cotangent).sum().backward()
    assert chained.result.grad is not None
    chained.result.grad.zero_()
    assert_same([buffer.grad], [exact_gradients()[0]["behind a block"]])


def test_looking_at_the_sum_leaves_the_cotangent_and_other_gradients_alone() -> None:
    chained = chain()
    before = chained.cotangent.clone()
    found = chained.gradients(*chained.buffers.values(), *chained.operands)
    read = [gradient.add_(1).clone() for gradient in found[:2]]
    assert torch.equal(chained.cotangent, before)
    assert_same(found[2:], exact_gradients()[1])
    for first, second in zip(read, chained.gradients(*chained.buffers.values()), strict=True):
        assert torch.equal(first, second + 1)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_anomaly_detection_reads_it_without_harm() -> None:
    with torch.autograd.detect_anomaly(check_nan=True):
        found = chain().gradients()
    assert_same(found, exact_gradients()[1])


def test_in_bfloat16_a_buffers_gradient_errs_at_most_twice_as_much_as_plain_pytorchs() -> None:
    def gradients(impl: Impl, dtype: torch.dtype) -> list[Tensor]:
        operands = [sample(2, 4, 6, 5, seed=116), *(sample(4, 4, 3, 3, seed=seed) for seed in range(1, 5))]
        rounded = [operand.detach().to(torch.bfloat16) for operand in operands]
        x, *weights = (operand.to(dtype).contiguous().requires_grad_(True) for operand in rounded)
        buffer = residual_block(instance_norm(x, pad=1, impl=impl), weights[0], weights[1], impl=impl)
        result = residual_block(buffer, weights[2], weights[3], impl=impl)
        cotangent = sample(*result.shape, seed=9, dtype=torch.bfloat16, channels_last=False, requires_grad=False)
        return list(torch.autograd.grad(result, [buffer, x], cotangent.to(dtype)))

    ours, plain = gradients("triton", torch.bfloat16), gradients("reference", torch.bfloat16)
    with Signs() as signs:
        truth = gradients("reference", torch.float64)
    signs.assert_clear(torch.bfloat16)
    for found, rounded, exact in zip(ours, plain, truth, strict=True):
        assert found.dtype == torch.bfloat16
        assert rounded.isfinite().all()
        assert relative_error(found, exact) <= 2 * relative_error(rounded, exact)


# --- beside compiled code -------------------------------------------------------------------------------------------


def front(image: Tensor, weight1: Tensor, weight2: Tensor) -> Tensor:
    return residual_block(
        instance_norm(image, activation="relu", pad=1, impl="triton"), weight1, weight2, impl="triton"
    )


def back(buffer: Tensor, weight1: Tensor, weight2: Tensor) -> Tensor:
    return residual_block(buffer, weight1, weight2, pad_out=0, impl="triton")


@pytest.mark.parametrize("compiled", ["front", "back"])
def test_a_buffer_between_a_compiled_and_an_eager_block_has_the_whole_gradient(compiled: str) -> None:
    first, second = (
        torch.compile(part, fullgraph=True, backend="aot_eager") if part.__name__ == compiled else part
        for part in (front, back)
    )
    image, *weights = chain().operands
    buffer = first(image, *weights[:2])
    found = torch.autograd.grad(second(buffer, *weights[2:]), [buffer, *chain().operands], chain().cotangent)
    assert_same(found, [exact_gradients()[0]["behind a block"], *exact_gradients()[1]])


def test_a_buffer_that_leaves_a_compiled_graph_has_its_whole_gradient_inside() -> None:
    def both(image: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        buffer = front(image, *weights[:2])
        return buffer, back(buffer, *weights[2:])

    buffer, result = torch.compile(both, fullgraph=True, backend="aot_eager")(*chain().operands)
    loss = (result * chain().cotangent).sum() + buffer.square().sum()
    found = torch.autograd.grad(loss, chain().operands)

    exact = chain("reference")
    exact_loss = (exact.result * exact.cotangent).sum() + exact.buffers["behind a block"].square().sum()
    assert_same(found, torch.autograd.grad(exact_loss, exact.operands, retain_graph=True))
