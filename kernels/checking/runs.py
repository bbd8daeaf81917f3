"""Runs all that the networks launch, at 256x256, on tensors without storage; `specialisations` records the launches."""

import dataclasses
from typing import Any, get_args

import torch
from torch import Tensor

from .. import plans
from ..conv2d import conv_forward
from ..convolution.edge_gradients import reflected_input_gradient
from ..elementwise.adam import ADAM_UPDATE, AdamOperands, launch_adam
from ..elementwise.bias_activation import BIAS_ACTIVATION, BIAS_ACTIVATION_BACKWARD
from ..elementwise.image_exchange import IMAGE_EXCHANGE
from ..elementwise.mean_error import MEAN_ERROR, MEAN_ERROR_BACKWARD
from ..elementwise.signed_windows import SIGNED_WINDOWS
from ..gpus import gpu_of
from ..norm.forward import norm_forward
from ..reflection_pad import pad_backward, pad_forward
from ..registration import LAUNCHES
from ..thin_convolution import convolution as thin
from .sites import NormSite, all_sites, generator_sites, run_backward, run_forward


def run_networks(batch: int, dtype: torch.dtype) -> None:
    """Run what training and translation of 8-bit RGB images launch."""
    run_windows(batch, 3, torch.uint8)
    run_of_images(batch, 3, dtype)
    _run_of_discriminators(batch, dtype)
    _run_adam(dtype)
    for site in all_sites():
        _run_site(site, batch, dtype)
        if site.feeds_block:  # compiled graphs add the two gradients themselves
            _run_site(dataclasses.replace(site, feeds_block=False), batch, dtype)
    x = _empty(batch, 256, 64, 64, dtype=dtype)
    site = generator_sites()[3]
    for which_pass in get_args(plans.NormPass):
        plan = plans.cooperative_plan(which_pass, site.shape(1), dtype, gpu_of(x))
        if plan is not None:  # a GPU of few multiprocessors cannot hold the programs of this site at once
            with plans.forcing(plan):
                _run_site(site, batch, dtype, which_pass)
    _run_site(NormSite("an image of 2^31 elements", 64, 5800, "relu", pad=1), 1, dtype)
    weight = torch.empty((256, 256, 3, 3), dtype=dtype, device="meta")
    reflected_input_gradient(x, weight, x)
    for reflect in (True, False):
        y, partials = conv_forward(x, weight, reflect=reflect)
        norm_forward(y, activation="relu", negative_slope=0.0, residual=None, pad=1, eps=1e-5, partials=partials)


def run_windows(batch: int, channels: int, dtype: torch.dtype) -> None:
    """Run the cut of a batch's windows out of images whose samples are of a dtype."""
    pixels = torch.empty((batch, 286, 286, channels), dtype=dtype, device="meta")
    _call(SIGNED_WINDOWS, pixels, _empty(batch, 3, dtype=torch.int64), 256, 256, 0.0, 255.0)


def run_of_images(batch: int, channels: int, dtype: torch.dtype) -> None:
    """Run what computes with images of so many channels: pads, first and last convolutions, biases, losses, pools."""
    image = _empty(batch, channels, 256, 256, dtype=dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        pad_backward(pad_forward(image.contiguous(memory_format=layout), 3), 3)
    _call(IMAGE_EXCHANGE, image, _empty(51, channels, 256, 256, dtype=dtype), _empty(2, batch, dtype=torch.int64))
    _run_error(image, _empty(*image.shape, dtype=torch.float32), "absolute")
    _run_bias(image, "tanh")
    if dtype != torch.float32:
        run_thin(batch, dtype, channels)


def run_thin(batch: int, dtype: torch.dtype, channels: int = 3) -> None:
    """Launch the kernels of a generator's last and of its first convolution, for images of so many channels."""
    x, y = _empty(batch, 64, 262, 262, dtype=dtype), _empty(batch, channels, 256, 256, dtype=dtype)
    weight = _empty(channels, 64, 7, 7, dtype=dtype)
    thin.launch_to_thin(x, weight, _empty(channels, dtype=dtype), 1, True)
    thin.launch_to_thin_wgrad(y, x, 7, 1)
    image, dy = _empty(batch, channels, 262, 262, dtype=dtype), _empty(batch, 64, 256, 256, dtype=dtype)
    thin.launch_from_thin_dgrad(dy, _empty(64, channels, 7, 7, dtype=dtype), 1)
    thin.launch_from_thin_wgrad(dy, image, 7, 1)


def _run_of_discriminators(batch: int, dtype: torch.dtype) -> None:
    """Run the losses of a discriminator's scores, and what follows its first convolution."""
    scores = _empty(batch, 1, 30, 30, dtype=dtype)
    for other, kind in ((None, "from 1"), (None, "from 0"), (scores, "from 1 and 0")):
        _run_error(scores, other, kind)
    _run_bias(_empty(batch, 64, 128, 128, dtype=dtype), "leaky_relu")


def _run_adam(dtype: torch.dtype) -> None:
    """Update the weights of two generators' blocks, and the biases of their last layers, which have two gradients."""

    def operands(gradients: int, *shape: int) -> AdamOperands:
        weight, first, second = (torch.empty(shape, device="meta") for _ in range(3))
        copy, *found = (torch.empty(shape, dtype=dtype, device="meta") for _ in range(1 + gradients))
        return AdamOperands(weight, copy, first, second, torch.empty((), device="meta"), tuple(found))

    everything = [operands(1, 256, 256, 3, 3) for _ in range(36)] + [operands(2, 3) for _ in range(2)]
    learning_rate = torch.empty((), device="meta")
    launch_adam(everything, learning_rate, 0.5, 0.999, 1e-8, lambda *arguments: _call(ADAM_UPDATE, *arguments))


def _run_error(x: Tensor, y: Tensor | None, kind: str) -> None:
    """Run a loss both ways; the gradient of y is wanted where it has what x has."""
    _call(MEAN_ERROR, x, y, kind, 1.0, 1)
    _call(MEAN_ERROR_BACKWARD, _empty(1, dtype=torch.float32), x, y, kind, 1.0, 1, True, y is x)


def _run_bias(y: Tensor, activation: str) -> None:
    bias = _empty(y.size(1), dtype=y.dtype)
    _call(BIAS_ACTIVATION, y, bias, activation, 0.2)
    for wants_bias in (True, False):
        _call(BIAS_ACTIVATION_BACKWARD, y, y, bias, activation, 0.2, wants_bias)


def _run_site(site: NormSite, batch: int, dtype: torch.dtype, only: str | None = None) -> None:
    operands = site.operands(batch, dtype, "meta")
    statistics = torch.empty((batch, 3, site.channels), device="meta")
    if only != "backward":
        run_forward(site, operands)
    if only != "forward":
        run_backward(site, operands, statistics)


def _call(operator: Any, *arguments: Any) -> Any:
    """Run what an operator runs, on tensors without storage."""
    return LAUNCHES[operator](*arguments)


def _empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor without storage; four dimensions lie channels last."""
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)
