"""Replaces instance norms, and what stands around them, by the fused operators in somebody's own network.

`entry` has the public function, `accelerate`. It traces the network (`tracing`), finds the norms with their activation,
sum and padding (`patterns`), rewrites the graphs (`rewriting`) so that they call `kernels.nn.functional`, and gives
modules a `forward` that runs them (`accelerated`). `weights` lays weights channels last, `report` says what was
done, `counting` what it saves.
"""

from .entry import accelerate
from .report import Acceleration

__all__ = ["Acceleration", "accelerate"]
