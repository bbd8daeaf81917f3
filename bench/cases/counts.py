"""Counts the bytes that must move and the operations that must be computed, whatever does it.

Bytes: each input read once and each output written once, nothing in between. Operations: a multiply-add is two.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.cases.plain_cyclegan import PAPER_SIZE, PlainDiscriminator, PlainGenerator, PlainNetworkSize
from bench.measure.limits import Workload
from cyclegan_fast.kernels.checking.sites import NormSite


def norm_forward_workload(site: NormSite, batch: int, dtype: torch.dtype) -> Workload:
    """Count a norm's forward pass: x and a residual are read, y is written with its pad.

    A mean takes an addition an element, a variance a subtraction, a product and an addition, the normalisation a
    subtraction and a product; then the activation and the sum.
    """
    elements, padded = _elements(site, batch)
    tensors = elements * (1 + site.residual) + padded
    return Workload(tensors * dtype.itemsize, elements * (6 + (site.activation != "none") + site.residual))


def norm_backward_workload(site: NormSite, batch: int, dtype: torch.dtype) -> Workload:
    """Count a norm's backward pass: x and dY are read, dx is written, and what else the site has.

    A site may have a second gradient of y, the residual's gradient, and the middle activation that a residual block has
    its backward pass write once more. Without a pad the residual's gradient is dY itself. x is normalised (2 operations
    an element), the gradient is summed (1) and summed times xhat (2), and dx computed (4); a masked activation (1), a
    second gradient (1) and the pad's gradients (1 each) come on top.
    """
    elements, padded = _elements(site, batch)
    tensors = 2 * elements + padded + site.feeds_block * elements
    tensors += (site.residual and site.pad > 0) * elements + site.remade * padded
    return Workload(
        tensors * dtype.itemsize, elements * (9 + (site.activation != "none") + site.feeds_block) + (padded - elements)
    )


def _elements(site: NormSite, batch: int) -> tuple[int, int]:
    """Return the number of elements of x, and of y with its pad."""
    return math.prod(site.shape(batch)), batch * site.channels * (site.side + 2 * site.pad) ** 2


def network_workload(
    kind: type[PlainGenerator] | type[PlainDiscriminator],
    batch: int,
    side: int,
    dtype: torch.dtype,
    *,
    backward: bool,
    size: PlainNetworkSize = PAPER_SIZE,
) -> Workload:
    """Count the convolutions of a generator or discriminator.

    Forward an image and the weights are read and the result is written. With `backward`, for gradients of the image and
    of all weights: each convolution twice more; the weights are read and their gradients written.
    """
    return convolution_workload(lambda: size.network(kind), batch, side, dtype, backward=backward)


def convolution_workload(
    make: Callable[[], nn.Module], batch: int, side: int, dtype: torch.dtype, *, backward: bool
) -> Workload:
    """Count the convolutions of any network of images [N, 3, side, side], as `network_workload` does."""
    with torch.device("meta"):
        model = make()
        image = torch.empty(batch, 3, side, side)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            results = tree_leaves(model(image))
    weights = sum(parameter.numel() for parameter in model.parameters())
    tensors = image.numel() + sum(result.numel() for result in results) + weights
    passes = 3 if backward else 1
    return Workload(passes * tensors * dtype.itemsize, passes * int(counter.get_total_flops()))


def training_step_workload(batch: int, side: int, dtype: torch.dtype, size: PlainNetworkSize = PAPER_SIZE) -> Workload:
    """Count one update of all networks.

    The generators make six passes with both gradients; the discriminators judge two fakes without gradients of their
    weights and four images with. The images are read once. Adam reads and writes each weight and its two moments in
    float32.
    """
    kinds = PlainGenerator, PlainDiscriminator
    generator, discriminator = (network_workload(kind, batch, side, dtype, backward=False, size=size) for kind in kinds)
    weights = 2 * sum(p.numel() for kind in kinds for p in _on_meta(kind, size).parameters())
    images = 2 * batch * 3 * side * side
    return Workload(
        images * dtype.itemsize + 6 * 4 * weights,
        6 * 3 * generator.operations + (2 * 2 + 4 * 3) * discriminator.operations,
    )


def _on_meta(kind: type[PlainGenerator] | type[PlainDiscriminator], size: PlainNetworkSize) -> nn.Module:
    with torch.device("meta"):
        return size.network(kind)
