"""Translates image files with trained generators.

plan.py says which files (inputs.py finds them, halves.py which part of them), prepared.py decodes one and batches.py
all of them, writing.py writes what comes of them, and remarks.py and summary.py say what did. translator.py,
on_device.py, on_gpu.py with graphs.py, and strips/ run a network, trained.py loads one. command.py is the command line.
any_image.py translates what a Python program has, with given_images.py.
"""
