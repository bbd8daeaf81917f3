"""Puts the project's own Triton kernels into TensorRT engines, as plugins compiled ahead of time."""
