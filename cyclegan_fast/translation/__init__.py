"""Translates image files with trained generators.

plan.py says which files (inputs.py finds them), batches.py decodes and writes them; translator.py, on_device.py,
on_gpu.py with graphs.py, and tiled.py run a network, trained.py loads one. command.py is the command line.
"""
