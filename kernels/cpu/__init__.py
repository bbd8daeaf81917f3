"""Computes the operators on a CPU, in C that the machine's own compiler compiles at first use.

`operators.c` includes `of_dtype.h` once for each dtype, `compilation.py` compiles and loads them, `operators.py` calls
them on tensors.
"""
