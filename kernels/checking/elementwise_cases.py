"""Lists the elementwise operators at the places where a step runs them: images, losses, biases, the pool of images."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..dispatch import Impl
from ..elementwise.adam import AdamOperands, adam_update
from ..elementwise.bias_activation import BiasedActivation, bias_activation
from ..elementwise.image_exchange import image_exchange
from ..elementwise.mean_error import ErrorKind, mean_error
from ..elementwise.signed_windows import signed_windows
from .case import NetworkSize, Prepare, PreparedCase

_LARGER = 286 / 256
"""the side of an image over that of the window that is cut out of it, as in the paper"""

SAMPLES: dict[str, tuple[torch.dtype, int, float, float]] = {
    "a batch's images": (torch.uint8, 3, 0.0, 255.0),
    "of 1 channel, uint16": (torch.uint16, 1, 64.0, 60_000.0),
    "of 4 channels, int16": (torch.int16, 4, -1000.0, 2000.0),
    "of 13 channels, float32": (torch.float32, 13, -1.5, 2.5),
}
"""places of `signed_windows`, the dtype and channels of their images, and the range that becomes [-1, 1]"""


def prepared(size: NetworkSize, batch: int, dtype: torch.dtype) -> Iterator[tuple[str, str, Prepare]]:
    """Yield each operator, its place, and what prepares its case, for networks of one size."""
    image = (batch, 3, size.side, size.side)
    inner = (batch, size.width, size.side // 2, size.side // 2)
    scores = (batch, 1, size.side // 8 - 2, size.side // 8 - 2)
    if dtype == torch.float32:
        for place, samples in SAMPLES.items():
            yield "signed_windows", place, _windows(size.side, batch, *samples)
    yield "bias_activation", "head, with gradients", _bias(image, dtype, "tanh")
    yield "bias_activation", "discriminator 1, with gradients", _bias(inner, dtype, "leaky_relu")
    yield "mean_error", "cycle loss, with gradients", _error(image, dtype, "absolute")
    yield "mean_error", "generators' loss, with gradients", _error(scores, dtype, "from 1")
    yield "mean_error", "discriminators' loss, with gradients", _error(scores, dtype, "from 1 and 0")
    yield "image_exchange", "pool of images", _exchange(image, dtype)
    if batch == 1:
        blocks = [(4 * size.width, 4 * size.width, 3, 3)] * 4
        yield "adam_update", "blocks' weights, with one gradient", _adam(blocks, 1, dtype)
        yield "adam_update", "weights and biases, with two gradients", _adam([(size.width, 3, 7, 7), (3,)], 2, dtype)


def _lying(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return random numbers that lie channels last, as what convolutions write."""
    return torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)


def _windows(side: int, batch: int, dtype: torch.dtype, channels: int, low: float, high: float) -> Prepare:
    def prepare(device: torch.device) -> PreparedCase:
        larger = round(side * _LARGER)
        shape = batch, larger, larger, channels
        pixels = torch.randn(shape, device=device)
        if not dtype.is_floating_point:
            held = torch.iinfo(dtype)
            pixels = torch.randint(held.min, held.max + 1, shape, dtype=torch.int32, device=device).to(dtype)
        corners = [(larger - side, 1, n % 2) for n in range(batch)]
        crops = torch.tensor(corners, device=device)

        def plain(d: torch.dtype) -> list[Tensor]:
            windows = [
                pixels[n].to(d)[top : top + side, left : left + side].permute(2, 0, 1).flip(2 if mirrored else ())
                for n, (top, left, mirrored) in enumerate(corners)
            ]
            return [((torch.stack(windows) - low) / ((high - low) / 2) - 1).clamp(-1, 1)]

        return PreparedCase(
            lambda: [signed_windows(pixels, crops, side, side, low, high, impl="triton")],
            plain,
            [torch.empty((batch, channels, side, side), dtype=dtype, device="meta")],
        )

    return prepare


def _bias(shape: tuple[int, int, int, int], dtype: torch.dtype, activation: BiasedActivation) -> Prepare:
    """Prepare bias and activation, both ways; x + bias keeps away from zero, where a rounding would decide."""

    def prepare(device: torch.device) -> PreparedCase:
        x = _lying(shape, dtype, device)
        x = torch.where(x < 0, x - 0.5, x + 0.5)
        bias = torch.linspace(-0.25, 0.25, shape[1], dtype=dtype, device=device)
        dy = _lying(shape, dtype, device)

        def passes(impl: Impl, dtype: torch.dtype) -> list[Tensor]:
            leaves = [t.detach().to(dtype).requires_grad_() for t in (x, bias)]
            y = bias_activation(leaves[0], leaves[1], activation, impl=impl)
            return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(dtype))]

        return PreparedCase(lambda: passes("triton", dtype), lambda d: passes("reference", d), [x, bias, dy])

    return prepare


def _error(shape: tuple[int, int, int, int], dtype: torch.dtype, kind: ErrorKind) -> Prepare:
    def prepare(device: torch.device) -> PreparedCase:
        tensors = [_lying(shape, dtype, device) for _ in range(1 if kind == "from 1" else 2)]

        def passes(impl: Impl, dtype: torch.dtype) -> list[Tensor]:
            leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
            loss = mean_error(leaves[0], leaves[1] if len(leaves) > 1 else None, kind, weight=10.0, impl=impl)
            return [loss.detach(), *torch.autograd.grad(loss, leaves)]

        return PreparedCase(lambda: passes("triton", dtype), lambda d: passes("reference", d), tensors)

    return prepare


def _exchange(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Prepare:
    """Prepare an exchange that gives the same when it is repeated: no place is both read and written."""

    def prepare(device: torch.device) -> PreparedCase:
        batch = shape[0]
        size = 2 * batch
        images, stack = _lying(shape, dtype, device), _lying((size + 1, *shape[1:]), dtype, device)
        # Images in even places are kept, and exchanged for old ones; those in odd places are returned, and not kept.
        sources = [size + n if n % 2 else batch + n for n in range(batch)]
        decisions = torch.tensor([sources, [size if n % 2 else n for n in range(batch)]], device=device)
        before = stack.clone()

        def plain(d: torch.dtype) -> list[Tensor]:
            kept = before.to(d)
            kept[:batch:2] = images[::2].to(d)
            exchanged = images.to(d).clone()
            exchanged[::2] = before[batch:size:2].to(d)
            return [exchanged, kept[:size]]

        def run() -> list[Tensor]:
            return [image_exchange(images, stack, decisions, impl="triton"), stack[:size]]

        return PreparedCase(run, plain, [images])

    return prepare


def _adam(shapes: Sequence[tuple[int, ...]], gradients: int, dtype: torch.dtype) -> Prepare:
    """Prepare an update of weights that begins anew with the same moments when it is repeated."""

    def prepare(device: torch.device) -> PreparedCase:
        weights = [0.1 * torch.randn(shape, device=device) for shape in shapes]
        found = [[torch.randn_like(weight).to(dtype) for _ in range(gradients)] for weight in weights]
        step, learning_rate = torch.ones((), device=device), torch.tensor(0.01, device=device)

        def passes(impl: Impl, wide: torch.dtype, low: torch.dtype) -> list[Tensor]:
            operands = []
            for weight, of_weight in zip(weights, found, strict=True):
                weight = weight.to(wide, copy=True)
                moments = 0.1 * weight, 0.01 * weight.square()
                copy = torch.empty_like(weight, dtype=low)
                operands.append(AdamOperands(weight, copy, *moments, step, tuple(g.to(low) for g in of_weight)))
            adam_update(operands, learning_rate, beta1=0.5, impl=impl)
            return [t for one in operands for t in (one.weight, one.copy, one.first_moment, one.second_moment)]

        return PreparedCase(
            lambda: passes("triton", torch.float32, dtype),
            lambda d: passes("reference", d if d == torch.float64 else torch.float32, d),
            [tensor for weight, of_weight in zip(weights, found, strict=True) for tensor in (weight, *of_weight)],
        )

    return prepare
