"""Operators that CycleGAN's networks are made of; see `kernels.dispatch` for how an implementation is chosen."""

from kernels.conv2d import conv2d_reflect
from kernels.dispatch import Activation, Impl
from kernels.instance_norm import instance_norm
from kernels.reflection_pad import reflection_pad
from kernels.residual_block import residual_block

__all__ = ["Activation", "Impl", "conv2d_reflect", "instance_norm", "reflection_pad", "residual_block"]
