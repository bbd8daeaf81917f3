"""Provides the operators that CycleGAN's networks are made of: this package's public functions and types.

Each operator has a file of its own: `instance_norm`, `reflection_pad`, `conv2d` and `residual_block` hold the reference
in plain PyTorch, the Triton operator with its gradient, and the public function, in that order. Other files serve them:
`arguments/` refuses what none takes, `dispatch` chooses an implementation, `registration` makes PyTorch operators,
`plans` decides tile shapes and grids, `launching` launches, `layout` and `tiles` address memory, `norm/` holds the
kernels of the instance norm, `cpu/` what runs on a CPU, `convolution/` and `thin_convolution/` what the library
computes wastefully of convolutions, and `elementwise/` what else a training step computes. The commands `check`, `aot`
and `traffic` test the kernels; `checking/` holds what they share. `nn/` has modules for somebody's own network, and
`acceleration/` puts the operators into a network that is there already.
"""

from .checkout_name import is_replaced

# In a checkout, the name `kernels` may stand for another package, and leads to `cyclegan_fast.kernels` otherwise.
if not is_replaced(__name__):
    from .acceleration import accelerate
    from .conv2d import conv2d_reflect
    from .dispatch import Activation, Impl
    from .instance_norm import instance_norm
    from .reflection_pad import reflection_pad
    from .residual_block import residual_block

__all__ = ["Activation", "Impl", "accelerate", "conv2d_reflect", "instance_norm", "reflection_pad", "residual_block"]
