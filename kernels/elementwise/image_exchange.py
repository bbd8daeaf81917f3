"""Exchanges a step's generated images for older ones in a pool, by what the host decided (`training/update`)."""

import torch
from torch import Tensor

from .. import plans
from ..arguments.tensors import check_image_batch, check_like, check_shape_and_dtype, check_tensor
from ..dispatch import Impl, choose
from ..launching import run_kernel
from ..layout import empty_channels_last
from ..registration import define
from ..triton_language import tl, triton


def image_exchange_reference(images: Tensor, stack: Tensor, decisions: Tensor) -> Tensor:
    """Compute `image_exchange` in plain PyTorch; also writes to the stack's last place, of what is not kept."""
    size = len(stack) - 1
    sources, writes = decisions
    from_pool = (sources < size).view(-1, 1, 1, 1)
    old, new = stack[sources.clamp(max=size)], images[(sources - size).clamp(min=0)]
    exchanged = torch.where(from_pool, old, new)
    stack.index_copy_(0, writes, images)
    return exchanged


# --- kernel ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["images", "size"])
def image_exchange_both_ways(
    x_ptr,  # [N, H, W, C]
    stack_ptr,  # [SIZE + 1, H, W, C]: read and written
    decisions_ptr,  # [2, N], int64: sources, places
    y_ptr,  # [N, H, W, C]: written
    images,
    size,
    elements,  # of an image
    BLOCK_ELEMENTS: tl.constexpr,
):
    """Write to y what each image is exchanged for, then the images to their places in the stack.

    The grid is (blocks of BLOCK_ELEMENTS elements of an image, 1, 1): a program has its elements of all images, so that
    no other one reads what it writes.
    """
    element = tl.program_id(0) * BLOCK_ELEMENTS + tl.arange(0, BLOCK_ELEMENTS)
    mask = element < elements
    for index in range(images):
        source = tl.load(decisions_ptr + index)  # 64 bits, as the offsets have to be
        is_old = source < size
        old = tl.load(stack_ptr + source * elements + element, mask=mask & is_old, other=0.0)
        new = tl.load(x_ptr + (source - size) * elements + element, mask=mask & (source >= size), other=0.0)
        offset = tl.cast(index, tl.int64) * elements
        tl.store(y_ptr + offset + element, tl.where(is_old, old, new), mask=mask)
    # Another thread of the program may have read the element that this one writes.
    tl.debug_barrier()
    for index in range(images):
        place = tl.load(decisions_ptr + images + index)
        offset = tl.cast(index, tl.int64) * elements
        image = tl.load(x_ptr + offset + element, mask=mask & (place < size), other=0.0)
        tl.store(stack_ptr + place * elements + element, image, mask=mask & (place < size))


_BLOCK = 1024


def _exchange(images: Tensor, stack: Tensor, decisions: Tensor) -> Tensor:
    """Launch the exchange; return [N, C, H, W], channels last."""
    exchanged = _fake_exchange(images, stack, decisions)
    if images.numel():
        elements = images[0].numel()
        arguments = {
            "x_ptr": images.contiguous(memory_format=torch.channels_last),
            "stack_ptr": stack,
            "decisions_ptr": decisions.contiguous(),
            "y_ptr": exchanged,
            "images": len(images),
            "size": len(stack) - 1,
            "elements": elements,
            "BLOCK_ELEMENTS": _BLOCK,
        }
        run_kernel(image_exchange_both_ways, (plans.ceil_div(elements, _BLOCK), 1, 1), arguments, num_warps=4)
    return exchanged


# --- the operator ----------------------------------------------------------------------------------------------------


def _fake_exchange(images: Tensor, stack: Tensor, decisions: Tensor) -> Tensor:
    return empty_channels_last(images.shape, like=images)


IMAGE_EXCHANGE = define(
    "image_exchange(Tensor images, Tensor(a!) stack, Tensor decisions) -> Tensor", _exchange, _fake_exchange
)


def image_exchange(images: Tensor, stack: Tensor, decisions: Tensor, *, impl: Impl = "auto") -> Tensor:
    """Exchange images for others, of the stack or of their own, and put them into the stack.

    Args:
        images: [N, C, H, W] in any floating dtype.
        stack: [size + 1, C, H, W] of the same dtype, dense; Triton needs it channels last. The last place is for what
            is not kept.
        decisions: int64 [2, N] on the same device: what each image is exchanged for, s for place s and size + i for
            image i; and the place that each image goes to, `size` for none. No two go to one place but to that.
        impl: the implementation, see `kernels.dispatch.choose`.

    Returns [N, C, H, W]. Raises ValueError or TypeError where the operands do not fit, and ValueError where Triton is
    to run and the stack is not channels last.
    """
    check_image_batch("images", images)
    check_tensor("stack", stack)
    if stack.dim() != 4 or stack.shape[1:] != images.shape[1:] or not len(stack):
        raise ValueError(f"stack must be [size + 1, {', '.join(map(str, images.shape[1:]))}], got {tuple(stack.shape)}")
    check_like("stack", stack, images)
    check_shape_and_dtype("decisions", decisions, torch.int64, (2, len(images)), images)
    if choose("image_exchange", impl, images) == "reference":
        return image_exchange_reference(images, stack, decisions)
    if not stack.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"the stack must be channels last, its strides are {stack.stride()}")
    exchanged: Tensor = IMAGE_EXCHANGE(images, stack, decisions)
    return exchanged
