"""Holds the kernels of the fused instance norm, forward and backward; `kernels.instance_norm` is the operator."""
