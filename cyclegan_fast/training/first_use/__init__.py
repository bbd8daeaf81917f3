"""Compiles what a training or a translation will launch on a GPU before its first step.

without_memory.py runs steps on tensors without memory, launches.py lists what they launch, and preparing.py has it
compiled (`kernels/prepare/`) and says so.
"""
