"""Holds what is drawn at random for one step: by the image pools, and for the gradient penalty."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from cyclegan_fast.system.device import ready_to_copy


@dataclass(frozen=True)
class Decisions:
    """Holds the random decisions of one step.

    pool_A, pool_B: what `ImagePool.decide` drew for the fakes of each domain, int64 [2, N].
    mixes: shares of real images in the gradient penalty, for each judgement, float32 [J, N, 1, 1, 1]; None without one.
    latents: normal latent codes, float32 [N, C]; None where the method has none.
    """

    pool_A: Tensor
    pool_B: Tensor
    mixes: Tensor | None = None
    latents: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the decisions that were drawn, by their fields' names."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def to(self, device: torch.device) -> "Decisions":
        """Copy the decisions to a device; the host does not wait for the copies."""
        return Decisions(
            **{
                name: ready_to_copy(drawn, device).to(device, non_blocking=True)
                for name, drawn in self.tensors().items()
            }
        )
