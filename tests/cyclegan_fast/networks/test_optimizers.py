"""Optimisers without PyTorch's compiler take PyTorch's steps, and save and continue as they do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cyclegan_fast.networks.optimizers import EagerAdam, EagerAdamW, EagerSGD

PAIRS = [
    (EagerAdam, torch.optim.Adam, {"lr": 0.01, "betas": (0.5, 0.999), "fused": True}),
    (EagerAdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    (EagerSGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
]


def drawn() -> list[Tensor]:
    """Return parameters, the same ones at each call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((3, 4), (5,))]


def take_steps(optimizer: torch.optim.Optimizer, parameters: list[Tensor], count: int) -> None:
    """Update the parameters by gradients of a function of theirs."""
    for _ in range(count):
        optimizer.zero_grad()
        torch.stack([parameter.pow(4).sum() for parameter in parameters]).sum().backward()
        optimizer.step()


@pytest.mark.parametrize(("eager", "original", "options"), PAIRS, ids=lambda value: getattr(value, "__name__", ""))
def test_steps_have_pytorchs_bits_also_after_saving(
    eager: Callable[..., torch.optim.Optimizer], original: Callable[..., torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    ours, theirs = drawn(), drawn()
    first, reference = eager(ours[:1], **options), original(theirs[:1], **options)
    for optimizer, parameters in ((first, ours), (reference, theirs)):
        optimizer.add_param_group({"params": parameters[1:], "lr": 0.02})
        take_steps(optimizer, parameters, 3)
    second = eager(ours[:1], **options)
    second.add_param_group({"params": ours[1:]})
    second.load_state_dict(first.state_dict())
    heard: list[object] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: heard.append(optimizer))
    take_steps(second, ours, 2)
    hook.remove()
    take_steps(reference, theirs, 2)
    assert heard == [second, second], "the operators' hooks hear of each step"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.testing.assert_close(second.state_dict(), reference.state_dict(), rtol=0, atol=0)
