"""Translates image files with trained generators.

plan.py says which files (inputs.py finds them), prepared.py decodes one and batches.py all of them, writing.py writes
what comes of them, and remarks.py and summary.py say what did. translator.py, on_device.py, on_gpu.py with graphs.py,
and tiled.py and tiled_unet.py with strips.py run a network, trained.py loads one. command.py is the command line.
"""
