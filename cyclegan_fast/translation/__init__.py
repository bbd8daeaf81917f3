"""Translates image files with trained generators.

plan.py says which files (inputs.py finds them), batches.py decodes them, writing.py writes what comes of them, and
summary.py says what did. translator.py, on_device.py, on_gpu.py with graphs.py, and tiled.py run a network, trained.py
loads one. command.py is the command line.
"""
