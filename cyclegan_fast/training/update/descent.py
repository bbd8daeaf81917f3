"""Updates the networks of one side: sums and averages gradients, scales losses, and runs Adam."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from cyclegan_fast.checkpoint.content import DescentState
from cyclegan_fast.networks.optimizers import EagerAdam
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import NonFiniteLoss
from cyclegan_fast.training.update.direct_update import DirectUpdate, laid_out_like
from cyclegan_fast.training.update.flat_gradients import FlatGradients

SMALLEST_LOSS_SCALE = 2.0**-10
"""A scaler that falls from 2^16 to this met 26 overflows more than it grew again: they will not end."""

CALM_LOSS_SCALE = 16.0
"""At this loss scale no gradient overflows in float16 that is smaller than 4000."""


class Descent:
    """Updates the parameters of some networks by Adam; holds their gradients and their loss scaler.

    Parameters that are computed with as they are, on one rank, take the gradients that autograd made. Otherwise there
    is one buffer in the parameters' own precision and layout: sums of low-precision gradients are wide there, and ranks
    average it in one call. A direct update needs neither, and may be made in two parts.

    Args:
        parameters: each network's parameters, by its name.
        learning_rate: a scalar tensor on the device, which may be filled anew between steps.
        beta1: Adam's decay rate of the first moment.
        copied: whether the networks that are differentiated are copies in low precision.
        scaled: whether gradients are those of a scaled loss, as float16 needs.
        ranks: the processes that compute gradients of the same parameters.
        direct: makes a direct update for an optimiser; for unscaled gradients of copies, on one rank.
    """

    def __init__(
        self,
        parameters: dict[str, list[nn.Parameter]],
        learning_rate: Tensor,
        beta1: float,
        *,
        copied: bool,
        scaled: bool,
        ranks: Ranks,
        direct: Callable[[torch.optim.Adam], DirectUpdate] | None = None,
    ) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.ranks = ranks
        everything = [p for of_network in parameters.values() for p in of_network]
        self.optimizer = EagerAdam(everything, lr=learning_rate, betas=(beta1, 0.999), fused=True)
        self.scaler = self._new_scaler(scaled)
        self._gathered: set[str] = set()
        self._finish: Callable[[], None] | None = None
        self._direct = direct(self.optimizer) if direct else None
        has_buffer = (copied or ranks.count > 1) and self._direct is None
        self._flat = FlatGradients(parameters) if has_buffer else None
        if self._flat:
            self._flat.become_gradients()

    def _new_scaler(self, scaled: bool) -> torch.amp.GradScaler:
        device = self.learning_rate.device
        scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        if scaled:
            # It makes its scale at the first loss: that is not to be one of two that are computed at the same time.
            scaler.scale(torch.zeros((), device=device))
        return scaler

    @property
    def is_direct(self) -> bool:
        """Return whether an update also writes the copies that are computed with."""
        return self._direct is not None

    def forget_gradients(self) -> None:
        """Begin a step: without a buffer, the last step's gradients make room for its activations."""
        self._gathered.clear()
        if self._direct:
            self._direct.forget()
        if self._flat is None:
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def add(self, network: str, found: Sequence[Tensor | None]) -> None:
        """Add gradients of one network's parameters, in their order.

        None stands for one that is part of another: of those that are added first there is none.
        """
        parameters = self.parameters[network]
        is_first = network not in self._gathered
        self._gathered.add(network)
        gradients = [gradient for gradient in found if gradient is not None]
        if is_first:
            assert len(gradients) == len(parameters), f"{network} has {len(parameters)} gradients, not {len(gradients)}"
        if self._direct:
            self._direct.add(network, parameters, found)
        elif self._flat:
            self._flat.write(network, gradients) if is_first else self._flat.add(network, found)
        elif is_first:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = laid_out_like(parameter, gradient)
        else:
            torch._foreach_add_([p.grad for p in parameters if p.grad is not None], list(gradients))

    def begin_average(self) -> None:
        """Start to average gradients, which must be complete, over the ranks; the device computes on meanwhile."""
        if self._flat is not None:
            self._finish = self.ranks.begin_average(self._flat.everything)

    def update(self, is_late: Callable[[Tensor], bool] | None = None) -> None:
        """Take one step of Adam; where a gradient overflowed, the scaler leaves it out, on the device.

        Args:
            is_late: tells whether a gradient is not there yet; such weights wait for a second call. For direct updates.
        """
        if self._direct:
            self._direct.update(is_late)
            return
        if self._finish:
            self._finish()
        self._finish = None
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @contextmanager
    def capturable(self) -> Iterator[None]:
        """Tell Adam that a CUDA graph records it."""
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        try:
            yield
        finally:
            for group in self.optimizer.param_groups:
                group["capturable"] = False

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Keep the loss scale so low that gradients hardly overflow, as they do in most first steps."""
        scales = self._scales()[:1]
        own = [scale.clone() for scale in scales]
        for scale in scales:
            scale.clamp_(max=CALM_LOSS_SCALE)
        yield
        for scale, value in zip(scales, own, strict=True):
            scale.copy_(value)

    def written(self) -> dict[str, list[Tensor]]:
        """Return the tensors that `update` writes besides the parameters, by groups; before it, loss scales alone."""
        states = self.optimizer.state.values()
        found = {
            what: [of_parameter[key] for of_parameter in states]
            for what, key in (("counts", "step"), ("first moments", "exp_avg"), ("second moments", "exp_avg_sq"))
        }
        return {**found, "loss scales": self._scales()}

    def _scales(self) -> list[Tensor]:
        """Return the loss scale and the number of steps that it held; nothing where losses are not scaled."""
        if not self.scaler.is_enabled():
            return []
        return [scale for scale in (self.scaler._scale, self.scaler._growth_tracker) if scale is not None]

    def forget_interrupted_update(self) -> None:
        """Make good for an `update` that failed halfway while it was recorded: the scaler waits for the rest of it.

        No graph may be replayed after this: the scaler that it works on is replaced.
        """
        self._finish = None
        state = self.scaler.state_dict()
        self.scaler = self._new_scaler(self.scaler.is_enabled())
        self.scaler.load_state_dict(state)

    def check_loss_scale(self, losses: Sequence[str]) -> None:
        """Raise NonFiniteLoss where the gradients of these losses overflow step after step; waits for the device."""
        scale = self.scaler.get_scale()
        if self.scaler.is_enabled() and scale < SMALLEST_LOSS_SCALE:
            raise NonFiniteLoss(
                f"the gradients of {', '.join(losses)} overflow at every loss scale down to {scale:.2g}"
            )

    def state_dict(self) -> DescentState:
        """Return the states of Adam and of the loss scaler."""
        return cast(DescentState, {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()})

    def load_state_dict(self, state: DescentState) -> None:
        """Continue from what `state_dict` returned; settings other than the learning rate stay those of this object."""
        own = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": own})
        if self.scaler.is_enabled():
            kept = {name: value for name, value in state["scaler"].items() if name in ("scale", "_growth_tracker")}
            self.scaler.load_state_dict({**self.scaler.state_dict(), **kept})
        self.learning_rate.fill_(float(state["optimizer"]["param_groups"][0]["lr"]))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        for parameter, moments in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name] = laid_out_like(parameter, moments[name])
