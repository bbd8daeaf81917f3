"""Translates images of any size in strips of rows, exactly, with activations on the disk.

passes.py says how, resnet.py and unet.py have the layers. rows.py streams a layer's rows, repeated_strips.py computes
those that are all the same once, and scratch_file.py keeps them.
"""
