"""Checks one gradient of two uses of a weight: its value, where its operands lie, and how many there are in a step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cyclegan_fast.config.options import Config, LossConfig, RunConfig
from cyclegan_fast.kernels.convolution.weight_gradients import placed, weight_gradient
from cyclegan_fast.kernels.launching import launching_with
from cyclegan_fast.training.update.joined_uses import JoinedUses, adjoined
from cyclegan_fast.training.update.step_parts import StepParts
from tests.cyclegan_fast.training.update.test_direction_streams import images, step_on, tiny

IMAGES = 2, 1  # there and back
SIDE = 6


def operands(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the gradient of a convolution's result, and its padded input."""
    generator = torch.Generator().manual_seed(seed)
    dy = torch.randn(count, 8, SIDE, SIDE, generator=generator, dtype=torch.float64)
    padded = torch.randn(count, 8, SIDE + 2, SIDE + 2, generator=generator, dtype=torch.float64)
    return dy.to(memory_format=torch.channels_last), padded.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("is_placed", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_gradient_of_both_uses_is_the_sum_of_theirs(is_placed: bool, groups: int) -> None:
    weight = torch.zeros(8, 8 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    (dy_there, x_there), (dy_back, x_back) = (operands(count, seed) for seed, count in enumerate(IMAGES))
    expected = torch.zeros_like(weight)
    for dy, x in ((dy_there, x_there), (dy_back, x_back)):
        found = weight_gradient(dy, x, weight)
        assert found is not None
        expected += found

    def at_its_place(values: Tensor, operand: Any) -> Tensor:
        place = placed(operand, weight, values.shape)
        assert place is not None
        return place.copy_(values) if is_placed else values

    uses = JoinedUses()
    uses.begin(IMAGES[1])
    with torch.no_grad():
        with uses.forward():
            x_there, x_back = at_its_place(x_there, "result"), at_its_place(x_back, "result")
        with uses.backward():
            dy_back = at_its_place(dy_back, "gradient")
            assert weight_gradient(dy_back, x_back, weight) is None
            dy_there = at_its_place(dy_there, "gradient")
            joined = weight_gradient(dy_there, x_there, weight)
    assert joined is not None
    assert (joined - expected).abs().max() <= 1e-9 * expected.abs().max()
    for of_there, of_back in ((x_there, x_back), (dy_there, dy_back)):
        shares_memory = of_there.untyped_storage().data_ptr() == of_back.untyped_storage().data_ptr()
        assert shares_memory == is_placed


def test_operands_in_a_row_are_taken_where_they_lie() -> None:
    whole, _ = operands(3, 0)
    in_a_row = adjoined(whole[:2], whole[2:])
    assert in_a_row.data_ptr() == whole.data_ptr()
    assert torch.equal(in_a_row, whole)
    for first, second in ((whole[2:], whole[:2]), (whole[:1], whole[2:]), (whole[:2], whole[2:].clone())):
        copied = adjoined(first, second)
        assert copied.data_ptr() != whole.data_ptr()
        assert torch.equal(copied, torch.cat([first, second]))


def test_a_gradient_that_is_left_over_is_an_error() -> None:
    uses = JoinedUses()
    uses.begin(1)
    weight = torch.zeros(8, 8, 3, 3, dtype=torch.float64)
    with pytest.raises(AssertionError, match="did not come by the way there"), uses.backward():
        weight_gradient(*operands(1, 0), weight)


class Counting(TorchDispatchMode):
    """Counts gradients of weights as blocks have them, of 3x3 without a padding, and copies of their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients = self.copies = 0

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if operator is torch.ops.aten.convolution_backward.default:
            weight, padding, wanted = arguments[2], arguments[5], arguments[10]
            self.gradients += wanted[1] and list(weight.shape[2:]) == [3, 3] and list(padding) == [0, 0]
        if operator is torch.ops.aten.cat.default:
            self.copies += arguments[0][0].size(1) > 6
        return operator(*arguments, **(options or {}))


WITHOUT_CYCLES = LossConfig(pool_size=0, lambda_cycle=0, lambda_identity=0)


@pytest.mark.parametrize(
    ("loss", "checkpoint_blocks", "copies"),
    [(LossConfig(pool_size=0), False, 1), (LossConfig(pool_size=0), True, 1), (WITHOUT_CYCLES, False, 0)],
)
def test_a_paired_step_has_one_gradient_a_convolution_of_blocks(
    loss: LossConfig, checkpoint_blocks: bool, copies: int
) -> None:
    """Expects one copy: the first block's input is written by a norm, which knows of no weight."""
    config = tiny(Config(run=RunConfig(paired=True), loss=loss))
    networks = replace(config.networks, impl="triton", checkpoint_blocks=checkpoint_blocks)
    config = replace(config, networks=networks)
    with launching_with(lambda kernel, grid, arguments, options: None):
        step = step_on(StepParts(), config, torch.bfloat16)
        step(*images(0, 2))
        with Counting() as counting:
            step(*images(1, 2))
    assert (counting.gradients, counting.copies) == (12, copies)  # of six blocks
