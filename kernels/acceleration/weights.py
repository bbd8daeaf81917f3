"""Lays weights of convolutions channels last, and keeps fused optimizers right that were there before.

An optimizer with `fused=True` goes through a weight and its moments as they lie in memory, and does not notice where
they lie differently: moments from before, or from a file, are laid anew when it takes its next step.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook


def turn_weights(network: nn.Module) -> None:
    """Lay all weights of 2D convolutions channels last, with gradients that are there; parameters stay the same."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            for parameter in module.parameters(recurse=False):
                if parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
                    if parameter.grad is not None:
                        parameter.grad = parameter.grad.contiguous(memory_format=torch.channels_last)
    _watch_optimizers()


@functools.cache
def _watch_optimizers() -> None:
    """Have every optimizer's step begin with `_turn_moments`; once in a process."""
    register_optimizer_step_pre_hook(_turn_moments)


def _turn_moments(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            if parameter.dim() != 4:  # none of those that are turned
                continue
            state = optimizer.state.get(parameter, {})
            for name, moment in state.items():
                is_moment = isinstance(moment, Tensor) and moment.shape == parameter.shape
                if is_moment and moment.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
