"""Lists the cases of `kernels.check`: every operator at every place where the networks run it, and its definition.

`kernels.check` runs them; `accuracy` says how far a result may be off.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import instance_norm, reflection_pad, residual_block
from ..conv2d import conv2d_reflect
from ..convolution.edge_gradients import LEAST_SIDE, reflected_input_gradient
from ..dispatch import Impl
from ..plans import NormPass
from ..reflection_pad import pad_backward
from ..thin_convolution.convolution import conv2d_from_thin, conv2d_to_thin
from ..traffic import plain_forward
from . import elementwise_cases
from .case import OTHER_CHANNELS, NetworkSize, OperatorCase, Prepare, PreparedCase
from .sites import NormSite, Operands, discriminator_sites, generator_sites, run_backward, run_forward

BEHIND_A_CONVOLUTION = 1.5
"""the margin where the library's convolutions, which choose their own order of sums, lie between input and result"""


def kernel_cases(size: NetworkSize, dtypes: Sequence[torch.dtype], batches: Sequence[int]) -> Iterator[OperatorCase]:
    """Yield every operator that the networks launch, forward and backward, at every place, dtype and batch size."""
    sites = [
        *generator_sites(width=size.width, side=size.side),
        *discriminator_sites(width=size.width, side=size.side),
    ]
    for dtype in dtypes:
        for batch in batches:
            for site in sites:
                yield OperatorCase("instance_norm", site.name, dtype, batch, _norm(site, batch, dtype, "forward"))
                yield OperatorCase(
                    "instance_norm backward", site.name, dtype, batch, _norm(site, batch, dtype, "backward")
                )
            image = (batch, 3, size.side, size.side)
            yield OperatorCase("reflection_pad", "in front of the stem", dtype, batch, _pad(image, dtype))
            yield OperatorCase(
                "reflection_pad backward", "in front of the stem", dtype, batch, _pad_backward(image, dtype)
            )
            inner = (batch, 4 * size.width, size.side // 4, size.side // 4)
            margin = BEHIND_A_CONVOLUTION
            yield OperatorCase(
                "residual_block", "behind a norm, with gradients", dtype, batch, _block(inner, dtype), margin
            )
            yield OperatorCase("conv2d_reflect", "and its norm", dtype, batch, _convolution(inner, dtype), margin)
            if min(inner[2:]) >= LEAST_SIDE:
                yield OperatorCase("reflected_input_gradient", "block", dtype, batch, _edges(inner, dtype), margin)
            if dtype != torch.float32:
                last, first = (_thin(to_thin, size, batch, dtype, 3) for to_thin in (True, False))
                yield OperatorCase("conv2d_to_thin", "head, with gradients", dtype, batch, last, margin)
                yield OperatorCase("conv2d_from_thin", "stem, with gradients", dtype, batch, first, margin)
            if dtype == torch.bfloat16 and batch == batches[0]:
                yield from _of_other_channels(replace(size, side=size.side // 2), batch, dtype)
            for operator, place, prepare in elementwise_cases.prepared(size, batch, dtype):
                yield OperatorCase(operator, place, dtype, batch, prepare)


def _of_other_channels(size: NetworkSize, batch: int, dtype: torch.dtype) -> Iterator[OperatorCase]:
    """Yield what is compiled anew for images of other than three channels."""
    for count in OTHER_CHANNELS:
        last, first = (_thin(to_thin, size, batch, dtype, count) for to_thin in (True, False))
        named = "1 channel" if count == 1 else f"{count} channels"
        yield OperatorCase("conv2d_to_thin", f"head, {named}", dtype, batch, last, BEHIND_A_CONVOLUTION)
        yield OperatorCase("conv2d_from_thin", f"stem, {named}", dtype, batch, first, BEHIND_A_CONVOLUTION)


def _norm(site: NormSite, batch: int, dtype: torch.dtype, which_pass: NormPass) -> Prepare:
    def prepare(device: torch.device) -> PreparedCase:
        operands = site.operands(batch, dtype, str(device))
        tensors = [t for t in (operands.x, operands.residual, operands.dy, operands.skip) if t is not None]
        if which_pass == "forward":
            read = tensors[:2] if site.residual else tensors[:1]
            return PreparedCase(
                lambda: [run_forward(site, operands)[0]],
                lambda d: plain_results("forward", site, _to(operands, d)),
                read,
            )
        _, statistics = run_forward(site, operands)

        def run() -> list[Tensor]:
            found = run_backward(site, operands, statistics)
            return [t for t in (found.dx, found.d_residual, found.remade) if t is not None]

        read = [t for t in tensors if t is not operands.residual]
        return PreparedCase(run, lambda d: plain_results("backward", site, _to(operands, d)), read)

    return prepare


def _to(operands: Operands, dtype: torch.dtype) -> Operands:
    """Return the operands in another dtype, channels first: PyTorch's gradients are wrong in some other layouts."""
    residual, skip = (None if t is None else t.to(dtype).contiguous() for t in (operands.residual, operands.skip))
    return Operands(operands.x.to(dtype).contiguous(), residual, operands.dy.to(dtype).contiguous(), skip)


def plain_results(which_pass: NormPass, site: NormSite, operands: Operands) -> list[Tensor]:
    """Return what the site's kernels write in one pass, by PyTorch's operators: y, or dx and the other gradients."""
    if which_pass == "forward":
        return [plain_forward(site, operands)[1]]
    leaves = [t.detach().requires_grad_() for t in (operands.x, operands.residual) if t is not None]
    operands = replace(operands, x=leaves[0], residual=leaves[1] if site.residual else None)
    y, padded = plain_forward(site, operands)
    outputs, gradients = [padded], [operands.dy]
    if operands.skip is not None:
        outputs, gradients = [padded, y], [operands.dy, operands.skip]
    found = list(torch.autograd.grad(outputs, leaves, gradients))
    return [*found, padded.detach()] if site.remade else found


def _pad(shape: tuple[int, ...], dtype: torch.dtype) -> Prepare:
    def prepare(device: torch.device) -> PreparedCase:
        x = torch.randn(shape, dtype=dtype, device=device)
        return PreparedCase(
            lambda: [reflection_pad(x, 3, impl="triton")], lambda d: [F.pad(x.to(d), (3,) * 4, mode="reflect")], [x]
        )

    return prepare


def _pad_backward(shape: tuple[int, ...], dtype: torch.dtype) -> Prepare:
    def prepare(device: torch.device) -> PreparedCase:
        batch, channels, height, width = shape
        dy = torch.randn((batch, channels, height + 6, width + 6), dtype=dtype, device=device)

        def plain(d: torch.dtype) -> list[Tensor]:
            x = torch.zeros(shape, dtype=d, device=device, requires_grad=True)
            return list(torch.autograd.grad(F.pad(x, (3,) * 4, mode="reflect"), x, dy.to(d)))

        return PreparedCase(lambda: [pad_backward(dy, 3)], plain, [dy])

    return prepare


def _block(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Prepare:
    """Prepare a residual block behind a norm, forward and backward.

    What the block's ReLU sees keeps away from zero, where rounding would decide on a gradient: x lies in [0.5, 1.5] or
    its negative, and the first convolution changes little of it.
    """

    def prepare(device: torch.device) -> PreparedCase:
        batch, channels, height, width = shape
        sign = torch.randint(0, 2, shape, device=device) * 2 - 1
        x = (sign * (0.5 + torch.rand(shape, device=device))).to(dtype).contiguous(memory_format=torch.channels_last)
        weight1, weight2 = 0.05 * _weight(channels, dtype, device), _weight(channels, dtype, device)
        weight1[:, :, 1, 1] += torch.eye(channels, dtype=dtype, device=device)
        dy = torch.randn((batch, channels, height + 2, width + 2), dtype=dtype, device=device)

        def passes(impl: Impl, tensors: list[Tensor]) -> list[Tensor]:
            x, w1, w2 = leaves = [t.detach().requires_grad_() for t in tensors]
            y = residual_block(instance_norm(x, pad=1, impl=impl), w1, w2, impl=impl)
            return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))]

        operands = [x, weight1, weight2]
        return PreparedCase(
            lambda: passes("triton", operands),
            lambda d: passes("reference", [t.to(d).contiguous() for t in operands]),
            [*operands, dy],
        )

    return prepare


def _convolution(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Prepare:
    def prepare(device: torch.device) -> PreparedCase:
        x = torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        weight = _weight(shape[1], dtype, device)

        def pass_(impl: Impl, x: Tensor, weight: Tensor) -> list[Tensor]:
            y, partials = conv2d_reflect(x, weight, impl=impl)
            return [y, instance_norm(y, activation="relu", pad=1, partials=partials, impl=impl)]

        return PreparedCase(
            lambda: pass_("triton", x, weight),
            lambda d: pass_("reference", x.to(d).contiguous(), weight.to(d).contiguous()),
            [x, weight],
        )

    return prepare


def _edges(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Prepare:
    """Prepare a gradient by the input of a block's convolution, which has no frame, beside the library's."""

    def prepare(device: torch.device) -> PreparedCase:
        dy = torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        weight = _weight(shape[1], dtype, device)

        def plain(d: torch.dtype) -> list[Tensor]:
            x = torch.zeros(shape, dtype=d, device=device, requires_grad=True)
            y = F.conv2d(F.pad(x, (1,) * 4, mode="reflect"), weight.to(d).contiguous())
            return list(torch.autograd.grad(y, x, dy.to(d).contiguous()))

        return PreparedCase(lambda: [reflected_input_gradient(dy, weight, dy)], plain, [dy, weight])

    return prepare


def _thin(to_thin: bool, size: NetworkSize, batch: int, dtype: torch.dtype, channels: int) -> Prepare:
    """Prepare a generator's last convolution and its tanh, or its first one, forward and backward.

    `channels` are those of its images.
    """

    def prepare(device: torch.device) -> PreparedCase:
        inputs, outputs = (size.width, channels) if to_thin else (channels, size.width)
        shape = (batch, inputs, size.side + 6, size.side + 6)
        x = torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        weight = torch.randn((outputs, inputs, 7, 7), dtype=dtype, device=device) * (49 * inputs) ** -0.5
        weight = weight.contiguous(memory_format=torch.channels_last)
        dy = torch.randn((batch, outputs, size.side, size.side), dtype=dtype, device=device)

        def passes(impl: Impl, tensors: list[Tensor]) -> list[Tensor]:
            leaves = [t.detach().requires_grad_() for t in tensors]
            y = conv2d_to_thin(*leaves, tanh=True, impl=impl) if to_thin else conv2d_from_thin(*leaves, impl=impl)
            return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))]

        return PreparedCase(
            lambda: passes("triton", [x, weight]),
            lambda d: passes("reference", [t.to(d).contiguous() for t in (x, weight)]),
            [x, weight, dy],
        )

    return prepare


def _weight(channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a random weight [C, C, 3, 3] by which a convolution keeps the size of its input's values."""
    weight: Tensor = torch.randn((channels, channels, 3, 3), dtype=dtype, device=device) * (9 * channels) ** -0.5
    return weight.contiguous(memory_format=torch.channels_last)
