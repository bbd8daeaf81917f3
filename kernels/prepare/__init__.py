"""Compiles kernels into Triton's cache before anything launches them; `python -m kernels.prepare` does it with no GPU.

cache.py stands in for a GPU's driver and says what the cache lacks, workers.py compiles in all cores, and __main__.py
is the command. What the networks launch, `cyclegan_fast.training.first_launches` says.
"""
