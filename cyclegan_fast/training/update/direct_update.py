"""Updates weights from low-precision gradients where autograd left them, and the copies of the weights with them.

`kernels/elementwise/adam.py` does it. Neither gradients nor weights are copied, and no buffer holds gradients. The
moments are those of a `torch.optim.Adam`, in its state, so that checkpoints are the same.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cyclegan_fast.kernels.dispatch import Impl
from cyclegan_fast.kernels.elementwise.adam import AdamOperands, adam_update


class DirectUpdate:
    """Gathers the gradients of some networks, one or two for each weight, and takes steps of Adam.

    Args:
        optimizer: has the settings, and the moments of its parameters.
        copies: what the networks compute with, for the parameters of each network, in their order and layout.
        impl: the implementation of the update.
    """

    def __init__(self, optimizer: torch.optim.Adam, copies: dict[str, list[Tensor]], impl: Impl) -> None:
        (group,) = optimizer.param_groups
        assert not any(group[name] for name in ("weight_decay", "amsgrad", "maximize")), "this is plain Adam"
        self.optimizer, self.copies, self.impl = optimizer, copies, impl
        self._gathered: dict[nn.Parameter, tuple[Tensor, list[Tensor]]] = {}
        """the copy and the gradients of each parameter whose update is due"""
        self._is_counted = False

    def forget(self) -> None:
        """Let go of all gradients."""
        self._gathered.clear()
        self._is_counted = False

    def add(self, network: str, parameters: Sequence[nn.Parameter], found: Sequence[Tensor | None]) -> None:
        """Add gradients of a network's parameters, None where there is none.

        They are held until the update, and read there: another stream may still compute them.
        """
        for parameter, copy, gradient in zip(parameters, self.copies[network], found, strict=True):
            if gradient is not None:
                _, gradients = self._gathered.setdefault(parameter, (copy, []))
                gradients.append(gradient)

    @torch.no_grad()
    def update(self, is_late: Callable[[Tensor], bool] | None = None) -> None:
        """Update the weights, and forget their gradients; those of which `is_late` holds remain for another call."""
        if not self._gathered:
            return
        if not self._is_counted:
            torch._foreach_add_([self._state_of(parameter)["step"] for parameter in self._gathered], 1)
            self._is_counted = True
        due = {
            parameter: entry
            for parameter, entry in self._gathered.items()
            if is_late is None or not any(is_late(gradient) for gradient in entry[1])
        }
        operands = []
        for parameter, (copy, gradients) in due.items():
            state = self._state_of(parameter)
            moments = state["exp_avg"], state["exp_avg_sq"]
            found = tuple(laid_out_like(parameter, gradient) for gradient in gradients)
            operands.append(AdamOperands(parameter, copy, *moments, state["step"], found))
            del self._gathered[parameter]
        (group,) = self.optimizer.param_groups
        beta1, beta2 = group["betas"]
        adam_update(operands, group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"], impl=self.impl)
        self._is_counted = bool(self._gathered)

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return the state that a fused `torch.optim.Adam` keeps of a parameter; it begins with zeros."""
        state: dict[str, Tensor] = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def laid_out_like(parameter: Tensor, values: Tensor) -> Tensor:
    """Return `values` with the strides of `parameter`: Adam walks through its operands' memory side by side."""
    if values.stride() == parameter.stride():
        return values
    return torch.empty_like(parameter, dtype=values.dtype).copy_(values)
