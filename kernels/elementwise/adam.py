"""Updates weights by Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), many of them in one launch.

PyTorch's fused Adam takes gradients in the precision of the weights. This one reads them in the precision in which they
were computed, adds up several of them in float32, and writes each new weight also to its copy in low precision. Neither
gradients nor weights are copied for it: 28 bytes a weight move where 40 did.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

import torch
from torch import Tensor

from .. import plans
from ..arguments.options import checked_eps, checked_number
from ..arguments.tensors import check_floating, check_shape_and_dtype
from ..dispatch import Impl, choose
from ..gpus import gpu_of
from ..launching import run_kernel
from ..registration import define
from ..triton_language import tl, triton
from .bias_activation import hyperbolic_tangent


@dataclass(frozen=True)
class AdamOperands:
    """Holds the tensors of one weight, all of its shape and strides."""

    weight: Tensor
    """written"""
    copy: Tensor
    """the weight as networks compute with it, in a precision of its own: written"""
    first_moment: Tensor
    """in the weight's precision, as the second one: read and written"""
    second_moment: Tensor
    step: Tensor
    """[], float32: how many updates there were, this one included"""
    gradients: tuple[Tensor, ...]
    """one or more, in one precision, whose sum is the weight's gradient"""


def adam_update_reference(
    operands: Sequence[AdamOperands], learning_rate: Tensor, beta1: float, beta2: float, eps: float
) -> None:
    """Compute `adam_update` in plain PyTorch, in the weights' precision."""
    for one in operands:
        gradient, *others = (gradient.to(one.weight.dtype) for gradient in one.gradients)
        for other in others:
            gradient = gradient + other
        one.first_moment.lerp_(gradient, 1 - beta1)
        one.second_moment.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        steps = one.step.to(one.weight.dtype)
        correction1, correction2 = (1 - beta**steps for beta in (beta1, beta2))
        denominator = one.second_moment.sqrt() / correction2.sqrt() + eps
        one.weight.sub_(learning_rate.to(one.weight.dtype) / correction1 * (one.first_moment / denominator))
        one.copy.copy_(one.weight)


# --- kernel ----------------------------------------------------------------------------------------------------------


@triton.jit
def _of_program(values, program, FIRST_PROGRAMS: tl.constexpr, STRIDE: tl.constexpr, FIRST: tl.constexpr):
    """Return the value, of every STRIDE-th one from FIRST on, of the weight that a program works on."""
    found = values[FIRST]
    for index in tl.static_range(1, len(FIRST_PROGRAMS)):
        found = tl.where(program >= FIRST_PROGRAMS[index], values[index * STRIDE + FIRST], found)
    return found


@triton.jit
def _bias_correction(steps, log_beta):
    """Return 1 - beta^steps, which for the small exponents of first steps is no difference of two numbers near 1."""
    half = -0.5 * steps * log_beta
    return hyperbolic_tangent(half) * (1.0 + tl.exp(-2.0 * half))


@triton.jit
def adam_moments_and_weights(
    x_ptr,  # []: the learning rate
    weight_ptrs,  # a tuple of tensors, as all that follow, in one order: read and written
    copy_ptrs,  # written
    first_moment_ptrs,  # read and written
    second_moment_ptrs,  # read and written
    step_ptrs,  # each [], float32
    gradient_ptrs,  # GRADIENTS for each weight, one behind the other
    elements_per_program,
    beta2,
    rest1,  # 1 - beta1
    rest2,
    log_beta1,
    log_beta2,
    eps,
    FIRST_PROGRAMS: tl.constexpr,  # of each weight
    ELEMENTS: tl.constexpr,  # of each weight
    GRADIENTS: tl.constexpr,
    BLOCK_ELEMENTS: tl.constexpr,
):
    """Update all weights; the grid is (programs, 1, 1), each of which works on elements of one weight."""
    program = tl.program_id(0)
    first = (program - _of_program(FIRST_PROGRAMS, program, FIRST_PROGRAMS, 1, 0)) * elements_per_program
    last = tl.minimum(first + elements_per_program, _of_program(ELEMENTS, program, FIRST_PROGRAMS, 1, 0))
    weight_ptr = _of_program(weight_ptrs, program, FIRST_PROGRAMS, 1, 0)
    copy_ptr = _of_program(copy_ptrs, program, FIRST_PROGRAMS, 1, 0)
    first_moment_ptr = _of_program(first_moment_ptrs, program, FIRST_PROGRAMS, 1, 0)
    second_moment_ptr = _of_program(second_moment_ptrs, program, FIRST_PROGRAMS, 1, 0)
    gradient_ptr = _of_program(gradient_ptrs, program, FIRST_PROGRAMS, GRADIENTS, 0)
    further_ptr = _of_program(gradient_ptrs, program, FIRST_PROGRAMS, GRADIENTS, GRADIENTS - 1)
    steps = tl.load(_of_program(step_ptrs, program, FIRST_PROGRAMS, 1, 0))
    step_size = tl.div_rn(tl.load(x_ptr).to(tl.float32), _bias_correction(steps, log_beta1))
    root = tl.sqrt_rn(_bias_correction(steps, log_beta2))
    for start in range(first, last, BLOCK_ELEMENTS):
        element = start + tl.arange(0, BLOCK_ELEMENTS)
        mask = element < last
        gradient = tl.load(gradient_ptr + element, mask=mask, other=0.0).to(tl.float32)
        if GRADIENTS == 2:
            gradient += tl.load(further_ptr + element, mask=mask, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + element, mask=mask, other=0.0)
        first_moment = tl.load(first_moment_ptr + element, mask=mask, other=0.0)
        second_moment = tl.load(second_moment_ptr + element, mask=mask, other=0.0)
        first_moment += rest1 * (gradient - first_moment)
        second_moment = beta2 * second_moment + rest2 * gradient * gradient
        denominator = tl.div_rn(tl.sqrt_rn(second_moment), root) + eps
        weight -= step_size * tl.div_rn(first_moment, denominator)
        tl.store(first_moment_ptr + element, first_moment, mask=mask)
        tl.store(second_moment_ptr + element, second_moment, mask=mask)
        tl.store(weight_ptr + element, weight, mask=mask)
        tl.store(copy_ptr + element, weight.to(copy_ptr.dtype.element_ty), mask=mask)


_BLOCK = 1024
_NUM_WARPS = 4
_PROGRAMS_PER_MULTIPROCESSOR = 2
"""These have enough loads in flight for all of the memory's speed, and leave room for what runs beside them."""
MOST_WEIGHTS = 40
"""of a launch: a kernel's arguments take at most 4 KB"""
MOST_GRADIENTS = 2


def _launch(
    weights: list[Tensor],
    copies: list[Tensor],
    first_moments: list[Tensor],
    second_moments: list[Tensor],
    steps: list[Tensor],
    gradients: list[Tensor],
    learning_rate: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Launch the update of at most MOST_WEIGHTS weights; there are one or two gradients of each, side by side."""
    blocks = [plans.ceil_div(weight.numel(), _BLOCK) for weight in weights]
    places = _PROGRAMS_PER_MULTIPROCESSOR * gpu_of(learning_rate).multiprocessors
    blocks_per_program = plans.ceil_div(sum(blocks), places)
    *first_programs, programs = accumulate((plans.ceil_div(of_one, blocks_per_program) for of_one in blocks), initial=0)
    arguments = {
        "x_ptr": learning_rate,
        "weight_ptrs": tuple(weights),
        "copy_ptrs": tuple(copies),
        "first_moment_ptrs": tuple(first_moments),
        "second_moment_ptrs": tuple(second_moments),
        "step_ptrs": tuple(steps),
        "gradient_ptrs": tuple(gradients),
        "elements_per_program": blocks_per_program * _BLOCK,
        "beta2": beta2,
        "rest1": 1 - beta1,
        "rest2": 1 - beta2,
        "log_beta1": _logarithm(beta1),
        "log_beta2": _logarithm(beta2),
        "eps": eps,
        "FIRST_PROGRAMS": tuple(first_programs),
        "ELEMENTS": tuple(weight.numel() for weight in weights),
        "GRADIENTS": len(gradients) // len(weights),
        "BLOCK_ELEMENTS": _BLOCK,
    }
    # Without contractions the bits of a weight do not depend on which others are updated by the same launch.
    run_kernel(adam_moments_and_weights, (programs, 1, 1), arguments, num_warps=_NUM_WARPS, enable_fp_fusion=False)


def _logarithm(beta: float) -> float:
    return math.log(beta) if beta else -1e4  # whose exponential is 0, and whose product with 0 is not NaN


# --- the operator ----------------------------------------------------------------------------------------------------


def _fake(*_: object) -> None:
    """Return nothing, as the operator does."""


ADAM_UPDATE = define(
    "adam_update(Tensor(a!)[] weights, Tensor(b!)[] copies, Tensor(c!)[] first_moments, Tensor(d!)[] second_moments, "
    "Tensor[] steps, Tensor[] gradients, Tensor learning_rate, float beta1, float beta2, float eps) -> ()",
    _launch,
    _fake,
)


@torch.no_grad()
def adam_update(
    operands: Sequence[AdamOperands],
    learning_rate: Tensor,
    *,
    beta1: float,
    beta2: float = 0.999,
    eps: float = 1e-8,
    impl: Impl = "auto",
) -> None:
    """Take a step of Adam on some weights, write them and their copies in low precision.

    Args:
        operands: the weights with what belongs to each; Triton takes weights and moments in float32.
        learning_rate: [] in any floating dtype, on the weights' device.
        beta1: Adam's decay rate of the first moment, from 0 to below 1.
        beta2: that of the second moment.
        eps: is added to the square root of the second moment.
        impl: the implementation, see `kernels.dispatch.choose`.

    Raises ValueError or TypeError where the operands do not fit, and what `choose` raises.
    """
    rates = checked_number("beta1", beta1), checked_number("beta2", beta2)
    for name, rate in zip(("beta1", "beta2"), rates, strict=True):
        if not 0 <= rate < 1:
            raise ValueError(f"{name} must be from 0 to below 1, got {rate}")
    eps = checked_eps(eps)
    for index, one in enumerate(operands):
        _check(index, one)
    if not operands:
        return
    check_floating("learning_rate", learning_rate)
    check_shape_and_dtype("learning_rate", learning_rate, learning_rate.dtype, (), operands[0].weight)
    if choose("adam_update", impl, operands[0].weight, (torch.float32,)) == "reference":
        adam_update_reference(operands, learning_rate, *rates, eps)
        return
    launch_adam(operands, learning_rate, *rates, eps, ADAM_UPDATE)


def launch_adam(
    operands: Sequence[AdamOperands],
    learning_rate: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    update: Callable[..., None],
) -> None:
    """Call `update`, which is the operator, for what each launch takes of the operands."""
    for group in _groups([one for one in operands if one.weight.numel()]):
        lists = [[getattr(one, field.name) for one in group] for field in fields(AdamOperands)[:-1]]
        gradients = [gradient for one in group for gradient in one.gradients]
        update(*lists, gradients, learning_rate, beta1, beta2, eps)


def _check(index: int, one: AdamOperands) -> None:
    """Raise ValueError or TypeError where the tensors of a weight do not fit together."""
    name, weight = f"operands[{index}]", one.weight
    check_floating(f"{name}.weight", weight)
    shape = weight.shape
    for what in ("first_moment", "second_moment"):
        check_shape_and_dtype(f"{name}.{what}", getattr(one, what), weight.dtype, shape, weight)
    check_floating(f"{name}.copy", one.copy)
    check_shape_and_dtype(f"{name}.copy", one.copy, one.copy.dtype, shape, weight)
    check_shape_and_dtype(f"{name}.step", one.step, torch.float32, (), weight)
    if not 1 <= len(one.gradients) <= MOST_GRADIENTS:
        raise ValueError(f"{name} must have 1 to {MOST_GRADIENTS} gradients, got {len(one.gradients)}")
    for number, gradient in enumerate(one.gradients):
        what = f"{name}.gradients[{number}]"
        check_floating(what, gradient)
        check_shape_and_dtype(what, gradient, one.gradients[0].dtype, shape, weight)
    for what, tensor in (
        ("copy", one.copy),
        ("first_moment", one.first_moment),
        ("second_moment", one.second_moment),
        *((f"gradients[{number}]", gradient) for number, gradient in enumerate(one.gradients)),
    ):
        if tensor.stride() != weight.stride():
            raise ValueError(f"{name}.{what} must have the weight's strides {weight.stride()}, got {tensor.stride()}")


def _groups(operands: Sequence[AdamOperands]) -> list[list[AdamOperands]]:
    """Return what goes through a launch together: one number of gradients, one precision, accesses of one width."""
    groups: dict[object, list[list[AdamOperands]]] = {}
    for one in operands:
        key = len(one.gradients), one.gradients[0].dtype, one.copy.dtype, _is_wide(one)
        of_key = groups.setdefault(key, [[]])
        if len(of_key[-1]) == MOST_WEIGHTS:
            of_key.append([])
        of_key[-1].append(one)
    return [group for of_key in groups.values() for group in of_key]


def _is_wide(one: AdamOperands) -> bool:
    """Tell whether the memory of all a weight's tensors begins and ends at a multiple of 16 bytes.

    Storages begin so. One that does not would make the accesses to all others of its launch narrow.
    """
    tensors = one.weight, one.copy, one.first_moment, one.second_moment, *one.gradients
    starts_wide = all(tensor.storage_offset() * tensor.element_size() % 16 == 0 for tensor in tensors)
    return starts_wide and one.weight.numel() % 16 == 0
